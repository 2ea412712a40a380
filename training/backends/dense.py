"""Dense networks: clients stacked, so that one batched product of matrices does a step of several of them.

A step is written out, forwards and backwards, with the update fused into the product that would otherwise make the
gradient: W = W - lr a^T dz is one call and no gradient is ever in memory. A bias is the weight of an input that is
always one. Short batches are not padded but stepped apart. Who shares a stack may show in the last bit, as products of
another size may be summed in another order; but who does follows from the configuration alone.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor, nn

from training import thin
from training.backends.descent import Job, Rule, Trained, ends_of, laid_out
from training.layers import Dense, dense_layers
from training.thin import Thin

STACK_BYTES = 8 << 20  # a stack's weights, or its activations: in cache, yet few enough calls
PARTS = 4  # stacks that the smallest cohort is dealt to where it can be, for the cores of most machines
# A product with weights [inputs, outputs] is up to four times as fast as with [outputs, inputs], but turning them
# around to hand them over costs as much as a few steps.
MANY_STEPS = 4
KEPT = 4  # deltas of stacks that wait to be used again
ON_THE_SHELF = 2  # references to an array: the shelf's and that of who counts them


def stack_size(layers: Sequence[Dense], cohort: int, batch: int, all_thin: bool = False) -> int:
    """Clients in a stack, with so many examples in a batch. From shapes alone, never from the number of workers.

    Where all send thin matrices, a stack's weights and deltas are never written, but its activations are copied.
    """
    widths = layers[0].inputs + 2 * sum(layer.outputs for layer in layers)
    parameters = sum(layer.parameters for layer in layers)
    fitting = STACK_BYTES // (4 * (2 * batch * widths if all_thin else max(parameters, batch * widths)))
    return max(1, min(fitting, -(-cohort // PARTS)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Start:
    """Where every client of a round starts. Never written to."""

    layers: list[Dense]
    weights: Tensor  # [P]
    rule: Rule
    x: Tensor  # [N, inputs], the whole training set
    forward: list[Tensor]  # of each layer, [inputs, outputs] and lying so in memory
    backward: list[Tensor]  # of each layer, [outputs, inputs]
    turned: bool  # whether stacks hold their weights as [inputs, outputs]

    def is_thin(self, examples: int) -> bool:
        """Whether a client that takes one step with so many examples, uncorrected, sends thin matrices."""
        plain = not self.rule.pull and self.weights.device.type == "cpu"
        return plain and thin.is_worth_it(self.layers, examples)


def start(network: nn.Module, weights: Tensor, rule: Rule, x: Tensor, steps: float) -> Start | None:
    """The start of a round in which a client takes about so many steps; None where the network is not dense."""
    layers = dense_layers(network)
    if layers is None:
        return None
    backward = [weights[layer.weight].view(layer.outputs, layer.inputs) for layer in layers]
    return Start(
        layers=layers, weights=weights, rule=rule, x=x.flatten(1), turned=steps > MANY_STEPS,
        forward=[weight.T.contiguous() for weight in backward], backward=backward,
    )  # fmt: skip


class Stack:
    """A worker's room for so many clients, used again and again: fresh memory costs a page fault every 4 KB."""

    def __init__(self, start: Start, clients: int, batch: int) -> None:
        widths = [start.layers[0].inputs, *(layer.outputs for layer in start.layers)]
        self.start, self.batch = start, batch
        self.layers = [_Layer.of(start, depth, clients) for depth in range(len(start.layers))]
        self.values = [_Room(start.weights, clients * batch, width) for width in widths]  # into and out of the layers
        self.errors = [_Room(start.weights, clients * batch, width) for width in widths[1:-1]]
        self.ones = start.weights.new_ones(clients, 1, batch)
        self.parts: dict[tuple[int, int, int, bool], _Part] = {}
        self.shelf = _Shelf(start.weights, clients)

    @torch.no_grad()
    def train(self, jobs: Sequence[Job]) -> list[Trained]:
        """What becomes of each client, in the order of the jobs. The deltas are memory of their own."""
        if not jobs:
            return []
        rows = sorted(jobs, key=lambda job: (-len(job.widths), -sum(job.widths)))  # those in step stand together
        chunk = _Chunk(self, rows)
        for step in range(len(rows[0].widths)):
            for at in _neighbours(rows, step):
                chunk.step(at, step)
        chunk.hand_over()
        trained = dict(zip(map(id, rows), chunk.trained(), strict=True))
        return [trained[id(job)] for job in jobs]

    def part(self, at: slice, width: int, first: bool) -> _Part:
        key = (at.start, at.stop, width, first)
        if key not in self.parts:
            self.parts[key] = _Part(self, at, width, first)
        return self.parts[key]


def _neighbours(jobs: Sequence[Job], step: int) -> Iterator[slice]:
    """Those whose batches are of one size, and who have or have not other batches too, in runs."""
    first = 0
    alive = (job.widths for job in jobs if len(job.widths) > step)  # the first so many
    for _, run in groupby(alive, key=lambda widths: (widths[step], len(widths) == 1)):
        last = first + sum(1 for _ in run)
        yield slice(first, last)
        first = last


class _Room:
    """Memory for [clients, examples, width], for as many clients and examples as there are at a time."""

    def __init__(self, like: Tensor, rows: int, width: int) -> None:
        self.memory = like.new_empty(rows, width)

    def of(self, clients: int, examples: int) -> Tensor:
        return self.memory[: clients * examples].view(clients, examples, -1)


class _Shelf:
    """Memory for the deltas of a stack, used again once nobody holds any of them any more. Whoever keeps updates just
    makes the shelf hand out fresh memory."""

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
            if sys.getrefcount(self.kept[place]) == ON_THE_SHELF:
                return self.kept[place]
        fresh: np.ndarray = self.weights.new_empty(self.rows, len(self.weights)).numpy()
        self.kept = [*self.kept, fresh][-KEPT:]
        return fresh


@dataclass(frozen=True, eq=False)
class _Parameter:
    """A weight or a bias of all clients in a stack."""

    place: slice  # in the flat weights
    start: Tensor  # [r, c]
    value: Tensor  # [clients, r, c]
    velocity: Tensor  # the same, where there is momentum
    turned: bool  # whether it lies in the flat weights as [c, r]

    def of(self, flat: Tensor) -> Tensor:
        """Its part of flat [n, P], as [n, r, c]."""
        rows, columns = self.start.shape
        part = flat[:, self.place]
        return part.view(-1, columns, rows).mT if self.turned else part.view(-1, rows, columns)


@dataclass(frozen=True, eq=False)
class _Layer:
    """A layer of all clients in a stack."""

    weight: _Parameter
    bias: _Parameter  # [clients, 1, outputs]

    @classmethod
    def of(cls, start: Start, depth: int, clients: int) -> _Layer:
        def parameter(place: slice, origin: Tensor, turned: bool) -> _Parameter:
            value = origin.new_empty(clients, *origin.shape)
            velocity = torch.empty_like(value) if start.rule.momentum else value
            return _Parameter(place, origin, value, velocity, turned)

        layer = start.layers[depth]
        weight = start.forward[depth] if start.turned else start.backward[depth]
        bias = start.weights[layer.bias][None]
        return cls(parameter(layer.weight, weight, start.turned), parameter(layer.bias, bias, False))


class _Part:
    """Some neighbours' part of a stack, for batches of one size. Views, kept, as making them costs as much as using
    them. Before their first step (`first`) the clients' weights are the global ones, which they then leave; as these
    are the same for all, the neighbours' batches pass them as one long batch, which small ones gain most by."""

    def __init__(self, stack: Stack, at: slice, width: int, first: bool) -> None:
        clients = at.stop - at.start
        self.abreast = (1, clients * width) if first else (clients, width)  # batches, and examples in each
        self.values = [room.of(clients, width) for room in stack.values]
        self.passing = [room.of(*self.abreast) for room in stack.values]  # the same memory
        self.images = self.values[0].flatten(0, 1)
        self.errors = [room.of(clients, width) for room in stack.errors]
        self.returning = [room.of(*self.abreast) for room in stack.errors]
        self.ones = stack.ones[at, :, :width]
        self.weights = [_Place(layer.weight, at, first) for layer in stack.layers]
        self.biases = [_Place(layer.bias, at, first) for layer in stack.layers]
        if first:
            self.forward = [weight[None] for weight in stack.start.forward]  # [batches, inputs, outputs]
            self.backward = [weight[None] for weight in stack.start.backward]  # [batches, outputs, inputs]
            self.offsets = [layer.bias.start[None] for layer in stack.layers]  # [batches, 1, outputs]
            return
        now = [each.after for each in self.weights]
        ways = [each.mT for each in now]
        self.forward, self.backward = (now, ways) if stack.start.turned else (ways, now)
        self.offsets = [each.after for each in self.biases]


class _Place:
    """A parameter of some neighbours: [n, r, c] before a step and after it, which but for the first is one memory."""

    def __init__(self, parameter: _Parameter, at: slice, first: bool) -> None:
        self.parameter, self.first = parameter, first
        self.after, self.velocity = parameter.value[at], parameter.velocity[at]
        self.before = parameter.start.expand(len(self.after), -1, -1) if first else self.after

    def descend(self, rule: Rule, a: Tensor, b: Tensor, fixed: Tensor | None) -> None:
        """A step by the rule, where a @ b over a's columns is the gradient; `fixed` is [n, r, c]."""
        if rule.momentum:
            self.velocity.baddbmm_(a, b, beta=0.0 if self.first else rule.momentum, alpha=1 / a.shape[2])
            if rule.pull:
                self.velocity.add_(self.before, alpha=rule.pull)
            if fixed is not None:
                self.velocity.add_(fixed)
            torch.sub(self.before, self.velocity, alpha=rule.lr, out=self.after)
            return
        keep, alpha = 1 - rule.lr * rule.pull, -rule.lr / a.shape[2]
        if self.first:
            torch.baddbmm(self.before, a, b, beta=keep, alpha=alpha, out=self.after)
        else:
            self.after.baddbmm_(a, b, beta=keep, alpha=alpha)
        if fixed is not None:
            self.after.sub_(fixed, alpha=rule.lr)


class _Chunk:
    """The clients that are in a stack at the moment, those with most batches first."""

    def __init__(self, stack: Stack, jobs: Sequence[Job]) -> None:
        weights, self.rule = stack.start.weights, stack.start.rule
        self.stack, self.jobs = stack, jobs
        self.examples = laid_out([job.examples for job in jobs], jobs, stack.batch)
        self.labels = laid_out([job.labels for job in jobs], jobs, stack.batch)
        self.deltas = stack.shelf.take(len(jobs))
        self.found: list[Tensor | Thin] = [*self.deltas]
        self.fixed = self.rule.fixed(weights, [job.task.correction for job in jobs])  # [n, P]
        self.losses = weights.new_zeros(len(jobs), len(jobs[0].widths))

    def step(self, at: slice, step: int) -> None:
        """One step of these neighbours."""
        jobs, widths = self.jobs[at], self.jobs[at.start].widths
        part = self.stack.part(at, widths[step], step == 0)
        examples, labels = self.examples[at, step, : widths[step]], self.labels[at, step, : widths[step], None]
        torch.index_select(self.stack.start.x, 0, examples.reshape(-1), out=part.images)
        error = torch.log_softmax(self._logits(part), 2)
        if any(job.tells(step) for job in jobs):
            self.losses[at, step] = -error.gather(2, labels).mean((1, 2))
        error.exp_().scatter_(2, labels, -1.0, reduce="add")  # `width` times the gradient of the mean loss
        if len(widths) == 1 and self.fixed is None and self.stack.start.is_thin(widths[0]):
            self.found[at] = self._thin_step(part, error)
        elif len(widths) == 1:
            self._only_step(part, error, at)
        else:
            self._step(part, error, at)

    def _logits(self, part: _Part) -> Tensor:
        for depth, (weight, bias) in enumerate(zip(part.forward, part.offsets, strict=True)):
            outputs = torch.baddbmm(bias, part.passing[depth], weight, out=part.passing[depth + 1])
            if depth < len(part.forward) - 1:
                outputs.relu_()
        return part.values[-1]

    def _errors(self, part: _Part, error: Tensor) -> Iterator[tuple[int, Tensor]]:
        """The last layer with the error of its outputs, and so on down. The one below is worked out before a layer is
        given out, as that may change its weights."""
        for depth in range(len(part.backward) - 1, 0, -1):
            above, below = error.view(*part.abreast, -1), part.returning[depth - 1]
            torch.bmm(above, part.backward[depth], out=below)
            torch.ops.aten.threshold_backward.grad_input(below, part.passing[depth], 0, grad_input=below)
            yield depth, error
            error = part.errors[depth - 1]
        yield 0, error

    def _factors(self, inputs: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
        """What multiplies to `width` times the gradient of a weight as it lies in the stack."""
        return (inputs.mT, error) if self.stack.start.turned else (error.mT, inputs)

    def _step(self, part: _Part, error: Tensor, at: slice) -> None:
        for depth, each in self._errors(part, error):
            factors = self._factors(part.values[depth], each)
            for place, (a, b) in ((part.weights[depth], factors), (part.biases[depth], (part.ones, each))):
                fixed = None if self.fixed is None else place.parameter.of(self.fixed[at])
                place.descend(self.rule, a, b, fixed)

    def _only_step(self, part: _Part, error: Tensor, at: slice) -> None:
        """The step of those who take no other, straight into their deltas: their weights need not be anywhere."""
        deltas, alpha = self.deltas[at], -self.rule.lr / error.shape[1]
        for depth, each in self._errors(part, error):
            layer = self.stack.layers[depth]
            layer.weight.of(deltas).baddbmm_(*self._factors(part.values[depth], each), beta=0, alpha=alpha)
            layer.bias.of(deltas).baddbmm_(part.ones, each, beta=0, alpha=alpha)
        if self.rule.pull:
            deltas.sub_(self.stack.start.weights, alpha=self.rule.lr * self.rule.pull)
        if self.fixed is not None:
            deltas.sub_(self.fixed[at], alpha=self.rule.lr)

    def _thin_step(self, part: _Part, error: Tensor) -> Iterator[Thin]:
        """As `_only_step`, but the products are left to who needs them."""
        errors = [each * (-self.rule.lr / error.shape[1]) for _, each in self._errors(part, error)]
        return thin.of_many(self.stack.start.layers, part.values[:-1], errors[::-1])

    def hand_over(self) -> None:
        """New minus old weights of those who took several steps, into their deltas."""
        several = sum(len(job.widths) > 1 for job in self.jobs)
        for layer in self.stack.layers if several else ():
            for parameter in (layer.weight, layer.bias):
                torch.sub(parameter.value[:several], parameter.start, out=parameter.of(self.deltas[:several]))

    def trained(self) -> Iterator[Trained]:
        for job, found, losses in zip(self.jobs, self.found, self.losses.tolist(), strict=True):
            before, after = ends_of(losses[: len(job.widths)])
            yield Trained(delta=found, loss_before=before, loss_after=after)
