"""The source of a plug-in: the bytes of its files, their hash, their text. Standard library only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

MOST_BYTES = 256 * 1024  # of all files of a plug-in together


class Unkeepable(ValueError):
    """The text is a plain sentence."""


def sha256_of(files: Mapping[str, bytes]) -> str:
    """The hash of what `sha256sum FILE...` prints for the files, by their paths in ascending order."""
    listing = "".join(f"{hashlib.sha256(files[path]).hexdigest()}  {path}\n" for path in sorted(files))
    return hashlib.sha256(listing.encode()).hexdigest()


def texts_of(files: Mapping[str, bytes]) -> dict[str, str]:
    """By path. Unkeepable where they are too much to be kept, or are not text."""
    size = sum(map(len, files.values()))
    if size > MOST_BYTES:
        raise Unkeepable(f"its {len(files)} files have {size:,} bytes; at most {MOST_BYTES:,} are kept, and so allowed")
    found = {}
    for path in sorted(files):
        try:
            found[path] = files[path].decode("utf-8")
        except UnicodeDecodeError as error:
            raise Unkeepable(f"{path} is not UTF-8: byte {error.start:,} is {files[path][error.start]:#04x}") from None
        if "\0" in found[path]:
            raise Unkeepable(f"{path} holds a null byte")
    return found


def needed(value: Any) -> Iterator[tuple[str, str]]:
    """(id, source hash) of every plug-in that a record of a configuration names, wherever in it."""
    if isinstance(value, Mapping):
        kind = value.get("kind")
        if isinstance(kind, str) and "/" in kind:
            yield kind, str(value.get("source_sha256", ""))
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            yield from needed(each)
