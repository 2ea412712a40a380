"""The orders in which clients take their examples, for a whole cohort at once.

A client's order is what torch.randperm draws from a generator of its own, see training.clients. For one client that is
the fastest way; for a thousand small ones nearly all of the time goes into making a thousand generators. So the same
numbers are worked out here side by side: the Mersenne Twister (Matsumoto and Nishimura 1998), seeded as PyTorch's CPU
generator is, and the shuffle of torch.randperm, a column for each client.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from training.seeds import seeds_for

WORDS, MIDDLE = 624, 397  # of the generator's state
SIDE_BY_SIDE = 256  # clients from which on this is faster than a generator for each

Orders = NDArray[np.int64]


def of_clients(seed: int, round_number: int, clients: NDArray[np.int64], size: int, epochs: int) -> Orders:
    """[clients, epochs, size]: the orders in which these clients take their examples in a round."""
    return orders(seeds_for(seed, "batches", round_number, clients.tolist()), size, epochs)


def orders(seeds: NDArray[np.uint64], size: int, epochs: int) -> Orders:
    """[clients, epochs, size]: for each seed, so many orders of range(size), drawn one after another."""
    draws = epochs * (size - 1)
    if len(seeds) < SIDE_BY_SIDE or draws > WORDS - MIDDLE:
        return _one_by_one(seeds, size, epochs)
    numbers = _first_numbers(seeds, draws)
    found = np.empty((epochs, size, len(seeds)), np.int64)
    clients = np.arange(len(seeds))
    for epoch, order in enumerate(found):
        order[:] = np.arange(size)[:, None]
        for place in range(size - 1):
            other = place + numbers[epoch * (size - 1) + place] % np.uint32(size - place)
            here = order[place].copy()
            order[place] = order[other, clients]
            order[other, clients] = here
    return found.transpose(2, 0, 1)


def _one_by_one(seeds: NDArray[np.uint64], size: int, epochs: int) -> Orders:
    found = np.empty((len(seeds), epochs, size), np.int64)
    for orders, seed in zip(found, seeds.tolist(), strict=True):
        generator = torch.Generator().manual_seed(seed)
        for order in orders:
            order[:] = torch.randperm(size, generator=generator).numpy()
    return found


def _first_numbers(seeds: NDArray[np.uint64], draws: int) -> NDArray[np.int64]:
    """[draws, clients]: the first 32-bit numbers of each seed's generator, at most 227. Words are kept row by row, a
    column for each client; only those on which the wanted numbers depend are worked out."""
    words = np.empty((MIDDLE + max(draws, 1), len(seeds)), np.uint32)
    words[0] = seeds & np.uint64(0xFFFFFFFF)
    last, spare = words[0], np.empty_like(words[0])
    top, factor = np.array(30, np.uint32), np.array(1812433253, np.uint32)
    for word, place in zip(words[1:], np.arange(1, len(words), dtype=np.uint32)[:, None], strict=True):
        np.right_shift(last, top, spare)
        np.bitwise_xor(spare, last, spare)
        np.multiply(spare, factor, spare)
        last = np.add(spare, place, word)
    low = words[1 : draws + 1]
    mixed = (words[:draws] & np.uint32(0x80000000)) | (low & np.uint32(0x7FFFFFFF))
    y = words[MIDDLE : MIDDLE + draws] ^ (mixed >> 1) ^ ((low & np.uint32(1)) * np.uint32(0x9908B0DF))
    y ^= y >> 11
    y ^= (y << 7) & np.uint32(0x9D2C5680)
    y ^= (y << 15) & np.uint32(0xEFC60000)
    y ^= y >> 18
    return y.astype(np.int64)
