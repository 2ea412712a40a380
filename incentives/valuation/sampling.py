"""Shapley values of games with too many coalitions to evaluate them all: estimates from some orders of arrival, or from
some coalitions with their complements.

Each is `f(game, facts, state, rng, **parameters) -> Values` and takes `evaluations`, the coalitions that it evaluates
at most (see incentives.budgets). Where these are all 2^n coalitions the value is exact and has no errors. Errors are
standard errors, None where there is but one sample. What is drawn comes from `rng` alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from incentives import budgets
from incentives.economy import State, ValuationFacts, Values

from .evidence import Recorded
from .exact import shapley
from .games import Game, utilities

MOST_CELLS = 2**24  # players times coalitions that are asked for at once
LOOKED_BACK = 10  # permutations over which GTG-Shapley compares its values
CONVERGED = 0.05  # mean relative change of them below which it ends

Array = NDArray[np.float64]
Estimate = Callable[..., Values]


def permutation(
    game: Game, facts: ValuationFacts, state: State, rng: np.random.Generator, *, evaluations: int | None = None
) -> Values:
    """Mean marginal utility over random orders of arrival (Castro et al. 2009, section 3, ApproShapley).

    Values sum to V(N) - V(empty), as those of each order do. Every order starts anew from V(empty): algorithm 2 of Wang
    et al. 2020, as printed, goes on from the order before.
    """
    n = len(facts.players)
    budget = budgets.of_orders(n, evaluations=evaluations)
    if budget >= 2**n:
        return exact(game, facts, state)
    orders = rng.permuted(np.tile(np.arange(n), ((budget - 2) // (n - 1), 1)), axis=1)
    return estimated(gains_of(game, orders), state)


def fedsv(
    game: Game,
    facts: ValuationFacts,
    state: State,
    rng: np.random.Generator,
    *,
    evaluations: int | None = None,
    normalised: bool,
) -> Values:
    """The federated Shapley value: that of the round's clients, by random orders (Wang et al. 2020, definition 2 and
    algorithm 2, with what it leaves out, see `permutation`).

    `normalised`: divided by its Euclidean length, so that each round counts alike; 0 stays 0. Values do not sum to
    V(N) - V(empty) then, and their errors leave out that of the length.
    """
    values = permutation(game, facts, state, rng, evaluations=evaluations)
    length = float(np.sqrt(np.sum(np.square(values.contributions))))
    if not normalised or length == 0:
        return values
    errors = None if values.errors is None else np.asarray(values.errors) / length
    return Values(np.asarray(values.contributions) / length, errors, state)


def antithetic(
    game: Game, facts: ValuationFacts, state: State, rng: np.random.Generator, *, evaluations: int | None = None
) -> Values:
    """Mean marginal utility over random orders, each with its reverse, so that who came early comes late too
    (Mitchell et al. 2022, "Sampling permutations for Shapley value estimation"). Errors are between pairs."""
    n = len(facts.players)
    budget = budgets.of_paired_orders(n, evaluations=evaluations)
    if budget >= 2**n:
        return exact(game, facts, state)
    orders = rng.permuted(np.tile(np.arange(n), ((budget - 2) // (2 * (n - 1)), 1)), axis=1)
    return estimated((gains_of(game, orders) + gains_of(game, orders[:, ::-1])) / 2, state)


def stratified(
    game: Game, facts: ValuationFacts, state: State, rng: np.random.Generator, *, evaluations: int | None = None
) -> Values:
    """Mean marginal utility over orders in which everybody arrives at each place equally often: strata are a player's
    places (Castro et al. 2017, section 3; that one order serves all players, as the rows of a Latin square, is ours).

    Values sum to V(N) - V(empty). Errors are those of independent orders, which are rather too large here.
    """
    n = len(facts.players)
    budget = budgets.of_orders(n, evaluations=evaluations)
    if budget >= 2**n:
        return exact(game, facts, state)
    return estimated(gains_of(game, rotated((budget - 2) // (n - 1), n, rng)), state)


def rotated(count: int, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Orders [count, n], each of them uniform, in stretches in which everybody is at each place once: of a whole
    stretch places are shuffled before it is turned, so that who comes before whom changes; of a shorter one turns are
    evenly spaced."""
    found: list[NDArray[np.int64]] = []
    while (left := count - len(found)) > 0:
        start, turns = rng.permutation(n), min(left, n)
        places = rng.permutation(n) if turns == n else np.arange(n)
        found += [np.argsort(places[(start + turn * n // turns) % n]) for turn in range(turns)]
    return np.array(found)


def truncated_monte_carlo(
    game: Game,
    facts: ValuationFacts,
    state: State,
    rng: np.random.Generator,
    *,
    evaluations: int | None = None,
    tolerance: float,
) -> Values:
    """Mean marginal utility over random orders; once a coalition's utility is within `tolerance` x |V(N) - V(empty)| of
    V(N), who comes later in the order counts as adding nothing (Ghorbani & Zou 2019, algorithm 1).

    What is saved goes into further orders, to the end of the budget. Values sum to V(N) - V(empty) but for at most the
    tolerance.
    """
    n = len(facts.players)
    budget = budgets.of_orders(n, evaluations=evaluations)
    if budget >= 2**n:
        return exact(game, facts, state)
    scan = Scan(game, n, budget)
    found = np.zeros((0, n))
    while count := scan.affordable(n, len(found)):
        orders = rng.permuted(np.tile(np.arange(n), (count, 1)), axis=1)
        found = np.concatenate([found, scan.gains(orders, tolerance * abs(scan.everyone - scan.nobody))])
    return estimated(found, state)


def gtg_shapley(
    game: Game,
    facts: ValuationFacts,
    state: State,
    rng: np.random.Generator,
    *,
    evaluations: int | None = None,
    round_tolerance: float,
    tolerance: float,
) -> Values:
    """Guided truncation gradient Shapley (Liu et al. 2022, algorithm 1): orders in which the players take turns to come
    first, cut off once within `tolerance` of V(N); a round that changes the utility by at most `round_tolerance` is
    worth nothing to anybody.

    It ends when values change by less than 5 % over ten orders (equation 10; after at least max(30, n)), or with the
    budget. A value is the mean of its gains and keeps its sign: values sum to V(N) - V(empty) but for the tolerance,
    where the authors' code divides all by the sum of those of one sign. Equation 3, as printed, leaves out 1/n.
    """
    n = len(facts.players)
    budget = budgets.of_orders(n, evaluations=evaluations)
    if budget >= 2**n:
        return exact(game, facts, state)
    scan = Scan(game, n, budget)
    if abs(scan.everyone - scan.nobody) <= round_tolerance:
        return Values(np.zeros(n), state=state)
    found = np.zeros((0, n))
    while not _has_converged(found) and (count := scan.affordable(n, len(found))):
        first = np.arange(len(found), len(found) + count) % n
        others = np.array([np.delete(np.arange(n), player) for player in first])
        orders = np.concatenate([first[:, None], rng.permuted(others, axis=1)], axis=1)
        found = np.concatenate([found, scan.gains(orders, tolerance)])
    return estimated(found, state)


def _has_converged(gains: Array) -> bool:
    """Equation 10 of Liu et al. 2022, of gains [orders, n]; a value of 0 that was 0 has not changed."""
    count, n = gains.shape
    if count < max(30, n, LOOKED_BACK + 1):
        return False
    means = (np.cumsum(gains, axis=0) / np.arange(1, count + 1)[:, None])[-LOOKED_BACK - 1 :]
    last = np.abs(means[-1])
    changes = np.abs(means[-1] - means[:-1])
    if (changes[:, last == 0] > 0).any():
        return False
    relative = np.divide(changes, last, out=np.zeros_like(changes), where=last > 0)
    return bool(relative.sum() / (LOOKED_BACK * n) < CONVERGED)


class Scan:
    """Orders that are followed place by place, all of a batch together, each as far as it is worth it."""

    def __init__(self, game: Game, n: int, budget: int) -> None:
        self._game, self._n, self._budget = Recorded(game), n, budget
        self.nobody, self.everyone = ends(self._game, n)

    def affordable(self, wanted: int, done: int) -> int:
        """Orders that can be followed to their ends, at most as many as wanted; of all there are never more than the
        budget has coalitions, so that orders which cost nothing come to an end."""
        left = (self._budget - len(self._game)) // (self._n - 1)
        return max(0, min(wanted, left, self._budget - done))

    def gains(self, orders: NDArray[np.int64], tolerance: float) -> Array:
        """[orders, n]: what each player adds where it arrives; 0 after a coalition within the tolerance of V(N)."""
        found, joined = np.zeros(orders.shape), np.zeros(orders.shape, dtype=np.bool_)
        before = np.full(len(orders), self.nobody)
        for place, players in enumerate(orders.T):
            on = np.flatnonzero(np.abs(self.everyone - before) >= tolerance)
            joined[on, players[on]] = True
            is_last = place == self._n - 1
            after = np.full(len(on), self.everyone) if is_last else utilities(self._game, joined[on])
            found[on, players[on]] = after - before[on]
            before[on] = after
        return found


def complementary(
    game: Game, facts: ValuationFacts, state: State, rng: np.random.Generator, *, evaluations: int | None = None
) -> Values:
    """From complementary contributions V(S) - V(N - S), each of which tells of everybody: a member of S has it in the
    stratum |S|, others its opposite in the stratum n - |S|; the value is the mean over strata of their means (Zhang et
    al. 2023, "Efficient sampling approaches to Shapley value approximation", section 4).

    Coalitions of each size are pieces of random orders, one after another, so that everybody has a sample in each
    stratum; then sizes take turns by chance until the budget ends. Errors take samples for independent; they were
    found up to a quarter too small. Values sum to V(N) - V(empty) only in the mean.
    """
    n = len(facts.players)
    budget = budgets.of_sizes(n, evaluations=evaluations)
    if budget >= 2**n:
        return exact(game, facts, state)
    members = _pieces(n, rng)
    while len(members) < (budget - 2) // 2:
        members = np.concatenate([members, rng.permutation(_pieces(n, rng))])
    members = members[: (budget - 2) // 2]
    nobody, everyone = ends(game, n)
    values = utilities(game, np.concatenate([members, ~members]))
    differences = values[: len(members)] - values[len(members) :]
    sizes = members.sum(axis=1)[:, None]
    strata = np.where(members, sizes, n - sizes) - 1
    means, variances = means_by_stratum(strata, np.where(members, differences[:, None], -differences[:, None]), n - 1)
    contributions = (means.sum(axis=0) + everyone - nobody) / n  # the stratum n is one pair
    return Values(contributions, None if variances is None else np.sqrt(variances.sum(axis=0)) / n, state)


def means_by_stratum(strata: NDArray[np.int64], samples: Array, count: int) -> tuple[Array, Array | None]:
    """[count, n]: the mean of each player's samples in each of so many strata, and its variance: of a single
    sample that of a sample of its stratum's other players; None where there is none. `strata`: [m, n], numbers
    from 0; everybody has a sample in each."""
    shape = (count, strata.shape[1])
    counts, sums, squares = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    places = (strata, np.broadcast_to(np.arange(shape[1]), strata.shape))
    np.add.at(counts, places, 1.0)
    np.add.at(sums, places, samples)
    means = sums / counts
    np.add.at(squares, places, (samples - means[places]) ** 2)
    spare = (counts - 1).sum(axis=1)
    if (spare == 0).any():
        return means, None
    pooled = (squares.sum(axis=1) / spare)[:, None]
    return means, np.where(counts > 1, squares / np.maximum(counts - 1, 1), pooled) / counts


def _pieces(n: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """bool [m, n]: of each size to n // 2 a random order cut into coalitions, of which the last begins anew."""
    found = np.zeros((sum(-(-n // size) for size in range(1, n // 2 + 1)), n), dtype=np.bool_)
    row = 0
    for size in range(1, n // 2 + 1):
        order = rng.permutation(n)
        for start in range(0, n, size):
            found[row, order[(start + np.arange(size)) % n]] = True
            row += 1
    return found


def exact(game: Game, facts: ValuationFacts, state: State) -> Values:
    """The Shapley value of all coalitions."""
    return Values(shapley(game, facts.num_examples.tolist()), state=state)


def ends(game: Game, n: int) -> tuple[float, float]:
    """V(empty), V(N)."""
    nobody, everyone = utilities(game, np.array([[False] * n, [True] * n]))
    return float(nobody), float(everyone)


def gains_of(game: Game, orders: NDArray[np.int64]) -> Array:
    """[orders, n]: what each player adds where it arrives. Asks for V(empty), V(N) and n - 1 coalitions an order."""
    count, n = orders.shape
    nobody, everyone = ends(game, n)
    found = np.zeros((count, n))
    step = max(1, MOST_CELLS // n**2)
    for start in range(0, count, step):
        some = orders[start : start + step]
        places = np.argsort(some, axis=1)
        joined = places[:, None, :] < np.arange(1, n)[:, None]
        between = utilities(game, joined.reshape(-1, n)).reshape(len(some), n - 1)
        nobodies, everyones = np.full((len(some), 1), nobody), np.full((len(some), 1), everyone)
        steps = np.diff(np.concatenate([nobodies, between, everyones], axis=1))
        found[start : start + step] = np.take_along_axis(steps, places, axis=1)
    return found


def estimated(samples: Array, state: State) -> Values:
    """The mean of samples [m, n], and its standard errors, None of a single one."""
    count = len(samples)
    errors = samples.std(axis=0, ddof=1) / np.sqrt(count) if count > 1 else None
    return Values(samples.mean(axis=0), errors, state)
