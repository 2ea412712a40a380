"""Where every random draw of a run begins: a digest of (seed, purpose, round, client). Standard library only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator


def digest(seed: int, purpose: str, round_number: int, client: int) -> bytes:
    """SHA-256 of the four; 32 bytes."""
    return next(digests(seed, purpose, round_number, [client]))


def digests(seed: int, purpose: str, round_number: int, clients: Iterable[int]) -> Iterator[bytes]:
    """`digest` of each of the clients."""
    start = hashlib.sha256(f"{seed}/{purpose}/{round_number}/".encode())
    for client in clients:
        each = start.copy()
        each.update(b"%d" % client)
        yield each.digest()
