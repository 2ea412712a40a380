"""Dense networks: a step of all clients in a dozen calls, most of them batched products of matrices.

A bias is the weight of an input that is always one, so that it costs no calls of its own: the examples, and what each
layer makes of them, have a column of ones, and rows are filled up with zeros to a width at which products are fast.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from training.backends.descent import Rule
from training.card.stacked import Move, Pieces, Stacked, padded
from training.layers import Dense


def with_ones(x: Tensor) -> Tensor:
    """[N, width] as [N, padded width]: the column after the last is one."""
    wide = x.new_zeros(len(x), padded(x.shape[1] + 1))
    wide[:, : x.shape[1]] = x
    wide[:, x.shape[1]] = 1
    return wide


def pieces_of(layer: Dense) -> Pieces:
    def pieces(values: Tensor) -> list[tuple[slice, Tensor]]:
        return [(layer.weight, values[..., : layer.inputs]), (layer.bias, values[..., layer.inputs])]

    return pieces


def stacked(layers: Sequence[Dense], clients: int, like: Tensor, rule: Rule) -> list[Stacked]:
    return [
        Stacked.among(clients, (layer.outputs, padded(layer.inputs + 1)), like, rule, pieces_of(layer))
        for layer in layers
    ]


class Tower:
    """Dense layers of all clients, with room for what they make of a batch."""

    def __init__(self, layers: Sequence[Dense], clients: int, batch: int, like: Tensor, rule: Rule) -> None:
        self.layers, self.parameters = layers, stacked(layers, clients, like, rule)
        self.hidden = [with_ones(like.new_zeros(clients * batch, layer.outputs)) for layer in layers[:-1]]
        self.hidden = [each.view(clients, batch, -1) for each in self.hidden]

    def up(self, x: Tensor, logits: Tensor) -> list[Tensor]:
        """From x [clients, batch, padded inputs] to logits; the values that go into each layer."""
        values = [x]
        for layer, parameter, room in zip(self.layers[:-1], self.parameters[:-1], self.hidden, strict=True):
            out = room[: len(x)][..., : layer.outputs]
            torch.bmm(values[-1], parameter.value[: len(x)].mT, out=out)
            out.relu_()
            values.append(room[: len(x)])
        torch.bmm(values[-1], self.parameters[-1].value[: len(x)].mT, out=logits)
        return values

    def down(self, error: Tensor, values: list[Tensor], move: Move, through: bool = False) -> Tensor | None:
        """From the error of the logits, every layer moved on the way. The error of x [clients, batch, inputs], where
        it is asked for (`through`)."""
        below = None
        for depth in range(len(self.layers) - 1, -1, -1):
            layer, parameter, inputs = self.layers[depth], self.parameters[depth], values[depth]
            if depth or through:
                below = torch.bmm(error, parameter.value[: len(error), :, : layer.inputs])
            if depth:
                assert below is not None
                through_relu(below, inputs[..., : layer.inputs])
            move.by_product(parameter, error.mT, inputs)
            if depth and below is not None:
                error = below
        return below


def through_relu(error: Tensor, after: Tensor) -> None:
    torch.ops.aten.threshold_backward.grad_input(error, after, 0, grad_input=error)


class Steps:
    """See training.card.steps."""

    def __init__(self, layers: Sequence[Dense], x: Tensor, clients: int, batch: int, rule: Rule) -> None:
        self.x = with_ones(x.flatten(1))
        self.tower = Tower(layers, clients, batch, x, rule)
        self.parameters = self.tower.parameters

    def step(self, x: Tensor, negative: Tensor, shares: Tensor, logits: Tensor, move: Move) -> None:
        values = self.tower.up(x, logits)
        error = torch.addcmul(negative, torch.softmax(logits, 2), shares)
        self.tower.down(error, values, move)
