"""The contract of pools: `f(facts, state, **parameters) -> (micro-tokens, state)`.

A pool may remember: each is asked for all rounds of some runs, with the state that it left.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

from extensions.contract import Check, Holds, at_the_ends, purity, timed, usual
from incentives.economy import PoolFacts, check_state
from incentives.rewards import MOST_MICROTOKENS
from kinds import Kind

MOST_SECONDS = 0.1
Losses = Sequence[float | None]  # of a run's models, the untrained one first; None where nothing is held out
RUNS: tuple[Losses, ...] = (
    (2.3, 1.9, 1.95, 1.2, 1.2, 0.9, 1.0, 0.4),
    (2.0, 1.5, 1.0, 0.75, 0.5, 0.25),
    (1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
    (0.5, 1.0, 2.0, 3.0, 2.5, 2.0, 1.5, 0.5),
)
NOTHING_HELD_OUT = (None,) * 6
EXTREME = ((1e300, 0.0), (1e-300, 1e-301), (0.0, 1e300), (5e-324, 0.0), (2.3, 1.9, 1e300, 0.0, 5e-324, 0.0))


def rounds(losses: Losses) -> Iterator[PoolFacts]:
    """A run's, one after the other."""
    best = losses[0]
    for number, (before, after) in enumerate(itertools.pairwise(losses), start=1):
        yield PoolFacts(
            round_number=number, previous_validation_loss=before, validation_loss=after, best_validation_loss=best
        )
        best = None if best is None or after is None else min(best, after)


def _wrong(given: Any) -> str | None:
    """What is wrong with what a pool gave."""
    if not isinstance(given, tuple) or len(given) != 2:
        return f"it gave {given!r}, not (micro-tokens, state)"
    amount, state = given
    if isinstance(amount, bool) or not isinstance(amount, int) or not 0 <= amount <= MOST_MICROTOKENS:
        return f"it gave {amount!r}, not a whole number of micro-tokens from 0 to 2^53 - 1"
    check_state(state)
    return None


def _fold(
    kind: Kind, losses: Losses, parameters: dict[str, Any] | None = None, *, through_json: bool = False
) -> Iterator[tuple[str, PoolFacts, Any]]:
    """Of each round: how it came about in words, its facts, and what the pool gave."""
    code, parameters = kind.load(), usual(kind) if parameters is None else parameters
    state: Any = {}
    for facts in rounds(losses):
        given = code(facts, json.loads(json.dumps(state)) if through_json else state, **parameters)
        so_far = ", ".join(str(loss) for loss in losses[: facts.round_number + 1])
        yield f"round {facts.round_number}, losses {so_far}", facts, given
        state = given[1]


def outputs(kind: Kind) -> Iterator[str]:
    for losses in RUNS:
        for _, _, given in _fold(kind, losses):
            yield repr(given)


def _amounts(kind: Kind, runs: Sequence[Losses], parameters: dict[str, Any] | None = None) -> str | None:
    for losses in runs:
        for where, _, given in _fold(kind, losses, parameters):
            if found := _wrong(given):
                return f"{where}: {found}"
    return None


def extreme_losses(kind: Kind) -> str | None:
    """A ValueError, with a sentence, is an answer too: the run ends with it."""
    for losses in EXTREME:
        try:
            if found := _amounts(kind, [losses]):
                return found
        except ValueError:
            continue
    return None


def ends(kind: Kind) -> str | None:
    for parameters in at_the_ends(kind):
        for losses in RUNS:
            try:
                if found := _amounts(kind, [losses], parameters):
                    return f"with {parameters}, {found}"
            except ValueError:
                continue  # more than a ledger holds, in its own words
    return None


def repeatable(kind: Kind) -> str | None:
    for losses in RUNS:
        for (where, _, one), (_, _, two) in zip(_fold(kind, losses), _fold(kind, losses), strict=True):
            if repr(one) != repr(two):
                return f"{where} gave {one!r}, and then {two!r}"
    return None


def state_survives(kind: Kind) -> str | None:
    for losses in RUNS:
        restarted = _fold(kind, losses, through_json=True)
        for (where, _, one), (_, _, two) in zip(_fold(kind, losses), restarted, strict=True):
            if one[0] != two[0]:
                return f"{where} gives {one[0]:,}, and {two[0]:,} after a restart"
    return None


def input_unchanged(kind: Kind) -> str | None:
    state: Any = {}
    for facts in rounds(RUNS[0]):
        kept = copy.deepcopy(state)
        _, after = kind.load()(facts, kept, **usual(kind))
        if kept != state:
            return f"the state {state} became {kept} in the hands of the pool"
        state = copy.deepcopy(dict(after))
    return None


def quick(kind: Kind) -> str | None:
    seconds = min(timed(lambda: list(_fold(kind, RUNS[0]))) for _ in range(2)) / (len(RUNS[0]) - 1)
    text = f"a round took {seconds:.4f} s"
    return text if seconds > MOST_SECONDS else Holds(text)


def pure(kind: Kind) -> str | None:
    return purity.witness(lambda: [list(_fold(kind, losses)) for losses in RUNS])


def nothing_for_nothing(kind: Kind) -> str | None:
    for losses in RUNS:
        for where, facts, (amount, _) in _fold(kind, losses):
            if facts.validation_loss >= facts.best_validation_loss and amount > 0:  # type: ignore[operator]
                return f"{where}: it pays {amount:,} at a loss that is not below its best"
    return None


CHECKS = (
    Check(
        name="whole_amounts",
        says="gives a whole number of micro-tokens from 0 to 2^53 - 1, and a state",
        run=lambda kind: _amounts(kind, RUNS),
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
    Check(
        name="without_validation",
        says="takes rounds in which nothing is held out",
        run=lambda kind: _amounts(kind, [NOTHING_HELD_OUT]),
    ),
    Check(
        name="nothing_for_nothing",
        says="pays nothing where the validation loss is not below its best",
        run=nothing_for_nothing,
    ),
)
