"""How a pool is split. A rule is a function (facts, pool, state, **parameters) -> Payment.

Whoever changes what one pays raises its version in the catalogue: old payments name theirs.
"""

from __future__ import annotations

from incentives import rewards
from incentives.economy import Payment, RuleFacts, State


def proportional(facts: RuleFacts, pool: int, state: State) -> Payment:
    """In proportion to the contributions above 0; see incentives.rewards.proportional."""
    return Payment(rewards.proportional(facts.contributions, pool), state=state)
