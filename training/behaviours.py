"""Behaviours as a configuration says them: of clients by number, and of shares of all of them. Standard library only.

What each behaviour does is in training.deviations.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any

import kinds
from kinds import ConfigError, whole
from kinds.parameter import shown
from training import catalogue  # noqa: F401  the kinds of behaviours

FROM_ROUND = whole(1, "the first round in which it does so", minimum=1, maximum=10_000)
TO_ROUND = whole(None, "the last round in which it does so; empty: the last of the run", minimum=1, maximum=10_000)
MOST_SHARES = 100  # entries of a population


def of_clients(value: Any) -> dict[int, dict[str, Any]]:
    """By client, ascending, with all parameters. ValueError names the client."""
    if not isinstance(value, Mapping):
        raise ValueError('expected a mapping from client numbers to {"kind": ...}')
    found = {}
    for key, behaviour in value.items():
        text = str(key)
        if isinstance(key, bool) or not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) >= 1):
            raise ValueError(f"{shown(key)} is not a client number; clients are numbered from 1")
        client = int(text)
        if client in found:
            raise ValueError(f"client {client} is named twice")
        found[client] = one(behaviour, f"client {client}")
    return {client: found[client] for client in sorted(found)}


def one(value: Any, whose: str) -> dict[str, Any]:
    """{"kind": ..., all of its parameters}, and `from_round` and `to_round` where they bound it. ValueError names whose
    it is."""
    given = dict(value) if isinstance(value, Mapping) else {"kind": value if isinstance(value, str) else None}
    if given.get("kind") == "honest" and len(given) == 1:
        return given
    bounds = {}
    try:
        for name, parameter in (("from_round", FROM_ROUND), ("to_round", TO_ROUND)):
            found = parameter.check(parameter.default if given.get(name) is None else given[name])
            given.pop(name, None)
            if found != parameter.default:
                bounds[name] = found
    except ValueError as error:
        raise ValueError(f"{whose}: {name}: {error}") from None
    if bounds.get("to_round", 10_000) < bounds.get("from_round", 1):
        raise ValueError(f"{whose}: to_round {bounds['to_round']} is before from_round {bounds['from_round']}")
    try:
        choice = kinds.checked("behaviour", given, "", recorded=True)
    except ConfigError as error:
        name, text = next(iter(error.errors.items()))
        where = f"kind {text}" if not name else text if text.startswith(str(given["kind"])) else f"{name[1:]}: {text}"
        raise ValueError(f"{whose}: {where}") from None
    return choice.to_dict() | bounds


def has(given: Mapping[str, Any], trait: str) -> bool:
    """Whether a configured behaviour has a trait; one of a plug-in that is gone has none."""
    kind = kinds.family("behaviour").get(given["kind"])
    return kind is not None and trait in kind.traits


def acts(given: Mapping[str, Any], round_number: int) -> bool:
    """Whether a configured behaviour is in force in a round."""
    begin, end = given.get("from_round", 1), given.get("to_round")
    return bool(given["kind"] != "honest" and begin <= round_number <= (end or round_number))


def further(given: Mapping[str, Any]) -> int:
    """Under how many identities beside its own one shows up who behaves so."""
    return int(given["identities"]) - 1 if has(given, "divided") or has(given, "copied") else 0


def holders(num_clients: int, configured: Mapping[int, Mapping[str, Any]]) -> dict[int, int]:
    """Whose each further identity is: numbered on from the clients, in the order of their holders."""
    whose = (client for client in sorted(configured) for _ in range(further(configured[client])))
    return dict(enumerate(whose, num_clients + 1))


def num_identities(
    num_clients: int, configured: Iterable[Mapping[str, Any]], population: Iterable[Mapping[str, Any]]
) -> int:
    """Clients and their further identities, of those too that are not drawn yet."""
    named = list(configured)
    numbers = drawn_numbers(num_clients, len(named), population)
    more = sum(further(entry) * number for entry, number in zip(population, numbers, strict=True))
    return num_clients + more + sum(map(further, named))


def drawn_numbers(num_clients: int, named: int, population: Iterable[Mapping[str, Any]]) -> Iterator[int]:
    """How many clients each entry of a population draws, of those that are not named."""
    left = num_clients - named
    for entry in population:
        number = max(0, min(round(entry["share"] * num_clients), left))
        left -= number
        yield number


def grouped(configured: Mapping[int, Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
    """The same, each who colludes with a group that it belongs to, and each of the group doing as it does unless it is
    said to do something else."""
    found = dict(configured)
    for client, given in configured.items():
        if has(given, "colludes"):
            group = sorted({client, *given["group"]})
            found[client] = {**given, "group": group}
            for member in group:
                found.setdefault(member, found[client])
    return {client: found[client] for client in sorted(found)}


def at_odds(configured: Mapping[int, Mapping[str, Any]]) -> str:
    """What is wrong with the groups of those who collude, in a sentence; empty where nothing is."""
    for client, given in configured.items():
        if not has(given, "colludes"):
            continue
        if len(given["group"]) < 2:
            return f"client {client}: group: nobody else is named"
        for member in given["group"]:
            if configured.get(member) != given:
                return f"client {client}: group: client {member} does something else, or is of another group"
    return ""


def one_update(given: Mapping[str, Any], holder: int, round_number: int) -> Hashable:
    """Equal, and not None, for those who all send in this round what the first of them finds."""
    if not acts(given, round_number):
        return None
    if has(given, "copied"):
        return "holder", holder
    return ("group", *given["group"]) if has(given, "colludes") else None


def of_shares(value: Any) -> tuple[dict[str, Any], ...]:
    """Each {"share": of all clients, "kind": ..., its parameters}; shares of nobody and of honest ones left out."""
    if not isinstance(value, list | tuple):
        raise ValueError('expected a list of {"share": ..., "kind": ...}')
    if len(value) > MOST_SHARES:
        raise ValueError(f"{len(value)} shares are more than {MOST_SHARES}")
    found = []
    for place, entry in enumerate(value, 1):
        whose = f"entry {place}"
        if not isinstance(entry, Mapping) or "share" not in entry:
            raise ValueError(f'{whose}: expected {{"share": ..., "kind": ...}}')
        try:
            share = kinds.number(0.0, "share of the clients", minimum=0.0, maximum=1.0).check(entry["share"])
        except ValueError as error:
            raise ValueError(f"{whose}: share: {error}") from None
        behaviour = one({name: each for name, each in entry.items() if name != "share"}, whose)
        if behaviour.get("group"):
            raise ValueError(f"{whose}: group: leave it empty; those that are drawn are one group")
        if share and behaviour["kind"] != "honest":
            found.append({"share": share, **behaviour})
    total = sum(entry["share"] for entry in found)
    if total > 1 + 1e-9:
        raise ValueError(f"the shares sum to {total:g}, which is more than 1")
    return tuple(found)


def without_end(given: Mapping[str, Any], num_rounds: int) -> Mapping[str, Any]:
    """The behaviour without a last round that is the run's own."""
    if given.get("to_round", 0) < num_rounds:
        return given
    return {name: value for name, value in given.items() if name != "to_round"}
