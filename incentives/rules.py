"""How a pool is split. A rule is a function (facts, pool, state, **parameters) -> Payment.

Whoever changes what one pays raises its version in the catalogue and keeps the older code: old payments name theirs.

All of them split by largest remainder over exact weights, with turns by the round: whole micro-tokens, never more than
the pool, to one unit of the exact share. A float is taken as the fraction that it is; a parameter as the decimal number
that it is written as. Exponentials and logarithms are those of `decimal`, whose results are correctly rounded by its
specification, so that every machine pays the same to the unit; those of `math` are the C library's. Who sends nothing
gets 0. Where nobody has a weight, nobody gets anything and the pool stays in the treasury.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from decimal import MAX_EMAX, MIN_EMIN, ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction

from incentives import rewards
from incentives.economy import Payment, RuleFacts, State

DIGITS = Context(prec=30, rounding=ROUND_HALF_EVEN, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[])


def proportional_1(facts: RuleFacts, pool: int, state: State) -> Payment:
    """Version 1, of rows of schemes 1 and 2: what rounding leaves between equals goes to the earlier client always."""
    return Payment(rewards.proportional(facts.contributions, pool), state=state)


def proportional(facts: RuleFacts, pool: int, state: State) -> Payment:
    """In proportion to the contributions above 0. Source: Balinski & Young 1982, chapter 3."""
    return split(gains(facts), facts, pool, state)


def equal(facts: RuleFacts, pool: int, state: State) -> Payment:
    """Everybody who sent something alike."""
    return split([int(sent) for sent in facts.active], facts, pool, state)


def wage_bonus(facts: RuleFacts, pool: int, state: State, *, share: float) -> Payment:
    """`share` of the pool to everybody who sent something alike, the rest in proportion to the contributions above 0.

    Where none is above 0 the wage is paid, rounded down, and the bonus stays in the treasury. Both parts are rounded
    together, so that equal contributions are within one unit.
    """
    wage, worth, workers = Fraction(str(share)), gains(facts), sum(facts.active)
    total = sum(worth)
    if not total:
        return split([int(sent) for sent in facts.active], facts, int(wage * pool), state)
    each = wage * total / workers
    weights = [sent * each + (1 - wage) * gain for sent, gain in zip(facts.active, worth, strict=True)]
    return split(weights, facts, pool, state)


def top_k(facts: RuleFacts, pool: int, state: State, *, k: int) -> Payment:
    """In proportion among the `k` largest contributions above 0; all that equal the k-th are among them."""
    worth = gains(facts)
    least = sorted(worth, reverse=True)[min(k, len(worth)) - 1] if worth else 0
    return split([gain if gain >= least else 0 for gain in worth], facts, pool, state)


def rank(facts: RuleFacts, pool: int, state: State) -> Payment:
    """By rank among the n contributions above 0: n parts for the largest, n - 1 for the next, 1 for the smallest. Equal
    ones share the mean of their ranks."""
    worth = gains(facts)
    below, mean = 0, {Fraction(): Fraction()}
    for gain, equals in sorted(Counter(filter(None, worth)).items()):
        mean[gain] = below + Fraction(1 + equals, 2)
        below += equals
    return split([mean[gain] for gain in worth], facts, pool, state)


def softmax(facts: RuleFacts, pool: int, state: State, *, temperature: float) -> Payment:
    """In proportion to exp(c / temperature) among all who sent something, c being the contribution over the largest
    absolute one of the round: so the unit of contribution does not matter, and who does harm gets something too."""
    scale = max((abs(Fraction(each)) for each in facts.contributions), default=Fraction()) or Fraction(1)
    scale *= Fraction(str(temperature))
    best = max((Fraction(each) for each in facts.contributions), default=Fraction())
    exponents = [(Fraction(each) - best) / scale for each in facts.contributions]
    weights = [
        Fraction(DIGITS.exp(_decimal(each))) if sent else Fraction()
        for each, sent in zip(exponents, facts.active, strict=True)
    ]
    return split(weights, facts, pool, state)


def winner_takes_all(facts: RuleFacts, pool: int, state: State) -> Payment:
    """All to the largest contribution, where it is above 0; equal ones share it."""
    worth = gains(facts)
    most = max(worth, default=Fraction())
    return split([int(gain == most > 0) for gain in worth], facts, pool, state)


def tullock(facts: RuleFacts, pool: int, state: State, *, exponent: float) -> Payment:
    """In proportion to the contributions above 0 to the power of `exponent`; 1 is `proportional`, to the unit. Source:
    Tullock 1980, "Efficient rent seeking"."""
    worth, power = gains(facts), Fraction(str(exponent))
    best = max(worth, default=Fraction())
    if power.denominator == 1:
        weights = [gain**power.numerator if gain else Fraction() for gain in worth]
    else:
        weights = [
            Fraction(DIGITS.exp(DIGITS.multiply(_decimal(power), DIGITS.ln(_decimal(gain / best)))))
            if gain
            else Fraction()
            for gain in worth
        ]
    return split(weights, facts, pool, state)


def gains(facts: RuleFacts) -> list[Fraction]:
    """The contributions above 0 of those who sent something, and 0 for the others."""
    return [
        Fraction(contribution) if sent and contribution > 0 else Fraction()
        for contribution, sent in zip(facts.contributions, facts.active, strict=True)
    ]


def split(weights: Sequence[Fraction | int], facts: RuleFacts, pool: int, state: State) -> Payment:
    """The pool in proportion to the weights, in the round's turn; nothing where none is positive."""
    if not any(weights):
        return Payment([0] * len(weights), state=state)
    return Payment(rewards.largest_remainder(weights, pool, turn=facts.round_number - 1), state=state)


def _decimal(exact: Fraction) -> Decimal:
    """To the nearest of 30 digits."""
    return DIGITS.divide(Decimal(exact.numerator), Decimal(exact.denominator))
