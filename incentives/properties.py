"""What a rule keeps: each property is looked for in all small rounds and gives the smallest counter-example, or None.

A rule is here a function (facts, pool) -> Payment; `bound` makes one of a kind's code, which starts without a state.
Rounds are those of up to four clients with small whole contributions; smaller is fewer clients, then a smaller sum of
what they contribute. None says that none was found among these, not that there is none. Cost: at most some thousand
payments a property. Updates have nothing in common. Pure.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from incentives.economy import Payment, RuleFacts
from incentives.products import unlike

Rule = Callable[[RuleFacts, int], Payment]
Contributions = tuple[float, ...]

POOL = 1_000_000
POOLS = (7, POOL)
MOST_CLIENTS = 4
ANY = (-1.0, 0.0, 1.0, 2.0, 3.0)
POSITIVE = (1.0, 2.0, 3.0, 4.0)
NUDGE = 2.0**-30  # of a contribution, which moves no continuous payment by
LEAP = POOL // 100  # so much


@dataclass(frozen=True)
class Property:
    """One sentence about a rule. `counter_example(rule)` is in words and numbers, None where none was found."""

    name: str
    says: str
    counter_example: Callable[[Rule], str | None]


def bound(code: Callable[..., Payment], parameters: Mapping[str, Any] | None = None) -> Rule:
    """The code of a kind of rule with its parameters, in the first round that it sees."""
    return lambda facts, pool: code(facts, pool, {}, **(parameters or {}))


def rounds(values: Sequence[float]) -> Iterator[Contributions]:
    """All rounds of these contributions, the smallest first."""
    for n in range(1, MOST_CLIENTS + 1):
        yield from sorted(itertools.product(values, repeat=n), key=lambda given: (sum(map(abs, given)), given))


def paid(
    rule: Rule, contributions: Contributions, pool: int = POOL, *, round_number: int = 1, sent: tuple[bool, ...] = ()
) -> list[int]:
    """Micro-tokens of each client."""
    facts = RuleFacts(
        round_number=round_number,
        clients=tuple(range(1, len(contributions) + 1)),
        contributions=contributions,
        num_examples=(100,) * len(contributions),
        sent=sent,
        products=unlike(len(contributions)),
    )
    return list(rule(facts, pool).shares)


def balanced(rule: Rule) -> str | None:
    for given, pool, number in itertools.product(rounds(ANY), POOLS, (1, 2)):
        shares = paid(rule, given, pool, round_number=number)
        if min(shares) < 0 or sum(shares) > pool or (max(given) > 0 and sum(shares) != pool):
            return f"{_words(given, shares)} of a pool of {pool:,}"
    return None


def silent(rule: Rule) -> str | None:
    for given in rounds(POSITIVE[:2]):
        for sent in itertools.product((False, True), repeat=len(given)):
            shares = paid(rule, tuple(each * there for each, there in zip(given, sent, strict=True)), sent=sent)
            for client, (share, there) in enumerate(zip(shares, sent, strict=True), start=1):
                if share and not there:
                    return f"client {client} of {len(given)} sends nothing and gets {share:,} of {POOL:,}"
    return None


def symmetric(rule: Rule) -> str | None:
    for given, number in itertools.product(rounds(ANY), (1, 2)):
        shares = paid(rule, given, round_number=number)
        for one, two in itertools.combinations(range(len(given)), 2):
            if given[one] == given[two] and abs(shares[one] - shares[two]) > 1:
                return _words(given, shares)
    return None


def anonymous(rule: Rule) -> str | None:
    for given in rounds(ANY):
        order = sorted(range(len(given)), key=lambda place: given[place])
        shares, ascending = paid(rule, given), tuple(sorted(given))
        for place, share in zip(order, paid(rule, ascending), strict=True):
            if abs(shares[place] - share) > 1:
                return f"{_words(given, shares)}; in the order {_list(ascending)} the {given[place]:g} gets {share:,}"
    return None


def null_player(rule: Rule) -> str | None:
    for given in rounds(ANY):
        shares = paid(rule, given)
        if any(share and not worth for worth, share in zip(given, shares, strict=True)):
            return _words(given, shares)
    return None


def monotone(rule: Rule) -> str | None:
    for given in rounds(ANY):
        shares = paid(rule, given)
        for one, two in itertools.permutations(range(len(given)), 2):
            if given[one] > given[two] and shares[one] + 1 < shares[two]:
                return _words(given, shares)
    return None


def more_is_not_less(rule: Rule) -> str | None:
    for given in rounds(ANY):
        shares = paid(rule, given)
        for place, worth in enumerate(given):
            raised = paid(rule, (*given[:place], worth + 1, *given[place + 1 :]))[place]
            if raised + 1 < shares[place]:
                more = f"with {worth + 1:g} in place of {worth:g} client {place + 1} gets {raised:,}"
                return f"{_words(given, shares)}; {more}"
    return None


def scale_invariant(rule: Rule) -> str | None:
    for given, scale in itertools.product(rounds(ANY), (2.0, 0.25)):
        shares, scaled = paid(rule, given), tuple(scale * worth for worth in given)
        if shares != paid(rule, scaled):
            return f"{_words(given, shares)}; {_words(scaled, paid(rule, scaled))}"
    return None


def continuous(rule: Rule) -> str | None:
    for given in rounds(ANY):
        if max(given) <= 0:
            continue  # the first contribution above 0 brings a pool to whoever makes it
        shares = paid(rule, given)
        for place, worth in enumerate(given):
            nudged = paid(rule, (*given[:place], worth + NUDGE, *given[place + 1 :]))
            if any(abs(before - after) > LEAP for before, after in zip(shares, nudged, strict=True)):
                return f"{_words(given, shares)}; with a billionth more of client {place + 1} {_list(nudged, ',')}"
    return None


def split_proof(rule: Rule) -> str | None:
    """Identities share out what their holder contributes: two halves, or whole parts, or three alike."""
    for given in rounds(POSITIVE):
        shares = paid(rule, given)
        for place, worth in enumerate(given):
            cuts = {(worth / 2,) * 2, (worth / 3,) * 3, *((part, worth - part) for part in POSITIVE if part < worth)}
            for parts in sorted(cuts, key=lambda parts: (len(parts), parts)):
                together = sum(paid(rule, (*parts, *given[:place], *given[place + 1 :]))[: len(parts)])
                if together > shares[place] + len(parts):
                    as_one = f"client {place + 1} as {len(parts)} of {_list(parts)} gets {together:,}"
                    return f"{_words(given, shares)}; {as_one}"
    return None


def merge_proof(rule: Rule) -> str | None:
    """Some clients show up as one that contributes what they did together."""
    for given in rounds(POSITIVE):
        shares = paid(rule, given)
        for size in range(2, len(given) + 1):
            for members in itertools.combinations(range(len(given)), size):
                others = tuple(worth for place, worth in enumerate(given) if place not in members)
                whole = paid(rule, (sum(given[place] for place in members), *others))[0]
                if whole > sum(shares[place] for place in members) + size:
                    who = _list([place + 1 for place in members])
                    return f"{_words(given, shares)}; clients {who} as one get {whole:,}"
    return None


PROPERTIES = tuple(
    Property(name=check.__name__, says=says, counter_example=check)
    for check, says in (
        (balanced, "pays the whole pool where a contribution is above 0, and never more"),
        (silent, "pays nothing to who sends nothing"),
        (symmetric, "pays equal contributions alike, to one unit"),
        (anonymous, "pays the same in another order of the clients, to one unit"),
        (null_player, "pays nothing for a contribution of 0"),
        (monotone, "never pays more for a smaller contribution"),
        (more_is_not_less, "never pays less to who contributes more while the others stay"),
        (scale_invariant, "pays the same where all contributions are multiplied"),
        (continuous, "pays nearly the same for nearly the same, where a contribution is above 0"),
        (split_proof, "pays no more to who shows up as several, to one unit an identity"),
        (merge_proof, "pays no more to several who show up as one, to one unit an identity"),
    )
)


def _words(given: Contributions, shares: Sequence[int]) -> str:
    return f"contributions {_list(given)} are paid {_list(shares, ',')}"


def _list(numbers: Sequence[float], form: str = ".4g") -> str:
    return ", ".join(format(number, form) for number in numbers)
