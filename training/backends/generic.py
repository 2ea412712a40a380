"""Any network at all, by autograd: one client at a time, each worker with a network of its own."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training import networks
from training.backends.descent import Job, Rule, Trained, ends_of
from training.backends.sequential import momentum_step


@dataclass(frozen=True, kw_only=True, eq=False)
class Start:
    """Where every client of a round starts. Never written to."""

    network: nn.Module
    weights: Tensor  # [P]
    rule: Rule
    x: Tensor  # [N, ...], the whole training set


class Copy:
    """A worker's network."""

    def __init__(self, start: Start) -> None:
        self.start = start
        self.network = copy.deepcopy(start.network)

    def train(self, jobs: Sequence[Job]) -> list[Trained]:
        return [self._trained(job) for job in jobs]

    def _trained(self, job: Job) -> Trained:
        start = self.start
        networks.load(self.network, start.weights)
        fixed = start.rule.fixed(start.weights, [job.task.correction])
        before, after = ends_of(self._descend(job, None if fixed is None else fixed[0]))
        return Trained(delta=networks.flatten(self.network) - start.weights, loss_before=before, loss_after=after)

    def _descend(self, job: Job, fixed: Tensor | None) -> list[float]:
        """Local SGD over all batches, in place; their losses."""
        parameters: list[Tensor] = list(self.network.parameters())
        held = None if fixed is None else networks.views(fixed, parameters)
        velocities: list[Tensor] = []
        losses = []
        batches = zip(torch.split(job.examples, [*job.widths]), torch.split(job.labels, [*job.widths]), strict=True)
        for examples, labels in batches:
            loss = F.cross_entropy(self.network(self.start.x[examples]), labels)
            gradients = list(torch.autograd.grad(loss, parameters))
            with torch.no_grad():
                _step(parameters, gradients, velocities, held, self.start.rule)
            losses.append(loss.item())
        return losses


def _step(
    parameters: list[Tensor], gradients: list[Tensor], velocities: list[Tensor], fixed: list[Tensor] | None, rule: Rule
) -> None:
    """A step by the rule, in place; `velocities` is empty before the first and is filled here."""
    if rule.pull:
        torch._foreach_add_(gradients, parameters, alpha=rule.pull)
    if fixed is not None:
        torch._foreach_add_(gradients, fixed)
    momentum_step(parameters, gradients, velocities, rule.lr, rule.momentum)
