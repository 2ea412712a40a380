"""A mean of whole updates, of those alone that have many others near them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from training.card.crowd import Crowd
from training.clients import Update
from training.config import MOST_MALICIOUS
from training.strategies.reading import StrategyState, guarded_against, mean, moved, sent

COLUMNS = 2**16  # weights that are compared at a time


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
    products = torch.zeros(len(deltas), len(deltas), dtype=torch.float64, device=deltas[0].device)
    for part in zip(*(torch.split(delta, COLUMNS) for delta in deltas), strict=True):
        rows = torch.stack(part).to(torch.float64)
        products += rows @ rows.T
    norms = products.diagonal()
    return (norms[:, None] + norms[None, :] - 2.0 * products).clamp_(min=0.0)
