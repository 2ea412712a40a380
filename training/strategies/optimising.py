"""The weighted mean of the updates, taken by the server's optimiser for a gradient of opposite sign."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.card.crowd import Crowd
from training.clients import Update
from training.products import Products
from training.strategies.averaging import mean_coefficients
from training.strategies.reading import StrategyState, moved, weighted_mean


def fedavgm(
    weights: Tensor,
    updates: Iterable[Update] | Crowd,
    total_examples: int,
    state: StrategyState,
    *,
    server_lr: float,
    server_momentum: float,
) -> tuple[Tensor, StrategyState]:
    """v = server_momentum v + delta, w = w + server_lr v (Hsu et al. 2019, section 4). Keeps v, at first zero.

    The server's learning rate is Reddi et al. 2021's. With momentum 0 and rate 1 this is FedAvg.
    """
    velocity = weighted_mean(updates, weights, total_examples)
    if "velocity" in state:
        velocity.add_(state["velocity"], alpha=server_momentum)
    return moved(weights, server_lr * velocity), {"velocity": velocity.to(torch.float32)}


def fedavgm_coefficients(
    members: NDArray[np.bool_],
    sizes: NDArray[np.int64],
    products: Products,
    state: Mapping[str, Tensor],
    *,
    server_lr: float,
    server_momentum: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of coalitions [m, n]: server_lr times the mean's, and the share of the velocity that is taken again."""
    _, mean = mean_coefficients(members, sizes, products, state)
    again = server_lr * server_momentum if state else 0.0
    return np.full(len(members), again), server_lr * mean


def fedadam(
    weights: Tensor,
    updates: Iterable[Update] | Crowd,
    total_examples: int,
    state: StrategyState,
    *,
    server_lr: float,
    beta_1: float,
    beta_2: float,
    tau: float,
) -> tuple[Tensor, StrategyState]:
    """Adam on the server (Reddi et al. 2021, algorithm 2). Keeps m, at first zero, and v, at first tau^2.

        m = beta_1 m + (1 - beta_1) delta
        v = beta_2 v + (1 - beta_2) delta^2
        w = w + server_lr m / (sqrt(v) + tau)

    As in the paper, m and v are not corrected for their start.
    """
    delta = weighted_mean(updates, weights, total_examples)
    first = (1.0 - beta_1) * delta
    second = (1.0 - beta_2) * delta.square()
    if state:
        first.add_(state["first_moment"], alpha=beta_1)
        second.add_(state["second_moment"], alpha=beta_2)
    else:
        second.add_(beta_2 * tau**2)
    step = server_lr * first / (second.sqrt() + tau)
    kept = {"first_moment": first.to(torch.float32), "second_moment": second.to(torch.float32)}
    return moved(weights, step), kept
