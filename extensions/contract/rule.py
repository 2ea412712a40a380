"""The contract of reward rules: `f(facts, pool, state, **parameters) -> Payment`.

A rule may remember: what it keeps of a round is looked for in the first one and after some others alike.
"""

from __future__ import annotations

import copy
import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from extensions.contract import Check, Holds, at_the_ends, purity, timed, usual
from incentives.economy import Payment, RuleFacts, check_payment
from incentives.products import unlike
from incentives.rewards import MOST_MICROTOKENS
from kinds import Kind

MANY = 1_000
MOST_SECONDS = 1.0  # for so many clients
UNITS = 2  # that the remainders of a division may give to one or to another
POOLS = (0, 1, 7, 1_000_000, MOST_MICROTOKENS)
Contributions = Sequence[float | None]  # of all clients in a round; None of who is not in the cohort
Before = Sequence[Contributions]  # the rounds that lead to one
Given = TypeVar("Given", bound=Contributions)
CONTRIBUTIONS: tuple[tuple[float, ...], ...] = (
    (0.5,),
    (0.3, 0.2),
    (0.25, -0.5, 0.0),
    (0.1, 0.1, 0.1),
    (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0),
    tuple((place * 7919 % 101 - 30) / 64 for place in range(16)),
)
HARMFUL = ((-0.5,), (-0.25, -1.0, -1e-9), (0.0, 0.0))
EXTREME = ((1e300, 1e300), (1e-300, 1e-300, 0.0), (1e300, -1e300, 1e-300), (5e-324, 1.0), (1.7e308, 1.7e308))


def facts(
    given: Contributions, round_number: int = 1, paid: Mapping[int, int] | None = None, *, backwards: bool = False
) -> RuleFacts:
    """As of clients 2, 4, 6, ..., who hold examples and some tokens, and what they have been `paid` since. `backwards`:
    each has what the client at the other end has."""
    everyone = range(len(given))[::-1] if backwards else range(len(given))
    cohort = {2 * number: place for number, place in enumerate(everyone, start=1) if given[place] is not None}
    return RuleFacts(
        round_number=round_number,
        clients=tuple(cohort),
        contributions=tuple(given[place] or 0.0 for place in cohort.values()),
        num_examples=tuple(100 + 10 * place for place in cohort.values()),
        balances=tuple(1_000 * place + (paid or {}).get(client, 0) for client, place in cohort.items()),
        stakes=(0,) * len(cohort),
        scores={},
        bids=(0,) * len(cohort),
        products=unlike(len(cohort)),
    )


def rounds_before(n: int) -> Iterator[Before]:
    """What n clients may have contributed until then, the shortest first: nothing, good rounds, harmful ones, and drawn
    ones with gaps in the cohort. Alike in every process."""
    yield ()
    yield ((1.0,) * n,)
    yield ((-1.0,) * n,) * 2
    for length in (2, 4):
        draw = random.Random(f"{length} rounds of {n} clients")
        values = (None, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0)
        yield tuple(tuple(draw.choice(values) for _ in range(n)) for _ in range(length))


def runs(cases: Sequence[Given]) -> list[tuple[Before, Given]]:
    """Each case after some rounds, the shortest first."""
    found = ((before, given) for given in cases for before in rounds_before(len(given)))
    return sorted(found, key=lambda run: len(run[0]))


def _pay(
    kind: Kind,
    before: Before,
    given: Contributions,
    pool: int,
    parameters: dict[str, Any] | None = None,
    *,
    backwards: bool = False,
) -> Payment:
    """What it pays in the round after those before, each with that pool."""
    code, parameters = kind.load(), usual(kind) if parameters is None else parameters
    state: Mapping[str, Any] = {}
    paid: Counter[int] = Counter()
    for number, earlier in enumerate(before, start=1):
        shown = facts(earlier, number, paid, backwards=backwards)
        payment: Payment = code(shown, pool, state, **parameters)
        state = payment.state
        paid.update(dict(zip(shown.clients, payment.shares, strict=True)))
    last: Payment = code(facts(given, len(before) + 1, paid, backwards=backwards), pool, state, **parameters)
    return last


def _contributions(before: Before, given: Contributions) -> str:
    after = f" after rounds of {', '.join(str([*each]) for each in before)}" if before else ""
    return f"contributions {[*given]}{after}"


def _words(before: Before, given: Contributions, pool: int, payment: Any) -> str:
    shares = list(getattr(payment, "shares", ()))
    return f"{_contributions(before, given)} and a pool of {pool:,} gave shares {shares}"


def _wrong(
    kind: Kind, cases: Sequence[Contributions], pools: Sequence[int], parameters: dict[str, Any] | None = None
) -> str | None:
    for before, given in runs(cases):
        for pool in pools:
            payment = _pay(kind, before, given, pool, parameters)
            try:
                check_payment(payment, sum(each is not None for each in given), pool)
            except (ValueError, TypeError) as error:
                return f"{error}; {_words(before, given, pool, payment)}"
    return None


def outputs(kind: Kind) -> Iterator[str]:
    state: Any = {}
    for number, given in enumerate((*CONTRIBUTIONS, *HARMFUL, *EXTREME, ()), start=1):
        for pool in POOLS:
            payment = kind.load()(facts(given, number), pool, state, **usual(kind))
            yield repr((list(payment.shares), payment.burned, payment.slashed, payment.state))
        state = payment.state


def whole_shares(kind: Kind) -> str | None:
    return _wrong(kind, CONTRIBUTIONS, (7, 1_000_000))


def ends(kind: Kind) -> str | None:
    for parameters in at_the_ends(kind):
        if found := _wrong(kind, (*CONTRIBUTIONS, *HARMFUL, ()), (0, 7, 1_000_000), parameters):
            return f"with {parameters}: {found}"
    return None


def repeatable(kind: Kind) -> str | None:
    for before, given in runs(CONTRIBUTIONS):
        first, second = _pay(kind, before, given, 1_000_003), _pay(kind, before, given, 1_000_003)
        if repr(first) != repr(second):
            return f"{_words(before, given, 1_000_003, first)}, and then {list(second.shares)}"
    return None


def input_unchanged(kind: Kind) -> str | None:
    state: Any = {}
    for given in CONTRIBUTIONS:
        kept, shown = copy.deepcopy(state), facts(given)
        payment = kind.load()(shown, 1_000, kept, **usual(kind))
        if kept != state or repr(shown) != repr(facts(given)):
            return f"contributions {list(given)}: what was given was changed; the state {state} became {kept}"
        state = copy.deepcopy(dict(payment.state))
    return None


def state_survives(kind: Kind) -> str | None:
    """A fold whose state goes through JSON gives what one without it gives, as after a kill."""
    straight: Any = {}
    stored = "{}"
    for number in range(1, 7):
        given = CONTRIBUTIONS[4 if number % 2 else 2]
        first = kind.load()(facts(given, number), 1_000_003, straight, **usual(kind))
        check_payment(first, len(given), 1_000_003)
        second = kind.load()(facts(given, number), 1_000_003, json.loads(stored), **usual(kind))
        if list(first.shares) != list(second.shares):
            return f"round {number} pays {list(first.shares)}, and {list(second.shares)} after a restart"
        straight, stored = first.state, json.dumps(second.state, sort_keys=True)
        if json.loads(json.dumps(straight, sort_keys=True)) != json.loads(stored):
            return f"after round {number} its state is {straight}, and {stored} after a restart"
    return None


def quick(kind: Kind) -> str | None:
    given = tuple(((place * 7919) % 1_009 - 200) / 1_024 for place in range(MANY))
    seconds = timed(lambda: _pay(kind, (), given, 10**9))
    text = f"{MANY:,} clients took {seconds:.3f} s"
    return text if seconds > MOST_SECONDS else Holds(text)


def pure(kind: Kind) -> str | None:
    return purity.witness(lambda: [_pay(kind, before, given, 1_000) for before, given in runs(CONTRIBUTIONS)])


def pays_all(kind: Kind) -> str | None:
    for before, given in runs(CONTRIBUTIONS):
        payment = _pay(kind, before, given, 1_000_003)
        if sum(payment.shares) != 1_000_003:
            return _words(before, given, 1_000_003, payment)
    return None


def anonymous(kind: Kind) -> str | None:
    """Up to the units that a remainder gives to somebody. Sizes go with their clients."""
    for before, given in runs(CONTRIBUTIONS):
        shares = _pay(kind, before, given, 1_000_000).shares
        others = _pay(kind, before, given, 1_000_000, backwards=True).shares
        for place, (one, two) in enumerate(zip(shares, reversed(list(others)), strict=True)):
            if abs(one - two) > UNITS:
                return f"{_contributions(before, given)}: number {place + 1} gets {one:,}, and {two:,} in another order"
    return None


def monotone(kind: Kind) -> str | None:
    for before, given in runs(CONTRIBUTIONS):
        shares = list(_pay(kind, before, given, 1_000_000).shares)
        for one in range(len(given)):
            for two in range(len(given)):
                if given[one] > given[two] and shares[one] + UNITS < shares[two]:
                    paid = f"{given[one]} gets {shares[one]:,} and {given[two]} gets {shares[two]:,}"
                    return f"{paid} of {_contributions(before, given)}"
    return None


def nothing_for_harm(kind: Kind) -> str | None:
    for before, given in runs((*CONTRIBUTIONS, *HARMFUL)):
        shares = list(_pay(kind, before, given, 1_000_000).shares)
        for worth, share in zip(given, shares, strict=True):
            if worth <= 0 and share > 0:
                return f"{worth} gets {share:,} of {_contributions(before, given)}"
    return None


def scale_free(kind: Kind) -> str | None:
    for before, given in runs(CONTRIBUTIONS):
        larger = [tuple(worth and 4 * worth for worth in each) for each in (*before, given)]
        one, two = _pay(kind, before, given, 1_000_000), _pay(kind, larger[:-1], larger[-1], 1_000_000)
        if list(one.shares) != list(two.shares):
            return (
                f"{_contributions(before, given)} pay {list(one.shares)}, four times as large ones {list(two.shares)}"
            )
    return None


def more_is_not_less(kind: Kind) -> str | None:
    for before, given in runs(CONTRIBUTIONS):
        shares = list(_pay(kind, before, given, 1_000_000).shares)
        for place in range(len(given)):
            better = [worth + (0.125 if other == place else 0.0) for other, worth in enumerate(given)]
            raised = list(_pay(kind, before, better, 1_000_000).shares)[place]
            if raised + UNITS < shares[place]:
                paid = f"from {shares[place]:,} to {raised:,}"
                return f"raising number {place + 1} by 0.125 takes it {paid}: {_contributions(before, given)}"
    return None


CHECKS = (
    Check(
        name="whole_shares",
        says="gives whole numbers of at least 0, one for each client, that with what is burned are at most the pool",
        run=whole_shares,
        required=True,
    ),
    Check(
        name="empty_cohort",
        says="takes a round without clients",
        required=True,
        run=lambda kind: _wrong(kind, [(), (None,) * 3], POOLS),
    ),
    Check(
        name="extreme_pools",
        says="takes pools of 0, 1 and 2^53 - 1 micro-tokens",
        run=lambda kind: _wrong(kind, CONTRIBUTIONS, (0, 1, MOST_MICROTOKENS)),
        required=True,
    ),
    Check(
        name="all_harmful",
        says="takes rounds in which nobody's contribution is above 0",
        run=lambda kind: _wrong(kind, HARMFUL, POOLS),
        required=True,
    ),
    Check(
        name="extreme_contributions",
        says="takes contributions from 1e-300 to 1e300",
        run=lambda kind: _wrong(kind, EXTREME, (0, 7, MOST_MICROTOKENS)),
        required=True,
    ),
    Check(name="repeatable", says="gives the same for the same", run=repeatable, required=True),
    Check(name="input_unchanged", says="changes nothing of what it is given", run=input_unchanged, required=True),
    Check(name="state_survives", says="goes on after a restart as without one", run=state_survives, required=True),
    Check(name="quick", says=f"takes at most {MOST_SECONDS:g} s for {MANY:,} clients", run=quick, required=True),
    Check(name="pure", says="uses no clock, file, socket, process or shared generator", run=pure, required=True),
    Check(name="ends", says="keeps all that at the ends of its parameters", run=ends, required=True, fast=False),
    Check(name="pays_all", says="pays the whole pool where somebody's contribution is above 0", run=pays_all),
    Check(name="anonymous", says="pays the same in another order of the clients", run=anonymous),
    Check(name="monotone", says="never pays more for a smaller contribution", run=monotone),
    Check(name="nothing_for_harm", says="pays nothing for a contribution that is not above 0", run=nothing_for_harm),
    Check(name="scale_free", says="pays the same where all contributions are multiplied", run=scale_free),
    Check(name="more_is_not_less", says="never pays less to who contributes more", run=more_is_not_less),
)
