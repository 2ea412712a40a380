"""Values that weigh marginal utilities by the size of the coalition that is joined, otherwise than Shapley's: they need
not sum to V(N) - V(empty). The signature, `evaluations` and errors are those of `sampling`."""

from __future__ import annotations

from math import exp, lgamma

import numpy as np
from numpy.typing import NDArray

from incentives import budgets
from incentives.economy import State, ValuationFacts, Values

from .exact import semivalue
from .games import Game, utilities
from .sampling import estimated, gains_of, means_by_stratum, rotated


def banzhaf(
    game: Game, facts: ValuationFacts, state: State, rng: np.random.Generator, *, evaluations: int | None = None
) -> Values:
    """The Banzhaf value, a player's mean marginal utility over all coalitions of the others; sampled by maximum sample
    reuse: the mean of coalitions with the player less the mean of those without, 0 where there are none of one sort
    (Wang & Jia 2023, "Data Banzhaf", section 4)."""
    n = len(facts.players)
    budget = budgets.of_subsets(n, evaluations=evaluations)
    if budget >= 2**n:
        return Values(semivalue(game, np.full(n, 0.5 ** (n - 1))), state=state)
    members = rng.random((budget, n)) < 0.5
    values = utilities(game, members)
    inside = members.sum(axis=0)
    outside = budget - inside
    means, variances = [], []
    for side, counts in ((members, inside), (~members, outside)):
        mean = np.where(side, values[:, None], 0.0).sum(axis=0) / np.maximum(counts, 1)
        squares = np.where(side, (values[:, None] - mean) ** 2, 0.0).sum(axis=0)
        means.append(mean)
        variances.append(squares / np.maximum(counts - 1, 1) / np.maximum(counts, 1))
    fewest = np.minimum(inside, outside)
    contributions = np.where(fewest > 0, means[0] - means[1], 0.0)
    return Values(contributions, np.sqrt(variances[0] + variances[1]) if (fewest > 1).all() else None, state)


def beta_shapley(
    game: Game,
    facts: ValuationFacts,
    state: State,
    rng: np.random.Generator,
    *,
    evaluations: int | None = None,
    alpha: float,
    beta: float,
) -> Values:
    """Beta Shapley: marginal utilities weighted by p(s) = B(s + beta, n - 1 - s + alpha) / B(alpha, beta) for each
    coalition of s others (Kwon & Zou 2022, section 3). With alpha above beta small coalitions count most; (1, 1) is
    Shapley's value. Weights of all coalitions sum to 1, which exponents with k = s + 1 in them do not give.

    Sampled over rotated orders: where everybody has come at each place, the weighted sum of the means at places; where
    orders are too few for that the mean of weighted marginal utilities, whose errors are rather too large.
    """
    n = len(facts.players)
    budget = budgets.of_orders(n, evaluations=evaluations)
    if budget >= 2**n:
        return Values(semivalue(game, beta_weights(n, alpha, beta)), state=state)
    orders = rotated((budget - 2) // (n - 1), n, rng)
    places = np.argsort(orders, axis=1)
    of_place, gains = beta_weights(n, alpha, beta, by_size=True), gains_of(game, orders)
    if len(orders) < n:
        return estimated(n * of_place[places] * gains, state)
    means, variances = means_by_stratum(places, gains, n)
    return Values(of_place @ means, None if variances is None else np.sqrt(np.square(of_place) @ variances), state)


def beta_weights(n: int, alpha: float, beta: float, *, by_size: bool = False) -> NDArray[np.float64]:
    """[n], p(s) for s = 0 to n - 1 others; with `by_size` of all coalitions of that size together, which sum to 1."""

    def log_beta(a: float, b: float) -> float:
        return lgamma(a) + lgamma(b) - lgamma(a + b)

    found = []
    for size in range(n):
        log = log_beta(size + beta, n - 1 - size + alpha) - log_beta(alpha, beta)
        if by_size:
            log += lgamma(n) - lgamma(size + 1) - lgamma(n - size)
        found.append(exp(log))
    return np.array(found)
