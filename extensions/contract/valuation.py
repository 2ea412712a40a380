"""The contract of valuations: `f(game, facts, state, rng, **parameters) -> Values`, with a cost that is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extensions.contract import Check, detector, purity, usual
from incentives.economy import ValuationFacts, Values, check_state
from kinds import Kind

SIZES = (0, 1, 2, 3, 5, 16)
SMALL = (0, 1, 2, 3, 5)
Utility = Callable[[NDArray[np.float64]], NDArray[np.float64]]


class Counted:
    """A game of n players that counts what it is asked: coalitions, bool [m, n], in, utilities, float64 [m], out."""

    def __init__(self, n: int, utility: Utility) -> None:
        self.n, self.utility = n, utility
        self.asked: set[bytes] = set()

    def __call__(self, coalitions: Any) -> NDArray[np.float64]:
        found = np.asarray(coalitions, dtype=np.bool_)
        if found.ndim != 2 or found.shape[1] != self.n:
            raise ValueError(f"coalitions are bool [m, {self.n}], not {list(found.shape)}")
        self.asked |= {row.tobytes() for row in found}
        return self.utility(found.astype(np.float64))

    @property
    def num_examples(self) -> NDArray[np.int64]:
        return sizes(self.n)

    @property
    def players(self) -> tuple[int, ...]:
        return players(self.n)


def players(n: int) -> tuple[int, ...]:
    return tuple(range(3, 3 + n))


def sizes(n: int) -> NDArray[np.int64]:
    return np.arange(100, 100 + 10 * n, 10, dtype=np.int64)


def weights(n: int) -> NDArray[np.float64]:
    """What the players are worth alone; the first two alike, the third nothing, the fourth harmful."""
    found = np.array([0.5, 0.5, 0.0, -0.25, *(0.1 * (place + 1) for place in range(max(0, n - 4)))])
    return found[:n]


def curved(n: int) -> Utility:
    """Of diminishing returns, without products between players that are worth nothing."""
    return lambda rows: -2.0 + np.tanh(rows @ weights(n)) if n else np.full(len(rows), -2.0)


def facts(n: int) -> ValuationFacts:
    """Of a cohort whose first two are no players, with products of updates that the game knows nothing of."""
    return ValuationFacts(
        clients=(1, 2, *players(n)),
        players=players(n),
        num_examples=sizes(n),
        products=detector.facts(n + 2).products,
        total_examples=200 + int(sizes(n).sum()),
    )


def _value(kind: Kind, n: int, seed: int = 1, utility: Utility | None = None) -> tuple[Any, Counted]:
    game = Counted(n, utility or curved(n))
    found = kind.load()(game, facts(n), {}, np.random.default_rng(seed), **usual(kind))
    return found, game


def _wrong(values: Any, n: int) -> str | None:
    if not isinstance(values, Values):
        return f"it gave {type(values).__name__}, not Values"
    for name, given in (("contributions", values.contributions), ("errors", values.errors)):
        if given is None and name == "errors":
            continue
        found = np.asarray(given)
        if found.shape != (n,) or (found.dtype != np.float64 and n):
            return f"{name} are {found.dtype} {list(found.shape)}, not float64 [{n}]"
        if not np.isfinite(found).all():
            return f"{name} are {found.tolist()}"
    check_state(values.state)
    return None


def outputs(kind: Kind) -> Iterator[str]:
    for n in SMALL:
        values, _ = _value(kind, n)
        yield repr((np.asarray(values.contributions).tolist(), values.state))


def finite_values(kind: Kind) -> str | None:
    for n in SMALL:
        values, _ = _value(kind, n)
        if found := _wrong(values, n):
            return f"{n} players: {found}"
    return None


def keeps_cost(kind: Kind, up_to: tuple[int, ...] = SMALL) -> str | None:
    if kind.cost is None:
        return "its Kind has no cost; for one that asks nothing it is cost=lambda n, **parameters: 0"
    for n in up_to:
        told = kind.cost(n, **usual(kind))
        if isinstance(told, bool) or not isinstance(told, int) or told < 0:
            return f"its cost for {n} players is {told!r}, not a whole number"
        values, game = _value(kind, n)
        if found := _wrong(values, n):
            return f"{n} players: {found}"
        if len(game.asked) > told:
            return f"for {n} players it asked {len(game.asked):,} coalitions; its cost says at most {told:,}"
    return None


def repeatable(kind: Kind) -> str | None:
    for n in SMALL:
        one, two = _value(kind, n)[0], _value(kind, n)[0]
        first, second = np.asarray(one.contributions).tolist(), np.asarray(two.contributions).tolist()
        if first != second:
            return f"{n} players with an equal rng: {first}, and then {second}"
    return None


def input_unchanged(kind: Kind) -> str | None:
    for n in SMALL:
        given = facts(n)
        state: dict[str, Any] = {}
        kind.load()(Counted(n, curved(n)), given, state, np.random.default_rng(1), **usual(kind))
        if state or (given.num_examples != sizes(n)).any():
            return f"{n} players: what was given was changed"
    return None


def pure(kind: Kind) -> str | None:
    return purity.witness(lambda: _value(kind, 5))


def efficient(kind: Kind) -> str | None:
    for n in (1, 3, 5):
        values, _ = _value(kind, n)
        gain = float(np.diff(curved(n)(np.array([[0.0] * n, [1.0] * n])))[0])
        total = float(np.sum(values.contributions))
        if abs(total - gain) > 1e-9:
            return f"{n} players: contributions sum to {total:.9g}, V(N) - V(∅) is {gain:.9g}"
    return None


def symmetric(kind: Kind) -> str | None:
    values, _ = _value(kind, 5)
    one, two = (float(each) for each in np.asarray(values.contributions)[:2])
    return f"two players alike are worth {one:.9g} and {two:.9g}" if abs(one - two) > 1e-9 else None


def null_player(kind: Kind) -> str | None:
    values, _ = _value(kind, 5)
    found = float(np.asarray(values.contributions)[2])
    return f"a player that changes nothing is worth {found:.9g}" if abs(found) > 1e-9 else None


def linear(kind: Kind) -> str | None:
    one = np.asarray(_value(kind, 5)[0].contributions)
    two = np.asarray(_value(kind, 5, utility=lambda rows: 2.0 * curved(5)(rows))[0].contributions)
    if np.abs(two - 2.0 * one).max() > 1e-9:
        return f"at twice the utility {two.tolist()}, not twice {one.tolist()}"
    return None


CHECKS = (
    Check(
        name="finite_values",
        says="gives Values with float64 [n], all finite, for n players from none on",
        run=finite_values,
        required=True,
    ),
    Check(name="keeps_cost", says="never asks more coalitions than its cost says", run=keeps_cost, required=True),
    Check(
        name="many_players",
        says="keeps that for 16 players too",
        run=lambda kind: keeps_cost(kind, (16,)),
        required=True,
        fast=False,
    ),
    Check(name="repeatable", says="gives the same for the same and an equal rng", run=repeatable, required=True),
    Check(name="input_unchanged", says="changes nothing of what it is given", run=input_unchanged, required=True),
    Check(name="pure", says="uses no clock, file, socket, process or shared generator", run=pure, required=True),
    Check(name="efficient", says="contributions sum to what the whole round gains", run=efficient),
    Check(name="symmetric", says="players alike are worth the same", run=symmetric),
    Check(name="null_player", says="a player that changes nothing is worth nothing", run=null_player),
    Check(name="linear", says="at twice the utility everybody is worth twice as much", run=linear),
)
