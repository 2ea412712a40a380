"""What a round's clients are worth together to plain federated averaging: the utilities of coalitions, many at a time.

The game of schemes 1 and 2, which keep its bits; training.games has today's.

The utility of a coalition S is that of the model at weights + sum over i in S of c_i delta_i, the one-round
reconstruction of Song et al. 2019, "Profit allocation for federated learning": minus its mean cross-entropy on
(x, y), or its accuracy. c_i is n_i / total_examples ("fixed") or n_i / (the coalition's examples) ("renormalised").
The empty coalition is `weights`.

Dense networks are fast because a layer is linear in its weights: X(W + sum c_i D_i) = XW + sum c_i (X D_i). The
first layer is computed once per client and then mixed by coalition; later layers have few weights, so those are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training import threads
from training.forward import Logits, logits_of
from training.layers import Dense, dense_layers
from training.scores import (
    BATCH,
    CARD_BATCH,
    GATHER_ABOVE,
    SCORES,
    SUMMED_ON,
    Score,
    first_layers,
    slices,
    split,
    tile_and_chunk,
)


@dataclass(frozen=True, kw_only=True)
class Roster:
    """A game's players, for whoever asks no utility: nobody's update was kept."""

    players: tuple[int, ...]  # client numbers
    num_examples: Sequence[int]
    cohort: tuple[int, ...] = ()  # everybody of the round, players or not

    def __call__(self, coalitions: NDArray[np.bool_]) -> NDArray[np.float64]:
        raise ValueError("the updates of this round were not kept, so no coalition can be evaluated")


@dataclass(frozen=True, eq=False)
class CoalitionGame:
    """Call it with coalitions, bool [m, n], one column per player; it returns their utilities, float64 [m].

    What is computed depends on shapes and coalitions alone, never on the number of worker threads. A chunk of work is
    one thread's, so the process should keep torch at one thread (`torch.set_num_threads(1)`). Memory beyond the
    arguments, for dense networks and however many coalitions and players: about 128 MB, per worker 120 MB and a copy
    of the later layers of the players in whom a chunk differs from the usual coalition (for leave-one-out, 32).
    Raises ValueError where shapes, numbers of examples or names do not fit. Utilities are NaN or infinite where the
    weights are; it is for the reader of the game to refuse them.
    """

    network: nn.Module  # gives the shape; neither read nor changed by a call
    weights: Tensor  # [P], before the round, in the order of parameters_to_vector
    deltas: Tensor  # [n, P], new minus old weights, a row per player
    num_examples: Sequence[int]  # of the n players
    total_examples: int  # of the whole cohort; may exceed the players' sum
    x: Tensor  # [N, ...]
    y: Tensor  # [N], classes
    _: KW_ONLY
    players: tuple[int, ...]  # client numbers, a column each
    cohort: tuple[int, ...] = ()  # everybody of the round, players or not
    utility: str  # loss (minus the mean cross-entropy) or accuracy
    utility_weights: str  # fixed or renormalised
    workers: int | None = None  # threads; None: one per core where torch itself runs one thread, else one

    def __post_init__(self) -> None:
        _check_names(self)
        _check_shapes(self)

    def __call__(self, coalitions: NDArray[np.bool_]) -> NDArray[np.float64]:
        """float64 [m], the utilities of m coalitions; equal ones in one call get the same to the last bit."""
        coalitions = self._checked(coalitions)
        # Under fixed weights a zero update changes nothing: without its column it is worth exactly zero.
        live = self._live()
        first, inverse = _distinct(coalitions[:, live])
        if len(first) == 0:
            return np.zeros(0)
        return self._evaluate(_Mixture(self, coalitions[first], live))[inverse]

    def _checked(self, coalitions: NDArray[np.bool_]) -> NDArray[np.bool_]:
        coalitions = np.asarray(coalitions)
        if coalitions.dtype != np.bool_ or coalitions.ndim != 2 or coalitions.shape[1] != len(self.players):
            shape = f"{coalitions.dtype} {list(coalitions.shape)}"
            raise ValueError(f"coalitions: expected bool [m, {len(self.players)}], got {shape}")
        return coalitions

    def _live(self) -> NDArray[np.bool_]:
        if self.utility_weights == "renormalised":
            return np.ones(len(self.players), dtype=np.bool_)
        return (self.deltas != 0).any(1).cpu().numpy()

    def _evaluate(self, mixture: _Mixture) -> NDArray[np.float64]:
        layers = dense_layers(self.network)
        score = SCORES[self.utility]
        workers = self.workers or threads.workers_for(self.x)
        sums = _generic(mixture, score, workers) if layers is None else _dense(mixture, layers, score, workers)
        return sums / len(self.y)


def _check_names(game: CoalitionGame) -> None:
    if game.utility not in SCORES:
        raise ValueError(f"utility: {game.utility!r} is not one of {', '.join(SCORES)}")
    if game.utility_weights not in ("fixed", "renormalised"):
        raise ValueError(f"utility_weights: {game.utility_weights!r} is not one of fixed, renormalised")


def _check_shapes(game: CoalitionGame) -> None:
    size = sum(parameter.numel() for parameter in game.network.parameters())
    if game.weights.shape != (size,):
        raise ValueError(f"weights: expected [{size}], got {list(game.weights.shape)}")
    if game.deltas.shape != (len(game.players), size):
        raise ValueError(f"deltas: expected [{len(game.players)}, {size}], got {list(game.deltas.shape)}")
    if len(game.num_examples) != len(game.players) or any(number < 1 for number in game.num_examples):
        raise ValueError(f"num_examples: expected {len(game.players)} numbers of at least 1")
    if game.total_examples < sum(game.num_examples):
        raise ValueError(f"total_examples: {game.total_examples} is less than the players' sum")
    if len(game.y) == 0 or len(game.x) != len(game.y):
        raise ValueError(f"x, y: expected as many samples as labels, at least 1, got {len(game.x)}, {len(game.y)}")


def _distinct(coalitions: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows where each distinct coalition first stands; for every row its place among the distinct ones."""
    packed = np.packbits(coalitions, axis=1)
    wide = np.zeros((len(packed), -(-packed.shape[1] // 8) * 8 or 8), np.uint8)
    wide[:, : packed.shape[1]] = packed
    keys = wide.view(">u8")[:, 0] if wide.shape[1] == 8 else wide.view(f"V{wide.shape[1]}")[:, 0]
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return first[order], place[inverse]


class _Mixture:
    """Coalitions as mixing coefficients over three kinds of vectors: the weights, a reference, some players.

    The reference is the coalition of the players that most coalitions contain. A coalition near it is written as its
    difference from it: leaving one of a thousand clients out mixes one client, not 999. A coalition that has fewer
    examples than that difference is written as it is, so that no small sum is ever the difference of large ones.
    """

    def __init__(self, game: CoalitionGame, coalitions: NDArray[np.bool_], live: NDArray[np.bool_]) -> None:
        self.game = game
        self.coalitions = coalitions[:, live]
        self.deltas = game.deltas if live.all() else game.deltas[torch.from_numpy(live)]
        self.num_examples = np.asarray(game.num_examples, dtype=np.float64)[live]
        self.reference = self.coalitions.mean(axis=0) > 0.5  # [n]
        self.reference_delta = self._tensor(self.num_examples * self.reference) @ self.deltas  # [P]
        examples = self.coalitions @ self.num_examples
        self.near = (self.coalitions != self.reference) @ self.num_examples < examples  # [m]
        fixed = game.utility_weights == "fixed"
        self.scale = 1.0 / (game.total_examples if fixed else np.maximum(examples, 1.0))  # of sums of n_i delta_i

    def chunk(self, rows: slice) -> _Chunk:
        near = self.near[rows, None].astype(np.float64)
        scale = np.broadcast_to(self.scale, len(self.coalitions))[rows, None]
        difference = self.coalitions[rows] - near * self.reference
        players, index = np.flatnonzero(difference.any(axis=0)), None
        if len(self.deltas) <= GATHER_ABOVE or len(players) > len(self.deltas) / 2:
            players = np.arange(len(self.deltas))
        else:
            index = torch.from_numpy(players).to(self.deltas.device)
        coefficients = scale * difference[:, players] * self.num_examples[players]
        return _Chunk(self, index, self._tensor(scale * near), self._tensor(coefficients))

    def _tensor(self, numbers: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(numbers).to(self.deltas.dtype).to(self.deltas.device)


@dataclass(frozen=True)
class _Chunk:
    """Some coalitions, and the players in whom they differ from the reference."""

    mixture: _Mixture
    index: Tensor | None  # [k], rows of deltas; None: all of them
    reference: Tensor  # [m, 1], its coefficients
    coefficients: Tensor  # [m, k], the players'

    def of_players(self, rows: Tensor) -> Tensor:
        return rows if self.index is None else rows.index_select(0, self.index)

    def weights(self, part: slice) -> Tensor:
        """[m, length of part]: this part of every coalition's weights."""
        mixture = self.mixture
        deltas = self.of_players(mixture.deltas[:, part])
        mixed = torch.addmm(mixture.game.weights[part], self.coefficients, deltas)
        return mixed.addr_(self.reference[:, 0], mixture.reference_delta[part])

    def __len__(self) -> int:
        return len(self.coefficients)


# Dense networks


def _dense(mixture: _Mixture, layers: list[Dense], score: Score, workers: int) -> NDArray[np.float64]:
    """float64 [m]: every coalition's score, summed over the samples."""
    x, y = mixture.game.x.flatten(1), mixture.game.y
    tile, size = tile_and_chunk(len(mixture.deltas), len(x), layers, x.device.type != "cpu")
    chunks = [mixture.chunk(rows) for rows in slices(len(mixture.coalitions), size)]
    widest = max(layer.outputs for layer in layers)
    scratch = [x.new_empty(2, min(size, len(mixture.coalitions)) * widest * tile) for _ in range(workers)]
    sums = torch.zeros(len(mixture.coalitions), dtype=torch.float64, device=SUMMED_ON.get(x.device.type, x.device))
    for samples in slices(len(x), tile):
        own = mixture.game.weights, mixture.reference_delta
        first = first_layers(own, mixture.deltas, layers[0], x[samples].T.contiguous(), workers)
        batch = _Batch(layers, first, y[samples], score)
        on_cpu = x.device.type == "cpu"  # a GPU is told by one thread
        found = (
            threads.in_order(batch.scores, chunks, scratch)
            if on_cpu
            else (batch.scores(each, scratch[0]) for each in chunks)
        )
        sums += torch.cat(list(found))
    return sums.cpu().numpy()


@dataclass(frozen=True)
class _Batch:
    """A tile of samples. Samples are innermost, so that all that runs over classes vectorises."""

    layers: list[Dense]
    first: Tensor  # [n + 2, outputs, tile]
    y: Tensor  # [tile]
    score: Score

    @torch.inference_mode()
    def scores(self, chunk: _Chunk, scratch: Tensor) -> Tensor:
        """float64 [m], summed over the tile. Activations take turns in the two rows of scratch: fresh memory costs a
        page fault every 4 KB, as much time as the arithmetic."""
        shape = (len(chunk), -1, len(self.y))
        h = self._mixed_first(chunk, scratch[0]).view(shape)
        for depth, layer in enumerate(self.layers[1:], start=1):
            weight, bias = split(chunk.weights(layer.part), layer)
            out = scratch[depth % 2, : len(chunk) * layer.outputs * len(self.y)].view(shape)
            h = torch.baddbmm(bias, weight, h.relu_(), out=out)
        return self.score(h, self.y)

    def _mixed_first(self, chunk: _Chunk, scratch: Tensor) -> Tensor:
        """[m, outputs * tile] from [n + 2, outputs, tile], by one product of matrices."""
        first = self.first if chunk.index is None else torch.cat([self.first[:2], chunk.of_players(self.first[2:])])
        coefficients = torch.cat([torch.ones_like(chunk.reference), chunk.reference, chunk.coefficients], dim=1)
        vectors = first.flatten(1)
        out = scratch[: len(chunk) * vectors.shape[1]].view(len(chunk), -1)
        return torch.mm(coefficients, vectors, out=out)


# Any other network


def _generic(mixture: _Mixture, score: Score, workers: int) -> NDArray[np.float64]:
    """One coalition at a time: mix its weights, load them into a copy of the network, evaluate."""
    game = mixture.game

    def evaluate(row: int, logits: Logits) -> Tensor:
        with torch.inference_mode():
            weights = mixture.chunk(slice(row, row + 1)).weights(slice(None))[0]
            batches = slices(len(game.x), BATCH if game.x.device.type == "cpu" else CARD_BATCH)
            return reduce(torch.add, (score(logits(weights, game.x[at]).T[None], game.y[at])[0] for at in batches))

    tools = [logits_of(game.network) for _ in range(workers)]
    return torch.stack(list(threads.in_order(evaluate, range(len(mixture.coalitions)), tools))).cpu().numpy()
