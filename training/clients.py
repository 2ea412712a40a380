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
from training.behaviours import acts
from training.config import TrainingConfig
from training.datasets import Data
from training.events import TrainingError
from training.generators import torch_generator
from training.thin import Thin

HONEST: Mapping[str, Any] = MappingProxyType({"kind": "honest"})
NOT_ITS_OWN = ("from_round", "to_round", "source_sha256")  # which any behaviour may have beside its parameters


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """One client's part in a round."""

    client: int  # from 1
    indices: Tensor  # int64 [n], the examples of the training set that it trains on
    behaviour: Mapping[str, Any] = field(default_factory=lambda: HONEST)  # {"kind": ..., and the kind's parameters}
    correction: Tensor | None = None  # float32 [P], added to the gradient of every local step
    holder: int | None = None  # whose identity it is; None: its own
    copies: int | None = None  # the client whose update it sends, which trains for it
    held: int | None = None  # examples that it holds; None: those that it trains on
    reported: int | None = None  # examples that it says it holds; None: the truth

    @property
    def num_held(self) -> int:
        return len(self.indices) if self.held is None else self.held

    @property
    def num_examples(self) -> int:
        """That it reports."""
        return self.num_held if self.reported is None else self.reported


@dataclass(frozen=True, kw_only=True, eq=False)
class Update:
    """What the server gets back. A client that sent nothing counts with a zero update at its full weight."""

    client: int
    num_examples: int  # that it reports
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


@dataclass(frozen=True, eq=False)
class Honest:
    """The updates of those that are honest in a round, as they arrived."""

    like: Tensor  # [P], whose type and place all have
    updates: Sequence[Tensor]  # each [P], in the cohort's order

    @cached_property
    def mean(self) -> Tensor:
        """float64 [P]; zero where there is none."""
        total = torch.zeros_like(self.like, dtype=torch.float64)
        for update in self.updates:
            total.add_(update)
        return total.div_(max(1, len(self.updates)))

    @cached_property
    def deviation(self) -> Tensor:
        """float64 [P], the standard deviation of each weight over n - 1; zero where there are fewer than two."""
        total = torch.zeros_like(self.like, dtype=torch.float64)
        for update in self.updates:
            total.add_((update - self.mean).square_())
        return total.div_(max(1, len(self.updates) - 1)).sqrt_()


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """What a client has before it when it makes up what it sends."""

    round_number: int
    generator: torch.Generator  # its own, of this round
    step: Tensor  # float32 [P], the last global step; zero in round 1, and for who does not recall it
    own: Tensor | None  # float32 [P], what it found; None where it does not train
    honest: Honest  # empty for who does not conspire
    num_conspiring: int  # clients of the round that do


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """The places where a client may differ; what is not given is what an honest client does.

    Generators are the client's own: of `data`, `features` and `labels` equal in every round, of `send` another in each.
    """

    silence: float = 0.0  # probability that it sends nothing in a round, drawn for each round
    effort: float = 1.0  # share of its local steps that it takes; at least one
    epochs: int | None = None  # passes over its data, at most; None: as many as everybody
    reported: float = 1.0  # examples that it reports over those that it holds; at least one example
    # (examples that it holds, generator) -> places among them, int64 [n], of those that it trains on; at least one
    data: Callable[[int, torch.Generator], Tensor] | None = None
    # (x [n, ...] of all that it holds, generator) -> the x that it trains on, of the same shape; made once in a run
    features: Callable[[Tensor, torch.Generator], Tensor] | None = None
    # (its labels [n], number of classes, generator) -> the labels it trains on [n]
    labels: Callable[[Tensor, int, torch.Generator], Tensor] | None = None  # the true ones
    update: Callable[[Tensor], Tensor] = same  # delta [P] it found -> delta [P] it sends
    trains: bool = True  # else it costs no gradient, and has nothing of its own to send
    recalls: bool = False  # whether it looks at the last global step
    send: Callable[[Seen], Tensor] | None = None  # -> delta [P] it sends
    conspire: Callable[[Seen], Tensor] | None = None  # the same, by who sees the honest updates of the round


def behaviour_of(task: Task, round_number: int) -> Behaviour:
    """What it does in this round; outside of its rounds a client is honest, and its further identities are not there.
    TrainingError where a plug-in's code gives no Behaviour."""
    if not acts(task.behaviour, round_number):
        return Behaviour(silence=0.0 if task.holder is None else 1.0)
    return loaded(task.behaviour)


def loaded(configured: Mapping[str, Any]) -> Behaviour:
    """By its kind's code. TrainingError where a plug-in's gives no Behaviour."""
    given = {name: value for name, value in configured.items() if name not in NOT_ITS_OWN}
    name = given.pop("kind")
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
    if task.copies is not None or not behaviour.trains or is_silent(behaviour, task, config, round_number):
        return None
    widths = _widths(behaviour, len(task.indices), config)
    labels = data.train_y[task.indices]
    if behaviour.labels is not None:
        labels = behaviour.labels(labels, data.info.num_classes, steady_generator(config, task.client))
    order = _order(task, config, round_number)[: sum(widths)]
    return Work(order=order, widths=widths, labels=labels, update=behaviour.update)


def effort(task: Task, config: TrainingConfig, round_number: int) -> int:
    """Examples that a client which does send something trains in this round, each as often as it is in a batch."""
    if task.copies is not None:
        return 0
    if not acts(task.behaviour, round_number):
        return len(task.indices) * config.local_epochs
    behaviour = loaded(task.behaviour)
    return sum(_widths(behaviour, len(task.indices), config)) if behaviour.trains else 0


def steady_generator(config: TrainingConfig, client: int) -> torch.Generator:
    """A client's own for its behaviour, equal in every round: none is numbered 0."""
    return torch_generator(config.seed, "behaviour", 0, client)


def is_silent(behaviour: Behaviour, task: Task, config: TrainingConfig, round_number: int) -> bool:
    """Drawn from [0, 1), so that probability 0 is never and 1 is always, without a draw."""
    if behaviour.silence in (0.0, 1.0):
        return behaviour.silence == 1.0
    generator = torch_generator(config.seed, "behaviour", round_number, task.client)
    return torch.rand((), generator=generator, dtype=torch.float64).item() < behaviour.silence


def _widths(behaviour: Behaviour, num_examples: int, config: TrainingConfig) -> tuple[int, ...]:
    """Of all batches that it takes; the last of an epoch may be short."""
    full, rest = divmod(num_examples, config.batch_size)
    epochs = config.local_epochs if behaviour.epochs is None else min(behaviour.epochs, config.local_epochs)
    widths = ((config.batch_size,) * full + (rest,) * bool(rest)) * epochs
    return widths[: max(1, round(behaviour.effort * len(widths)))]


def _order(task: Task, config: TrainingConfig, round_number: int) -> Tensor:
    """Every example once per epoch, in a fresh order."""
    generator = torch_generator(config.seed, "batches", round_number, task.client)
    orders = [torch.randperm(len(task.indices), generator=generator) for _ in range(config.local_epochs)]
    return orders[0] if len(orders) == 1 else torch.cat(orders)
