"""What a game is, and its utilities with every number checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

# Coalitions in, bool [m, n], a column per player; utilities out, float64 [m].
Game = Callable[[NDArray[np.bool_]], NDArray[np.float64]]

# A game and its players' numbers of examples in; one value per player out, float64 [n].
Valuation = Callable[[Game, Sequence[int]], NDArray[np.float64]]


class NotFinite(FloatingPointError, ValueError):
    """A coalition has no utility: its model has diverged. `players` are its columns."""

    def __init__(self, text: str, players: Sequence[int] = ()) -> None:
        super().__init__(text)
        self.players = tuple(players)


def utilities(game: Game, coalitions: NDArray[np.bool_]) -> NDArray[np.float64]:
    """float64 [m]. Raises ValueError where there are more or fewer of them, NotFinite where one is no number."""
    values = np.asarray(game(coalitions), dtype=np.float64)
    if values.shape != (len(coalitions),):
        raise ValueError(f"the game gave utilities {list(values.shape)} for {len(coalitions)} coalitions")
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        row = int(wrong[0])
        players = np.flatnonzero(coalitions[row]).tolist()
        raise NotFinite(
            f"the utility of a coalition of {len(players)} of {coalitions.shape[1]} players is {values[row]}, "
            "not a number",
            players,
        )
    return values
