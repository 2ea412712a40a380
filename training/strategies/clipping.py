"""A mean in which no update may pull further than a set distance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.card.crowd import Crowd
from training.clients import Update
from training.products import Products
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


def clipping_coefficients(
    members: NDArray[np.bool_],
    sizes: NDArray[np.int64],
    products: Products,
    state: Mapping[str, Tensor],
    *,
    clipping_norm: float | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of coalitions [m, n]: an update has the share of its difference from the centre that clipping leaves, over the
    number of members; the centre has what is missing to 1. Nothing where there is no member."""
    norms = np.sqrt(products.squared_norms)
    squares = products.squared_norms
    if state:
        squares = squares - 2.0 * products.along("carried") + products.between("carried", "carried")
    distances = np.sqrt(np.maximum(squares, 0.0))
    counts = members.sum(axis=1)
    if clipping_norm is None:
        ordered = np.sort(np.where(members, norms, np.inf), axis=1)
        middle = np.stack([np.maximum(counts - 1, 0) // 2, np.minimum(counts // 2, members.shape[1] - 1)], axis=1)
        radius = np.where(counts > 0, np.take_along_axis(ordered, middle, axis=1).mean(axis=1), 0.0)[:, None]
    else:
        radius = np.full((len(members), 1), clipping_norm)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(distances <= radius, 1.0, radius / distances)
    coefficients = np.where(members, shares / np.maximum(counts, 1)[:, None], 0.0)
    return np.where(counts > 0, 1.0 - coefficients.sum(axis=1), 0.0), coefficients
