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

import numpy as np

from incentives import rewards
from incentives.detectors import foolsgold_weights, replication_discounts
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


def slashing(facts: RuleFacts, pool: int, state: State, *, rate: float) -> Payment:
    """`proportional`, and a contribution below 0 costs stake: `rate` x the pool x the client's share of the round's
    examples, rounded down, at most what it has at stake."""
    paid = proportional(facts, pool, state)
    total = sum(facts.num_examples)
    lost = [
        min(stake, int(Fraction(str(rate)) * pool * size / total)) if contribution < 0 and sent else 0
        for stake, size, contribution, sent in zip(
            facts.stakes or (0,) * len(facts.clients),
            facts.num_examples,
            facts.contributions,
            facts.active,
            strict=True,
        )
    ]
    return Payment(paid.shares, slashed=lost, state=state)


FULL = 1_000_000  # a reputation of 1, in which everybody begins


def reputation(facts: RuleFacts, pool: int, state: State, *, decay: float, power: float) -> Payment:
    """In proportion to the contribution above 0 x reputation^power, the reputation being the one before the round.

    It begins at 1 and moves each round towards the client's share of the contributions above 0, times the number of
    those who sent something, at most 1: decay x what it was + (1 - decay) x this. So who is worth an equal share keeps
    it, and who takes part and gives nothing loses 1 - decay of it a round. Kept in whole millionths. Source: after the
    reputation of Xu et al. 2021 (CGSV), section 4, of shares in place of cosines.
    """
    worth, kept = gains(facts), Fraction(str(decay))
    known = state.get("reputation", {})
    before = [int(known.get(str(client), FULL)) for client in facts.clients]
    strength = Fraction(str(power))
    if strength.denominator == 1:
        trust = [Fraction(each, FULL) ** strength.numerator for each in before]
    else:
        trust = [
            Fraction(DIGITS.exp(DIGITS.multiply(_decimal(strength), DIGITS.ln(_decimal(Fraction(each, FULL))))))
            if each
            else Fraction()
            for each in before
        ]
    total, active = sum(worth), sum(facts.active)
    after = {
        str(client): round(kept * old + (1 - kept) * FULL * (min(Fraction(1), gain * active / total) if total else 0))
        for client, old, gain in zip(facts.clients, before, worth, strict=True)
    }
    merged = {client: each for client, each in {**known, **after}.items() if each != FULL}
    weights = [gain * each for gain, each in zip(worth, trust, strict=True)]
    return split(weights, facts, pool, {"reputation": merged} if merged else {})


def sybil_discount(facts: RuleFacts, pool: int, state: State, *, by: str) -> Payment:
    """`proportional`, and of each share the part that a discount leaves, from 0 to 1; the rest stays in the treasury.

    by `foolsgold`: the weight of FoolsGold, over updates summed since the first round (Fung et al. 2020, algorithm 1);
    by `replication`: 2^-(sum of cosines above 0 with the others' updates) (Agarwal et al. 2019, section 4.3).
    """
    sent, worth = np.asarray(facts.active, np.bool_), gains(facts)
    if by == "foolsgold":
        found = foolsgold_weights(facts.products["summed"], sent)
    else:
        found = replication_discounts(facts.products["updates"], sent)
    weights = [gain * Fraction(each) for gain, each in zip(worth, found.tolist(), strict=True)]
    total = sum(worth)
    return split(weights, facts, int(pool * sum(weights) / total) if total else 0, state)


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
