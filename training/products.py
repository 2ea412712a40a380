"""Inner products of a round's updates with each other and with a few vectors beside them, in float64.

Who needs to know only how long updates are and how alike asks here and never holds a weight. Each product is made when
it is first asked for, and kept.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from training import networks
from training.events import TrainingError
from training.scores import BATCH

MOST_UPDATES = 1000  # the matrix grows with the square of their number, and so does the time that it takes
COLUMNS = 2**16  # weights that are multiplied at a time


class Products:
    """Of the updates of a cohort, n clients; of those that sent nothing all products are 0."""

    def __init__(
        self,
        deltas: Tensor,
        sent: NDArray[np.bool_],
        beside: Mapping[str, Callable[[], Tensor]],
        summed: Callable[[], Tensor] | None = None,
        alone: Callable[[], NDArray[np.float64]] | None = None,
    ) -> None:
        """deltas [n, P]; which rows were sent, bool [n]; vectors [P] by name, each made where it is asked for; each
        client's updates summed over the rounds, [n, P]; validation losses [n] of the model with one update alone."""
        self._deltas, self._sent, self._beside = deltas, sent, beside
        self._summed, self._alone = summed, alone
        self._made: dict[str, Tensor] = {}
        self._along: dict[str, NDArray[np.float64]] = {}

    @cached_property
    def updates(self) -> NDArray[np.float64]:
        """[n, n], of each update with each: the Gram matrix. TrainingError where there are more than MOST_UPDATES."""
        rows = self._rows()
        _check_number(len(rows))
        found = np.zeros((len(self._sent),) * 2)
        found[np.ix_(self._sent, self._sent)] = gram(rows).cpu().numpy()
        return found

    @cached_property
    def squared_norms(self) -> NDArray[np.float64]:
        """[n], of each update with itself."""
        found = np.zeros(len(self._sent))
        found[self._sent] = [_dot(delta, delta) for delta in self._rows()]
        return found

    def along(self, name: str) -> NDArray[np.float64]:
        """[n], of each update with the vector of this name; KeyError where there is none."""
        if name not in self._along:
            vector = self._vector(name)
            found = np.zeros(len(self._sent))
            found[self._sent] = [_dot(delta, vector) for delta in self._rows()]
            self._along[name] = found
        return self._along[name]

    def between(self, name: str, other: str) -> float:
        """Of two of the vectors beside the updates."""
        return _dot(self._vector(name), self._vector(other))

    def named(self) -> Mapping[str, NDArray[np.float64]]:
        """All of them by name, each made where it is asked for: `updates`, `squared_norms`, `summed` [n, n], `alone`
        [n], a vector's own name for the products along it, two joined by a dot for that of both. KeyError for another.
        """
        return _Named(self)

    @cached_property
    def summed(self) -> NDArray[np.float64]:
        """[n, n], the Gram matrix of the updates summed over the rounds so far; KeyError where they are not kept."""
        if self._summed is None:
            raise KeyError("summed")
        _check_number(len(self._sent))
        return gram(list(self._summed())).cpu().numpy()

    @cached_property
    def alone(self) -> NDArray[np.float64]:
        """[n], the validation loss of the model before the round with one client's update alone."""
        if self._alone is None:
            raise KeyError("alone")
        return self._alone()

    def _vector(self, name: str) -> Tensor:
        if name not in self._made:
            self._made[name] = self._beside[name]().to(self._deltas.device)
        return self._made[name]

    def _rows(self) -> list[Tensor]:
        return [self._deltas[place] for place in np.flatnonzero(self._sent)]


class _Named(Mapping[str, NDArray[np.float64]]):
    def __init__(self, products: Products) -> None:
        self._products = products

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        if name in ("updates", "squared_norms", "summed", "alone"):
            found: NDArray[np.float64] = getattr(self._products, name)
            return found
        one, dot, other = name.partition(".")
        return np.array(self._products.between(one, other)) if dot else self._products.along(name)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def _check_number(updates: int) -> None:
    if updates > MOST_UPDATES:
        text = f"products of {updates:,} updates with each other; at most {MOST_UPDATES:,} are made"
        raise TrainingError(f"fraction_fit: {text}")


def gram(rows: Sequence[Tensor]) -> Tensor:
    """[n, n] float64, of vectors [P]."""
    found = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows[0].device if rows else None)
    for part in zip(*(torch.split(row, COLUMNS) for row in rows), strict=True):
        stacked = torch.stack(part).to(torch.float64)
        found += stacked @ stacked.T
    return found


def _dot(one: Tensor, other: Tensor) -> float:
    return float(torch.dot(one.to(torch.float64), other.to(torch.float64)))


def gradient(network: nn.Module, weights: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """[P], of the mean cross-entropy on x [N, ...], y [N] at the weights [P]."""
    network = copy.deepcopy(network).eval()
    networks.load(network, weights)
    parameters = list(network.parameters())
    total = torch.zeros_like(weights)
    for images, labels in zip(torch.split(x, BATCH), torch.split(y, BATCH), strict=True):
        loss = F.cross_entropy(network(images), labels, reduction="sum") / len(y)
        total += torch.cat([part.reshape(-1) for part in torch.autograd.grad(loss, parameters)])
    return total
