"""What a valuation has seen, kept so that anybody can compute the contributions again.

Layout of version 1, little-endian; nothing is compressed, so equal inputs give equal bytes whatever the libraries:

    8 bytes   b"FEDGAME1"
    u32 u32   n players, m coalitions
    i64 [n]   client numbers
    i64 [n]   numbers of examples
    u8 [m, ceil(n/8)]   coalitions; player i is bit i % 8 of byte i // 8, unused bits are 0
    f64 [m]   utilities, in the order in which they were evaluated
    32 bytes  SHA-256 of all the above
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .games import Game, utilities

MAGIC = b"FEDGAME1"
HEADER = struct.Struct("<8sII")
DIGEST_BYTES = 32


class EvidenceError(ValueError):
    """Evidence that is damaged or does not hold what is asked for; the text says what."""


class Recorded:
    """A game that remembers what it was asked: each coalition is evaluated once, and kept in that order."""

    def __init__(self, game: Game) -> None:
        self._game = game
        self._known: dict[bytes, float] = {}  # packed coalition -> utility, in order of evaluation

    def __call__(self, coalitions: NDArray[np.bool_]) -> NDArray[np.float64]:
        keys = _keys(coalitions)
        # dict.fromkeys would lose the row; the last row of equal coalitions is as good as the first.
        new = {key: row for row, key in enumerate(keys) if key not in self._known}
        if new:
            values = utilities(self._game, np.asarray(coalitions)[list(new.values())])
            self._known.update(zip(new, values.tolist(), strict=True))
        return np.array([self._known[key] for key in keys], dtype=np.float64)

    def table(self) -> dict[bytes, float]:
        """A copy: packed coalitions and their utilities, in order of evaluation."""
        return dict(self._known)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What was evaluated for whom."""

    players: tuple[int, ...]  # client numbers, in the order of the columns
    num_examples: tuple[int, ...]
    coalitions: NDArray[np.bool_]  # [m, n]
    utilities: NDArray[np.float64]  # [m]

    def game(self) -> Game:
        """A game that answers from the table; EvidenceError for a coalition that was not evaluated."""
        known = dict(zip(_keys(self.coalitions), self.utilities.tolist(), strict=True))

        def answer(coalitions: NDArray[np.bool_]) -> NDArray[np.float64]:
            try:
                return np.array([known[key] for key in _keys(coalitions)], dtype=np.float64)
            except KeyError as error:
                size = int(np.unpackbits(np.frombuffer(error.args[0], dtype=np.uint8)).sum())
                raise EvidenceError(f"a coalition of {size} players was not evaluated in this round") from None

        return answer


def _keys(coalitions: NDArray[np.bool_]) -> list[bytes]:
    coalitions = np.asarray(coalitions)
    if coalitions.dtype != np.bool_ or coalitions.ndim != 2:
        raise ValueError(f"coalitions: expected bool [m, n], got {coalitions.dtype} {list(coalitions.shape)}")
    return [row.tobytes() for row in np.packbits(coalitions, axis=1, bitorder="little")]


def pack(players: Sequence[int], num_examples: Sequence[int], recorded: Recorded) -> bytes:
    """The evidence as bytes; equal for equal players, numbers, and utilities evaluated in equal order.

    Size: 48 bytes, 16 per player, ceil(n/8) + 8 per coalition: 10 KB for ten players and all coalitions.
    Raises ValueError where players, numbers of examples and recorded coalitions do not fit together.
    """
    table = recorded.table()
    width = _width(len(players))
    if len(players) != len(num_examples) or any(len(key) != width for key in table):
        raise ValueError(f"{len(players)} players, {len(num_examples)} numbers of examples: coalitions do not fit")
    body = b"".join(
        [
            HEADER.pack(MAGIC, len(players), len(table)),
            np.array(players, dtype="<i8").tobytes(),
            np.array(num_examples, dtype="<i8").tobytes(),
            *table,
            np.array(list(table.values()), dtype="<f8").tobytes(),
        ]
    )
    return body + hashlib.sha256(body).digest()


def unpack(blob: bytes) -> Evidence:
    """The evidence of `pack`. Raises EvidenceError where a single bit is not as it was written."""
    body = _intact(bytes(blob))
    _, n, m = HEADER.unpack_from(body)
    sizes = [8 * n, 8 * n, m * _width(n), 8 * m]
    if len(body) != HEADER.size + sum(sizes):
        raise EvidenceError(f"evidence of {n} players and {m} coalitions has {len(body)} bytes")
    starts = np.cumsum([HEADER.size, *sizes])
    players, num_examples, packed, values = (body[a:b] for a, b in pairwise(starts.tolist()))
    return Evidence(
        tuple(np.frombuffer(players, dtype="<i8").tolist()),
        tuple(np.frombuffer(num_examples, dtype="<i8").tolist()),
        _unpacked(packed, m, n),
        np.frombuffer(values, dtype="<f8").astype(np.float64),
    )


def _intact(blob: bytes) -> bytes:
    body, digest = blob[:-DIGEST_BYTES], blob[-DIGEST_BYTES:]
    if len(body) < HEADER.size or not body.startswith(MAGIC):
        raise EvidenceError("these bytes are not evidence of a round, or of a version unknown here")
    if hashlib.sha256(body).digest() != digest:
        raise EvidenceError("the evidence does not match its own SHA-256; it was changed or cut")
    return body


def _unpacked(packed: bytes, m: int, n: int) -> NDArray[np.bool_]:
    rows = np.frombuffer(packed, dtype=np.uint8).reshape(m, _width(n))
    coalitions = np.unpackbits(rows, axis=1, count=n, bitorder="little").astype(np.bool_)
    if len({row.tobytes() for row in rows}) < m or _keys(coalitions) != [row.tobytes() for row in rows]:
        raise EvidenceError("the evidence names a coalition twice or a player that is not there")
    return coalitions


def _width(n: int) -> int:
    """Bytes of a packed coalition."""
    return -(-n // 8)
