"""Any other network: by autograd, all clients at once where torch.func.vmap can, else one after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from training.backends.descent import Rule
from training.card.stacked import Move, Pieces, Stacked

Gradients = Callable[..., tuple[dict[str, Tensor], Tensor]]


class Steps:
    """See training.card.steps."""

    def __init__(self, network: nn.Module, x: Tensor, clients: int, batch: int, classes: int, rule: Rule) -> None:
        self.x = x
        self.names, self.parameters, start = [], [], 0
        for name, parameter in network.named_parameters():
            part = slice(start, start := start + parameter.numel())
            self.names.append(name)
            self.parameters.append(Stacked.among(clients, parameter.shape, x, rule, _whole(part)))

        def loss(values: Mapping[str, Tensor], images: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
            logits = functional_call(network, dict(values), (images,))
            return (torch.log_softmax(logits, 1) * negative).sum(), logits.detach()

        of_one = grad(loss, has_aux=True)
        self.gradients: Gradients = vmap(of_one) if self._maps(vmap(of_one), batch, classes) else _in_turn(of_one)

    def _maps(self, gradients: Gradients, batch: int, classes: int) -> bool:
        """Whether it can be done for a client and a few examples; what fails here says nothing about the data."""
        values = {name: each.value[:1] for name, each in zip(self.names, self.parameters, strict=True)}
        try:
            gradients(values, self.x[None, :batch], self.x.new_zeros(1, len(self.x[:batch]), classes))
        except RuntimeError:
            return False
        return True

    def step(self, x: Tensor, negative: Tensor, shares: Tensor, logits: Tensor, move: Move) -> None:
        values = {name: each.value[: len(x)] for name, each in zip(self.names, self.parameters, strict=True)}
        gradients, found = self.gradients(values, x, negative)
        logits.copy_(found)
        for name, parameter in zip(self.names, self.parameters, strict=True):
            move.by_gradient(parameter, gradients[name].clone())


def _in_turn(of_one: Gradients) -> Gradients:
    def gradients(values: dict[str, Tensor], x: Tensor, negative: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        each = [
            of_one({name: value[at] for name, value in values.items()}, x[at], negative[at]) for at in range(len(x))
        ]
        found = {name: torch.stack([one[name] for one, _ in each]) for name in values}
        return found, torch.stack([logits for _, logits in each])

    return gradients


def _whole(part: slice) -> Pieces:
    return lambda values: [(part, values)]
