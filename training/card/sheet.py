"""A round's work as arrays: whose example goes into which batch of which step. Made on the processor, with its bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from training.clients import Task, Work, same, work
from training.config import TrainingConfig
from training.datasets import Data
from training.events import TrainingError
from training.shuffles import Orders, of_clients

Draw = Callable[[int, int, NDArray[np.int64], int, int], Orders]  # as training.shuffles.of_clients
EIGHTHS = 8  # of a chunk: so many sizes may the part of it have that is still at work


@dataclass(frozen=True, kw_only=True, eq=False)
class Holdings:
    """Who holds what, end to end, as the processor needs it to lay out a round."""

    data: Data  # whose labels are on the processor
    examples: NDArray[np.int64]  # of client 1, then of client 2, ...
    starts: NDArray[np.int64]  # [clients + 1]

    @classmethod
    def of(cls, data: Data, clients: Sequence[NDArray[np.int64]]) -> Holdings:
        sizes = np.fromiter(map(len, clients), np.int64, len(clients))
        return cls(data=data, examples=np.concatenate(clients), starts=np.concatenate([[0], np.cumsum(sizes)]))

    @property
    def sizes(self) -> NDArray[np.int64]:
        return np.diff(self.starts)

    @property
    def labels(self) -> NDArray[np.int64]:
        labels: NDArray[np.int64] = self.data.train_y.numpy()
        return labels


@dataclass(frozen=True)
class Stretch:
    """Steps that the first so many clients of a chunk take together."""

    line: int  # of the first step's first batch
    steps: int
    clients: int


@dataclass(frozen=True, eq=False)
class Sheet:
    """A row is a client, those with most steps first; a line is a batch. Rows are trained in chunks; a chunk's lines
    are those of its first step, row by row, then those of its second, and so on."""

    places: NDArray[np.int64]  # [rows], of each row in the cohort
    steps: NDArray[np.int64]  # [rows]; 0 for whom sends nothing
    num_examples: NDArray[np.int64]  # [rows], that each reports
    efforts: NDArray[np.int64]  # [rows], examples that each trains, as often as they are in a batch
    chunk: int  # rows in each but the last
    firsts: NDArray[np.int64]  # [chunks, steps], the line of a step's first batch
    stretches: list[list[Stretch]]  # of each chunk
    widths: NDArray[np.int32]  # [lines], examples in a batch; 0 for whom takes part in a step without having one
    examples: NDArray[np.int32]  # [lines, batch], places in the training set; 0 beyond the width
    labels: NDArray[np.int32]  # [lines, batch]; 0 beyond the width
    updates: dict[int, Callable[[Tensor], Tensor]]  # row -> delta [P] it found -> that it sends, where they differ
    odd: Mapping[int, Task]  # by place in the cohort, of who has a behaviour

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """[rows], of each place in the cohort."""
        rows = np.empty_like(self.places)
        rows[self.places] = np.arange(len(rows))
        return rows

    @property
    def is_dealt(self) -> bool:
        """Whether the rows are in another order than the cohort."""
        return bool((self.places[1:] < self.places[:-1]).any())

    def lines_of(self, rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        """[rows, count]: where the first so many batches of these rows are."""
        chunks, within = np.divmod(rows, self.chunk)
        return self.firsts[chunks, :count] + within[:, None]


def laid_out(
    holdings: Holdings,
    cohort: Sequence[int],
    config: TrainingConfig,
    round_number: int,
    batch: int,
    most: int,
    draw: Draw = of_clients,
    odd: Mapping[int, Task] = MappingProxyType({}),
) -> Sheet:
    """The work of a cohort, in batches of up to `batch` examples, no more than `most` clients at a time. `odd`: of
    those that have a behaviour, by place.

    TrainingError that names the client where a label is no class.
    """
    clients = np.asarray(cohort, dtype=np.int64)
    sizes = holdings.starts[clients] - holdings.starts[clients - 1]
    steps, efforts = -(-sizes // config.batch_size) * config.local_epochs, sizes * config.local_epochs
    reported, works = sizes.copy(), dict[int, Work | None]()
    for place, task in odd.items():
        works[place] = each = work(task, holdings.data, config, round_number)
        steps[place], efforts[place] = (len(each.widths), sum(each.widths)) if each else (0, 0)
        reported[place] = task.num_examples
    sheet = _empty(steps, reported, efforts, batch, most, odd)
    rows = sheet.rows
    honest = np.ones(len(clients), np.bool_)
    honest[list(odd)] = False
    for size in np.unique(sizes[honest]).tolist():
        alike = np.flatnonzero(honest & (sizes == size))
        _fill_in(sheet, holdings, clients[alike], rows[alike], size, config, round_number, draw)
    for place, each in works.items():
        if each is not None:
            _fill_in_odd(sheet, odd[place], int(rows[place]), each)
    _refuse_unknown(sheet, clients, holdings.data.info.num_classes, round_number)
    return sheet


def _empty(
    steps: NDArray[np.int64],
    reported: NDArray[np.int64],
    efforts: NDArray[np.int64],
    batch: int,
    most: int,
    odd: Mapping[int, Task],
) -> Sheet:
    places = np.argsort(-steps, kind="stable")
    steps, number = steps[places], -(-len(steps) // most)
    chunk = -(-len(steps) // number)
    firsts, line = np.zeros((number, int(steps[0])), np.int64), 0
    stretches: list[list[Stretch]] = []
    for first, row in zip(firsts, range(0, len(steps), chunk), strict=False):
        taken = steps[row : row + chunk]
        stretches.append([])
        alive = len(taken) - np.searchsorted(taken[::-1], np.arange(int(taken[0])), side="right")  # at each step
        for step, clients in enumerate(_rounded_up(alive, len(taken)).tolist()):
            first[step] = line
            last = stretches[-1][-1] if step else None
            if last is not None and last.clients == clients:
                stretches[-1][-1] = Stretch(last.line, last.steps + 1, clients)
            else:
                stretches[-1].append(Stretch(line, 1, clients))
            line += clients
    return Sheet(
        places=places,
        steps=steps,
        num_examples=reported[places],
        efforts=efforts[places],
        chunk=chunk,
        firsts=firsts,
        stretches=stretches,
        widths=np.zeros(line, np.int32),
        examples=np.zeros((line, batch), np.int32),
        labels=np.zeros((line, batch), np.int32),
        updates={},
        odd=odd,
    )


def _rounded_up(clients: NDArray[np.int64], chunk: int) -> NDArray[np.int64]:
    """To the next eighth of a chunk: each number is a graph of its own."""
    eighths = -(-EIGHTHS * clients // chunk)
    return -(-eighths * chunk // EIGHTHS)


def _fill_in(
    sheet: Sheet,
    holdings: Holdings,
    clients: NDArray[np.int64],
    rows: NDArray[np.int64],
    size: int,
    config: TrainingConfig,
    round_number: int,
    draw: Draw,
) -> None:
    """The batches of honest clients that all hold so many examples."""
    order = draw(config.seed, round_number, clients, size, config.local_epochs)  # [clients, epochs, size]
    batches = -(-size // config.batch_size)
    taken = holdings.examples[holdings.starts[clients - 1][:, None, None] + order]
    lines = sheet.lines_of(rows, batches * config.local_epochs).reshape(*order.shape[:2], batches)
    for number in range(batches):
        piece = taken[:, :, number * config.batch_size : (number + 1) * config.batch_size]
        here, width = lines[:, :, number], piece.shape[2]
        sheet.examples[here, :width] = piece
        sheet.labels[here, :width] = holdings.labels[piece]
        sheet.widths[here] = width


def _fill_in_odd(sheet: Sheet, task: Task, row: int, each: Work) -> None:
    own = task.indices.numpy()
    lines = sheet.lines_of(np.array([row]), len(each.widths))[0]
    for line, order in zip(lines.tolist(), each.batches, strict=True):
        sheet.examples[line, : len(order)] = own[order.numpy()]
        sheet.labels[line, : len(order)] = each.labels[order].numpy()
        sheet.widths[line] = len(order)
    if each.update is not same:
        sheet.updates[row] = each.update


def _refuse_unknown(sheet: Sheet, clients: NDArray[np.int64], num_classes: int, round_number: int) -> None:
    wrong = (sheet.labels < 0) | (sheet.labels >= num_classes)
    if not wrong.any():
        return
    line, at = np.argwhere(wrong)[0].tolist()
    row = next(row for row, count in enumerate(sheet.steps) if line in sheet.lines_of(np.array([row]), count))
    client = clients[sheet.places[row]]
    raise TrainingError(
        f"Round {round_number}: the training of client {client} failed: "
        f"IndexError: Target {sheet.labels[line, at]} is out of bounds."
    )
