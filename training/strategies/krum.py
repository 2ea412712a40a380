"""A mean of whole updates, of those alone that have many others near them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.card.crowd import Crowd
from training.clients import Update
from training.config import MOST_MALICIOUS
from training.products import Products, gram
from training.strategies.reading import StrategyState, guarded_against, mean, moved, sent

AT_ONCE = 2**22  # distances that are looked at together


def multi_krum(
    weights: Tensor,
    updates: Iterable[Update] | Crowd,
    total_examples: int,
    state: StrategyState,
    *,
    num_malicious_clients: int | None,
) -> tuple[Tensor, StrategyState]:
    """Multi-Krum (Blanchard et al. 2017). Keeps no state.

    The score of an update is the sum of its squared distances to the n - f - 2 others nearest to it; the n - f
    updates of lowest score are averaged, every client alike. n is how many arrived, and f = num_malicious_clients or
    what n bears, (n - 3) / 2; with f = 0 it is the plain mean. Of equal scores the lower client number's goes first.
    Where nothing arrived the weights stay.
    """
    deltas = sent(updates)
    if not deltas:
        return weights, state
    malicious = guarded_against(num_malicious_clients, MOST_MALICIOUS["multi_krum"](len(deltas)), len(deltas))
    return moved(weights, mean([deltas[place] for place in selected(deltas, malicious)])), state


def selected(deltas: Sequence[Tensor], malicious: int) -> list[int]:
    """Places of the n - malicious updates of lowest score, ascending."""
    best = scores(deltas, malicious).argsort(stable=True)[: len(deltas) - malicious]
    return sorted(best.tolist())


def scores(deltas: Sequence[Tensor], malicious: int) -> Tensor:
    """Sum of each update's squared distances to the n - malicious - 2 others nearest to it, float64 [n]."""
    distances = squared_distances(deltas).fill_diagonal_(torch.inf)
    return distances.sort(dim=1).values[:, : len(deltas) - malicious - 2].sum(dim=1)


def squared_distances(deltas: Sequence[Tensor]) -> Tensor:
    """|x_i - x_j|^2 of all pairs, float64 [n, n], as |x_i|^2 + |x_j|^2 - 2 x_i x_j: products cost far less than
    differences of all pairs. In float64 what cancels is a 10^-16th of the larger norm."""
    products = gram(deltas)
    norms = products.diagonal()
    return (norms[:, None] + norms[None, :] - 2.0 * products).clamp_(min=0.0)


def multi_krum_coefficients(
    members: NDArray[np.bool_],
    sizes: NDArray[np.int64],
    products: Products,
    state: Mapping[str, Tensor],
    *,
    num_malicious_clients: int | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of coalitions [m, n]: every update that multi-Krum would select among the members' alone has an equal part.

    Each update's distances are sorted once; of a coalition they are then read in that order. Costs m n^2 at most.
    """
    coefficients = np.zeros(members.shape)
    counts = members.sum(axis=1)
    norms = products.updates.diagonal()
    distances = np.maximum(norms[:, None] + norms[None, :] - 2.0 * products.updates, 0.0)
    np.fill_diagonal(distances, np.inf)
    order = np.argsort(distances, axis=1, kind="stable")[:, :-1]
    ordered = np.take_along_axis(distances, order, axis=1)
    for count in np.unique(counts[counts > 0]).tolist():
        malicious = guarded_against(num_malicious_clients, MOST_MALICIOUS["multi_krum"](count), count)
        same = np.flatnonzero(counts == count)
        if malicious == 0:
            coefficients[same] = members[same] / count
            continue
        for begin in range(0, len(same), max(1, AT_ONCE // (count * members.shape[1]))):
            rows = same[begin : begin + max(1, AT_ONCE // (count * members.shape[1]))]
            who = np.nonzero(members[rows])[1].reshape(len(rows), count)
            is_there = members[rows[:, None, None], order[who]]
            nearest = ordered[who][is_there].reshape(len(rows), count, count - 1)[:, :, : count - malicious - 2]
            best = np.argsort(nearest.sum(axis=2), axis=1, kind="stable")[:, : count - malicious]
            coefficients[rows[:, None], np.take_along_axis(who, best, axis=1)] = 1.0 / (count - malicious)
    return np.zeros(len(members)), coefficients
