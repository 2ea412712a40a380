"""Evidence read without numpy, which a process that serves pages does not load: coalitions as whole numbers, player i
being bit i. The layout is that of incentives.valuation.evidence, which checks more. Standard library only."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

FIRST, LATER = struct.Struct("<8sII"), struct.Struct("<8sIII")
DIGEST_BYTES = 32


@dataclass(frozen=True, kw_only=True)
class Table:
    """Who played, and what the coalitions that were asked for are worth together."""

    players: tuple[int, ...]  # client numbers
    count: int  # coalitions
    blob: bytes
    header: int  # bytes
    way: int  # how the coalitions are told, see incentives.valuation.evidence
    version: int

    def utilities(self) -> dict[int, float]:
        """By coalition. Time and memory: by their number."""
        values = struct.unpack_from(f"<{self.count}d", self.blob, len(self.blob) - DIGEST_BYTES - 8 * self.count)
        return dict(zip(self._coalitions(), values, strict=True))

    def _coalitions(self) -> Iterator[int]:
        n = len(self.players)
        everyone = 2**n - 1
        if self.way == 1:
            return iter(range(2**n))
        if self.way == 2:
            left_out = [everyone, *(everyone ^ 1 << player for player in range(n))]
            return iter(left_out if self.version < 3 else left_out[::-1])
        if self.way == 3:
            return iter([0, *(1 << player for player in range(n))])
        width, start = -(-n // 8), self.header + 16 * n
        ends = range(start, start + width * self.count + 1, width)
        return (int.from_bytes(self.blob[begin:end], "little") for begin, end in pairwise(ends))


def read(blob: bytes) -> Table:
    """ValueError for bytes that are no evidence."""
    version = {b"FEDGAME1": 1, b"FEDGAME2": 2, b"FEDGAME3": 3}.get(blob[:8], 0)
    layout = FIRST if version == 1 else LATER
    if not version or len(blob) < layout.size + DIGEST_BYTES:
        raise ValueError("these bytes are not evidence of a round")
    _, n, count, *way = layout.unpack_from(blob)
    told = (-(-n // 8)) * count if not way or way[0] == 0 else 0
    if len(blob) != layout.size + 16 * n + told + 8 * count + DIGEST_BYTES:
        raise ValueError(f"evidence of {n} players and {count} coalitions has not {len(blob)} bytes")
    if hashlib.sha256(blob[:-DIGEST_BYTES]).digest() != blob[-DIGEST_BYTES:]:
        raise ValueError("the evidence does not match its own SHA-256; it was changed or cut")
    players = struct.unpack_from(f"<{n}q", blob, layout.size)
    return Table(players=players, count=count, blob=blob, header=layout.size, way=way[0] if way else 0, version=version)
