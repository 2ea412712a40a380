"""Robust means of each weight by itself: its largest and smallest values over the clients are not heard."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from training.card.crowd import Crowd
from training.clients import Update
from training.config import MOST_MALICIOUS
from training.strategies.reading import StrategyState, guarded_against, moved, sent

COLUMNS = 2**16  # weights that are sorted at a time, at most
VALUES = 2**22  # of all clients together that are: sorting takes 24 bytes each, however many clients there are


def trimmed_mean(
    weights: Tensor,
    updates: Iterable[Update] | Crowd,
    total_examples: int,
    state: StrategyState,
    *,
    num_malicious_clients: int | None,
) -> tuple[Tensor, StrategyState]:
    """Coordinate-wise trimmed mean (Yin et al. 2018, definition 2). Keeps no state.

    Of each weight's n values, those that arrived, the b largest and the b smallest are dropped and the others averaged,
    every client alike; b = num_malicious_clients, the paper's beta n, at most (n - 1) / 2. With b = 0 and clients of
    equal size this is FedAvg. Where nothing arrived the weights stay.
    """
    deltas = sent(updates)
    if not deltas:
        return weights, state
    cut = guarded_against(num_malicious_clients, MOST_MALICIOUS["trimmed_mean"](len(deltas)), len(deltas))
    return moved(weights, middle_mean(deltas, cut)), state


def median(
    weights: Tensor,
    updates: Iterable[Update] | Crowd,
    total_examples: int,
    state: StrategyState,
) -> tuple[Tensor, StrategyState]:
    """Coordinate-wise median (Yin et al. 2018, definition 1). Keeps no state.

    Of the values that arrived; of an even number it is the mean of the two in the middle. Where nothing arrived the
    weights stay.
    """
    deltas = sent(updates)
    if not deltas:
        return weights, state
    return moved(weights, middle_mean(deltas, (len(deltas) - 1) // 2)), state


def middle_mean(deltas: Sequence[Tensor], cut: int) -> Tensor:
    """Each weight's mean over n deltas [P] without its `cut` largest and smallest values, float64 [P]."""
    columns = max(1, min(COLUMNS, VALUES // len(deltas)))
    parts = zip(*(torch.split(delta, columns) for delta in deltas), strict=True)
    ordered = (torch.stack(part).sort(dim=0).values for part in parts)
    return torch.cat([rows[cut : len(rows) - cut].to(torch.float64).mean(dim=0) for rows in ordered])
