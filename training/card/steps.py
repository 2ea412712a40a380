"""Who takes a step of local SGD, and how, with all clients of a chunk at once."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from training.backends.descent import Rule
from training.card import convolutional, dense, mapped
from training.card.stacked import Move, Stacked
from training.layers import convolutional_layers, dense_layers


class Steps(Protocol):
    """Room for so many clients, and the training set as a step wants to have it."""

    x: Tensor  # [N, ...]
    parameters: list[Stacked]

    def step(self, x: Tensor, negative: Tensor, shares: Tensor, logits: Tensor, move: Move) -> None:
        """One step of the first so many clients on a batch of each: x [clients, batch, ...].

        shares [clients, batch, 1] is an example's share of the mean loss, and negative [clients, batch, classes] is
        minus that at its label, so that softmax times shares plus negative is the gradient by the logits. These, before
        the step, are written into logits [clients, batch, classes].
        """


def steps_for(network: nn.Module, x: Tensor, clients: int, batch: int, classes: int, rule: Rule) -> Steps:
    if layers := dense_layers(network):
        return dense.Steps(layers, x, clients, batch, rule)
    if parts := convolutional_layers(network):
        return convolutional.Steps(*parts, x, clients, batch, rule)
    return mapped.Steps(network, x, clients, batch, classes, rule)
