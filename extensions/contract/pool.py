"""The contract of pools: `f(facts, state, **parameters) -> (micro-tokens, state)`."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator
from typing import Any

from extensions.contract import Check, Holds, at_the_ends, purity, timed, usual
from incentives.economy import PoolFacts, check_state
from incentives.rewards import MOST_MICROTOKENS
from kinds import Kind

MOST_SECONDS = 0.1
LOSSES = (2.3, 1.9, 1.95, 1.2, 1.2, 0.9, 1.0, 0.4)
NOTHING_HELD_OUT = PoolFacts(
    round_number=1, previous_validation_loss=None, validation_loss=None, best_validation_loss=None
)
EXTREME = ((1e300, 0.0), (1e-300, 1e-301), (0.0, 1e300), (5e-324, 0.0))


def rounds() -> Iterator[PoolFacts]:
    """A run's, one after the other."""
    best = LOSSES[0]
    for number, (before, after) in enumerate(itertools.pairwise(LOSSES), start=1):
        yield PoolFacts(
            round_number=number, previous_validation_loss=before, validation_loss=after, best_validation_loss=best
        )
        best = min(best, after)


def _wrong(given: Any) -> str | None:
    """What is wrong with what a pool gave."""
    if not isinstance(given, tuple) or len(given) != 2:
        return f"it gave {given!r}, not (micro-tokens, state)"
    amount, state = given
    if isinstance(amount, bool) or not isinstance(amount, int) or not 0 <= amount <= MOST_MICROTOKENS:
        return f"it gave {amount!r}, not a whole number of micro-tokens from 0 to 2^53 - 1"
    check_state(state)
    return None


def _fold(kind: Kind, parameters: dict[str, Any], *, through_json: bool = False) -> Iterator[tuple[PoolFacts, Any]]:
    state: Any = {}
    for facts in rounds():
        given = kind.load()(facts, json.loads(json.dumps(state)) if through_json else state, **parameters)
        yield facts, given
        state = given[1]


def outputs(kind: Kind) -> Iterator[str]:
    for _, given in _fold(kind, usual(kind)):
        yield repr(given)


def whole_amounts(kind: Kind) -> str | None:
    for facts, given in _fold(kind, usual(kind)):
        if found := _wrong(given):
            losses = f"{facts.previous_validation_loss} to {facts.validation_loss}"
            return f"round {facts.round_number}, losses {losses}: {found}"
    return None


def extreme_losses(kind: Kind) -> str | None:
    """A ValueError, with a sentence, is an answer too: the run ends with it."""
    for before, after in EXTREME:
        facts = PoolFacts(
            round_number=1, previous_validation_loss=before, validation_loss=after, best_validation_loss=before
        )
        try:
            found = _wrong(kind.load()(facts, {}, **usual(kind)))
        except ValueError:
            continue
        if found:
            return f"losses {before} to {after}: {found}"
    return None


def ends(kind: Kind) -> str | None:
    for parameters in at_the_ends(kind):
        try:
            for facts, given in _fold(kind, parameters):
                if found := _wrong(given):
                    return f"with {parameters}, round {facts.round_number}: {found}"
        except ValueError:
            continue  # more than a ledger holds, in its own words
    return None


def repeatable(kind: Kind) -> str | None:
    for (facts, one), (_, two) in zip(_fold(kind, usual(kind)), _fold(kind, usual(kind)), strict=True):
        if repr(one) != repr(two):
            return f"round {facts.round_number} gave {one!r}, and then {two!r}"
    return None


def state_survives(kind: Kind) -> str | None:
    for (facts, one), (_, two) in zip(
        _fold(kind, usual(kind)), _fold(kind, usual(kind), through_json=True), strict=True
    ):
        if one[0] != two[0]:
            return f"round {facts.round_number} gives {one[0]:,}, and {two[0]:,} after a restart"
    return None


def input_unchanged(kind: Kind) -> str | None:
    state: Any = {}
    for facts in rounds():
        kept = copy.deepcopy(state)
        _, after = kind.load()(facts, kept, **usual(kind))
        if kept != state:
            return f"the state {state} became {kept} in the hands of the pool"
        state = copy.deepcopy(dict(after))
    return None


def quick(kind: Kind) -> str | None:
    seconds = min(timed(lambda: list(_fold(kind, usual(kind)))) for _ in range(2)) / (len(LOSSES) - 1)
    text = f"a round took {seconds:.4f} s"
    return text if seconds > MOST_SECONDS else Holds(text)


def pure(kind: Kind) -> str | None:
    return purity.witness(lambda: list(_fold(kind, usual(kind))))


def without_validation(kind: Kind) -> str | None:
    return _wrong(kind.load()(NOTHING_HELD_OUT, {}, **usual(kind)))


def nothing_for_nothing(kind: Kind) -> str | None:
    for facts, (amount, _) in _fold(kind, usual(kind)):
        if facts.validation_loss >= facts.best_validation_loss and amount > 0:  # type: ignore[operator]
            return f"round {facts.round_number} pays {amount:,} at a loss that is not below its best"
    return None


CHECKS = (
    Check(
        name="whole_amounts",
        says="gives a whole number of micro-tokens from 0 to 2^53 - 1, and a state",
        run=whole_amounts,
        required=True,
    ),
    Check(
        name="extreme_losses",
        says="takes losses from 0 to 1e300, or refuses them with a sentence",
        run=extreme_losses,
        required=True,
    ),
    Check(name="repeatable", says="gives the same for the same", run=repeatable, required=True),
    Check(name="input_unchanged", says="changes nothing of what it is given", run=input_unchanged, required=True),
    Check(name="state_survives", says="goes on after a restart as without one", run=state_survives, required=True),
    Check(name="quick", says=f"takes at most {MOST_SECONDS:g} s a round", run=quick, required=True),
    Check(name="pure", says="uses no clock, file, socket, process or shared generator", run=pure, required=True),
    Check(name="ends", says="keeps all that at the ends of its parameters", run=ends, required=True, fast=False),
    Check(name="without_validation", says="takes rounds in which nothing is held out", run=without_validation),
    Check(
        name="nothing_for_nothing",
        says="pays nothing where the validation loss is not below its best",
        run=nothing_for_nothing,
    ),
)
