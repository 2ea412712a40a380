"""How many micro-tokens a round pays. A pool is a function (facts, state, **parameters) -> (micro-tokens, state)."""

from __future__ import annotations

from fractions import Fraction

from incentives import rewards
from incentives.economy import PoolFacts, State


def improvement(facts: PoolFacts, state: State, *, scaling_factor: float) -> tuple[int, State]:
    """By the drop of validation loss below the best of the rounds before: regained ground is paid once."""
    return rewards.improvement_pool(*losses(facts, facts.best_validation_loss), scaling_factor), state


def improvement_each_round(facts: PoolFacts, state: State, *, scaling_factor: float) -> tuple[int, State]:
    """By the drop of validation loss below the round before."""
    return rewards.improvement_pool(*losses(facts, facts.previous_validation_loss), scaling_factor), state


def fixed(facts: PoolFacts, state: State, *, tokens: float) -> tuple[int, State]:
    """The same in each round."""
    return rewards.fixed_pool(tokens), state


def halving(facts: PoolFacts, state: State, *, tokens: float, rounds: int) -> tuple[int, State]:
    """`tokens`, halved after every so many rounds: tokens >> floor((round - 1) / rounds), in whole micro-tokens, as
    Bitcoin's subsidy is."""
    return rewards.fixed_pool(tokens) >> (facts.round_number - 1) // rounds, state


def decay(facts: PoolFacts, state: State, *, tokens: float, factor: float) -> tuple[int, State]:
    """`tokens` x factor^(round - 1), to the nearest micro-token (ties to even), of the decimal numbers as written: a
    product of floats would be another one on another machine."""
    exact = Fraction(str(tokens)) * Fraction(str(factor)) ** (facts.round_number - 1)
    return round(exact * rewards.MICROTOKENS), state


def treasury(facts: PoolFacts, state: State, *, tokens: float, rounds: int) -> tuple[int, State]:
    """What the treasury holds, divided by the rounds that are left of `rounds`, rounded down to whole micro-tokens; the
    last of them pays all, and later ones nothing. It mints nothing: `tokens` are in the treasury before round 1 (trait
    `endowed`). So what a rule leaves in a round is spread over those to come."""
    left = rounds - (facts.round_number - 1)
    return facts.treasury // left if left > 0 else 0, state


def losses(facts: PoolFacts, before: float | None) -> tuple[float, float]:
    """To beat, and reached; ValueError where nothing is held out."""
    if before is None or facts.validation_loss is None:
        raise ValueError("the improvement pool needs a validation set")
    return before, facts.validation_loss
