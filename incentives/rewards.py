"""From contributions to whole micro-tokens that sum to the pool. Pure; no float is ever paid."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import isfinite, lcm

MICROTOKENS = 1_000_000  # in a token
MOST_MICROTOKENS = 2**53 - 1  # beyond it JSON readers lose units
MAX_TRANSFERS = 16_000  # of a transaction; 10,000 clients and their pool fit, and so do SQLite's 32,766 parameters


def largest_remainder(weights: Sequence[Fraction | int], pool: int, *, turn: int = 0) -> list[int]:
    """Whole numbers that sum to pool, in proportion to the weights (Hamilton's method).

    Everyone gets the floor of the exact share; what is left goes, a unit each, to the largest remainders; between
    equal remainders to the larger weight. Equal weights take turns, like cards that are dealt: turn 0 begins with the
    earliest place, turn t where t turns with as many units have led to. So everyone is within one unit of the exact
    share, a larger weight never gets less, and while weights and pool stay no equal is ever more than a unit ahead.
    Exact, without floats. Raises ValueError for a negative weight, a bad pool, or where no weight is positive. Source:
    Balinski & Young 1982, "Fair Representation", chapter 3; the turns are ours.
    """
    _check_pool(pool)
    whole = _whole(weights)
    total = sum(whole)
    if total == 0:
        raise ValueError("largest remainder needs a positive weight")
    shares, remainders = zip(*(divmod(weight * pool, total) for weight in whole), strict=True)
    paid = list(shares)
    order = sorted(range(len(whole)), key=lambda place: (-remainders[place], -whole[place], place))
    left = pool - sum(shares)
    if left > 0:
        # those who equal the last that gets a unit; a larger weight with that remainder stands before them
        last = order[left - 1]
        equals = [place for place in order if (remainders[place], whole[place]) == (remainders[last], whole[last])]
        begin = order.index(equals[0])
        start = turn * (left - begin) % len(equals)
        order[begin : begin + len(equals)] = equals[start:] + equals[:start]
    for place in order[:left]:
        paid[place] += 1
    return paid


def _whole(weights: Sequence[Fraction | int]) -> list[int]:
    """The same proportions as integers."""
    ratios = [weight.as_integer_ratio() for weight in weights]
    if any(numerator < 0 for numerator, _ in ratios):
        raise ValueError("largest remainder takes no negative weight")
    scale = lcm(*(denominator for _, denominator in ratios))
    return [numerator * (scale // denominator) for numerator, denominator in ratios]


def _check_pool(pool: int) -> None:
    if not isinstance(pool, int) or isinstance(pool, bool) or not 0 <= pool <= MOST_MICROTOKENS:
        raise ValueError(f"pool: {pool!r} is not a whole number of micro-tokens from 0 to {MOST_MICROTOKENS:,}")


def proportional(contributions: Sequence[float], pool_microtokens: int) -> list[int]:
    """Micro-tokens per client, in proportion to the positive part of its contribution; they sum to the pool.

    A contribution that is not positive gets exactly 0; where none is positive everybody does, and the pool stays
    where it is. Raises ValueError for a contribution that is not finite, or a bad pool.
    """
    _check_pool(pool_microtokens)
    for place, contribution in enumerate(contributions):
        if not isfinite(contribution):
            raise ValueError(f"contributions: number {place + 1} of {len(contributions)} is {contribution}")
    weights = [Fraction(max(float(contribution), 0.0)) for contribution in contributions]  # a float is a fraction
    if not any(weights):
        return [0] * len(weights)
    return largest_remainder(weights, pool_microtokens)


class TooManyTokens(ValueError):
    """A pool beyond 2^53 - 1 micro-tokens, which no ledger holds."""


def improvement_pool(previous_loss: float, loss: float, scaling_factor: float) -> int:
    """Micro-tokens for a drop of loss: max(0, previous - now) x scaling_factor tokens, to the nearest (ties to even).

    From 0.5 to 0.4 at 10 is 1,000,000. Raises ValueError for a number that is not finite or a negative scaling factor,
    TooManyTokens beyond 2^53 - 1 micro-tokens.
    """
    for name, number in (
        ("previous_loss", previous_loss),
        ("loss", loss),
        ("scaling_factor", scaling_factor),
    ):
        if not isfinite(number):
            raise ValueError(f"{name}: {number} is not a finite number")
    if scaling_factor < 0:
        raise ValueError(f"scaling_factor: {scaling_factor} is negative")
    return _microtokens(max(0.0, previous_loss - loss) * scaling_factor)


def fixed_pool(pool_tokens: float) -> int:
    """Micro-tokens of a pool given in tokens, to the nearest. ValueError below 0 and beyond 2^53 - 1 units."""
    if not isfinite(pool_tokens) or pool_tokens < 0:
        raise ValueError(f"pool_tokens: {pool_tokens} is not a finite number of at least 0")
    return _microtokens(pool_tokens)


def _microtokens(tokens: float) -> int:
    microtokens = tokens * MICROTOKENS
    if not microtokens <= MOST_MICROTOKENS:
        raise TooManyTokens(
            f"{tokens:.3g} tokens are more than {MOST_MICROTOKENS:,} micro-tokens, all that a ledger holds"
        )
    return round(microtokens)
