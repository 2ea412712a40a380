"""An update of one step on few examples, kept as what it is: thin matrices, much smaller than their product.

A dense layer's gradient is the errors of its outputs times its inputs. A client with six examples so sends 40 KB
instead of 800, and who adds up a crowd of such clients makes one product of many of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.layers import Dense

GAIN = 16  # how many times smaller than the whole it must be: who adds up is alone, and those who train are many


@dataclass(frozen=True, eq=False)
class Thin:
    """errors^T inputs for each layer's weight, and the sum of the errors for its bias; as flat weights [P] lie."""

    layers: Sequence[Dense]
    inputs: Sequence[Tensor]  # of each layer, [examples, inputs]
    errors: Sequence[Tensor]  # of each layer, [examples, outputs], of the step's size
    norm: float  # Euclidean, of the whole

    def whole(self) -> Tensor:
        """[P]"""
        total = self.inputs[0].new_zeros(sum(layer.parameters for layer in self.layers))
        add_all(total, [self], [1.0])
        return total


def add_all(total: Tensor, updates: Sequence[Thin], shares: Sequence[float]) -> None:
    """total [P] + sum of share times update, in place. The updates are of one network."""
    rows = [share for each, share in zip(updates, shares, strict=True) for _ in each.inputs[0]]
    share_of_row = total.new_tensor(rows)[:, None]
    for depth, layer in enumerate(updates[0].layers):
        inputs = torch.cat([each.inputs[depth] for each in updates])
        errors = torch.cat([each.errors[depth] for each in updates]).mul_(share_of_row)
        total[layer.weight].view(layer.outputs, layer.inputs).addmm_(errors.T, inputs)
        total[layer.bias].add_(errors.sum(0))


def is_worth_it(layers: Sequence[Dense], examples: int) -> bool:
    thin = examples * sum(layer.inputs + layer.outputs for layer in layers)
    return GAIN * thin <= sum(layer.parameters for layer in layers)


def of_many(layers: Sequence[Dense], inputs: Sequence[Tensor], errors: Sequence[Tensor]) -> Iterator[Thin]:
    """Each client's, of tensors [clients, examples, width] for each layer; the inputs' memory is not kept."""
    inputs = [each.clone() for each in inputs]
    norms = _norms(inputs, errors)
    for x, e, norm in zip(_by_client(inputs), _by_client(errors), norms, strict=True):
        yield Thin(layers, x, e, norm)


def _by_client(tensors: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(each.unbind() for each in tensors), strict=True)


def _norms(inputs: Sequence[Tensor], errors: Sequence[Tensor]) -> list[float]:
    """|E^T X|^2 is the sum of (E E^T) times (X X^T), which are small; a bias is the weight of an input of one."""
    squares = torch.zeros(len(inputs[0]), dtype=inputs[0].dtype)
    for x, e in zip(inputs, errors, strict=True):
        squares += ((x @ x.mT + 1) * (e @ e.mT)).sum((1, 2))
    return squares.clamp_(min=0).sqrt_().tolist()
