"""The mean of what clients sent, weighted by their examples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from training.card.crowd import Crowd
from training.clients import Update
from training.products import Products
from training.strategies.reading import StrategyState, moved, weighted_mean


def fedavg(
    weights: Tensor,
    updates: Iterable[Update] | Crowd,
    total_examples: int,
    state: StrategyState,
) -> tuple[Tensor, StrategyState]:
    """w + sum over the cohort of (n_i / n) delta_i (McMahan et al. 2017, algorithm 1). Keeps no state."""
    return moved(weights, weighted_mean(updates, weights, total_examples)), state


def fedprox(
    weights: Tensor,
    updates: Iterable[Update] | Crowd,
    total_examples: int,
    state: StrategyState,
    *,
    proximal_mu: float,
) -> tuple[Tensor, StrategyState]:
    """FedAvg of clients that minimise F_i(w) + mu/2 |w - w_global|^2 (Li et al. 2020, equation 2).

    The term is the clients' part: mu (w - w_global) in the gradient of every local step, see `Local`. The server
    weighs by examples as FedAvg does, so that mu 0 is FedAvg; the paper samples by examples and weighs alike.
    """
    return fedavg(weights, updates, total_examples, state)


def mean_coefficients(
    members: NDArray[np.bool_],
    sizes: NDArray[np.int64],
    products: Products,
    state: Mapping[str, Tensor],
    **parameters: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of coalitions [m, n]: a member's examples over those of all that are there; nothing is carried."""
    total = sizes.sum(axis=1, dtype=np.float64)
    return np.zeros(len(members)), members * sizes / np.maximum(total, 1.0)[:, None]
