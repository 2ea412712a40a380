"""Measured numbers in words, the same in logs, on pages and in JSON. Stdlib only."""

from __future__ import annotations

LONG = 100_000  # from here on powers of ten: a diverged run has losses of twenty digits


def figure(value: float | None, places: int = 4) -> str:
    """A measured number in a few digits, however large: 0.1234, 1,234.5678, 2.53e+20; no sign before zeros."""
    if value is None:
        return "none"
    return f"{value:z,.{places}f}" if abs(value) < LONG else f"{value:.2e}"


def worse(before: float | None, after: float | None) -> str:
    """The sentence about a model that is worse than the untrained one; empty where it is not, or not yet known."""
    if before is None or after is None or after <= before:
        return ""
    return f"The model is worse than it began: test loss {figure(before)} before training, {figure(after)} now"
