"""Which plug-in's code a trainer is in, for its parent to read when it has ended there without a word.

A few bytes of memory that both share: a note costs a microsecond, so that every call of foreign code is noted. A model
is noted where it is built, not in each of its steps.
"""

from __future__ import annotations

import dataclasses
import functools
import mmap
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from kinds import Kind

SIZE = 256  # bytes; a plug-in's id has 121 at most
_memory: mmap.mmap | None = None
_entered: list[str] = []  # by whichever thread, the newest last
_noting = threading.Lock()


def shared() -> IO[bytes]:
    """What a parent makes, hands on by its descriptor, and reads with `noted`."""
    file = tempfile.TemporaryFile()  # noqa: SIM115  it lives for as long as the child
    file.truncate(SIZE)
    return file


def noted(file: IO[bytes]) -> str:
    """The plug-in in whose code its process is, or was at its end; empty: in none's."""
    return os.pread(file.fileno(), SIZE, 0).rstrip(b"\0").decode(errors="replace")


def note_in(descriptor: int) -> None:
    """In the child: from now on what it enters is noted there."""
    global _memory
    _memory = mmap.mmap(descriptor, SIZE)
    os.close(descriptor)


@contextmanager
def inside(name: str) -> Iterator[None]:
    """While this plug-in's code runs, in this thread."""
    if _memory is None:
        yield
        return
    with _noting:
        _entered.append(name)
        _note()
    ends = False
    try:
        yield
    except SystemExit:  # the process ends, and it stays noted in whose code
        ends = True
        raise
    finally:
        if not ends:
            with _noting:
                _entered.remove(name)
                _note()


def _note() -> None:
    assert _memory is not None
    _memory[:] = (_entered[-1] if _entered else "").encode()[:SIZE].ljust(SIZE, b"\0")


def noting(kind: Kind) -> Kind:
    """The same plug-in, whose every call is noted."""
    code = _noting_together(kind.name, kind.code)
    return dataclasses.replace(kind, code=_noting_call(kind.name, code) if code is kind.code else code)


def _noting_call(plugin: str, code: Any) -> Any:
    @functools.wraps(code)
    def call(*given: Any, **parameters: Any) -> Any:
        with inside(plugin):
            return _noting_together(plugin, code(*given, **parameters))

    return call


def _noting_together(plugin: str, code: Any) -> Any:
    """A Strategy or a Behaviour with its own functions noted, defaults left alone; all else as it is."""
    if not dataclasses.is_dataclass(code) or isinstance(code, type):
        return code
    fields = ((field.name, getattr(code, field.name), field.default) for field in dataclasses.fields(code))
    own = {name: value for name, value, usual in fields if callable(value) and value is not usual}
    noted = {name: _noting_call(plugin, value) for name, value in own.items()}
    return dataclasses.replace(code, **noted) if noted else code
