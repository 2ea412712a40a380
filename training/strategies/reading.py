"""How a strategy reads what clients sent. Sums run in the cohort's order, over many updates in float64: a thousand
float32 additions would lose digits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from training.card.crowd import Crowd
from training.clients import Update
from training.thin import Thin, add_all

# Updates summed in float32 before they join the sum in float64, which costs four times as much: over a thousand small
# clients it is a third of the round. So few lose less than weights of float32 can show.
TOGETHER = 8
THIN_TOGETHER = 32  # of those that are thin, in one product

StrategyState = Mapping[str, Tensor]


def weighted_mean(updates: Iterable[Update] | Crowd, weights: Tensor, total_examples: int) -> Tensor:
    """Sum over the cohort of (n_i / n) delta_i, float64 [P]; no more than one update is in memory, or a few thin ones.

    A client that sent nothing counts as a zero update at its full weight.
    """
    if isinstance(updates, Crowd):
        return updates.mean
    total = _Sum(weights)
    for update in updates:
        share = update.num_examples / total_examples
        if isinstance(update.sent, Thin):
            total.add_thin(update.sent, share)
        elif update.sent is not None:
            total.add(update.sent, share)
    return total.value()


class _Sum:
    """In float64, by way of a sum of a few in float32."""

    def __init__(self, like: Tensor) -> None:
        self.total, self.few = torch.zeros_like(like, dtype=torch.float64), torch.zeros_like(like)
        self.added = 0
        self.thin: list[tuple[Thin, float]] = []

    def add(self, delta: Tensor, share: float) -> None:
        self.few.add_(delta, alpha=share)
        self.added += 1
        if self.added == TOGETHER:
            self._empty()

    def add_thin(self, delta: Thin, share: float) -> None:
        self.thin.append((delta, share))
        if len(self.thin) == THIN_TOGETHER:
            self._empty()

    def value(self) -> Tensor:
        self._empty()
        return self.total

    def _empty(self) -> None:
        if self.thin:
            add_all(self.few, *zip(*self.thin, strict=True))
        self.total.add_(self.few)
        self.few.zero_()
        self.added = 0
        self.thin.clear()


def sent(updates: Iterable[Update] | Crowd) -> list[Tensor]:
    """The deltas [P] that arrived, in the cohort's order; none where nobody sent anything.

    Robust strategies are defined over these: a zero vote of the absent would outvote those who work, and their number
    tells how many malicious ones are guarded against.
    """
    if isinstance(updates, Crowd):
        assert updates.deltas is not None, "who looks at each update has not the trait `mean`"
        return [delta for delta, arrived in zip(updates.deltas, updates.arrived, strict=True) if arrived]
    return [update.delta for update in updates if update.delta is not None]


def with_absent_votes(updates: Iterable[Update] | Crowd, weights: Tensor) -> Iterable[Update] | Crowd:
    """As scheme 1 took them: who sent nothing votes for no change."""
    if isinstance(updates, Crowd):
        return dataclasses.replace(updates, arrived=(True,) * len(updates.arrived))
    nothing = torch.zeros_like(weights)
    return (update if update.sent is not None else dataclasses.replace(update, sent=nothing) for update in updates)


def mean(deltas: Sequence[Tensor]) -> Tensor:
    """Every client alike, float64 [P]. Robust strategies never weigh by examples: a client may claim any number."""
    total = torch.zeros_like(deltas[0], dtype=torch.float64)
    for delta in deltas:
        total.add_(delta)
    return total.div_(len(deltas))


def moved(weights: Tensor, step: Tensor) -> Tensor:
    """The next global weights, float32 [P]."""
    return (step + weights).to(weights.dtype)


def guarded_against(num_malicious_clients: int | None, most: int, num_clients: int) -> int:
    """Of the clients that sent something, how many are taken for malicious: as many as asked for, or a fifth, but at
    most as many as the strategy can bear among so few."""
    asked = num_clients // 5 if num_malicious_clients is None else num_malicious_clients
    return max(0, min(asked, most))
