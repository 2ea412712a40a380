"""What a valuation has seen, kept so that anybody can compute the contributions again.

Layout of version 3, little-endian; nothing is compressed, so equal inputs give equal bytes whatever the libraries:

    8 bytes   b"FEDGAME3"
    u32 u32   n players, m coalitions
    u32       how the coalitions are told: 0 each by its bits; 1 all; 2 everyone and everyone but one; 3 nobody and
              each player alone
    i64 [n]   client numbers
    i64 [n]   numbers of examples
    u8 [m, ceil(n/8)]   with 0 only: coalitions; player i is bit i % 8 of byte i // 8, unused bits are 0
    f64 [m]   utilities
    32 bytes  SHA-256 of all the above

Coalitions are in the order of their numbers, where player i is bit i: what was asked for decides the bytes, not when.
Leaving one of 10,000 clients out is 10,001 coalitions of 10,000 bits, and two words. In versions 1 and 2, of runs of
schemes 1 and 2, they are in the order in which they were evaluated (way 2: everyone, then everyone but each player in
turn); version 1 has neither the third u32 nor any but the first way.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .exact import MOST_PLAYERS, all_coalitions
from .games import Game, utilities

MAGICS = {1: b"FEDGAME1", 2: b"FEDGAME2", 3: b"FEDGAME3"}
HEADER, FIRST_HEADER = struct.Struct("<8sIII"), struct.Struct("<8sII")
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

    def __len__(self) -> int:
        """Coalitions that were evaluated."""
        return len(self._known)

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


class Kept:
    """A round's game as its evidence knows it: what some economies asked for, together.

    EvidenceError for a coalition that none of them did, and where two tables do not belong to one game.
    """

    def __init__(
        self,
        *,
        cohort: tuple[int, ...],
        tables: Sequence[Evidence],
        players: tuple[int, ...] = (),
        num_examples: Sequence[int] = (),
    ) -> None:
        self.cohort = cohort
        self.players = tables[0].players if tables else players
        self.num_examples = tables[0].num_examples if tables else tuple(num_examples)
        self._known: dict[bytes, float] = {}
        for table in tables:
            if (table.players, table.num_examples) != (self.players, self.num_examples):
                raise EvidenceError("the evidence of two economies is of different players")
            for key, utility in zip(_keys(table.coalitions), table.utilities.tolist(), strict=True):
                if self._known.setdefault(key, utility) != utility:
                    raise EvidenceError("the evidence of two economies gives a coalition two utilities")

    def __call__(self, coalitions: NDArray[np.bool_]) -> NDArray[np.float64]:
        keys = _keys(coalitions)
        missing = sum(key not in self._known for key in set(keys))
        if missing:
            raise EvidenceError(
                f"{missing:,} of the {len(set(keys)):,} coalitions that it asks for were not evaluated in this run; "
                "run it again with this economy among its shadows"
            )
        return np.array([self._known[key] for key in keys], dtype=np.float64)


def _keys(coalitions: NDArray[np.bool_]) -> list[bytes]:
    coalitions = np.asarray(coalitions)
    if coalitions.dtype != np.bool_ or coalitions.ndim != 2:
        raise ValueError(f"coalitions: expected bool [m, n], got {coalitions.dtype} {list(coalitions.shape)}")
    return [row.tobytes() for row in np.packbits(coalitions, axis=1, bitorder="little")]


def _each_left_out(n: int) -> NDArray[np.bool_]:
    return np.concatenate([np.ones((1, n), dtype=np.bool_), ~np.eye(n, dtype=np.bool_)])


def _each_alone(n: int) -> NDArray[np.bool_]:
    return np.concatenate([np.zeros((1, n), dtype=np.bool_), np.eye(n, dtype=np.bool_)])


@dataclass(frozen=True)
class Family:
    """Coalitions that follow from the number of players."""

    most_players: int  # with more they are told by their bits
    size: Callable[[int], int]
    coalitions: Callable[[int], NDArray[np.bool_]]


BITS, ALL, EACH_LEFT_OUT, EACH_ALONE = range(4)
FAMILIES = {  # of one player some are alike: the first that fits is told
    ALL: Family(MOST_PLAYERS, lambda n: 2**n, all_coalitions),
    EACH_LEFT_OUT: Family(20_000, lambda n: n + 1, _each_left_out),
    EACH_ALONE: Family(20_000, lambda n: n + 1, _each_alone),
}
IN_ORDER = FAMILIES | {  # of their numbers, as from version 3 on
    EACH_LEFT_OUT: Family(20_000, lambda n: n + 1, lambda n: _each_left_out(n)[::-1]),
}


def pack(players: Sequence[int], num_examples: Sequence[int], recorded: Recorded, version: int = 3) -> bytes:
    """The evidence as bytes; equal for equal players, numbers and utilities, before version 3 evaluated in equal order.

    Size: 52 bytes, 16 per player, 8 per coalition (8 KB for ten players and all coalitions), and ceil(n/8) more per
    coalition where they are no family of the layout. Raises ValueError where players, numbers of examples and
    recorded coalitions do not fit together.
    """
    table = recorded.table()
    if version >= 3:
        table = dict(sorted(table.items(), key=lambda each: each[0][::-1]))
    n, width = len(players), _width(len(players))
    if n != len(num_examples) or any(len(key) != width for key in table):
        raise ValueError(f"{n} players, {len(num_examples)} numbers of examples: coalitions do not fit")
    family = BITS if version == 1 else _family([*table], n, FAMILIES if version == 2 else IN_ORDER)
    body = b"".join(
        [
            FIRST_HEADER.pack(MAGICS[1], n, len(table))
            if version == 1
            else HEADER.pack(MAGICS[version], n, len(table), family),
            np.array(players, dtype="<i8").tobytes(),
            np.array(num_examples, dtype="<i8").tobytes(),
            *(table if family == BITS else ()),
            np.array(list(table.values()), dtype="<f8").tobytes(),
        ]
    )
    return body + hashlib.sha256(body).digest()


def _family(keys: Sequence[bytes], n: int, families: Mapping[int, Family]) -> int:
    for number, family in families.items():
        if 0 < n <= family.most_players and len(keys) == family.size(n) and _keys(family.coalitions(n)) == keys:
            return number
    return BITS


def unpack(blob: bytes) -> Evidence:
    """The evidence of `pack`, of any version. Raises EvidenceError where a single bit is not as it was written."""
    body = _intact(bytes(blob))
    if body.startswith(MAGICS[1]):
        (_, n, m), header, way = FIRST_HEADER.unpack_from(body), FIRST_HEADER.size, BITS
    else:
        (_, n, m, way), header = HEADER.unpack_from(body), HEADER.size
    family = (FAMILIES if body.startswith(MAGICS[2]) else IN_ORDER).get(way)
    if way != BITS and not (family and 0 < n <= family.most_players and m == family.size(n)):
        raise EvidenceError(f"evidence of {n} players and {m} coalitions cannot be told in way {way}")
    sizes = [8 * n, 8 * n, 0 if family else m * _width(n), 8 * m]
    if len(body) != header + sum(sizes):
        raise EvidenceError(f"evidence of {n} players and {m} coalitions has {len(body)} bytes")
    starts = np.cumsum([header, *sizes])
    players, num_examples, packed, values = (body[a:b] for a, b in pairwise(starts.tolist()))
    return Evidence(
        tuple(np.frombuffer(players, dtype="<i8").tolist()),
        tuple(np.frombuffer(num_examples, dtype="<i8").tolist()),
        family.coalitions(n) if family else _unpacked(packed, m, n),
        np.frombuffer(values, dtype="<f8").astype(np.float64),
    )


def _intact(blob: bytes) -> bytes:
    body, digest = blob[:-DIGEST_BYTES], blob[-DIGEST_BYTES:]
    size = FIRST_HEADER.size if body.startswith(MAGICS[1]) else HEADER.size
    if len(body) < size or not body.startswith(tuple(MAGICS.values())):
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
