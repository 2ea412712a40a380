"""Values that look at one player at a time: baselines to compare with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .games import Game, utilities


def loss_improvement(game: Game, num_examples: Sequence[int]) -> NDArray[np.float64]:
    """What a player's update does alone to the model before the round: V({i}) - V(empty).

    Under renormalised weights {i} is the client's own model; under fixed weights its update counts with its share
    of the examples, as it does in the round. Cost: n + 1 utilities, asked for in one batch.
    """
    n = len(num_examples)
    if n == 0:
        return np.zeros(0)
    nobody = np.zeros((1, n), dtype=np.bool_)
    values = utilities(game, np.concatenate([nobody, np.eye(n, dtype=np.bool_)]))
    gains: NDArray[np.float64] = values[1:] - values[0]
    return gains


def data_size(game: Game, num_examples: Sequence[int]) -> NDArray[np.float64]:
    """A player's share of the examples, whatever they are worth. Cost: none. ValueError where nobody has any."""
    sizes = np.array(num_examples, dtype=np.float64)
    if (sizes < 0).any() or (len(sizes) and sizes.sum() == 0):
        raise ValueError(f"num_examples: expected numbers of at least 0, not all 0, got {list(num_examples)}")
    return sizes / sizes.sum() if len(sizes) else sizes


def equal(game: Game, num_examples: Sequence[int]) -> NDArray[np.float64]:
    """1/n each: hard to beat where clients are alike (Geimer et al. 2024). Cost: none."""
    n = len(num_examples)
    return np.full(n, 1.0 / n) if n else np.zeros(0)
