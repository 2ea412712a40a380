"""How a strategy reads what clients sent. Sums run in the cohort's order, over many updates in float64: a thousand
float32 additions would lose digits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from training.card.crowd import Crowd
from training.clients import Update
from training.config import MOST_MALICIOUS, TrainingConfig
from training.events import TrainingError
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


def sent(updates: Iterable[Update] | Crowd, weights: Tensor, config: TrainingConfig) -> list[Tensor]:
    """The deltas [P] that arrived, in the cohort's order; none where nobody sent anything.

    Robust strategies are defined over these: a zero vote of the absent would outvote those who work, and their number
    tells how many malicious ones are guarded against. Under scheme 1 the absent vote zero.
    """
    if isinstance(updates, Crowd):
        assert updates.deltas is not None, "who looks at each update is not in strategies.AVERAGING"
        here = zip(updates.deltas, updates.arrived, strict=True)
        return [delta for delta, arrived in here if arrived or config.absent_vote]
    nothing = torch.zeros_like(weights) if config.absent_vote else None
    deltas = [nothing if update.delta is None else update.delta for update in updates]
    return [delta for delta in deltas if delta is not None]


def mean(deltas: Sequence[Tensor]) -> Tensor:
    """Every client alike, float64 [P]. Robust strategies never weigh by examples: a client may claim any number."""
    total = torch.zeros_like(deltas[0], dtype=torch.float64)
    for delta in deltas:
        total.add_(delta)
    return total.div_(len(deltas))


def moved(weights: Tensor, step: Tensor) -> Tensor:
    """The next global weights, float32 [P]."""
    return (step + weights).to(weights.dtype)


def guarded_against(config: TrainingConfig, strategy: str, num_clients: int) -> int:
    """Of the clients that sent something, how many are taken for malicious: at most as many as the strategy can bear
    among so few. Under scheme 1 more than that is a TrainingError."""
    malicious, most = config.malicious_among(num_clients), MOST_MALICIOUS[strategy](num_clients)
    if config.scheme == 1 and malicious > most:
        raise TrainingError(f"{strategy} cannot guard against {malicious} of {num_clients} clients in a round")
    return max(0, min(malicious, most))
