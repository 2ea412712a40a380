"""A mean in which no update may pull further than a set distance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

import torch
from torch import Tensor

from training.card.crowd import Crowd
from training.clients import Update
from training.strategies.reading import StrategyState, moved, sent


def centred_clipping(
    weights: Tensor,
    updates: Iterable[Update] | Crowd,
    total_examples: int,
    state: StrategyState,
    *,
    clipping_norm: float | None,
) -> tuple[Tensor, StrategyState]:
    """v = v + mean of (x_i - v) min(1, r / |x_i - v|), w = w + v (centred clipping, Karimireddy et al. 2021).

    Keeps v, at first zero: the centre is the step of the round before. One pass over the updates in a round.
    The mean is over the updates that arrived; where there is none, weights and centre stay as they are.
    r = clipping_norm, or the median of the updates' norms |x_i|. With a huge r it is the plain mean.
    """
    deltas = sent(updates)
    if not deltas:
        return weights, state
    centre = state.get("centre", torch.zeros_like(weights)).to(torch.float64)
    radius = median(map(norm, deltas)) if clipping_norm is None else clipping_norm
    step = clipped_mean(deltas, centre, radius)
    return moved(weights, step), {"centre": step.to(torch.float32)}


def clipped_mean(deltas: Sequence[Tensor], centre: Tensor, radius: float) -> Tensor:
    """The centre [P], moved by the mean of the updates' differences from it, none of them longer than the radius."""
    step = centre.clone()
    for delta in deltas:
        difference = delta - centre
        distance = norm(difference)
        share = 1.0 if distance <= radius else radius / distance
        step.add_(difference, alpha=share / len(deltas))
    return step


def norm(vector: Tensor) -> float:
    """Euclidean, in float64, where the square of every finite float32 is finite."""
    return float(torch.linalg.vector_norm(vector, dtype=torch.float64))
