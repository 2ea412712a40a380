"""Behaviours as a configuration says them: of clients by number, and of shares of all of them. Standard library only.

What each behaviour does is in training.deviations.
"""

from __future__ import annotations

from collections.abc import Mapping
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
