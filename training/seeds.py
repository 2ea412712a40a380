"""Every random draw of a run, derived from (seed, purpose, round, client).

No draw depends on what was drawn before it, so a resumed run, another backend or another order of clients
draws the same numbers. Nothing in this package reads or moves the global generators of Python, NumPy or
PyTorch. PyTorch's own generators are in `training.generators`: splits are drawn where it is not loaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from training import entropy

Purpose = Literal["test_set", "validation", "partition", "initial_weights", "sample", "batches", "behaviour"]


def seed_for(seed: int, purpose: Purpose, round_number: int = 0, client: int = 0) -> int:
    """A number below 2**63 that SHA-256 makes of the four; ValueError for a purpose that is not listed."""
    return int(seeds_for(seed, purpose, round_number, [client])[0])


def seeds_for(seed: int, purpose: Purpose, round_number: int, clients: Iterable[int]) -> NDArray[np.uint64]:
    """`seed_for` of each of the clients."""
    if purpose not in get_args(Purpose):
        raise ValueError(f"{purpose!r} is not a purpose of randomness; there are {', '.join(get_args(Purpose))}")
    digests = b"".join(digest[:8] for digest in entropy.digests(seed, purpose, round_number, clients))
    return np.frombuffer(digests, ">u8").astype(np.uint64) >> np.uint64(1)


def numpy_generator(seed: int, purpose: Purpose, round_number: int = 0, client: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed_for(seed, purpose, round_number, client)))
