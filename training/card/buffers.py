"""A round's memory on the card: it stays where it is, so that graphs may read and write it round after round."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from training.backends.descent import Rule
from training.card.graphs import Graphs
from training.card.sheet import Sheet, Stretch
from training.card.stacked import Move
from training.card.steps import Steps

MOST_STEPS = 16  # for which examples are gathered at once
MOST_STEPS_OF_ROUND = 512  # in a graph
GATHERED_BYTES = 64 << 20  # of the examples that are gathered for several steps at once


class RoundBuffers:
    """For chunks of so many clients, and sheets of up to so many rows and lines."""

    def __init__(self, steps: Steps, sheet: Sheet, size: int, classes: int, rule: Rule, graphs: Graphs) -> None:
        x = steps.x
        self.local, self.rule, self.graphs = steps, rule, graphs
        self.clients, self.rows = sheet.chunk, len(sheet.steps)
        self.lines = len(sheet.widths) * 5 // 4  # another round may have a few more
        self.batch = sheet.examples.shape[1]
        self.weights = x.new_zeros(size)  # of the global model
        numbers = self.lines * (1 + 2 * self.batch) + self.rows
        self.host = torch.zeros(numbers, dtype=torch.int32, pin_memory=x.device.type == "cuda")
        self.sheet = torch.zeros(numbers, dtype=torch.int32, device=x.device)
        parts = [self.lines, self.lines * self.batch, self.lines * self.batch, self.rows]
        self.widths, examples, labels, self.num_examples = torch.split(self.sheet, parts)
        self.examples, self.labels = examples.view(-1, self.batch), labels.view(-1, self.batch)
        self.classes = torch.arange(classes, dtype=torch.int32, device=x.device)
        self.positions = torch.arange(self.batch, dtype=torch.int32, device=x.device)
        self.counting = torch.arange(MOST_STEPS * self.clients, device=x.device)
        self.line, self.row = (torch.zeros((), dtype=torch.int64, device=x.device) for _ in range(2))  # the next
        self.next_line = self.next_row = 0  # the same, as the processor knows them
        self.found = x.new_zeros(MOST_STEPS * self.clients)  # losses of the steps just taken
        self.lengths = x.new_zeros(self.clients, dtype=torch.float64)  # of the deltas just joined
        self.losses = x.new_zeros(self.lines)
        self.shares = x.new_zeros(self.rows + self.clients)  # beyond the last row: nobody
        self.norms = x.new_zeros(self.rows + self.clients, dtype=torch.float64)
        self.stretches: tuple[tuple[Stretch, ...], ...] | None = None  # of the round before
        self.totals = [torch.zeros_like(each.start, dtype=torch.float64) for each in steps.parameters]

    def holds(self, sheet: Sheet) -> bool:
        return len(sheet.widths) <= self.lines and (len(sheet.steps), sheet.chunk) == (self.rows, self.clients)

    def write(self, sheet: Sheet, weights: Tensor) -> None:
        """A new round: the one transfer to the card."""
        arrays: tuple[NDArray[Any], ...] = sheet.widths, sheet.examples, sheet.labels, sheet.num_examples
        beginnings = 0, self.lines, self.lines * (1 + self.batch), self.lines * (1 + 2 * self.batch)
        for first, array in zip(beginnings, arrays, strict=True):
            self.host[first : first + array.size] = torch.from_numpy(array.reshape(-1))
        self.sheet.copy_(self.host, non_blocking=True)
        self.weights.copy_(weights)
        self.next_line = self.next_row = 0
        self.graphs.run("ready", self._ready)

    def results(self, sheet: Sheet) -> tuple[Tensor, Tensor]:
        """The norms of the rows, the losses of the lines."""
        return self.norms[: len(sheet.steps)], self.losses[: len(sheet.widths)]

    def train(self, sheet: Sheet) -> bool:
        """All of a round whose steps are as those of the round before, as one graph; whether it was done."""
        stretches, self.stretches = self.stretches, tuple(map(tuple, sheet.stretches))
        steps = sum(stretch.steps for chunk in sheet.stretches for stretch in chunk)
        if self.stretches != stretches or steps > MOST_STEPS_OF_ROUND:
            return False

        def round_() -> None:
            self.next_line = self.next_row = 0
            for chunk in stretches:
                self._begin()
                for stretch in chunk:
                    for count in self._pieces(stretch):
                        self._go(stretch.clients, count)
                        self._note(stretch.clients * count)
                self._subtract()
                self._join()
                self._note_lengths()

        self.graphs.run(("round", stretches), round_)
        return True

    def descend(self, stretches: Sequence[Stretch]) -> None:
        """A chunk from the global weights to its deltas."""
        self.graphs.run("begin", self._begin)
        for stretch in stretches:
            for count in self._pieces(stretch):
                self.graphs.run(("steps", stretch.clients, count), partial(self._go, stretch.clients, count))
                self._note(stretch.clients * count)
        self.graphs.run("subtract", self._subtract)

    def _begin(self) -> None:
        for parameter in self.local.parameters:
            parameter.begin(self.weights)

    def _subtract(self) -> None:
        for parameter in self.local.parameters:
            parameter.value.sub_(parameter.start)

    def _ready(self) -> None:
        self.line.zero_()
        self.row.zero_()
        shares = self.num_examples / self.num_examples.sum(dtype=torch.float64).clamp_min(1)
        self.shares[: self.rows].copy_(shares)
        for total in self.totals:
            total.zero_()

    def _pieces(self, stretch: Stretch) -> Iterator[int]:
        """Steps to take at once: few different numbers, as each is a graph of its own."""
        bytes_of_step = stretch.clients * self.batch * self.local.x[0].numel() * self.local.x.element_size()
        most, left = max(1, min(MOST_STEPS, GATHERED_BYTES // bytes_of_step)), stretch.steps
        while left:
            steps = 1 << (min(most, left).bit_length() - 1)
            yield steps
            left -= steps

    def _note(self, lines: int) -> None:
        self.losses[self.next_line : self.next_line + lines].copy_(self.found[:lines])
        self.next_line += lines

    def _note_lengths(self) -> None:
        self.norms[self.next_row : self.next_row + self.clients].copy_(self.lengths)
        self.next_row += self.clients

    def _go(self, clients: int, steps: int) -> None:
        """The next so many steps of the first so many clients."""
        lines = self.line + self.counting[: steps * clients]
        widths, dtype = self.widths.index_select(0, lines)[:, None], self.local.x.dtype
        shares = ((self.positions < widths).to(dtype) / widths.clamp_min(1)).unsqueeze(2)
        of_class = self.labels.index_select(0, lines).unsqueeze(2) == self.classes
        negative = (of_class * -shares).view(steps, clients, self.batch, -1)
        shares = shares.view(steps, clients, self.batch, 1)
        rates = ((widths > 0).to(dtype) * self.rule.lr).view(steps, clients)
        examples = self.examples.index_select(0, lines).view(-1)
        x = self.local.x.index_select(0, examples).view(steps, clients, self.batch, *self.local.x.shape[1:])
        logits = torch.empty_like(negative)
        for step in range(steps):
            move = Move(self.rule, rates[step])
            self.local.step(x[step], negative[step], shares[step], logits[step], move)
        self.found[: steps * clients].copy_((torch.log_softmax(logits, 3) * negative).sum((2, 3)).view(-1))
        self.line.add_(steps * clients)

    def change(self, client: int, update: Callable[[Tensor], Tensor]) -> None:
        """What a client of the chunk sends in place of the delta that it found."""
        flat = torch.empty_like(self.weights)
        for parameter in self.local.parameters:
            parameter.to_flat(parameter.value[client], flat)
        flat = update(flat)
        for parameter in self.local.parameters:
            parameter.from_flat(flat, parameter.value[client])

    def hand_over(self, deltas: Tensor) -> None:
        """The deltas of the chunk's first clients into `deltas` [clients, P]."""
        for parameter in self.local.parameters:
            parameter.to_flat(parameter.value[: len(deltas)], deltas)

    def join(self) -> None:
        """The chunk's deltas into the weighted mean. They are used up."""
        self.graphs.run("join", self._join)
        self._note_lengths()

    def _join(self) -> None:
        rows = self.row + self.counting[: self.clients]
        shares = self.shares.index_select(0, rows)
        squares = torch.zeros_like(shares, dtype=torch.float64)
        for parameter, total in zip(self.local.parameters, self.totals, strict=True):
            deltas = parameter.value.flatten(1)
            squares += torch.linalg.vector_norm(deltas, dim=1, dtype=torch.float64).square()
            total += deltas.mul_(shares[:, None]).sum(0, dtype=torch.float64).view_as(total)
        self.lengths.copy_(squares.sqrt())
        self.row.add_(self.clients)

    @property
    def mean(self) -> Tensor:
        """float64 [P]"""
        flat = torch.empty_like(self.weights, dtype=torch.float64)
        for parameter, total in zip(self.local.parameters, self.totals, strict=True):
            parameter.to_flat(total, flat)
        return flat
