"""How many micro-tokens a round pays. A pool is a function (facts, state, **parameters) -> (micro-tokens, state)."""

from __future__ import annotations

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


def losses(facts: PoolFacts, before: float | None) -> tuple[float, float]:
    """To beat, and reached; ValueError where nothing is held out."""
    if before is None or facts.validation_loss is None:
        raise ValueError("the improvement pool needs a validation set")
    return before, facts.validation_loss
