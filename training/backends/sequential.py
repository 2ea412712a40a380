"""The reference: one client after another, by plain autograd."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training import networks, strategies
from training.clients import Task, Update, Work, work
from training.config import TrainingConfig
from training.datasets import Data
from training.events import TrainingError

LOSS_BATCHES = 10  # one batch alone is too noisy to compare with another


def train(
    network: nn.Module,
    weights: Tensor,
    tasks: Sequence[Task],
    data: Data,
    config: TrainingConfig,
    round_number: int,
) -> Iterator[Update]:
    """Trains each client from the global weights [P]; see training.backends."""
    weights = weights.to(data.train_x.device)
    for task in tasks:
        yield _update(network, weights, task, data, config, round_number)


def _update(
    network: nn.Module, weights: Tensor, task: Task, data: Data, config: TrainingConfig, round_number: int
) -> Update:
    """One client's answer, or a TrainingError that names client, round and cause."""
    num_examples = task.num_examples
    try:
        todo = work(task, data, config, round_number)
        if todo is None:
            return Update(client=task.client, num_examples=num_examples, sent=None, loss_before=None, loss_after=None)
        networks.load(network, weights)
        before, after = _descend(network, weights, task, todo, data, config)
        delta = todo.update(networks.flatten(network) - weights).cpu()
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
        text = f"Round {round_number}: the training of client {task.client} failed: {cause}"
        raise TrainingError(text) from error
    return Update(client=task.client, num_examples=num_examples, sent=delta, loss_before=before, loss_after=after)


def _descend(
    network: nn.Module, weights: Tensor, task: Task, todo: Work, data: Data, config: TrainingConfig
) -> tuple[float, float]:
    """Local SGD over all batches, in place; the mean losses over its first and over its last batches."""
    parameters: list[Tensor] = list(network.parameters())
    start = networks.views(weights, parameters)
    correction = None if task.correction is None else networks.views(task.correction, parameters)
    mu = strategies.local(config).proximal_mu
    momenta: list[Tensor] = []
    losses: list[Tensor] = []
    for batch in todo.batches:
        loss = F.cross_entropy(network(data.train_x[task.indices[batch]]), todo.labels[batch])
        gradients = list(torch.autograd.grad(loss, parameters))
        hold_back(gradients, parameters, start, correction, mu)
        sgd_step(parameters, gradients, momenta, config)
        losses.append(loss.detach())
    return ends(torch.stack(losses))


def ends(losses: Tensor) -> tuple[float, float]:
    """Mean of the first and mean of the last batches' losses [steps]: ten, or half of them where there are fewer."""
    few = max(1, min(LOSS_BATCHES, len(losses) // 2))
    return losses[:few].mean().item(), losses[-few:].mean().item()


def hold_back(
    gradients: list[Tensor], parameters: list[Tensor], start: list[Tensor], correction: list[Tensor] | None, mu: float
) -> None:
    """g + mu (w - w_global) + correction, in place: what keeps a client from drifting off with its own data."""
    with torch.no_grad():
        if mu:
            torch._foreach_add_(gradients, torch._foreach_sub(parameters, start), alpha=mu)
        if correction is not None:
            torch._foreach_add_(gradients, correction)


def sgd_step(parameters: list[Tensor], gradients: list[Tensor], momenta: list[Tensor], config: TrainingConfig) -> None:
    """One step as torch.optim.SGD takes it, in place; `momenta` is empty before the first and is filled here.

    g = gradient + weight_decay w;  v = g at first, then momentum v + g;  w = w - lr v. Written out because the
    first step of any torch.optim optimiser imports torch._dynamo: 1.2 s and 200 MB for three lines.
    """
    with torch.no_grad():
        if config.weight_decay:
            torch._foreach_add_(gradients, parameters, alpha=config.weight_decay)
        momentum_step(parameters, gradients, momenta, config.lr, config.momentum)


def momentum_step(
    parameters: list[Tensor], gradients: list[Tensor], velocities: list[Tensor], lr: float, momentum: float
) -> None:
    """v = g at first, then momentum v + g;  w = w - lr v; in place. `velocities` is empty before the first step and is
    filled here."""
    if momentum and velocities:
        torch._foreach_mul_(velocities, momentum)
        torch._foreach_add_(velocities, gradients)
    elif momentum:
        velocities += gradients
    torch._foreach_add_(parameters, velocities or gradients, alpha=-lr)
