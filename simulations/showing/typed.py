"""What one types in a form, as text and as values: fields, and lines of behaviours, shares and economies.

It says what is no value at all; SimulationConfig alone says what is wrong with one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import kinds
from incentives.specification import STRUCTURED
from kinds import Parameter
from kinds.parameter import MOST_CLIENTS, stretches
from simulations.config import CHOICES, OF_AN_ECONOMY
from simulations.showing import wording

# Fields of several lines: a client, a share, a detector, a threshold, an economy in each.
LINES = ("behaviours", "population", "detectors", "slashing", "shadows")
MOST_TYPED = 1000  # characters of a behaviour; a cut one would be another
NO_LIMIT = "none"  # of an economy's budget, where the paying one has one
BEHAVIOUR = re.compile(r"\s*(?P<kind>[^=]*?)(?P<parameters>(\s+\w+\s*=\s*\S+)*)\s*")
SHARE = re.compile(r"\s*(?P<share>[\d.]+)\s*(?P<percent>%?)(?P<behaviour>\s.*)")
CLIENTS = kinds.clients("who does so")
PARAMETER = re.compile(r"(\w+)\s*=\s*(\S+)")


def as_text(value: Any) -> str:
    """A value as one would type it."""
    if isinstance(value, Mapping):
        return "\n".join(f"{stretches(clients)}: {_line(given)}" for clients, given in wording.together(value))
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        if "label" in value[0]:
            return "\n".join(_economy_line(entry) for entry in value)
        if "share" not in value[0]:
            return "\n".join(_line(given, "detector") for given in value)
        if "detector" in value[0]:
            return "\n".join(_slash_line(entry) for entry in value)
        return "\n".join(f"{wording.percent(entry['share'])}% {_line(entry)}" for entry in value)
    if isinstance(value, list):
        return stretches(value)
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def _slash_line(entry: Mapping[str, Any]) -> str:
    """'replay above=0.99 share=0.5'; parameters of the detector as detector.name=value."""
    kind, *parameters = _line(entry["detector"], "detector").split()
    own = "".join(f" detector.{each}" for each in parameters)
    return f"{kind} above={inline(entry['above'])} share={inline(entry['share'])}{own}"


def _line(given: Mapping[str, Any], family: str = "behaviour") -> str:
    """A behaviour, or a detector, as one types it, without what is at its default: 'label_flip fraction=0.5'."""
    found = kinds.family(family).get(given["kind"])
    usual = {name: parameter.plain(parameter.default) for name, parameter in found.parameters.items()} if found else {}
    beside = ("kind", "share", "source_sha256")
    odd = [
        f"{name}={inline(value)}" for name, value in given.items() if name not in beside and value != usual.get(name)
    ]
    return " ".join([given["kind"], *odd])


def _economy_line(entry: Mapping[str, Any]) -> str:
    """An economy as one types it, without parameters at their defaults."""
    words = []
    for name, value in entry.items():
        if name == "label":
            continue
        if name in STRUCTURED:
            words.append(f"{name}={','.join(_packed(each) for each in value) or NO_LIMIT}")
            continue
        if name not in CHOICES:
            words.append(f"{name}={NO_LIMIT if value is None else as_text(value)}")
            continue
        words.append(f"{name}={value['kind']}")
        found = kinds.family(CHOICES[name]).get(value["kind"])
        usual = (
            {each: parameter.plain(parameter.default) for each, parameter in found.parameters.items()} if found else {}
        )
        odd = {each: given for each, given in value.items() if each not in ("kind", "source_sha256")}
        words += [f"{name}.{each}={inline(given)}" for each, given in odd.items() if given != usual.get(each)]
    return f"{entry['label']}: {' '.join(words)}".rstrip()


def _packed(entry: Mapping[str, Any]) -> str:
    """A detector, or a threshold, without a space: 'norm', 'replay:0.99:0.5'."""
    if "detector" not in entry:
        return str(entry["kind"])
    return f"{entry['detector']['kind']}:{inline(entry['above'])}:{inline(entry['share'])}"


def _unpacked(name: str, text: str) -> list[Any]:
    """Of `_packed`, joined by commas. ValueError for another form."""
    words = [] if text == NO_LIMIT else text.split(",")
    if name == "detectors":
        return words
    entries = []
    for word in words:
        kind, *figures = word.split(":")
        if not kind or len(figures) != 2:
            raise ValueError(f"expected detector:above:share, as in replay:0.99:0.5, not {word[:40]}")
        entries.append({"detector": kind, "above": number(figures[0]), "share": number(figures[1])})
    return entries


def value_of(parameter: Parameter, text: str) -> Any:
    """What a text stands for, as far as its type goes."""
    if parameter.type in ("number", "whole"):
        return None if parameter.is_optional and not text.strip() else number(text)
    if parameter.type == "flag":
        return {"true": True, "false": False}.get(text.strip(), text)
    return text


def number(text: str) -> int | float:
    """A whole number where the text is one, so that large ones stay exact; ValueError for what is no number."""
    text = text.strip()
    if not text:
        raise ValueError("a number is missing")
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    shown = text if len(text) <= 40 else text[:37] + "..."
    raise ValueError(f"{shown!r} is not a number")


def parse_behaviours(text: str) -> dict[str, dict[str, Any]]:
    """'3: free_rider' and '5, 7-9: label_flip fraction=0.5', some clients a line. ValueError names the line."""
    behaviours: dict[str, dict[str, Any]] = {}
    for place, line in _lines(text):
        named, colon, rest = line.partition(":")
        behaviour = _behaviour(rest)
        if not colon or not named.strip() or behaviour is None:
            raise ValueError(f"line {place}: expected a client, a colon and a behaviour, as in 3: free_rider")
        try:
            found = CLIENTS.check(named)
        except ValueError as error:
            raise ValueError(f"line {place}: {error}") from None
        if twice := [client for client in found if str(client) in behaviours]:
            raise ValueError(f"line {place}: client {twice[0]} is named twice")
        behaviours |= {str(client): behaviour for client in found}
        if len(behaviours) > MOST_CLIENTS:
            raise ValueError(f"line {place}: more than {MOST_CLIENTS:,} clients are named; a population takes shares")
    return behaviours


def parse_population(text: str) -> list[dict[str, Any]]:
    """'20% label_flip fraction=0.5' and '0.2 free_rider', one share a line. ValueError names the line."""
    entries = []
    for place, line in _lines(text):
        match = SHARE.fullmatch(line[:200])
        behaviour = _behaviour(match["behaviour"]) if match else None
        if match is None or behaviour is None:
            raise ValueError(f"line {place}: expected a share and a behaviour, as in 20% free_rider")
        try:
            share = number(match["share"] + ("e-2" if match["percent"] else ""))
        except ValueError:
            raise ValueError(f"line {place}: {match['share']!r} is not a number") from None
        entries.append({"share": share, **behaviour})
    return entries


def parse_detectors(text: str) -> list[dict[str, Any]]:
    """'norm', a detector a line, with its parameters as of behaviours. ValueError names the line."""
    found = []
    for place, line in _lines(text):
        detector = _behaviour(line)
        if detector is None:
            raise ValueError(f"line {place}: expected a detector, as in norm")
        found.append(detector)
    return found


def parse_slashing(text: str) -> list[dict[str, Any]]:
    """'replay above=0.99 share=0.5', a threshold a line. ValueError names the line."""
    entries = []
    for place, line in _lines(text):
        kind, *words = line.split()
        entry: dict[str, Any] = {"detector": {"kind": kind}}
        for word in words:
            name, equals, given = word.partition("=")
            name, is_own = name.removeprefix("detector."), name.startswith("detector.")
            if (
                not equals
                or not (is_own or name in ("above", "share"))
                or name in (entry["detector"] if is_own else entry)
            ):
                raise ValueError(
                    f"line {place}: expected above and share, once each, as in replay above=0.99 share=0.5"
                )
            (entry["detector"] if is_own else entry)[name] = _parameter(given)
        entries.append(entry)
    return entries


def parse_shadows(text: str) -> list[dict[str, Any]]:
    """'wage: reward_rule=wage_bonus reward_rule.share=0.2', an economy a line: its label, and what it does not take
    from the paying one. ValueError names the line."""
    entries = []
    for place, line in _lines(text):
        label, colon, rest = _label_and_rest(line)
        if not colon or not label.strip():
            raise ValueError(
                f"line {place}: expected a label, a colon and what is other, as in by size: valuation=data_size"
            )
        entry: dict[str, Any] = {"label": label.strip()}
        for word in rest.split():
            full, equals, given = word.partition("=")
            name, dot, parameter = full.partition(".")
            if not equals or name not in OF_AN_ECONOMY or (dot and name not in CHOICES):
                raise ValueError(
                    f"line {place}: expected one of {', '.join(OF_AN_ECONOMY)} and its value, not {word[:40]}"
                )
            if name not in CHOICES:
                try:
                    if name in STRUCTURED:
                        entry[name] = _unpacked(name, given)
                        continue
                    entry[name] = value_of(
                        OF_AN_ECONOMY[name].metadata["parameter"], "" if given == NO_LIMIT else given
                    )
                except ValueError as error:
                    raise ValueError(f"line {place}: {name}: {error}") from None
            elif dot:
                entry.setdefault(name, {})[parameter] = _parameter(given)
            else:
                entry[name] = {"kind": given, **entry.get(name, {})}
        entries.append(entry)
    return entries


def _label_and_rest(line: str) -> tuple[str, str, str]:
    """At the colon that ends the line, else the last before a space, else the first: a label may have colons, and so
    may thresholds."""
    line = line.rstrip()
    at = len(line) - 1 if line.endswith(":") else max(line.rfind(": "), -1)
    at = line.find(":") if at < 0 else at
    return (line[:at], ":", line[at + 1 :]) if at >= 0 else (line, "", "")


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Those that say something, numbered from 1."""
    return ((place, line) for place, line in enumerate(text.splitlines(), 1) if line.strip())


def _behaviour(text: str) -> dict[str, Any] | None:
    """'label_flip fraction=0.5'; None for what has another form."""
    match = BEHAVIOUR.fullmatch(text) if len(text) <= MOST_TYPED else None
    if match is None or not match["kind"].strip():
        return None
    parameters = {name: _parameter(value) for name, value in PARAMETER.findall(match["parameters"])}
    return {"kind": "_".join(match["kind"].split()), **parameters}


def _parameter(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    try:
        return number(text)
    except ValueError:
        return text  # SimulationConfig says what is wrong with it


def lines_syntax(name: str) -> str:
    """How a line is written, and what there is."""
    if name == "shadows":
        families = "; ".join(
            f"{field}: {', '.join(kinds.family(CHOICES[field]))}" for field in OF_AN_ECONOMY if field in CHOICES
        )
        return (
            "One line for each: a label, a colon, and what it does not take from the paying one, as in wage: "
            f"reward_rule=wage_bonus reward_rule.share=0.2. There are {', '.join(OF_AN_ECONOMY)}; {families}"
        )
    if name in STRUCTURED:
        example = "norm" if name == "detectors" else "replay above=0.99 share=0.5"
        bounds = (
            "" if name == "detectors" else ": a score from 0 to 1, and the share of the stake that is lost above it"
        )
        return f"One line for each, as in {example}{bounds}. There are: {', '.join(kinds.family('detector'))}"
    there = "; ".join(
        " ".join([kind.name, *(f"{each}={inline(parameter.default)}" for each, parameter in kind.parameters.items())])
        for kind in kinds.family("behaviour").values()
        if kind.name != "honest"
    )
    example = "3, 5-7: label_flip fraction=0.5" if name == "behaviours" else "20% label_flip fraction=0.5"
    return f"One line for each, as in {example}; from_round and to_round bound it. There are: {there}"


def inline(value: Any) -> str:
    """A parameter's value within a line, where it cannot have spaces."""
    return as_text(value).replace(" ", "")
