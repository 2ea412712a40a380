"""What a client is asked, what it answers, and how the ones that do not play fair differ from honest ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from training.config import TrainingConfig
from training.datasets import Data
from training.seeds import torch_generator

HONEST: Mapping[str, Any] = MappingProxyType({"kind": "honest"})


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """One client's part in a round."""

    client: int  # from 1
    indices: Tensor  # int64 [num_examples], its examples in the training set
    behaviour: Mapping[str, Any] = field(default_factory=lambda: HONEST)  # {"kind": ..., and the kind's parameters}
    correction: Tensor | None = None  # float32 [P], added to the gradient of every local step


@dataclass(frozen=True, kw_only=True, eq=False)
class Update:
    """What the server gets back. A client that sent nothing counts with a zero update at its full weight."""

    client: int
    num_examples: int
    delta: Tensor | None  # float32 [P], new minus old weights; None where nothing was sent
    loss_before: float | None  # mean over the first local batches; None where the client did not train
    loss_after: float | None  # mean over the last local batches, each before its step


def _same(delta: Tensor) -> Tensor:
    return delta


def _true_labels(labels: Tensor, num_classes: int, generator: torch.Generator) -> Tensor:
    return labels


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """The places where a client may differ; what is not given is what an honest client does."""

    silence: float = 0.0  # probability that it sends nothing in a round, drawn for each round
    effort: float = 1.0  # share of its local steps that it takes; at least one
    # (its labels [n], number of classes, its own generator, equal in every round) -> the labels it trains on [n]
    labels: Callable[[Tensor, int, torch.Generator], Tensor] = _true_labels
    update: Callable[[Tensor], Tensor] = _same  # delta [P] it found -> delta [P] it sends


def honest() -> Behaviour:
    return Behaviour()


def free_rider() -> Behaviour:
    """Takes the model, does nothing, and waits for its reward."""
    return Behaviour(silence=1.0)


def dropout(probability: float) -> Behaviour:
    """Honest, but in some rounds nothing arrives from it."""
    return Behaviour(silence=probability)


def low_effort(fraction: float) -> Behaviour:
    """Stops after a share of its local steps; its update still counts with all its examples."""
    return Behaviour(effort=fraction)


def label_flip(fraction: float) -> Behaviour:
    """Trains on classes - 1 - y for a random fraction of its examples, the same ones in every round."""

    def flipped(labels: Tensor, num_classes: int, generator: torch.Generator) -> Tensor:
        chosen = torch.randperm(len(labels), generator=generator)[: round(fraction * len(labels))]
        labels = labels.clone()
        labels[chosen] = num_classes - 1 - labels[chosen]
        return labels

    return Behaviour(labels=flipped)


def sign_flip(scale: float) -> Behaviour:
    """Trains honestly and sends the opposite, `scale` times as large."""
    return Behaviour(update=lambda delta: -scale * delta)


BEHAVIOURS: dict[str, Callable[..., Behaviour]] = {
    "honest": honest,
    "free_rider": free_rider,
    "label_flip": label_flip,
    "sign_flip": sign_flip,
    "low_effort": low_effort,
    "dropout": dropout,
}


def behaviour_of(task: Task) -> Behaviour:
    parameters = {name: value for name, value in task.behaviour.items() if name != "kind"}
    return BEHAVIOURS[task.behaviour["kind"]](**parameters)


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """What a client really does in a round. Whoever trains it needs to know no more of its behaviour."""

    batches: tuple[Tensor, ...]  # int64 [at most batch_size] each: places among the client's own examples, in order
    labels: Tensor  # int64 [num_examples], what it takes for the truth
    update: Callable[[Tensor], Tensor]  # delta [P] it found -> delta [P] it sends


def work(task: Task, data: Data, config: TrainingConfig, round_number: int) -> Work | None:
    """The client's work in this round; None where it sends nothing. Costs no gradient."""
    behaviour = behaviour_of(task)
    if _is_silent(behaviour, task, config, round_number):
        return None
    batches = _batches(task, config, round_number)
    generator = torch_generator(config.seed, "behaviour", 0, task.client)  # no round is numbered 0
    return Work(
        batches=batches[: max(1, round(behaviour.effort * len(batches)))],
        labels=behaviour.labels(data.train_y[task.indices], data.info.num_classes, generator),
        update=behaviour.update,
    )


def _is_silent(behaviour: Behaviour, task: Task, config: TrainingConfig, round_number: int) -> bool:
    """Drawn from [0, 1), so that probability 0 is never and 1 is always, without a draw."""
    if behaviour.silence in (0.0, 1.0):
        return behaviour.silence == 1.0
    generator = torch_generator(config.seed, "behaviour", round_number, task.client)
    return torch.rand((), generator=generator, dtype=torch.float64).item() < behaviour.silence


def _batches(task: Task, config: TrainingConfig, round_number: int) -> tuple[Tensor, ...]:
    """Every example once per epoch, in a fresh order; the last batch of an epoch may be short."""
    generator = torch_generator(config.seed, "batches", round_number, task.client)
    orders = (torch.randperm(len(task.indices), generator=generator) for _ in range(config.local_epochs))
    return tuple(batch for order in orders for batch in torch.split(order, config.batch_size))
