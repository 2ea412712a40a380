"""Scores of models at weights + sum of a_j v_j: many rows of coefficients a over the same vectors v, and the same bits
for a row whatever is evaluated beside it.

The vectors are a round's updates and one that the strategy carries; the rows are coalitions. A row near that of
everyone is written as a multiple of it and a difference: leaving one of a thousand clients out mixes one update, not
999. Whether it is near, and with how many updates it differs, follows from the row itself.

Equal bits: how many samples and rows are computed at a time follows from numbers of vectors and samples and from the
network; a last chunk is filled up. Whether a row of a product of matrices is computed alike wherever it stands depends
on the library: MKL does so where rows are whole vector registers apart and there are at least eight of them or one, so
samples are filled up to a multiple of ALIGNED. What is element by element is taken in steps of one rounding each, and
the last row of what is scored is nobody's, as the end of a tensor may be computed by other instructions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from training import networks, scores, threads
from training.layers import Dense, dense_layers
from training.scores import SCORES, SUMMED_ON, Score, first_layers, slices, split, tile_and_chunk

ALIGNED = 16  # float32 in the widest vector registers
FEWEST_ROWS = 8  # of a product of matrices, where there is more than one
FEW = 4  # updates that are added one after another, where there are many more
UNSEEN = 2.0**-40  # of a coefficient: what is left of a difference that is nothing, far below a float32's last bit
BLOCK = 2**20  # coefficients in a block of rows


@dataclass(frozen=True, eq=False)
class Mixtures:
    """Call it with blocks of rows of coefficients; it returns their utilities, float64.

    What is computed of a row depends on the row and on shapes alone. The process should keep torch at one thread.
    Memory beyond the arguments: about 128 MB, per worker 40 MB, and 4 (n + 2) bytes for a row that is far from that of
    everyone and 40 for another. Networks that are not dense are evaluated one row at a time, with a copy of the weights
    per worker.
    """

    network: nn.Module  # gives the shape; neither read nor changed
    weights: Tensor  # [P], before the round
    deltas: Tensor  # [n, P]
    carried: Tensor | None  # [P]; None where no row has a coefficient of it
    everyone: NDArray[np.float64]  # [n + 1], the row that others may be written as differences from
    x: Tensor  # [N, ...]
    y: Tensor  # [N], classes
    utility: str  # loss (minus the mean cross-entropy) or accuracy
    workers: int | None = None  # threads; None: one per core where torch itself runs one thread, else one

    def __call__(self, blocks: Iterable[NDArray[np.float64]]) -> NDArray[np.float64]:
        """float64 [m] of rows [m, n + 1], m at least 1, in blocks; column 0 is of what is carried."""
        rows = _Rows.of(blocks, self.everyone)
        layers = dense_layers(self.network)
        mixing = _Mixing(self, rows)
        return (self._one_by_one(mixing) if layers is None else self._together(mixing, layers)) / len(self.y)

    def _one_by_one(self, mixing: _Mixing) -> NDArray[np.float64]:
        def score(row: int, _: None) -> float:
            with torch.inference_mode():
                return sums_of(self.network, mixing.weights(row), self.x, self.y, self.utility)

        workers = self.workers or threads.workers_for(self.x)
        return np.array(list(threads.in_order(score, range(len(mixing.rows.reference)), [None] * workers)))

    def _together(self, mixing: _Mixing, layers: list[Dense]) -> NDArray[np.float64]:
        on_cpu, x = self.x.device.type == "cpu", self.x.flatten(1)
        tile, size = shapes(len(self.deltas), len(x), layers, not on_cpu)
        places = mixing.order()
        widest = max(layer.outputs for layer in layers)
        workers = (self.workers or threads.workers_for(self.x)) if on_cpu else 1  # a GPU is told by one thread
        scratch = [x.new_empty(2, (size + 1) * widest * tile) for _ in range(workers)]
        sums = torch.zeros(len(places), dtype=torch.float64, device=SUMMED_ON.get(x.device.type, x.device))
        chunks = list(mixing.chunks(size)) if on_cpu or tile < len(x) else mixing.chunks(size)
        for samples in slices(len(x), tile):
            images = F.pad(x[samples], (0, 0, 0, -len(x[samples]) % ALIGNED)).T.contiguous()
            first = first_layers(mixing.own, self.deltas, layers[0], images, workers)
            batch = _Tile(layers, first, self.y[samples], SCORES[self.utility])
            found = (
                threads.in_order(batch.scores, chunks, scratch)
                if on_cpu
                else (batch.scores(each, scratch[0]) for each in chunks)
            )
            sums += torch.cat(list(found))
        in_order = np.empty(len(places))
        in_order[places] = sums.cpu().numpy()
        return in_order


def shapes(num_deltas: int, num_samples: int, layers: list[Dense], on_card: bool = False) -> tuple[int, int]:
    """How many samples, a multiple of ALIGNED but for the last, and how many rows at a time."""
    tile, size = tile_and_chunk(num_deltas + 1, num_samples, layers, on_card)
    tile = max(ALIGNED, tile // ALIGNED * ALIGNED) if tile < num_samples else -(-tile // ALIGNED) * ALIGNED
    size = min(size, max(FEWEST_ROWS, 2 ** min(num_deltas, 20)))
    return tile, size if size >= FEWEST_ROWS else 1


def sums_of(network: nn.Module, weights: Tensor, x: Tensor, y: Tensor, utility: str) -> float:
    """A model's utility, summed over the samples; as networks.evaluate has it, but for the order of sums."""
    if x.device.type == "mps":  # it knows no float64
        score = networks.evaluate(network, weights, x, y, workers=1)
        return len(y) * (-score.loss if utility == "loss" else score.accuracy)
    loss, right = networks.sums(network, weights, x, y).tolist()
    return float(-loss if utility == "loss" else right)


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows of coefficients: each a multiple of everyone's, a part of what is carried, and some updates."""

    reference: NDArray[np.float64]  # [m], the multiple of everyone's row
    carried: NDArray[np.float64]  # [m], beside it
    few: NDArray[np.int64]  # places of the rows with few updates
    few_index: NDArray[np.int64]  # [len(few), FEW], which
    few_value: NDArray[np.float32]  # their coefficients; 0 where there are fewer
    many: NDArray[np.int64]  # places of the others
    many_value: NDArray[np.float32]  # [len(many), n], their coefficients

    @classmethod
    def of(cls, blocks: Iterable[NDArray[np.float64]], everyone: NDArray[np.float64]) -> _Rows:
        parts: list[tuple[NDArray[Any], ...]] = []
        gathers, begin = len(everyone) > scores.GATHER_ABOVE, 0
        for block in blocks:
            reference, rest = _apart(block, everyone)
            clients = rest[:, 1:]
            is_few = np.count_nonzero(clients, axis=1) <= FEW if gathers else np.zeros(len(block), np.bool_)
            few, many = np.flatnonzero(is_few), np.flatnonzero(~is_few)
            index, value = np.zeros((len(few), FEW), np.int64), np.zeros((len(few), FEW), np.float32)
            row, column = np.nonzero(clients[few])
            rank = np.arange(len(row)) - np.searchsorted(row, row)
            index[row, rank], value[row, rank] = column, clients[few][row, column]
            many_value = clients[many].astype(np.float32)
            parts.append((reference, rest[:, 0], begin + few, index, value, begin + many, many_value))
            begin += len(block)
        return cls(*map(np.concatenate, zip(*parts, strict=True)))


def _apart(rows: NDArray[np.float64], everyone: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(c [m], rest [m, k]) with rows = c everyone + rest; c is 0 where the row itself is the smaller one, so that no
    small sum is ever the difference of large ones.

    c is the middle one of the ratios in three columns: who leaves a few others out shares the ratio of all but those.
    """
    probes = np.argsort(-np.abs(everyone), kind="stable")[:3]
    probes = probes[everyone[probes] != 0]
    if not len(probes):
        return np.zeros(len(rows)), rows
    reference = _middle(*(rows[:, probes] / everyone[probes]).T)
    rest, sizes = rows - reference[:, None] * everyone, np.abs(rows)
    away = np.abs(rest)
    unseen = away <= UNSEEN * sizes
    rest[unseen] = away[unseen] = 0.0
    near = away.sum(axis=1) < sizes.sum(axis=1)
    return np.where(near, reference, 0.0), np.where(near[:, None], rest, rows)


def _middle(one: NDArray[np.float64], *others: NDArray[np.float64]) -> NDArray[np.float64]:
    """[m], of up to three numbers each, [m]; of two the larger. Sorting them takes ten times as long."""
    if len(others) < 2:
        return np.maximum(one, others[0]) if others else one
    return np.maximum(np.minimum(one, others[0]), np.minimum(np.maximum(one, others[0]), others[1]))


class _Mixing:
    """Rows as coefficients of vectors: the weights, everyone's step, what is carried, the updates."""

    def __init__(self, mixtures: Mixtures, rows: _Rows) -> None:
        self.rows, self.deltas = rows, mixtures.deltas
        everyone = self.tensor(mixtures.everyone)
        step = everyone[1:] @ self.deltas
        if mixtures.carried is not None:
            step = step + everyone[0] * mixtures.carried
        self.own = [mixtures.weights, step, *(() if mixtures.carried is None else (mixtures.carried,))]

    def tensor(self, numbers: NDArray[np.floating]) -> Tensor:
        return torch.from_numpy(np.asarray(numbers, np.float32)).to(self.deltas.dtype).to(self.deltas.device)

    def of_own(self, places: NDArray[np.int64], size: int) -> NDArray[np.float32]:
        """[size, len(own)], the rows' coefficients of the weights (1), the step and what is carried; 0 to fill up."""
        found = np.zeros((size, len(self.own)), np.float32)
        found[: len(places), 0] = 1.0
        for column, coefficients in zip(found.T[1:], (self.rows.reference, self.rows.carried), strict=False):
            column[: len(places)] = coefficients[places]
        return found

    def order(self) -> NDArray[np.int64]:
        """The order of places that the chunks make."""
        return np.concatenate([self.rows.few, self.rows.many])

    def chunks(self, size: int) -> Iterator[_Few | _Many]:
        """All rows in chunks of equal size; on a GPU one is made ready while it is at the one before."""
        rows = self.rows
        for part in slices(len(rows.few), size):
            short = size - (part.stop - part.start)
            width = max(1, int((rows.few_value[part] != 0).sum(axis=1).max(initial=0)))
            index = np.pad(rows.few_index[part, :width], ((0, short), (0, 0)))
            value = np.pad(rows.few_value[part, :width], ((0, short), (0, 0)))
            places = torch.from_numpy(index).to(self.deltas.device)
            of_own = self.tensor(self.of_own(rows.few[part], size))
            yield _Few(self, part.stop - part.start, of_own, places, self.tensor(value))
        for part in slices(len(rows.many), size):
            value = np.zeros((size, len(self.own) + len(self.deltas)), np.float32)
            value[:, : len(self.own)] = self.of_own(rows.many[part], size)
            value[: part.stop - part.start, len(self.own) :] = rows.many_value[part]
            yield _Many(self, part.stop - part.start, self.tensor(value))

    def weights(self, row: int) -> Tensor:
        """[P], a row's model; of many updates that it does not differ in, none is read."""
        place = int(np.searchsorted(self.rows.few, row))
        if place < len(self.rows.few) and self.rows.few[place] == row:
            index, value = self.rows.few_index[place], self.rows.few_value[place]
            index, value = index[value != 0], value[value != 0]
        else:
            value = self.rows.many_value[int(np.searchsorted(self.rows.many, row))]
            index = np.arange(len(value))
        coefficients = self.tensor(self.of_own(np.array([row]), 1))
        if 2 * np.count_nonzero(value) < len(self.deltas):
            index, value = index[value != 0], value[value != 0]
            mixed = self.tensor(value) @ self.deltas.index_select(0, torch.from_numpy(index).to(self.deltas.device))
        else:
            mixed = self.tensor(value) @ self.deltas
        for own, coefficient in zip(self.own, coefficients[0], strict=True):
            mixed = mixed + coefficient * own
        return mixed


@dataclass(frozen=True, eq=False)
class _Many:
    """Rows in which many updates have a coefficient: products of matrices."""

    mixing: _Mixing
    count: int  # rows that are somebody's; those after them are zeros
    coefficients: Tensor  # [m, len(own) + n]

    def __len__(self) -> int:
        return len(self.coefficients)

    def first(self, vectors: Tensor, scratch: Tensor) -> Tensor:
        """[m, L] of vectors [len(own) + n, L]."""
        out = scratch[0, : len(self) * vectors.shape[1]].view(len(self), -1)
        return torch.mm(self.coefficients, vectors, out=out)

    def weights(self, part: slice) -> Tensor:
        """[m, length of part]: this part of every row's weights."""
        own, deltas = self.mixing.own, self.mixing.deltas
        mixed = torch.addmm(own[0][part], self.coefficients[:, len(own) :].contiguous(), deltas[:, part])
        for place, each in enumerate(own[1:], start=1):
            mixed.add_(self.coefficients[:, place, None] * each[part])
        return mixed


@dataclass(frozen=True, eq=False)
class _Few:
    """Rows in which a few updates have a coefficient: these are added one by one, in steps of one rounding. So filling
    up with zeros changes no bit."""

    mixing: _Mixing
    count: int
    of_own: Tensor  # [m, len(own)]
    index: Tensor  # int64 [m, w], which updates
    coefficients: Tensor  # [m, w]

    def __len__(self) -> int:
        return len(self.of_own)

    def first(self, vectors: Tensor, scratch: Tensor) -> Tensor:
        """[m, L] of vectors [len(own) + n, L]."""
        shape, own = (len(self.of_own), vectors.shape[1]), len(self.mixing.own)
        out, term = (row[: shape[0] * shape[1]].view(shape) for row in scratch.unbind())
        torch.mul(vectors[1], self.of_own[:, 1, None], out=out).add_(vectors[0])
        for place in range(2, own):
            out.add_(torch.mul(vectors[place], self.of_own[:, place, None], out=term))
        for index, coefficient in zip(self.index.T, self.coefficients.T, strict=True):
            torch.index_select(vectors, 0, index + own, out=term)
            out.add_(term.mul_(coefficient[:, None]))
        return out

    def weights(self, part: slice) -> Tensor:
        """[m, length of part]: this part of every row's weights."""
        own, deltas = self.mixing.own, self.mixing.deltas[:, part]
        mixed: Tensor = self.of_own[:, 1, None] * own[1][part] + own[0][part]
        for place in range(2, len(own)):
            mixed.add_(self.of_own[:, place, None] * own[place][part])
        for index, coefficient in zip(self.index.T, self.coefficients.T, strict=True):
            mixed.add_(deltas.index_select(0, index).mul_(coefficient[:, None]))
        return mixed


@dataclass(frozen=True)
class _Tile:
    """A tile of samples. Samples are innermost, so that all that runs over classes vectorises."""

    layers: list[Dense]
    first: Tensor  # [len(own) + n, outputs, tile], the tile filled up
    y: Tensor  # of the samples that are there
    score: Score

    @torch.inference_mode()
    def scores(self, chunk: _Few | _Many, scratch: Tensor) -> Tensor:
        """float64 [count], summed over the tile. Activations take turns in the two rows of scratch: fresh memory costs
        a page fault every 4 KB, as much time as the arithmetic."""
        rows, tile = len(chunk), self.first.shape[2]
        shape = (rows, -1, tile)
        h, depth = chunk.first(self.first.flatten(1), scratch).view(shape), 0
        for depth, layer in enumerate(self.layers[1:], start=1):
            weight, bias = split(chunk.weights(layer.part), layer)
            out = scratch[depth % 2, : rows * layer.outputs * tile].view(shape)
            h = torch.baddbmm(bias, weight, h.relu_(), out=out)
        classes = self.layers[-1].outputs
        logits = scratch[depth % 2, : (rows + 1) * classes * tile].view(rows + 1, classes, tile)
        logits[rows].zero_()
        return self.score(logits[:, :, : len(self.y)], self.y)[: chunk.count]
