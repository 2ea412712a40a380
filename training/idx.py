"""IDX files, as those of MNIST and Fashion-MNIST are, plain or compressed."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.events import TrainingError


def on_disk(path: Path) -> Path | None:
    """The file, or the same compressed."""
    return next((each for each in (path, path.with_name(path.name + ".gz")) if each.is_file()), None)


def read_idx(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """An IDX file of bytes: 0, 0, 8 (unsigned byte), number of axes, each axis as 4 bytes big-endian, the values."""
    header = bytes([0, 0, 8, len(shape)]) + b"".join(size.to_bytes(4, "big") for size in shape)
    found = on_disk(path) or path
    data = content(found)
    expected = len(header) + math.prod(shape)
    if len(data) != expected:
        raise TrainingError(f"{found} is damaged: {expected:,} bytes were expected, {len(data):,} are there")
    if not data.startswith(header):
        raise TrainingError(f"{found} is damaged: its first bytes do not announce {' x '.join(map(str, shape))} values")
    return np.frombuffer(data, np.uint8, offset=len(header)).reshape(shape)


def content(path: Path) -> bytes:
    """Decompressed; TrainingError."""
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise TrainingError(f"{path} cannot be read: {error}") from error
