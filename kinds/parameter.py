"""One value that a kind or a configuration takes: its type, bounds and default, and what is wrong with another."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

BOUNDS = ("minimum", "maximum", "above", "below")  # the last two exclude the bound itself
JSON_BOUNDS = {"minimum": "minimum", "maximum": "maximum", "above": "exclusiveMinimum", "below": "exclusiveMaximum"}
JSON_TYPES = {"number": "number", "whole": "integer", "choice": "string", "flag": "boolean"}
MOST_CLIENTS = 100_000  # that a list may name
MAX_CLIENT = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """Made by `number`, `whole`, `choice`, `flag`, `clients`. Where the default is None, None is a value too, and the
    help says what it stands for."""

    type: str
    default: Any
    help: str
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()

    @property
    def is_optional(self) -> bool:
        return self.default is None

    @property
    def bounds_text(self) -> str:
        """The bounds in words: 'at least 1 and at most 100'."""
        words = {"minimum": "at least", "above": "above", "maximum": "at most", "below": "below"}
        return " and ".join(
            f"{word} {getattr(self, name):,.12g}" for name, word in words.items() if getattr(self, name) is not None
        )

    def check(self, value: Any) -> Any:
        """The value in the parameter's type; ValueError with what was expected."""
        if value is None and self.is_optional:
            return None
        if self.type == "number":
            return self._bounded(_finite(value))
        if self.type == "whole":
            return self._bounded(_whole(value))
        if self.type == "flag":
            if not isinstance(value, bool):
                raise ValueError(f"{shown(value)} is not true or false")
            return value
        if self.type == "choice":
            if not isinstance(value, str) or value not in self.choices:
                raise ValueError(f"{shown(value)} is not one of {', '.join(self.choices)}")
            return value
        return _clients(value)

    def _bounded(self, value: float) -> float:
        if (
            (self.minimum is not None and value < self.minimum)
            or (self.maximum is not None and value > self.maximum)
            or (self.above is not None and value <= self.above)
            or (self.below is not None and value >= self.below)
        ):
            raise ValueError(f"{shown(value)} is not {self.bounds_text}")
        return value

    def schema(self) -> dict[str, Any]:
        """As JSON schema."""
        if self.type == "clients":
            client = {"type": "integer", "minimum": 1, "maximum": MAX_CLIENT}
            typed: dict[str, Any] = {"type": "array", "items": client, "maxItems": MOST_CLIENTS, "uniqueItems": True}
        else:
            typed = {"type": [JSON_TYPES[self.type], "null"] if self.is_optional else JSON_TYPES[self.type]}
        bounds = {word: getattr(self, name) for name, word in JSON_BOUNDS.items() if getattr(self, name) is not None}
        choices = {"enum": list(self.choices)} if self.choices else {}
        return {**typed, "default": self.plain(self.default), "description": self.help, **bounds, **choices}

    def plain(self, value: Any) -> Any:
        """A value of this parameter as JSON holds it."""
        return list(value) if self.type == "clients" else value

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON, of which `from_dict` makes the same parameter."""
        bounds = {name: getattr(self, name) for name in BOUNDS if getattr(self, name) is not None}
        choices = {"choices": list(self.choices)} if self.choices else {}
        return {"type": self.type, "default": self.plain(self.default), "help": self.help, **bounds, **choices}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """ValueError where they are no parameter."""
        kept = {"type", "default", "help", "choices", *BOUNDS}
        if not set(values) <= kept or values.get("type") not in (*JSON_TYPES, "clients"):
            raise ValueError(f"{shown(dict(values))} is not a parameter")
        made = cls(**{**values, "choices": tuple(values.get("choices", ()))})
        made.check(made.default)
        return made


def number(
    default: float | None,
    help: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Parameter:
    """A finite number; `above` and `below` exclude the bound itself."""
    return Parameter(
        type="number", default=default, help=help, minimum=minimum, maximum=maximum, above=above, below=below
    )


def whole(default: int | None, help: str, *, minimum: int | None = None, maximum: int | None = None) -> Parameter:
    """A whole number."""
    return Parameter(type="whole", default=default, help=help, minimum=minimum, maximum=maximum)


def choice(default: str, help: str, *, choices: tuple[str, ...]) -> Parameter:
    """One of a few words."""
    return Parameter(type="choice", default=default, help=help, choices=tuple(choices))


def flag(default: bool, help: str) -> Parameter:
    """True or false."""
    return Parameter(type="flag", default=default, help=help)


def clients(help: str) -> Parameter:
    """Numbers of clients, ascending; by default none. Text such as `1, 4-6` is read too."""
    return Parameter(type="clients", default=(), help=help)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        raise ValueError(f"{shown(value)} is not a whole number")
    return int(value)


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{shown(value)} is not a number")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise ValueError(f"{shown(value)} is not a finite number")
    return found + 0.0  # -0.0 and 0.0 are one configuration


def _clients(value: Any) -> tuple[int, ...]:
    if isinstance(value, int) and not isinstance(value, bool):
        value = [value]
    if isinstance(value, str):
        parts = [_stretch(part) for part in value.split(",") if part.strip()]
        if sum(map(len, parts)) > MOST_CLIENTS:  # before they are written out: a short text names millions
            raise ValueError(f"{shown(value)} names more than the {MOST_CLIENTS:,} clients that a list may name")
        value = [each for part in parts for each in part]
    if not isinstance(value, list | tuple):
        raise ValueError(f"{shown(value)} is not a list of client numbers")
    found: set[int] = set()
    for each in value:
        if isinstance(each, bool) or not isinstance(each, int) or not 1 <= each <= MAX_CLIENT:
            raise ValueError(f"{shown(each)} is not a client number; clients are numbered from 1")
        found.add(each)
    if len(found) > MOST_CLIENTS:
        raise ValueError(f"{len(found):,} clients are more than the {MOST_CLIENTS:,} that a list may name")
    return tuple(sorted(found))


def _stretch(text: str) -> range:
    """'4-6' or '4'."""
    first, dash, last = (part.strip() for part in text.partition("-"))
    ends = [int(each) if each.isascii() and each.isdigit() and len(each) <= 7 else 0 for each in (first, last or first)]
    if not 1 <= ends[0] <= ends[1] <= MAX_CLIENT or (dash and not last):
        raise ValueError(f"{shown(text.strip())} is not a client number or a stretch of them, as in 4-6")
    return range(ends[0], ends[1] + 1)


def stretches(numbers: Iterable[int]) -> str:
    """Ascending numbers as `clients` reads them: '1, 4-6'."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in found)


def shown(value: Any) -> str:
    """A value in an error's sentence, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
