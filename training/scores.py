"""The scores of many models on the same samples, in pieces: what every evaluation of coalitions shares."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from training import threads
from training.layers import Dense

MAX_TILE = 512  # samples at a time
PLAYERS_BYTES = 128 << 20  # first layer of all clients for one tile of samples
CHUNK_BYTES = 8 << 20  # activations of a chunk of coalitions on a tile: in cache, yet few enough calls
MIXED_BYTES = 32 << 20  # later layers' mixed weights of one chunk
MAX_CHUNK = 512  # coalitions at a time; GATHER_ABOVE with more players, as they mostly differ in different ones
GATHER_ABOVE = 32  # with so few clients, mixing those that do not differ costs less than leaving them out
BATCH = 200  # samples at a time through a network that is not dense
# A GPU has no such cache, but takes as long to be told what to do as to do it: large pieces, of which it does one while
# it is told of the next.
CARD_TILE, CARD_CHUNK, CARD_BYTES, CARD_BATCH = 8192, 512, 1 << 30, 2000


def tile_and_chunk(num_players: int, num_samples: int, layers: list[Dense], on_card: bool = False) -> tuple[int, int]:
    """How many samples and how many coalitions at a time; from shapes alone, so that every run adds alike."""
    bytes_of_players = 4 * (num_players + 2) * layers[0].outputs
    most_samples, of_players = (CARD_TILE, CARD_BYTES) if on_card else (MAX_TILE, PLAYERS_BYTES)
    tile = even(num_samples, max(1, min(most_samples, of_players // bytes_of_players)))
    most = MAX_CHUNK if num_players <= GATHER_ABOVE else GATHER_ABOVE
    widest = max(layer.outputs for layer in layers)
    mixed = sum(layer.part.stop - layer.part.start for layer in layers[1:])
    activations, later = (CARD_BYTES, CARD_BYTES) if on_card else (CHUNK_BYTES, MIXED_BYTES)
    most = CARD_CHUNK if on_card else most
    return tile, max(1, min(most, activations // (4 * widest * tile), later // (4 * mixed or 1)))


def even(total: int, most: int) -> int:
    """The size of the fewest nearly equal pieces of at most `most`."""
    return -(-total // -(-total // most))


def slices(total: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, total)) for start in range(0, total, size)]


def first_layers(own: Sequence[Tensor], deltas: Tensor, layer: Dense, x: Tensor, workers: int) -> Tensor:
    """[len(own) + n, outputs, tile]: the first layer of some vectors [P] and of every delta [n, P]; x is
    [inputs, tile]."""
    if x.device.type != "cpu":  # one product of them all
        weight, bias = split(torch.cat([torch.stack([each[layer.part] for each in own]), deltas[:, layer.part]]), layer)
        return torch.addmm(bias.flatten(0, 1), weight.flatten(0, 1), x).view(len(weight), layer.outputs, -1)
    vectors = [*own, *deltas]
    first = x.new_empty(len(vectors), layer.outputs, x.shape[1])

    def fill(place: int, _: None) -> None:
        weight, bias = split(vectors[place][None, layer.part], layer)
        torch.addmm(bias[0], weight[0], x, out=first[place])

    deque(threads.in_order(fill, range(len(vectors)), [None] * workers), maxlen=0)
    return first


def split(mixed: Tensor, layer: Dense) -> tuple[Tensor, Tensor]:
    """[m, outputs, inputs] and [m, outputs, 1] of flat weights [m, ...]."""
    size = layer.outputs * layer.inputs
    return mixed[:, :size].view(-1, layer.outputs, layer.inputs), mixed[:, size:].unsqueeze(2)


Score = Callable[[Tensor, Tensor], Tensor]  # logits [m, classes, N], y [N] -> float64 [m], sums over N
SUMMED_ON = {"mps": "cpu"}  # it knows no float64


def _minus_loss(logits: Tensor, y: Tensor) -> Tensor:
    if logits.device.type == "cuda":  # one call in place of nine, each of which takes as long to tell as to do
        return _summed(logits.log_softmax(1).gather(1, y.expand(len(logits), 1, -1)).squeeze(1))
    right = logits.gather(1, y.expand(len(logits), 1, -1)).squeeze(1)
    losses = logits.logsumexp(1) - right
    return -_summed(losses)


def _correct(logits: Tensor, y: Tensor) -> Tensor:
    return _summed(logits.argmax(1) == y)


def _summed(each: Tensor) -> Tensor:
    return each.to(SUMMED_ON.get(each.device.type, each.device)).sum(1, dtype=torch.float64)


SCORES: dict[str, Score] = {"loss": _minus_loss, "accuracy": _correct}
