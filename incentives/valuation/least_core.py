"""The least core: what leaves every coalition as little reason as there can be to go on its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from incentives import budgets
from incentives.economy import State, ValuationFacts, Values

from .exact import all_coalitions
from .games import Game, utilities
from .sampling import ends

SLACK = 1e-10  # of the largest gain, by which the subsidy may be missed in choosing among its solutions


def least_core(
    game: Game, facts: ValuationFacts, state: State, rng: np.random.Generator, *, evaluations: int | None = None
) -> Values:
    """The shortest values that sum to V(N) - V(empty) and give each coalition S at least V(S) - V(empty) less the
    smallest subsidy e with which that can be (Yan & Procaccia 2021, section 3, the egalitarian least core).

    `state["subsidy"]` is e, below 0 where every coalition would lose by leaving. With too many coalitions it is that of
    random ones and their complements, which knows no errors. To about 1e-9 of the largest gain.
    """
    n = len(facts.players)
    if n == 0:
        return Values(np.zeros(0), state=state)
    budget = budgets.of_halves(n, evaluations=evaluations)
    if budget >= 2**n:
        coalitions = all_coalitions(n)[1:-1]
    else:
        half = rng.random(((budget - 2) // 2, n)) < 0.5
        coalitions = np.concatenate([half, ~half])
        coalitions = coalitions[coalitions.any(axis=1) & ~coalitions.all(axis=1)]
    nobody, everyone = ends(game, n)
    needs = utilities(game, coalitions) - nobody
    scale = max(abs(everyone - nobody), float(np.abs(needs).max(initial=0.0)))
    if n == 1 or scale == 0 or not len(coalitions):
        return Values(np.full(n, (everyone - nobody) / n), state={**state, "subsidy": 0.0})
    members, total = coalitions.astype(np.float64), (everyone - nobody) / scale
    subsidy = _least_subsidy(members, needs / scale, total)
    values = _shortest(members, needs / scale - subsidy - SLACK, total)
    values += (total - values.sum()) / n
    return Values(values * scale, state={**state, "subsidy": subsidy * scale})


def _least_subsidy(members: NDArray[np.float64], needs: NDArray[np.float64], total: float) -> float:
    """min e, where some values with that total give each row of members at least its need less e."""
    from scipy.optimize import linprog

    count, n = members.shape
    found = linprog(
        np.append(np.zeros(n), 1.0),
        A_ub=-np.hstack([members, np.ones((count, 1))]),
        b_ub=-needs,
        A_eq=np.append(np.ones(n), 0.0)[None, :],
        b_eq=[total],
        bounds=(None, None),
        method="highs-ds",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    if found.status != 0:
        raise FloatingPointError(f"the least core was not found: {found.message}")
    return float(found.x[-1])


def _shortest(members: NDArray[np.float64], least: NDArray[np.float64], total: float) -> NDArray[np.float64]:
    """[n], of the values with that total which give each row of members at least so much those of least length
    (Lawson & Hanson 1974, chapter 23: least distance programming by non-negative least squares)."""
    from scipy.optimize import nnls

    count, n = members.shape
    basis = np.linalg.qr(np.hstack([np.ones((n, 1)), np.eye(n)[:, 1:]]))[0][:, 1:]  # of what sums to 0
    sides, missing = members @ basis, least - members.sum(axis=1) * (total / n)
    target = np.append(np.zeros(n - 1), 1.0)
    matrix = np.vstack([sides.T, missing])
    multipliers, _ = nnls(matrix, target, maxiter=30 * count)
    left = matrix @ multipliers - target
    if left[-1] > -1e-12:
        raise FloatingPointError("the least core was not found: no values have its subsidy")
    found: NDArray[np.float64] = total / n - basis @ (left[:-1] / left[-1])
    return found
