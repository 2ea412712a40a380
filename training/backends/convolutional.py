"""Convolutional networks: one client at a time, its step written out. Stacked clients would be slower.

See training.forward for the way up. On the way down a dense layer's update, and that of a convolution of few
channels, is one product of matrices that adds into the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.backends.descent import Job, Rule, Trained, ends_of
from training.forward import FEW_CHANNELS, WIDE, Convolved, convolved, dense_values, kernel
from training.layers import Convolution, Dense, convolutional_layers


@dataclass(frozen=True, kw_only=True, eq=False)
class Start:
    """Where every client of a round starts. Never written to."""

    convolutions: list[Convolution]
    dense: list[Dense]
    weights: Tensor  # [P]
    rule: Rule
    x: Tensor  # [N, C, H, W], the whole training set


def start(network: nn.Module, weights: Tensor, rule: Rule, x: Tensor) -> Start | None:
    """None where the network is not of the kind that training.layers describes."""
    layers = convolutional_layers(network)
    return layers and Start(convolutions=layers[0], dense=layers[1], weights=weights, rule=rule, x=x)


class Client:
    """A worker's memory for one client at a time."""

    def __init__(self, start: Start) -> None:
        self.start, self.rule = start, start.rule
        self.weights = torch.empty_like(start.weights)
        self.velocity = torch.empty_like(start.weights)  # or the gradient, where a step adds to that

    @torch.no_grad()
    def train(self, jobs: Sequence[Job]) -> list[Trained]:
        """What becomes of each client, in the order of the jobs. The deltas are memory of their own."""
        return [self._trained(job) for job in jobs]

    def _trained(self, job: Job) -> Trained:
        self.weights.copy_(self.start.weights)
        self.velocity.zero_()
        held = self.rule.fixed(self.start.weights, [job.task.correction])
        batches = zip(torch.split(job.examples, [*job.widths]), torch.split(job.labels, [*job.widths]), strict=True)
        told = {*job.reported}
        losses = [self._step(*batch, held, step in told) for step, batch in enumerate(batches)]
        before, after = ends_of(losses)
        return Trained(delta=self.weights - self.start.weights, loss_before=before, loss_after=after)

    def _step(self, examples: Tensor, labels: Tensor, fixed: Tensor | None, told: bool) -> float:
        """One step by the rule; the loss before it, or 0.0 where nobody asks for it."""
        labels = labels[:, None]
        passed = _Pass(self.start, self.weights, self.start.x.index_select(0, examples))
        chances = torch.log_softmax(passed.logits, 1)
        loss = -chances.gather(1, labels).mean().item() if told else 0.0
        error = chances.exp_().scatter_(1, labels, -1.0, reduce="add").div_(len(labels))
        if not (self.rule.momentum or self.rule.pull or fixed is not None):
            passed.back(error, self.weights, -self.rule.lr)
            return loss
        passed.back(error, self.velocity.mul_(self.rule.momentum), 1.0)
        self.velocity.add_(self.weights, alpha=self.rule.pull)
        if fixed is not None:
            self.velocity.add_(fixed[0])
        self.weights.sub_(self.velocity, alpha=self.rule.lr)
        return loss


class _Pass:
    """A batch on its way up through the layers, and the errors on their way down."""

    def __init__(self, start: Start, weights: Tensor, x: Tensor) -> None:
        self.start, self.weights = start, weights
        self.convolved: list[Convolved] = []
        for layer in start.convolutions:
            self.convolved.append(convolved(layer, weights, x))
            x = self.convolved[-1].pooled
        self.values = dense_values(start.dense, weights, x.contiguous().flatten(1))

    @property
    def logits(self) -> Tensor:
        return self.values[-1]

    def back(self, error: Tensor, target: Tensor, alpha: float) -> None:
        """Adds alpha times the gradient to target [P], which may be the weights: each layer passes its error down
        before it is changed. `error` [B, classes] is the gradient of the loss by the logits."""
        for dense, inputs in zip(reversed(self.start.dense), reversed(self.values[:-1]), strict=True):
            below = error @ self.weights[dense.weight].view(dense.outputs, dense.inputs)
            target[dense.weight].view(dense.outputs, dense.inputs).addmm_(error.T, inputs, alpha=alpha)
            target[dense.bias].add_(error.sum(0), alpha=alpha)
            error = _through_relu(below, inputs)
        error = error.view(self.convolved[-1].pooled.shape)
        for layer, each in zip(reversed(self.start.convolutions), reversed(self.convolved), strict=True):
            error = self._back_through(layer, each, error, target, alpha)

    def _back_through(self, layer: Convolution, each: Convolved, error: Tensor, target: Tensor, alpha: float) -> Tensor:
        """From the error of what was pooled to that of the layer's input, which the first layer has no use for."""
        last, first = layer is self.start.convolutions[-1], layer is self.start.convolutions[0]
        if not last:  # that of the last went through ReLU with the dense layer above it
            error = _through_relu(error, each.pooled)
        error = torch.ops.aten.max_pool2d_with_indices_backward(
            error.contiguous(memory_format=torch.channels_last),
            each.before,
            [2, 2],
            [2, 2],
            [0, 0],
            [1, 1],
            False,
            each.places,
        )
        if layer.inputs < FEW_CHANNELS and first:
            flat = error.permute(0, 2, 3, 1).reshape(-1, layer.outputs)  # [B * H * W, outputs]
            target[layer.weight].view(layer.outputs, -1).addmm_(flat.T, each.taken.T, alpha=alpha)
            target[layer.bias].add_(flat.sum(0), alpha=alpha)
            return error
        below: Tensor
        below, by_weight, by_bias = torch.ops.aten.convolution_backward(
            error.contiguous(memory_format=WIDE),
            each.taken,
            kernel(layer, self.weights).contiguous(memory_format=WIDE),
            [layer.outputs],
            [1, 1],
            [layer.padding] * 2,
            [1, 1],
            False,
            [0, 0],
            1,
            [not first, True, True],
        )
        kernel(layer, target).add_(by_weight, alpha=alpha)
        target[layer.bias].add_(by_bias, alpha=alpha)
        return below


def _through_relu(error: Tensor, after: Tensor) -> Tensor:
    """The error [...] where the values [...] after ReLU are positive, else zero; in place."""
    torch.ops.aten.threshold_backward.grad_input(error, after, 0, grad_input=error)
    return error
