"""What the players of a game are worth. Pure: numpy and the standard library; knows no model and no token.

    values = VALUATIONS["shapley"](game, num_examples)

A game takes coalitions, bool [m, n], and gives their utilities, float64 [m]. A utility that is not finite is
a NotFinite, never a number. Without players there are no values and the game is not asked. As kinds of the catalogue
they have the signature of incentives.economy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import incentives.catalogue  # noqa: F401  for `coalitions_needed`
import kinds
from incentives.economy import State, ValuationFacts, Values

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


def of_game(valuation: Valuation) -> Callable[..., Values]:
    """A kind's code, of a valuation that looks at the game and the sizes alone and keeps nothing in mind."""

    def value(game: Game, facts: ValuationFacts, state: State, rng: np.random.Generator, **parameters: Any) -> Values:
        return Values(valuation(game, facts.num_examples.tolist(), **parameters), state=state)

    return value


SHAPLEY = of_game(shapley)
LEAVE_ONE_OUT = of_game(leave_one_out)
LOSS_IMPROVEMENT = of_game(loss_improvement)
DATA_SIZE = of_game(data_size)
EQUAL = of_game(equal)


def coalitions_needed(name: str, n: int) -> int:
    """How many utilities the valuation of this name evaluates for n players. ValueError for one that has no cost."""
    cost = kinds.find("valuation", name).cost
    if cost is None:
        raise ValueError(f"{name} does not say what it costs")
    return cost(n) if n else 0
