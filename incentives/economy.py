"""What pools, rules and valuations are given and what they give back. Pure: no Django, no model, no float is ever paid.

A pool is `f(facts, state, **parameters) -> (micro-tokens, state)`, a rule `f(facts, pool, state, **parameters) ->
Payment`, a valuation `f(game, facts, state, rng, **parameters) -> Values`. State is what they keep between rounds: an
object of JSON values, empty before round 1. Facts whose source is not there are empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from incentives.rewards import MOST_MICROTOKENS

State = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class PoolFacts:
    """What a pool sees of a round. Losses are None where nothing is held out."""

    round_number: int
    previous_validation_loss: float | None
    validation_loss: float | None
    best_validation_loss: float | None  # of the rounds before
    treasury: int = 0  # micro-tokens that it holds before the round; an endowment is in it


@dataclass(frozen=True, kw_only=True)
class RuleFacts:
    """What a rule sees of a round; everything in the order of `clients`, money in micro-tokens."""

    round_number: int
    clients: tuple[int, ...]  # the cohort's numbers, ascending
    contributions: tuple[float, ...]  # finite; 0.0 for who sent nothing
    num_examples: tuple[int, ...]  # that they report
    balances: tuple[int, ...] = ()
    stakes: tuple[int, ...] = ()  # before the round
    scores: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # by detector
    bids: tuple[int, ...] = ()
    products: Any = None  # see incentives.products
    sent: tuple[bool, ...] = ()  # who sent something; empty: all of them

    @property
    def active(self) -> tuple[bool, ...]:
        """`sent` with a place for each client."""
        return self.sent or (True,) * len(self.clients)


@dataclass(frozen=True, kw_only=True)
class ValuationFacts:
    """What a valuation sees of a round, beside the game."""

    clients: tuple[int, ...]  # the cohort's numbers, ascending
    players: tuple[int, ...]  # of them, who sent something: the game's players, in its order
    num_examples: NDArray[np.int64]  # [n] of the players
    products: Any = None  # of the cohort, see incentives.products
    total_examples: int = 0  # of the cohort; 0: of the players


@dataclass(frozen=True, kw_only=True)
class DetectorFacts:
    """What a detector sees of a round; everything in the order of `clients`."""

    round_number: int
    clients: tuple[int, ...]  # the cohort's numbers, ascending
    num_examples: tuple[int, ...]  # that they report
    sent: tuple[bool, ...]  # who sent something
    losses_before: tuple[float | None, ...]  # as the clients report them
    losses_after: tuple[float | None, ...]
    update_norms: tuple[float, ...]
    previous_validation_loss: float | None
    products: Any  # see incentives.products


@dataclass(frozen=True)
class Payment:
    """What a rule makes of a pool: a share for each client, what is burned, what stakes lose, what it keeps in mind."""

    shares: Sequence[int]  # micro-tokens, in the order of the clients
    burned: int = 0
    slashed: Sequence[int] | None = None  # none of them above its stake
    state: State = field(default_factory=dict)


@dataclass(frozen=True)
class Values:
    """What a valuation finds the players worth."""

    contributions: NDArray[np.float64] | Sequence[float]  # [n], finite, in the order of the players
    errors: NDArray[np.float64] | Sequence[float] | None = None  # [n], standard errors where it samples
    state: State = field(default_factory=dict)


def check_payment(payment: object, num_clients: int, pool: int, stakes: Sequence[int] = ()) -> Payment:
    """The payment, where it may be posted; ValueError says what is wrong with it. `stakes`: of each client, all that
    it can lose; empty: nothing."""
    if not isinstance(payment, Payment):
        raise ValueError(f"a rule gives a Payment, not {type(payment).__name__}")
    shares, burned = list(payment.shares), payment.burned
    if len(shares) != num_clients:
        raise ValueError(f"{len(shares)} shares for {num_clients} clients")
    for place, share in enumerate([*shares, burned]):
        if isinstance(share, bool) or not isinstance(share, int) or not 0 <= share <= MOST_MICROTOKENS:
            what = f"share number {place + 1}" if place < num_clients else "what is burned"
            raise ValueError(f"{what} is {share!r}, not a whole number of micro-tokens from 0")
    if sum(shares) + burned > pool:
        raise ValueError(f"{sum(shares) + burned:,} micro-tokens are paid and burned of a pool of {pool:,}")
    slashed = list(payment.slashed or ())
    if slashed and len(slashed) != num_clients:
        raise ValueError(f"{len(slashed)} stakes are slashed for {num_clients} clients")
    for place, (lost, stake) in enumerate(zip(slashed, stakes or [0] * num_clients, strict=False)):
        if isinstance(lost, bool) or not isinstance(lost, int) or not 0 <= lost <= stake:
            raise ValueError(f"stake number {place + 1} loses {lost!r}, not whole micro-tokens from 0 to {stake:,}")
    check_state(payment.state)
    return payment


def check_state(state: object, depth: int = 0) -> None:
    """ValueError where a state is not made of strings, whole numbers, finite floats, truths, lists and objects."""
    if depth > 16:
        raise ValueError("a state is nested too deeply")
    if depth == 0 and not isinstance(state, Mapping):
        raise ValueError(f"a state is an object, not {type(state).__name__}")
    if isinstance(state, Mapping):
        if not all(isinstance(name, str) for name in state):
            raise ValueError("the names in a state are strings")
        for name, each in state.items():
            check_state(name, depth + 1)
            check_state(each, depth + 1)
    elif isinstance(state, list | tuple):
        for each in state:
            check_state(each, depth + 1)
    elif isinstance(state, float):
        if not np.isfinite(state):
            raise ValueError(f"a state holds {state}")
    elif isinstance(state, str) and ("\0" in state or (not state.isascii() and _is_no_text(state))):
        raise ValueError("a state holds a text that cannot be kept")
    elif state is not None and not isinstance(state, str | int):
        raise ValueError(f"a state holds a {type(state).__name__}, which JSON has not")


def _is_no_text(text: str) -> bool:
    """Half of a character that takes two."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
