"""What a client is asked, what it answers, and how the ones that do not play fair differ from honest ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

import kinds
from training.config import TrainingConfig
from training.datasets import Data
from training.events import TrainingError
from training.generators import torch_generator
from training.thin import Thin

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
    sent: Tensor | Thin | None  # float32 [P], new minus old weights; None where nothing was sent
    loss_before: float | None  # mean over the first local batches; None where the client did not train
    loss_after: float | None  # mean over the last local batches, each before its step
    norm: float = field(init=False)  # of the delta, Euclidean; 0.0 where nothing was sent. Whoever trained works it out

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm", 0.0 if self.sent is None else _norm(self.sent))

    @cached_property
    def delta(self) -> Tensor | None:
        """What was sent, whole."""
        return self.sent.whole() if isinstance(self.sent, Thin) else self.sent


def _norm(sent: Tensor | Thin) -> float:
    """Infinite only where the delta is: in float64 the square of every finite float32 is finite."""
    norm = sent.norm if isinstance(sent, Thin) else float(torch.linalg.vector_norm(sent))
    if math.isfinite(norm):
        return norm
    return float(torch.linalg.vector_norm(sent.whole() if isinstance(sent, Thin) else sent, dtype=torch.float64))


def same(delta: Tensor) -> Tensor:
    return delta


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """The places where a client may differ; what is not given is what an honest client does."""

    silence: float = 0.0  # probability that it sends nothing in a round, drawn for each round
    effort: float = 1.0  # share of its local steps that it takes; at least one
    # (its labels [n], number of classes, its own generator, equal in every round) -> the labels it trains on [n]
    labels: Callable[[Tensor, int, torch.Generator], Tensor] | None = None  # the true ones
    update: Callable[[Tensor], Tensor] = same  # delta [P] it found -> delta [P] it sends


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


def behaviour_of(task: Task, round_number: int) -> Behaviour:
    """What it does in this round; outside of its rounds a client is honest. TrainingError where a plug-in's code gives
    no Behaviour."""
    given = dict(task.behaviour)
    name, begin, end = given.pop("kind"), given.pop("from_round", 1), given.pop("to_round", None)
    if not begin <= round_number <= (end or round_number):
        return Behaviour()
    given.pop("source_sha256", None)
    try:
        behaviour = kinds.find("behaviour", name).load()(**given)
    except Exception as error:
        raise TrainingError(f"behaviours: {name} failed: {type(error).__name__}: {error}") from error
    if not isinstance(behaviour, Behaviour):
        raise TrainingError(f"behaviours: {name} gives no Behaviour")
    return behaviour


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """What a client really does in a round. Whoever trains it needs to know no more of its behaviour."""

    order: Tensor  # int64 [sum of widths], places among the client's own examples: its batches, end to end
    widths: tuple[int, ...]  # of the batches
    labels: Tensor  # int64 [num_examples], what it takes for the truth
    update: Callable[[Tensor], Tensor]  # delta [P] it found -> delta [P] it sends

    @property
    def batches(self) -> Sequence[Tensor]:
        return torch.split(self.order, [*self.widths])


def work(task: Task, data: Data, config: TrainingConfig, round_number: int) -> Work | None:
    """The client's work in this round; None where it sends nothing. Costs no gradient."""
    behaviour = behaviour_of(task, round_number)
    if _is_silent(behaviour, task, config, round_number):
        return None
    widths = _widths(len(task.indices), config)
    widths = widths[: max(1, round(behaviour.effort * len(widths)))]
    labels = data.train_y[task.indices]
    if behaviour.labels is not None:
        generator = torch_generator(config.seed, "behaviour", 0, task.client)  # no round is numbered 0
        labels = behaviour.labels(labels, data.info.num_classes, generator)
    order = _order(task, config, round_number)[: sum(widths)]
    return Work(order=order, widths=widths, labels=labels, update=behaviour.update)


def effort(task: Task, config: TrainingConfig, round_number: int) -> int:
    """Examples that a client which does send something trains in this round, each as often as it is in a batch."""
    share = behaviour_of(task, round_number).effort if task.behaviour["kind"] != "honest" else 1.0
    if share == 1.0:
        return len(task.indices) * config.local_epochs
    widths = _widths(len(task.indices), config)
    return sum(widths[: max(1, round(share * len(widths)))])


def _is_silent(behaviour: Behaviour, task: Task, config: TrainingConfig, round_number: int) -> bool:
    """Drawn from [0, 1), so that probability 0 is never and 1 is always, without a draw."""
    if behaviour.silence in (0.0, 1.0):
        return behaviour.silence == 1.0
    generator = torch_generator(config.seed, "behaviour", round_number, task.client)
    return torch.rand((), generator=generator, dtype=torch.float64).item() < behaviour.silence


def _widths(num_examples: int, config: TrainingConfig) -> tuple[int, ...]:
    """Of all batches; the last of an epoch may be short."""
    full, rest = divmod(num_examples, config.batch_size)
    return ((config.batch_size,) * full + (rest,) * bool(rest)) * config.local_epochs


def _order(task: Task, config: TrainingConfig, round_number: int) -> Tensor:
    """Every example once per epoch, in a fresh order."""
    generator = torch_generator(config.seed, "batches", round_number, task.client)
    orders = [torch.randperm(len(task.indices), generator=generator) for _ in range(config.local_epochs)]
    return orders[0] if len(orders) == 1 else torch.cat(orders)
