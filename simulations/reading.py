"""JSON as it comes from outside: bodies, files, values in an address and on the command line. Stdlib only.

One reader for all of them, so that none takes what another refuses. It refuses what Python's own lets through, and what
would break further in: a name that is given twice, numbers that are none, nesting without end, texts that no database
holds.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any

MOST_DEPTH = 32
SURROGATE = re.compile("[\ud800-\udfff]")
MOST_DIGITS = 400  # the largest float has 309; Python itself refuses numbers of more than 4,300


class Unreadable(ValueError):
    """JSON that nobody may send. The text is a sentence without its subject; `field` is the outermost name in it."""

    def __init__(self, text: str, field: str | None = None) -> None:
        self.field = field
        super().__init__(text)


class NotJson(Unreadable):
    """No JSON at all."""


def value(given: str | bytes) -> Any:
    """What the JSON says. Bytes may be UTF-8, UTF-16 or UTF-32, with a byte order mark or without."""
    try:
        text = given.decode(json.detect_encoding(given)) if isinstance(given, bytes) else given.removeprefix("\ufeff")
        found = json.loads(text, object_pairs_hook=_object, parse_int=_whole)
    except Unreadable:
        raise
    except RecursionError:
        raise Unreadable("is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise NotJson(f"is not text in {error.encoding}") from None
    except ValueError as error:
        raise NotJson(f"is not JSON: {error}") from None
    if isinstance(found, dict):
        for name, inner in found.items():
            _refuse(name, name)
            _refuse(inner, name)
    else:
        _refuse(found, None)
    return found


def value_or_text(text: str) -> Any:
    """For an address and the command line: what it says where it is JSON, else the text itself."""
    try:
        return value(text)
    except NotJson:
        return text


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, often in Counter(name for name, _ in pairs).items() if often > 1)
        raise Unreadable(f"{_shown(twice)} is given twice", twice)
    return found


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= MOST_DIGITS else math.inf


def _refuse(found: Any, field: str | None) -> None:
    """Unreadable where anything inside is not to be let further in."""
    level = [found]
    for _ in range(MOST_DEPTH):
        for one in level:
            if isinstance(one, float) and not math.isfinite(one):
                raise Unreadable("holds a number that is not finite, or too large", field)
            if isinstance(one, str) and not _is_storable(one):
                raise Unreadable(f"{_shown(one)} holds a character that no text may have", field)
        level = [inner for one in level for inner in _inside(one)]
        if not level:
            return
    raise Unreadable("is nested too deeply", field)


def _inside(one: Any) -> list[Any]:
    if isinstance(one, dict):
        return [*one, *one.values()]
    return one if isinstance(one, list) else []


def _is_storable(text: str) -> bool:
    """PostgreSQL holds no NUL, and half of a surrogate pair is no character."""
    return "\0" not in text and not SURROGATE.search(text)


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 40 else text[:37] + "...")
