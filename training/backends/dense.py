"""Dense networks: clients stacked, so that one batched product of matrices does a step of several of them.

A step is written out, forwards and backwards, with the update fused into the product that would otherwise make the
gradient: W = W - lr a^T dz is one call and no gradient is ever in memory. A bias is the weight of an input that is
always one. Short batches are not padded but stepped apart. Who shares a stack may show in the last bit, as products of
another size may be summed in another order; but who does follows from the configuration alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn

from training import thin
from training.backends.descent import Job, Rule, Trained, ends_of, laid_out
from training.backends.memory import DeltaCache, Scratch
from training.layers import Dense, dense_layers
from training.thin import Thin

STACK_BYTES = 6 << 20  # a stack's weights, or its activations: in cache beside its deltas, yet few enough calls
PARTS = 4  # stacks that the smallest cohort is dealt to where it can be, for the cores of most machines


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

    def is_thin(self, examples: int) -> bool:
        """Whether a client that takes one step with so many examples, uncorrected, sends thin matrices."""
        plain = not self.rule.pull and self.weights.device.type == "cpu"
        return plain and thin.is_worth_it(self.layers, examples)


def start(network: nn.Module, weights: Tensor, rule: Rule, x: Tensor) -> Start | None:
    """The start of a round; None where the network is not dense."""
    layers = dense_layers(network)
    return None if layers is None else Start(layers=layers, weights=weights, rule=rule, x=x.flatten(1))


class Stack:
    """A worker's memory for so many clients, used again and again: fresh memory costs a page fault every 4 KB."""

    def __init__(self, start: Start, clients: int, batch: int) -> None:
        self.start, self.batch = start, batch
        self.weights = [_Parameter.among(clients, start, layer.weight, layer.outputs) for layer in start.layers]
        self.biases = [_Parameter.among(clients, start, layer.bias, 1) for layer in start.layers]
        self.values = [Scratch(start.weights, clients * batch, layer.inputs) for layer in start.layers]
        self.logits = Scratch(start.weights, clients * batch, start.layers[-1].outputs)
        self.errors = [Scratch(start.weights, clients * batch, layer.outputs) for layer in start.layers]
        self.ones = start.weights.new_ones(clients, 1, batch)
        self.parts: dict[tuple[int, int, int, bool], _Part] = {}
        self.cache = DeltaCache(start.weights, clients)

    @torch.no_grad()
    def train(self, jobs: Sequence[Job]) -> list[Trained]:
        """What becomes of each client, in the order of the jobs. The deltas are memory of their own."""
        if not jobs:
            return []
        rows = sorted(jobs, key=lambda job: (-len(job.widths), -sum(job.widths)))  # those in step stand together
        chunk = _Chunk(self, rows)
        for at, steps in _stretches(rows):
            chunk.go(at, steps)
        chunk.hand_over()
        trained = dict(zip(map(id, rows), chunk.trained(), strict=True))
        return [trained[id(job)] for job in jobs]

    def part(self, at: slice, width: int, first: bool) -> _Part:
        key = (at.start, at.stop, width, first)
        if key not in self.parts:
            self.parts[key] = _Part(self, at, width, first)
        return self.parts[key]


def _stretches(jobs: Sequence[Job]) -> Iterator[tuple[slice, range]]:
    """Neighbours, and steps that they take together: with batches of one size, and the first by itself."""
    steps = range(len(jobs[0].widths))
    for _, run in groupby(
        steps, lambda step: (step == 0, [job.widths[step] for job in jobs if len(job.widths) > step])
    ):
        together = [*run]
        for at in _neighbours(jobs, together[0]):
            yield at, range(together[0], together[-1] + 1)


def _neighbours(jobs: Sequence[Job], step: int) -> Iterator[slice]:
    """Those whose batches are of one size, and who have or have not other batches too, in runs."""
    first = 0
    alive = (job.widths for job in jobs if len(job.widths) > step)  # the first so many
    for _, run in groupby(alive, key=lambda widths: (widths[step], len(widths) == 1)):
        last = first + sum(1 for _ in run)
        yield slice(first, last)
        first = last


@dataclass(frozen=True, eq=False)
class _Parameter:
    """A weight or a bias of all clients in a stack."""

    place: slice  # in the flat weights
    start: Tensor  # [r, c]
    value: Tensor  # [clients, r, c]
    velocity: Tensor  # the same, where there is momentum

    @classmethod
    def among(cls, clients: int, start: Start, place: slice, rows: int) -> _Parameter:
        origin = start.weights[place].view(rows, -1)
        value = origin.new_empty(clients, *origin.shape)
        return cls(place, origin, value, torch.empty_like(value) if start.rule.momentum else value)

    def of(self, flat: Tensor) -> Tensor:
        """Its part of flat [n, P], as [n, r, c]."""
        return flat[:, self.place].view(-1, *self.start.shape)


class _Part:
    """Some neighbours' part of a stack, for batches of one size. Views, kept, as making them costs as much as using
    them. Before their first step (`first`) the clients' weights are the global ones, which they then leave; as these
    are the same for all, the neighbours' batches pass them as one long batch, which small ones gain most by.

    Logits lie with the examples innermost: where only ten classes did, vector instructions would be idle.
    """

    def __init__(self, stack: Stack, at: slice, width: int, first: bool) -> None:
        clients = at.stop - at.start
        self.width, self.batches, length = width, 1 if first else clients, clients * width if first else width
        weights = [_ParameterSlice(weight, at, first) for weight in stack.weights]  # [clients, outputs, inputs]
        biases = [_ParameterSlice(bias, at, first) for bias in stack.biases]  # [clients, 1, outputs]
        matrices, offsets = [each.passed for each in weights], [each.passed for each in biases]
        self.logits = stack.logits.standing(self.batches, length)  # [batches, classes, length]
        self.error = stack.errors[-1].standing(self.batches, length)  # of the logits
        inputs = [each.of(self.batches, length) for each in stack.values]  # [batches, length, inputs] of each layer
        errors = [each.of(self.batches, length) for each in stack.errors[:-1]]  # of the outputs of all but the last
        self.images = inputs[0].flatten(0, 1)
        ways = [matrix.mT for matrix in matrices[:-1]]
        self.up = [*zip(offsets[:-1], inputs[:-1], ways, inputs[1:], strict=True)]
        self.top = offsets[-1].mT, matrices[-1], inputs[-1].mT
        self.down = [*zip([*errors, self.error.mT][1:], matrices[1:], inputs[1:], errors, strict=True)]

        # The same memory client by client: [clients, width, inputs or outputs] of each layer.
        self.inputs = [each.of(clients, width) for each in stack.values]
        last = self.error.view(self.batches, -1, clients // self.batches, width).permute(0, 2, 3, 1).flatten(0, 1)
        self.errors = [*(each.of(clients, width) for each in stack.errors[:-1]), last]
        ones = stack.ones[at, :, :width]
        moved = zip(weights, biases, self.inputs, self.errors, strict=True)
        self.moves = [((weight, error.mT, x), (bias, ones, error)) for weight, bias, x, error in moved]


class _ParameterSlice:
    """A parameter of some neighbours: [n, r, c] before a step and after it, which but for the first is one memory."""

    def __init__(self, parameter: _Parameter, at: slice, first: bool) -> None:
        self.parameter, self.first = parameter, first
        self.after, self.velocity = parameter.value[at], parameter.velocity[at]
        self.before = parameter.start.expand(len(self.after), -1, -1) if first else self.after
        self.passed = parameter.start[None] if first else self.after  # as `before`; once, where all have the same

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


_Moves = Iterable[tuple[_ParameterSlice, Tensor, Tensor]]  # of which a @ b over a's columns is the gradient


class _Chunk:
    """The clients that are in a stack at the moment, those with most batches first."""

    def __init__(self, stack: Stack, jobs: Sequence[Job]) -> None:
        weights, self.rule = stack.start.weights, stack.start.rule
        self.stack, self.jobs = stack, jobs
        self.examples = laid_out([job.examples for job in jobs], jobs, stack.batch)
        self.labels = laid_out([job.labels for job in jobs], jobs, stack.batch)
        self.deltas = stack.cache.take(len(jobs))
        self.found: list[Tensor | Thin] = [*self.deltas]
        self.fixed = self.rule.fixed(weights, [job.task.correction for job in jobs])  # [n, P]
        self.losses = weights.new_zeros(len(jobs), len(jobs[0].widths))

    def go(self, at: slice, steps: range) -> None:
        """These steps of these neighbours."""
        jobs, among = self.jobs[at], slice(steps.start, steps.stop)
        part = self.stack.part(at, jobs[0].widths[steps.start], steps.start == 0)
        examples, labels = (rows[at, among, : part.width].transpose(0, 1) for rows in (self.examples, self.labels))
        examples, labels = examples.reshape(len(steps), -1), labels.reshape(len(steps), part.batches, 1, -1)
        told = {step for job in jobs for step in job.reported}
        for step, places, classes in zip(steps, examples, labels, strict=True):
            torch.index_select(self.stack.start.x, 0, places, out=part.images)
            torch.log_softmax(_logits(part), 1, out=part.error)
            if step in told:
                self.losses[at, step] = -part.error.gather(1, classes).view(len(jobs), -1).mean(1)
            part.error.exp_().scatter_(1, classes, -1.0, reduce="add")  # `width` times the gradient of the mean loss
            if len(jobs[0].widths) > 1:
                self._step(part, at)
            elif self.fixed is None and self.stack.start.is_thin(part.width):
                self.found[at] = self._thin_step(part)
            else:
                self._only_step(part, at)

    def _step(self, part: _Part, at: slice) -> None:
        for moves in _down(part):
            for place, a, b in moves:
                place.descend(self.rule, a, b, None if self.fixed is None else place.parameter.of(self.fixed[at]))

    def _only_step(self, part: _Part, at: slice) -> None:
        """The step of those who take no other, straight into their deltas: their weights need not be anywhere."""
        deltas = self.deltas[at]
        for moves in _down(part):
            for place, a, b in moves:
                place.parameter.of(deltas).baddbmm_(a, b, beta=0, alpha=-self.rule.lr / part.width)
        if self.rule.pull:
            deltas.sub_(self.stack.start.weights, alpha=self.rule.lr * self.rule.pull)
        if self.fixed is not None:
            deltas.sub_(self.fixed[at], alpha=self.rule.lr)

    def _thin_step(self, part: _Part) -> Iterator[Thin]:
        """As `_only_step`, but the products are left to who needs them."""
        for _ in _down(part):
            pass
        errors = [each * (-self.rule.lr / part.width) for each in part.errors]
        return thin.of_many(self.stack.start.layers, part.inputs, errors)

    def hand_over(self) -> None:
        """New minus old weights of those who took several steps, into their deltas."""
        several = sum(len(job.widths) > 1 for job in self.jobs)
        for parameter in (*self.stack.weights, *self.stack.biases) if several else ():
            torch.sub(parameter.value[:several], parameter.start, out=parameter.of(self.deltas[:several]))

    def trained(self) -> Iterator[Trained]:
        for job, found, losses in zip(self.jobs, self.found, self.losses.tolist(), strict=True):
            before, after = ends_of(losses[: len(job.widths)])
            yield Trained(delta=found, loss_before=before, loss_after=after)


def _logits(part: _Part) -> Tensor:
    """[batches, classes, length], of the part's images."""
    for offset, inputs, matrix, outputs in part.up:
        torch.baddbmm(offset, inputs, matrix, out=outputs)
        outputs.relu_()
    return torch.baddbmm(*part.top, out=part.logits)


def _down(part: _Part) -> Iterator[_Moves]:
    """What moves of each layer, from the last on, when the errors of its outputs are there. Those of the one below are
    worked out before a layer is given out, as it may then move."""
    for depth in range(len(part.down), 0, -1):
        above, matrix, values, below = part.down[depth - 1]
        torch.bmm(above, matrix, out=below)
        torch.ops.aten.threshold_backward.grad_input(below, values, 0, grad_input=below)
        yield part.moves[depth]
    yield part.moves[0]
