"""How many coalitions a valuation that samples evaluates in a round: what it is given, else max(240, 24 n), and never
more than the 2^n that there are. Each function is the `cost` of a kind: n players and its parameters in, coalitions
out; ValueError where too few are given for an estimate of everybody. Standard library only.
"""

from __future__ import annotations

from typing import Any

MOST_EVALUATIONS = 2**16


def _budget(n: int, evaluations: int | None, least: int) -> int:
    everything = 2 ** min(n, 62)
    found = min(max(240, 24 * n) if evaluations is None else evaluations, everything)
    if found < min(least, everything):
        raise ValueError(f"{evaluations:,} evaluations are too few; {n:,} clients take at least {least:,}")
    return found


def of_orders(n: int, *, evaluations: int | None = None, **_: Any) -> int:
    """At least one order in which everybody joins."""
    return _budget(n, evaluations, n + 1)


def of_paired_orders(n: int, *, evaluations: int | None = None, **_: Any) -> int:
    """At least one order and its reverse."""
    return _budget(n, evaluations, 2 * n)


def of_sizes(n: int, *, evaluations: int | None = None, **_: Any) -> int:
    """At least so many pairs of a coalition and its complement that everybody is in one of each size."""
    return _budget(n, evaluations, 2 + 2 * sum(-(-n // size) for size in range(1, n // 2 + 1)))


def of_singles(n: int, *, evaluations: int | None = None, **_: Any) -> int:
    """At least nobody, everybody, each alone, and everybody but each."""
    return _budget(n, evaluations, 2 * n + 2)


def of_subsets(n: int, *, evaluations: int | None = None, **_: Any) -> int:
    """At least two coalitions."""
    return _budget(n, evaluations, 2)


def of_halves(n: int, *, evaluations: int | None = None, **_: Any) -> int:
    """At least nobody, everybody, and a coalition with its complement."""
    return _budget(n, evaluations, 4)
