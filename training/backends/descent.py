"""What the fast backends share: one client's work as flat rows, the terms of its gradient, its losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training import strategies
from training.backends.sequential import LOSS_BATCHES
from training.clients import Task, Work
from training.config import TrainingConfig
from training.thin import Thin


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """One client's batches, laid end to end."""

    task: Task
    work: Work
    examples: Tensor  # int64 [sum of widths], places in the training set, on the data's device
    labels: Tensor  # int64 [sum of widths]

    @property
    def widths(self) -> tuple[int, ...]:
        return self.work.widths

    @property
    def reported(self) -> tuple[int, ...]:
        """The batches whose losses are reported."""
        steps = len(self.widths)
        few = few_of(steps)
        return (*range(few), *range(steps - few, steps))


def job(task: Task, work: Work, device: torch.device) -> Job:
    order = work.order
    examples = task.indices[order]
    if device.type != "cpu":
        order, examples = order.to(device), examples.to(device)
    return Job(task=task, work=work, examples=examples, labels=work.labels[order])


def refuse_unknown(labels: Tensor, num_classes: int) -> None:
    """IndexError for a label that is no class: an operation further down might not notice."""
    lowest, highest = (int(number) for number in labels.aminmax())
    if lowest < 0 or highest >= num_classes:
        raise IndexError(f"Target {highest if highest >= num_classes else lowest} is out of bounds.")


def laid_out(flat: Sequence[Tensor], jobs: Sequence[Job], batch: int) -> Tensor:
    """[jobs, steps, batch]: each job's flat values with every batch in its place; what is beyond a batch is zero."""
    steps = max(len(job.widths) for job in jobs)
    if all(len(values) == steps * batch for values in flat):
        return torch.stack([*flat]).view(len(jobs), steps, batch)
    rows = flat[0].new_zeros(len(jobs), steps * batch)
    for row, values, job in zip(rows, flat, jobs, strict=True):
        if set(job.widths[:-1]) <= {batch}:  # all are full but perhaps the last
            row[: len(values)] = values
            continue
        for step, piece in enumerate(torch.split(values, [*job.widths])):
            row[step * batch : step * batch + len(piece)] = piece
    return rows.view(len(jobs), steps, batch)


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """What local SGD did."""

    delta: Tensor | Thin  # [P], new minus old weights
    loss_before: float
    loss_after: float


def ends_of(losses: Sequence[float]) -> tuple[float, float]:
    """Mean of the first and mean of the last batches' losses, as training.backends.sequential.ends has them."""
    few = few_of(len(losses))
    return sum(losses[:few]) / few, sum(losses[-few:]) / few


def few_of(steps: int) -> int:
    """How many of a client's first batches, and of its last, its losses are told of."""
    return max(1, min(LOSS_BATCHES, steps // 2))


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A step of local SGD: g = gradient + pull w + fixed;  v = g at first, then momentum v + g;  w = w - lr v.

    Weight decay pulls to zero and the proximal term mu (w - w_global) to the global weights, so both are one
    multiple of w; what does not change during a client's work, correction - mu w_global, is `fixed`.
    """

    lr: float
    momentum: float
    pull: float
    mu: float

    def fixed(self, weights: Tensor, corrections: Sequence[Tensor | None]) -> Tensor | None:
        """[clients, P], or None where it is zero; weights is [P]."""
        if all(correction is None for correction in corrections):
            return (-self.mu * weights).expand(len(corrections), -1) if self.mu else None
        zero = torch.zeros_like(weights)
        rows = [zero if correction is None else correction.to(weights) for correction in corrections]
        return torch.stack(rows).sub_(weights, alpha=self.mu)


def rule_of(config: TrainingConfig) -> Rule:
    mu = strategies.local(config).proximal_mu
    return Rule(lr=config.lr, momentum=config.momentum, pull=config.weight_decay + mu, mu=mu)
