"""How a strategy reads what clients sent. Sums run in the cohort's order, over many updates in float64: a thousand
float32 additions would lose digits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from training.clients import Update
from training.config import MOST_MALICIOUS, TrainingConfig
from training.events import TrainingError

# Updates summed in float32 before they join the sum in float64, which costs four times as much: over a thousand small
# clients it is a third of the round. Eight lose less than weights of float32 can show.
TOGETHER = 8

StrategyState = Mapping[str, Tensor]


def weighted_mean(updates: Iterable[Update], weights: Tensor, total_examples: int) -> Tensor:
    """Sum over the cohort of (n_i / n) delta_i, float64 [P]; no more than one update is in memory.

    A client that sent nothing counts as a zero update at its full weight.
    """
    total, few = torch.zeros_like(weights, dtype=torch.float64), torch.zeros_like(weights)
    arrived = ((update.delta, update.num_examples) for update in updates if update.delta is not None)
    for place, (delta, num_examples) in enumerate(arrived, start=1):
        few.add_(delta, alpha=num_examples / total_examples)
        if place % TOGETHER == 0:
            total.add_(few)
            few.zero_()
    return total.add_(few)


def sent(updates: Iterable[Update], weights: Tensor) -> list[Tensor]:
    """All deltas [P], in the cohort's order. A client that sent nothing stands as a zero update among them.

    To leave it out would let clients shrink the round, and with it the share of attackers that is guarded against.
    """
    nothing = torch.zeros_like(weights)
    return [nothing if update.delta is None else update.delta for update in updates]


def mean(deltas: Sequence[Tensor]) -> Tensor:
    """Every client alike, float64 [P]. Robust strategies never weigh by examples: a client may claim any number."""
    total = torch.zeros_like(deltas[0], dtype=torch.float64)
    for delta in deltas:
        total.add_(delta)
    return total.div_(len(deltas))


def moved(weights: Tensor, step: Tensor) -> Tensor:
    """The next global weights, float32 [P]."""
    return (step + weights).to(torch.float32)


def guarded_against(config: TrainingConfig, strategy: str, num_clients: int) -> int:
    """Of the round's clients, how many are taken for malicious; TrainingError where the strategy cannot bear them."""
    malicious = config.malicious_among(num_clients)
    if malicious > MOST_MALICIOUS[strategy](num_clients):
        raise TrainingError(f"{strategy} cannot guard against {malicious} of {num_clients} clients in a round")
    return malicious
