"""Values that are computed from a game without sampling."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, fsum

import numpy as np
from numpy.typing import NDArray

from .games import Game, utilities

MOST_PLAYERS = 16  # 65,536 coalitions


def shapley(game: Game, num_examples: Sequence[int]) -> NDArray[np.float64]:
    """The Shapley value: a player's mean marginal utility over all orders in which the players may arrive.

    phi_i = 1/n sum over S without i of [V(S + i) - V(S)] / C(n - 1, |S|) (Shapley 1953, "A value for n-person games",
    section 3; per round of federated learning: Song et al. 2019, "Profit allocation for federated learning"). The
    values sum to V(N) - V(empty). Cost: 2^n utilities, asked for in one batch. Sums are correctly rounded, so equal
    players get equal values. Raises ValueError beyond 16 players.
    """
    n = len(num_examples)
    if n > MOST_PLAYERS:
        raise ValueError(f"exact shapley takes at most {MOST_PLAYERS} players, got {n}")
    if n == 0:
        return np.zeros(0)
    return semivalue(game, np.array([1.0 / (n * comb(n - 1, size)) for size in range(n)]))


def semivalue(game: Game, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """phi_i = sum over S without i of weights[|S|] [V(S + i) - V(S)], for as many players as weights. Cost: 2^n
    utilities, asked for in one batch; none without players. Sums are correctly rounded."""
    n = len(weights)
    if n == 0:
        return np.zeros(0)
    coalitions = all_coalitions(n)
    return _mean_marginals(utilities(game, coalitions), weights, coalitions.sum(axis=1))


def all_coalitions(n: int) -> NDArray[np.bool_]:
    """bool [2^n, n]; player i is in coalition number k where bit i of k is set."""
    return (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(np.bool_)


def _mean_marginals(
    values: NDArray[np.float64], weights: NDArray[np.float64], sizes: NDArray[np.int64]
) -> NDArray[np.float64]:
    n = len(weights)
    phi = np.zeros(n)
    for player in range(n):
        split = (
            2 ** (n - 1 - player),
            2,
            2**player,
        )  # bit `player` of a coalition's number is the middle axis
        without, with_player = values.reshape(split)[:, 0], values.reshape(split)[:, 1]
        marginals = weights[sizes.reshape(split)[:, 0]] * (with_player - without)
        phi[player] = fsum(marginals.ravel().tolist())
    return phi


def leave_one_out(game: Game, num_examples: Sequence[int]) -> NDArray[np.float64]:
    """What everybody loses without a player: V(N) - V(N without i).

    After Cook 1977, "Detection of influential observation in linear regression"; per round of federated learning:
    Wang et al. 2020, "A principled approach to data valuation for federated learning". Cost: n + 1 utilities, asked
    for in one batch. Players who do the same work are each worth about nothing, and the values do not sum to
    V(N) - V(empty).
    """
    n = len(num_examples)
    if n == 0:
        return np.zeros(0)
    everyone = np.ones((1, n), dtype=np.bool_)
    values = utilities(game, np.concatenate([everyone, ~np.eye(n, dtype=np.bool_)]))
    losses: NDArray[np.float64] = values[0] - values[1:]
    return losses
