"""What a game is, and its utilities with every number checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

# Coalitions in, bool [m, n], a column per player; utilities out, float64 [m].
Game = Callable[[NDArray[np.bool_]], NDArray[np.float64]]

# A game and its players' numbers of examples in; one value per player out, float64 [n].
Valuation = Callable[[Game, Sequence[int]], NDArray[np.float64]]


def utilities(game: Game, coalitions: NDArray[np.bool_]) -> NDArray[np.float64]:
    """float64 [m]. Raises ValueError where there are more or fewer of them, or one is not finite."""
    values = np.asarray(game(coalitions), dtype=np.float64)
    if values.shape != (len(coalitions),):
        raise ValueError(f"the game gave utilities {list(values.shape)} for {len(coalitions)} coalitions")
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        row = int(wrong[0])
        size = int(coalitions[row].sum())
        raise ValueError(
            f"the utility of a coalition of {size} of {coalitions.shape[1]} players is {values[row]}, not a number"
        )
    return values
