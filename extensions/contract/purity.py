"""Whether a function does what a payment may not rest on: clocks, sockets, files, processes, a generator of all."""

from __future__ import annotations

import datetime
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

CLOCKS = (
    "time",
    "time_ns",
    "monotonic",
    "monotonic_ns",
    "perf_counter",
    "perf_counter_ns",
    "process_time",
    "localtime",
    "gmtime",
    "strftime",
    "ctime",
    "sleep",
)
FORBIDDEN = {  # audit events, by their beginnings
    "open": "opens a file",
    "os.": "asks the operating system",
    "socket.": "opens a socket",
    "subprocess.": "starts a process",
    "ctypes.": "calls C",
    "urllib.": "opens an address",
    "shutil.": "changes files",
    "tempfile.": "makes a file",
    "sqlite3.": "opens a database",
}
_watched: list[str] | None = None  # what was seen while somebody watches
_is_hooked = False


class Impure(Exception):
    """It did something that a pure function does not."""


def witness(call: Callable[[], Any]) -> str | None:
    """What the call did that a pure function does not, in words. It is called once before, unwatched, so that what is
    imported late is there."""
    call()
    before = _generators()
    try:
        with _no_clocks(), _watching() as seen:
            call()
    except Impure as error:
        return str(error)
    if seen:
        return f"it {seen[0]}"
    if _generators() != before:
        return "it draws from a generator that everybody shares (random, numpy.random, torch)"
    return None


def _generators() -> list[Any]:
    found: list[Any] = [random.getstate(), list(np.random.get_state())]
    if "torch" in sys.modules:
        found.append(sys.modules["torch"].get_rng_state().numpy().tobytes())
    return [repr(each) if not isinstance(each, bytes) else each for each in found]


@contextmanager
def _watching() -> Iterator[list[str]]:
    global _watched, _is_hooked
    if not _is_hooked:
        sys.addaudithook(_heard)
        _is_hooked = True
    seen: list[str] = []
    _watched = seen
    try:
        yield seen
    finally:
        _watched = None


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched is None or not any(event.startswith(each) for each in FORBIDDEN):
        return
    words = next(text for each, text in FORBIDDEN.items() if event.startswith(each))
    target = f" ({arguments[0]!r})" if arguments and isinstance(arguments[0], str | bytes) else ""
    _watched.append(f"{words}: {event}{target}")


@contextmanager
def _no_clocks() -> Iterator[None]:
    """Clocks raise, also where a plug-in holds them by names of its own. What it keeps deeper is not found."""

    def refused(*args: Any, **kwargs: Any) -> Any:
        raise Impure("it reads the clock")

    class NoClock(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            raise Impure("it reads the clock")

        utcnow = today = now

    class NoDate(datetime.date):
        @classmethod
        def today(cls) -> Any:
            raise Impure("it reads the clock")

    real = {getattr(time, name): refused for name in CLOCKS}
    replaced: dict[Any, Any] = real | {datetime.datetime: NoClock, datetime.date: NoDate}
    places = [vars(time), vars(datetime)]
    places += [vars(module) for name, module in sorted(sys.modules.items()) if name.startswith("fedsite_plugins.")]
    functions, undo = (type, type(time.time)), []
    for place in places:
        for name, value in list(place.items()):
            if isinstance(value, functions) and value in replaced:
                undo.append((place, name, value))
                place[name] = replaced[value]
    try:
        yield
    finally:
        for place, name, value in undo:
            place[name] = value
