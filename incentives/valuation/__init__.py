"""What the players of a game are worth. Pure: numpy and the standard library; knows no model and no token.

    values = VALUATIONS["shapley"](game, num_examples)

A game takes coalitions, bool [m, n], and gives their utilities, float64 [m]. A utility that is not finite is
a NotFinite, never a number. Without players there are no values and the game is not asked.
"""

from __future__ import annotations

from collections.abc import Callable

from .exact import leave_one_out, shapley
from .games import Game, NotFinite, Valuation
from .simple import data_size, equal, loss_improvement

__all__ = ["VALUATIONS", "Game", "NotFinite", "Valuation", "coalitions_needed"]

VALUATIONS: dict[str, Valuation] = {
    "shapley": shapley,
    "leave_one_out": leave_one_out,
    "loss_improvement": loss_improvement,
    "data_size": data_size,
    "equal": equal,
}

_COALITIONS: dict[str, Callable[[int], int]] = {
    "shapley": lambda n: 2**n,
    "leave_one_out": lambda n: n + 1,
    "loss_improvement": lambda n: n + 1,
    "data_size": lambda n: 0,
    "equal": lambda n: 0,
}


def coalitions_needed(name: str, n: int) -> int:
    """How many utilities the valuation of this name evaluates for n players. KeyError for an unknown name."""
    needed = _COALITIONS[name](n)
    return needed if n else 0
