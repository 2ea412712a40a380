"""Memory that a worker uses again and again: fresh memory costs a page fault every 4 KB."""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch import Tensor

KEPT = 4  # deltas of stacks that wait to be used again
UNSHARED = 2  # references to an array: the cache's and that of who counts them


class Scratch:
    """Memory for so many examples' values, for as many clients and examples of each as there are at a time."""

    def __init__(self, like: Tensor, rows: int, width: int) -> None:
        self.memory = like.new_empty(rows, width)

    def of(self, clients: int, examples: int) -> Tensor:
        """[clients, examples, width]"""
        return self.memory[: clients * examples].view(clients, examples, -1)

    def standing(self, clients: int, examples: int) -> Tensor:
        """[clients, width, examples]"""
        return self.memory[: clients * examples].view(clients, -1, examples)


class DeltaCache:
    """Memory for the deltas of a stack, used again once nobody holds any of them any more. Whoever keeps updates just
    makes the cache hand out fresh memory."""

    def __init__(self, weights: Tensor, rows: int) -> None:
        self.weights, self.rows = weights, rows
        self.kept: list[np.ndarray] = []

    def take(self, rows: int) -> Tensor:
        """[rows, P], of any value."""
        if self.weights.device.type != "cpu":
            return self.weights.new_empty(rows, len(self.weights))
        return torch.from_numpy(self._free())[:rows]  # which holds the array for as long as there is a view of it

    def _free(self) -> np.ndarray:
        for place in range(len(self.kept)):
            if sys.getrefcount(self.kept[place]) == UNSHARED:
                return self.kept[place]
        fresh: np.ndarray = self.weights.new_empty(self.rows, len(self.weights)).numpy()
        self.kept = [*self.kept, fresh][-KEPT:]
        return fresh
