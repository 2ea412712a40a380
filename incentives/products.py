"""Inner products of a round's updates, as economies see them: arrays by name, and what was asked of them as evidence.

Who measures by how long updates are and how alike never sees a weight. By name, each float64, n being the cohort:

    updates        [n, n]  of each update with each
    summed         [n, n]  of each client's updates summed over the rounds so far, this one too, with each
    squared_norms  [n]     of each update with itself
    step           [n]     of each with the step that the server made of this round
    previous_step  [n]     of each with the step of the round before; zeros in round 1
    gradient       [n]     of each with the gradient of the validation loss before the round
    root_step      [n]     of each with the step of a model trained on the server's own examples
    carried        [n]     of each with what the strategy carries
    step.step      []      of two of these vectors with each other, whichever
    alone          [n]     validation loss of the model with the client's update alone

A client that sent nothing has zeros (`alone`: the loss before the round).

Layout of the evidence, little-endian; equal inputs give equal bytes:

    8 bytes  b"FEDPROD1"
    u32 u32  n clients, m arrays
    i64 [n]  client numbers
    m times, in the order of the names' bytes:
        u32  length of the name; the name in ASCII
        u32  number of dimensions, 0 to 2, each n long
        f64  the values, row by row
    32 bytes SHA-256 of all the above
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from incentives.valuation.evidence import DIGEST_BYTES, EvidenceError

MAGIC = b"FEDPROD1"
Arrays = Mapping[str, NDArray[np.float64]]


class RecordedProducts(Mapping[str, NDArray[np.float64]]):
    """Products that remember which of them were asked for."""

    def __init__(self, products: Arrays) -> None:
        self._products = products
        self.asked: dict[str, NDArray[np.float64]] = {}

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        if name not in self.asked:
            self.asked[name] = np.asarray(self._products[name], np.float64)
            self.asked[name].flags.writeable = False
        return self.asked[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._products)

    def __len__(self) -> int:
        return len(self._products)

    def packed(self, cohort: tuple[int, ...]) -> bytes | None:
        """What was asked for, as evidence; None where nothing was."""
        return pack(cohort, self.asked) if self.asked else None


class NoProducts(Mapping[str, NDArray[np.float64]]):
    """Where none were made or kept."""

    def __init__(self, why: str) -> None:
        self._why = why

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        raise EvidenceError(f"it asks for products of the updates ({name}); {self._why}")

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


class KeptProducts(Mapping[str, NDArray[np.float64]]):
    """A round's products as the evidence of some economies knows them, together; EvidenceError for one that none of
    them asked for, and where two do not belong to one round."""

    def __init__(self, cohort: tuple[int, ...], evidence: list[bytes]) -> None:
        self._known: dict[str, NDArray[np.float64]] = {}
        for blob in evidence:
            of_cohort, arrays = unpack(blob)
            if of_cohort != cohort:
                raise EvidenceError("the products are of another cohort")
            for name, array in arrays.items():
                if not np.array_equal(self._known.setdefault(name, array), array):
                    raise EvidenceError(f"the evidence of two economies gives other products ({name})")

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        if name not in self._known:
            raise EvidenceError(
                f"it asks for products of the updates ({name}) that no economy of this run asked for; "
                "run it again with this economy among its shadows"
            )
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


def pack(cohort: tuple[int, ...], arrays: Arrays) -> bytes:
    parts = [MAGIC, struct.pack("<II", len(cohort), len(arrays)), np.array(cohort, "<i8").tobytes()]
    for name in sorted(arrays):
        array = np.asarray(arrays[name], np.float64)
        if array.ndim > 2 or any(length != len(cohort) for length in array.shape):
            raise ValueError(f"{name}: {list(array.shape)} is not of {len(cohort)} clients")
        parts += [struct.pack("<I", len(name)), name.encode("ascii"), struct.pack("<I", array.ndim)]
        parts.append((array + 0.0).astype("<f8").tobytes())
    body = b"".join(parts)
    return body + hashlib.sha256(body).digest()


def unpack(blob: bytes) -> tuple[tuple[int, ...], dict[str, NDArray[np.float64]]]:
    """Client numbers, and arrays by name. EvidenceError where the bytes are not evidence of products, or damaged."""
    body, digest = blob[:-DIGEST_BYTES], blob[-DIGEST_BYTES:]
    if not body.startswith(MAGIC) or hashlib.sha256(body).digest() != digest:
        raise EvidenceError("these bytes are not evidence of products, or were changed or cut")
    try:
        n, count = struct.unpack_from("<II", body, len(MAGIC))
        at = len(MAGIC) + 8
        cohort, at = tuple(np.frombuffer(body, "<i8", n, at).tolist()), at + 8 * n
        arrays = {}
        for _ in range(count):
            (length,) = struct.unpack_from("<I", body, at)
            name, at = body[at + 4 : at + 4 + length].decode("ascii"), at + 4 + length
            (dimensions,) = struct.unpack_from("<I", body, at)
            size = n**dimensions
            arrays[name] = np.frombuffer(body, "<f8", size, at + 4).reshape((n,) * dimensions).astype(np.float64)
            at += 4 + 8 * size
    except (struct.error, ValueError) as error:
        raise EvidenceError(f"the evidence of products is malformed: {error}") from None
    if at != len(body):
        raise EvidenceError("the evidence of products is longer than it says")
    return cohort, arrays


def unlike(clients: int) -> dict[str, NDArray[np.float64]]:
    """Of updates of length 1 of which no two have anything in common, for whoever tries a rule without a training."""
    return {name: np.eye(clients) for name in ("updates", "summed")}


def cosines(products: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n, n], from the Gram matrix of n vectors; 0 where one of them is 0. Its diagonal is 1 or 0."""
    lengths = np.sqrt(np.maximum(np.diag(products), 0.0))
    scale = np.outer(lengths, lengths)
    return np.clip(np.divide(products, scale, out=np.zeros_like(products), where=scale > 0), -1.0, 1.0)


def cosines_with(products: Arrays, name: str) -> NDArray[np.float64]:
    """[n], of each update with the vector of this name; 0 where one of them is 0."""
    scale = np.sqrt(np.maximum(products["squared_norms"] * products[f"{name}.{name}"], 0.0))
    return np.clip(np.divide(products[name], scale, out=np.zeros_like(scale), where=scale > 0), -1.0, 1.0)
