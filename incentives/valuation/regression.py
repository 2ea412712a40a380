"""Shapley values as the coefficients of a regression of utilities on who takes part."""

from __future__ import annotations

from math import comb

import numpy as np
from numpy.typing import NDArray

from incentives import budgets
from incentives.economy import State, ValuationFacts, Values

from .games import Game, utilities
from .sampling import exact

MOST_TRIES = 20  # draws for each pair that is wanted, of which those that were drawn before are left out


def regression(
    game: Game, facts: ValuationFacts, state: State, rng: np.random.Generator, *, evaluations: int | None = None
) -> Values:
    """The size-centred paired regression: ours, after the kernel of Lundberg & Lee 2017, theorem 2, and the pairs of
    Covert & Lee 2021, section 4.

    Nobody, everybody, each alone and everybody but each are evaluated; then coalitions of sizes drawn in proportion to
    1/(s (n - s)), each with its complement, none twice. g(s), the mean utility at size s, is a symmetric game whose
    Shapley value is known; V(S) - g(|S|) is regressed on membership less its mean at that size, each size having its
    kernel's weight, under coefficients that sum to 0. So games in which players only add up have no error, values sum
    to V(N) - V(empty) to rounding, and what the first client to join brings
    is no noise. It has a bias, smaller than its error. Errors are those of the sampled pairs (a sandwich estimate);
    None where pairs are fewer than players.
    """
    n = len(facts.players)
    budget = budgets.of_singles(n, evaluations=evaluations)
    if budget >= 2**n:
        return exact(game, facts, state)
    members = _pairs(n, (budget - 2 * n - 2) // 2, rng)
    alone = np.eye(n, dtype=np.bool_)
    coalitions = np.concatenate([alone, ~alone, members, ~members])
    values = utilities(game, np.concatenate([[[False] * n, [True] * n], coalitions]))
    (nobody, everyone), values = values[:2], values[2:]

    sizes = coalitions.sum(axis=1)
    counts = np.bincount(sizes, minlength=n)
    centred = values - (np.bincount(sizes, values, n) / np.maximum(counts, 1))[sizes]
    weights = (n - 1) / (sizes * (n - sizes) * counts[sizes])
    seen = np.zeros((n, n))  # [size, player], shares of the coalitions of a size
    np.add.at(seen, sizes, coalitions / counts[sizes][:, None])
    sides = coalitions - seen[sizes]  # what sums to 0 over the players; coefficients do too
    products = np.einsum("mi,mj->ij", weights[:, None] * sides, sides) + 1.0 / n
    coefficients = np.linalg.solve(products, np.einsum("mi,m->i", sides, weights * centred))
    contributions = coefficients - coefficients.mean() + (everyone - nobody) / n
    if len(members) < n:
        return Values(contributions, state=state)

    residuals = centred - np.einsum("mi,i->m", sides, coefficients)
    first, second = slice(2 * n, 2 * n + len(members)), slice(2 * n + len(members), None)
    is_half = sizes[first] * 2 == n  # where both of a pair count at one size
    of_size = counts[sizes[first]] / np.where(is_half, 2, 1)
    there_are = np.array([comb(n, int(size)) for size in sizes[first]]) / np.where(is_half, 2, 1)
    left = 1.0 - (of_size / there_are).astype(np.float64)
    pulls = sides[first] * (weights[first] * (residuals[first] - residuals[second]) * np.sqrt(left))[:, None]
    moved = np.linalg.solve(products, pulls.T)
    spare = len(members) / max(1, len(members) - (n - 1))
    return Values(contributions, np.sqrt(spare * np.einsum("im,im->i", moved, moved)), state)


def _pairs(n: int, count: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """bool [m, n], m at most count: one coalition of each pair, of 2 to n - 2 players, no pair twice."""
    known: dict[bytes, NDArray[np.bool_]] = {}
    sizes = np.arange(2, n - 1)
    chances = 1.0 / (sizes * (n - sizes))
    for _ in range(MOST_TRIES):
        if len(known) >= count:
            break
        drawn = rng.choice(sizes, count, p=chances / chances.sum())
        places = rng.permuted(np.tile(np.arange(n), (count, 1)), axis=1)
        for row in places < drawn[:, None]:
            if len(known) < count:
                known.setdefault((row ^ ~row[0]).tobytes(), row)  # told by the side that has player 0
    return np.array([*known.values()], dtype=np.bool_).reshape(-1, n)
