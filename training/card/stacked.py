"""The parameters of all clients of a chunk, a tensor for each, and how a step of local SGD moves them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.backends.descent import Rule

ALIGNED = 4  # floats: products of matrices are fastest where every row begins at a multiple of 16 bytes

# A parameter's pieces: (where it is in the flat weights, the same values in a tensor of the parameter's own shape).
Pieces = Callable[[Tensor], list[tuple[slice, Tensor]]]


def padded(width: int) -> int:
    """The next width at which rows are aligned."""
    return -(-width // ALIGNED) * ALIGNED


@dataclass(frozen=True, eq=False)
class Stacked:
    """A parameter, or a layer's weight with its bias as one more column, and what fills up its rows, which is zero."""

    start: Tensor  # [r, c], of the global model
    value: Tensor  # [clients, r, c]
    velocity: Tensor  # the same, or the gradient; without values where a step needs neither
    pieces: Pieces

    @classmethod
    def among(cls, clients: int, shape: Sequence[int], like: Tensor, rule: Rule, pieces: Pieces) -> Stacked:
        value = like.new_zeros(clients, *shape)
        velocity = torch.zeros_like(value) if rule.momentum else value[:0]
        return cls(like.new_zeros(*shape), value, velocity, pieces)

    def begin(self, weights: Tensor) -> None:
        """Every client at the global weights [P]."""
        for part, piece in self.pieces(self.start):
            piece.copy_(weights[part].view(piece.shape))
        self.value.copy_(self.start)
        self.velocity.zero_()

    def to_flat(self, values: Tensor, flat: Tensor) -> None:
        """From values [..., r, c] into their place in flat [..., P]."""
        for part, piece in self.pieces(values):
            flat[..., part].view(piece.shape).copy_(piece)

    def from_flat(self, flat: Tensor, values: Tensor) -> None:
        for part, piece in self.pieces(values):
            piece.copy_(flat[..., part].view(piece.shape))


@dataclass(frozen=True, eq=False)
class Move:
    """The first so many clients' step by the rule; see training.backends.descent."""

    rule: Rule
    rate: Tensor  # [clients], lr; 0 for whom has no batch in this step

    def by_product(self, parameter: Stacked, a: Tensor, b: Tensor) -> None:
        """Where a @ b [clients, r, c] is the gradient."""
        if self._plain:
            parameter.value[: len(a)].baddbmm_(a, b, alpha=-self.rule.lr)
        else:
            self.by_gradient(parameter, torch.bmm(a, b))

    def by_gradient(self, parameter: Stacked, gradient: Tensor) -> None:
        """Takes the gradient [clients, r, c] for its own. A client without a batch has none, so only what pulls must be
        kept from it."""
        value = parameter.value[: len(gradient)]
        if self._plain:
            value.sub_(gradient, alpha=self.rule.lr)
            return
        if self.rule.pull:
            gradient.add_(value, alpha=self.rule.pull)
        if self.rule.mu:
            gradient.sub_(parameter.start, alpha=self.rule.mu)
        if self.rule.momentum:
            gradient = parameter.velocity[: len(gradient)].mul_(self.rule.momentum).add_(gradient)
        value.addcmul_(gradient, self.rate.view(-1, *[1] * (gradient.dim() - 1)), value=-1)

    @property
    def _plain(self) -> bool:
        return not (self.rule.momentum or self.rule.pull)
