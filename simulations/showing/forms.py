"""The form that starts a simulation. It turns text into values; SimulationConfig alone says what is wrong with them.

A choice is a select with the name of its field; the parameters of each of its kinds are fields named
`field.kind.parameter`, of which only those of the chosen kind are read.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.http import QueryDict

import kinds
from kinds import ConfigError, Kind, Parameter
from kinds.parameter import MOST_CLIENTS, stretches
from simulations.config import CHOICES, FIELDS, GROUPS, OF_AN_ECONOMY, PRESETS, SimulationConfig
from simulations.showing import wording
from training.behaviours import FROM_ROUND, TO_ROUND

FIRST = ("num_clients", "num_rounds", "partition", "valuation")  # beside the button; all others are under More
LINES = ("behaviours", "population", "shadows")  # fields of several lines: a client, a share, an economy in each
NO_LIMIT = "none"  # of an economy's budget, where the paying one has one
BEHAVIOUR = re.compile(r"\s*(?P<kind>[^=]*?)(?P<parameters>(\s+\w+\s*=\s*\S+)*)\s*")
SHARE = re.compile(r"\s*(?P<share>[\d.]+)\s*(?P<percent>%?)(?P<behaviour>\s.*)")
CLIENTS = kinds.clients("who does so")
PARAMETER = re.compile(r"(\w+)\s*=\s*(\S+)")


@dataclass(frozen=True, kw_only=True)
class FormField:
    """One field as the template needs it; `value` and `default` are text, as a browser sends it."""

    name: str
    label: str
    value: str
    default: str
    help: str
    bounds: str
    error: str
    kind: str  # choice, number, text, lines
    choices: tuple[tuple[str, str, str], ...] = ()  # value, label, help
    mode: str = "decimal"  # which keyboard a phone shows: numeric, decimal, text
    optional: bool = False
    of_kinds: tuple[OfKind, ...] = ()  # of a choice: the kinds that have parameters
    syntax: str = ""  # of lines: how one is written
    most: int | None = None  # of lines: how many there may be

    @property
    def key(self) -> str:
        """Its name as part of an id."""
        return self.name.replace(".", "-").replace("/", "-")


@dataclass(frozen=True, kw_only=True)
class OfKind:
    """A kind's own fields."""

    name: str
    label: str
    is_chosen: bool
    fields: tuple[FormField, ...]


class StartForm:
    """The fields with what was entered, and after `config()` what is wrong with it.

    A preset fills fields in. The browser does it at once and says so in `filled`; without JavaScript it happens here:
    fields that still hold what the preset in `filled` gave them take the values of the chosen one.
    """

    def __init__(self, data: QueryDict | None = None) -> None:
        data = data if data is not None else QueryDict()
        chosen = data.get("preset", "default")
        self.errors: dict[str, str] = {}
        if chosen not in PRESETS:
            self.errors["preset"] = f"there is no preset {chosen[:40]!r}"
            chosen = "default"
        self.preset = chosen
        before, now = preset_texts(data.get("filled", "default")), preset_texts(chosen)
        given = {name: data.get(name, before[name]).replace("\r\n", "\n") for name in now}
        self.texts = {name: now[name] if text.strip() == before[name] else text for name, text in given.items()}
        self.flat: dict[str, str] = {}  # what the first version's forms called parameters of kinds that are not chosen
        for name, (of_choice, parameter) in SimulationConfig.FLAT.items():
            full = f"{of_choice}.{self.texts[of_choice]}.{parameter}"
            if name in data and full in self.texts:
                self.texts[full] = data.get(full, data[name])
            elif name in data:
                self.flat[name] = data[name]

    def config(self) -> SimulationConfig | None:
        """The configuration, or None and `errors` by field."""
        values, errors = parse(self.texts)
        try:
            config = SimulationConfig.from_dict(values | self.flat, drops=None)
        except ConfigError as error:
            self.refuse(error)
        self.errors |= errors
        return None if self.errors else config

    def refuse(self, error: ConfigError) -> None:
        """What is wrong by field of the configuration, at the fields of the form."""
        self.errors |= {self._name_of(name): text for name, text in error.errors.items()}

    def _name_of(self, name: str) -> str:
        """Of the field for a parameter that the configuration calls `field.parameter`."""
        of_choice, dot, parameter = name.partition(".")
        return f"{of_choice}.{self.texts[of_choice]}.{parameter}" if dot and of_choice in CHOICES else name

    @property
    def first(self) -> list[FormField]:
        return [self.field(name) for name in FIRST]

    @property
    def groups(self) -> Iterator[tuple[str, list[FormField]]]:
        for group in GROUPS:
            names = [name for name, field in FIELDS.items() if field.metadata["group"] == group and name not in FIRST]
            yield group, [self.field(name) for name in names]

    @property
    def is_open(self) -> bool:
        """Whether the fields under More are shown: when one of them is wrong."""
        return any(name.partition(".")[0] not in (*FIRST, "preset") for name in self.errors)

    @property
    def elsewhere(self) -> dict[str, str]:
        """Errors of names that are no field of the form."""
        return {name: text for name, text in self.errors.items() if name not in self.texts and name != "preset"}

    @property
    def presets(self) -> list[dict[str, Any]]:
        """The presets, each with the text of the fields that it sets."""
        usual = preset_texts("default")
        return [
            {
                "name": name,
                "label": preset.label,
                "help": preset.help,
                "chosen": name == self.preset,
                "texts": json.dumps(
                    {field: text for field, text in preset_texts(name).items() if text != usual[field]}
                ),
            }
            for name, preset in PRESETS.items()
        ]

    def field(self, name: str) -> FormField:
        metadata, default = FIELDS[name].metadata, preset_texts("default")[name]
        shared = {"name": name, "label": wording.label(name), "value": self.texts[name], "default": default}
        shared |= {"error": self.errors.get(name, ""), "help": metadata["help"]}
        if name in CHOICES:
            members = kinds.family(CHOICES[name])
            return FormField(
                **shared,
                kind="choice",
                bounds="",
                choices=tuple(
                    (kind.name, wording.kind(CHOICES[name], kind.name), kind.help) for kind in members.values()
                ),
                of_kinds=tuple(self._of_kind(name, kind) for kind in members.values() if kind.parameters),
            )
        if name in LINES:
            return FormField(**shared, kind="lines", bounds="", syntax=lines_syntax(name))
        return _of_parameter(metadata["parameter"], shared)

    def _of_kind(self, name: str, kind: Kind) -> OfKind:
        """The fields of a kind that `name` may choose."""
        usual, made = preset_texts("default"), []
        for parameter_name, parameter in kind.parameters.items():
            full = f"{name}.{kind.name}.{parameter_name}"
            shared = {"name": full, "label": wording.label(parameter_name), "value": self.texts[full]}
            shared |= {"default": usual[full], "error": self.errors.get(full, ""), "help": parameter.help}
            made.append(_of_parameter(parameter, shared))
        label = wording.kind(CHOICES[name], kind.name)
        return OfKind(name=kind.name, label=label, is_chosen=self.texts[name] == kind.name, fields=tuple(made))


class EconomyForm:
    """The form that adds an economy to a finished run: one line, as `shadows` has many."""

    def __init__(self, data: QueryDict | None = None, *, place: int = 1) -> None:
        self.text = f"economy {place}:" if data is None else data.get("economy", "").strip()
        self.label = ""
        self.error = ""

    def entry(self) -> dict[str, Any] | None:
        """What it does not take from the paying one, after which `label` is known; None and an error in the field."""
        try:
            entries = parse_shadows(self.text)
        except ValueError as error:
            self.error = str(error)
            return None
        if len(entries) != 1:
            self.error = f"one economy at a time; {len(entries)} are named"
            return None
        self.label = entries[0].pop("label")
        return entries[0]

    def refuse(self, error: ConfigError) -> None:
        """What the configuration says of it, in the field."""
        texts = [text if name in ("", "shadows", "label") else f"{name}: {text}" for name, text in error.errors.items()]
        self.error = "; ".join(texts)

    @property
    def field(self) -> FormField:
        return FormField(
            name="economy",
            label="Economy",
            value=self.text,
            default="",
            help="What it does not name it takes from the paying one",
            bounds="",
            error=self.error,
            kind="lines",
            syntax=lines_syntax("shadows"),
            most=1,
        )


def _of_parameter(parameter: Parameter, shared: Mapping[str, Any]) -> FormField:
    """A field for one value; `shared` is what does not depend on its type."""
    words = ("true", "false") if parameter.type == "flag" else parameter.choices
    return FormField(
        **shared,
        kind="choice" if words else "text" if parameter.type == "clients" else "number",
        bounds=parameter.bounds_text,
        choices=tuple((word, wording.short(word), "") for word in words),
        mode={"whole": "numeric", "clients": "text"}.get(parameter.type, "decimal"),
        optional=parameter.is_optional or parameter.type == "clients",
    )


def preset_texts(preset: str) -> dict[str, str]:
    """Every field's text under a preset; the usual ones where there is no such preset."""
    values = PRESETS[preset].values if preset in PRESETS else {}
    return texts_of(SimulationConfig.from_dict(values).to_dict())


def texts_of(values: Mapping[str, Any]) -> dict[str, str]:
    """The text of every field of the form for a configuration in its canonical form."""
    texts = {}
    for name, value in values.items():
        if name not in CHOICES:
            texts[name] = as_text(value)
            continue
        texts[name] = value["kind"]
        for kind in kinds.family(CHOICES[name]).values():
            for each, parameter in kind.parameters.items():
                found = value.get(each, parameter.default) if kind.name == value["kind"] else parameter.default
                texts[f"{name}.{kind.name}.{each}"] = as_text(parameter.plain(found))
    return texts


def as_text(value: Any) -> str:
    """A value as one would type it."""
    if isinstance(value, Mapping):
        return "\n".join(f"{stretches(clients)}: {_line(given)}" for clients, given in wording.together(value))
    if isinstance(value, list) and value and "label" in value[0]:
        return "\n".join(_economy_line(entry) for entry in value)
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return "\n".join(f"{wording.percent(entry['share'])}% {_line(entry)}" for entry in value)
    if isinstance(value, list):
        return stretches(value)
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def _line(given: Mapping[str, Any]) -> str:
    """A behaviour as one types it, without what is at its default: 'label_flip fraction=0.5'."""
    found = kinds.family("behaviour").get(given["kind"])
    usual = {name: parameter.plain(parameter.default) for name, parameter in found.parameters.items()} if found else {}
    beside = ("kind", "share", "source_sha256")
    odd = [
        f"{name}={_inline(value)}" for name, value in given.items() if name not in beside and value != usual.get(name)
    ]
    return " ".join([given["kind"], *odd])


def parse(texts: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Values for SimulationConfig, and errors of texts that are no value at all, by the form's field."""
    values: dict[str, Any] = {}
    errors = {}
    for name in FIELDS:
        text = texts[name]
        try:
            if name == "behaviours":
                values[name] = parse_behaviours(text)
            elif name == "population":
                values[name] = parse_population(text)
            elif name == "shadows":
                values[name] = parse_shadows(text)
            elif name not in CHOICES:
                values[name] = _value(FIELDS[name].metadata["parameter"], text)
            elif text not in kinds.family(CHOICES[name]):
                values[name] = text
            else:
                values[name] = {"kind": text}
                for each, parameter in kinds.family(CHOICES[name])[text].parameters.items():
                    full = f"{name}.{text}.{each}"
                    try:
                        values[name][each] = _value(parameter, texts[full])
                    except ValueError as error:
                        errors[full] = str(error)
        except ValueError as error:
            errors[name] = str(error)
    return values, errors


def _value(parameter: Parameter, text: str) -> Any:
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


def parse_shadows(text: str) -> list[dict[str, Any]]:
    """'wage: reward_rule=wage_bonus reward_rule.share=0.2', an economy a line: its label, and what it does not take
    from the paying one. ValueError names the line."""
    entries = []
    for place, line in _lines(text):
        label, colon, rest = line.rpartition(":")  # a label may have colons, values have none
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
                    entry[name] = _value(OF_AN_ECONOMY[name].metadata["parameter"], "" if given == NO_LIMIT else given)
                except ValueError as error:
                    raise ValueError(f"line {place}: {name}: {error}") from None
            elif dot:
                entry.setdefault(name, {})[parameter] = _parameter(given)
            else:
                entry[name] = {"kind": given, **entry.get(name, {})}
        entries.append(entry)
    return entries


def _economy_line(entry: Mapping[str, Any]) -> str:
    """An economy as one types it, without parameters at their defaults."""
    words = []
    for name, value in entry.items():
        if name == "label":
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
        words += [f"{name}.{each}={_inline(given)}" for each, given in odd.items() if given != usual.get(each)]
    return f"{entry['label']}: {' '.join(words)}".rstrip()


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Those that say something, numbered from 1."""
    return ((place, line) for place, line in enumerate(text.splitlines(), 1) if line.strip())


def _behaviour(text: str) -> dict[str, Any] | None:
    """'label_flip fraction=0.5'; None for what has another form."""
    match = BEHAVIOUR.fullmatch(text[:200])
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
    there = "; ".join(
        " ".join([kind.name, *(f"{each}={_inline(parameter.default)}" for each, parameter in kind.parameters.items())])
        for kind in kinds.family("behaviour").values()
        if kind.name != "honest"
    )
    example = "3, 5-7: label_flip fraction=0.5" if name == "behaviours" else "20% label_flip fraction=0.5"
    return f"One line for each, as in {example}; from_round and to_round bound it. There are: {there}"


def behaviour_catalogue() -> list[dict[str, Any]]:
    """What a row of behaviours may choose, as the page's script reads it: each kind with its fields, and those that
    bound the rounds."""
    return [
        {
            "name": kind.name,
            "label": wording.kind("behaviour", kind.name),
            "help": kind.help,
            "fields": [
                dataclasses.asdict(_of_parameter(parameter, _shared_of_row(name, parameter)))
                for name, parameter in {**kind.parameters, "from_round": FROM_ROUND, "to_round": TO_ROUND}.items()
            ],
        }
        for kind in kinds.family("behaviour").values()
        if kind.name != "honest"
    ]


def economy_catalogue() -> list[dict[str, Any]]:
    """What a row of economies may choose, as the page's script reads it: each field with its kinds and their own
    fields, or with its words, or as one for a number."""
    found = []
    for name, field in OF_AN_ECONOMY.items():
        made: dict[str, Any] = {"name": name, "label": wording.label(name), "help": field.metadata["help"]}
        if name in CHOICES:
            made["kinds"] = [
                {
                    "name": kind.name,
                    "label": wording.kind(CHOICES[name], kind.name),
                    "help": kind.help,
                    "fields": [
                        dataclasses.asdict(_of_parameter(parameter, _shared_of_row(each, parameter)))
                        for each, parameter in kind.parameters.items()
                    ],
                }
                for kind in kinds.family(CHOICES[name]).values()
                if (name, kind.name) != ("valuation", "none")
            ]
        else:
            parameter = field.metadata["parameter"]
            made["words"] = [(word, wording.short(word)) for word in parameter.choices]
            made["hint"] = f"; {NO_LIMIT}: no limit" if parameter.is_optional else ""
            made["bounds"] = parameter.bounds_text
        found.append(made)
    return found


def _shared_of_row(name: str, parameter: Parameter) -> dict[str, str]:
    usual = _inline(parameter.plain(parameter.default))
    return {
        "name": name,
        "label": wording.label(name),
        "value": usual,
        "default": usual,
        "error": "",
        "help": parameter.help,
    }


def _inline(value: Any) -> str:
    """A parameter's value within a line, where it cannot have spaces."""
    return as_text(value).replace(" ", "")
