"""Generators that tell how far they are and return a result."""

from collections.abc import Generator
from typing import Any


def told(generator: Generator[Any, None, Any]) -> tuple[list[Any], Any]:
    """All that it yields, and what it returns."""
    said = []
    while True:
        try:
            said.append(next(generator))
        except StopIteration as end:
            return said, end.value


def silent(generator: Generator[Any, None, Any]) -> Any:
    """What it returns, having said nothing."""
    said, result = told(generator)
    assert said == []
    return result
