"""The form that starts a simulation. It turns text into values; SimulationConfig alone says what is wrong with them.

A choice is a select with the name of its field; the parameters of each of its kinds are fields named
`field.kind.parameter`, of which only those of the chosen kind are read.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.http import QueryDict

import kinds
from incentives.specification import ABOVE, MOST_ENTRIES, SHARE, STRUCTURED
from kinds import ConfigError, Kind, Parameter
from simulations.config import CHOICES, FIELDS, GROUPS, OF_AN_ECONOMY, SimulationConfig
from simulations.presets import PRESETS
from simulations.showing import wording
from simulations.showing.typed import (
    LINES,
    NO_LIMIT,
    as_text,
    inline,
    lines_syntax,
    parse_behaviours,
    parse_detectors,
    parse_population,
    parse_shadows,
    parse_slashing,
    value_of,
)
from training.behaviours import FROM_ROUND, TO_ROUND

FIRST = ("num_clients", "num_rounds", "partition", "valuation")  # beside the button; all others are under More


def _key(name: str) -> str:
    """A field's name as part of an id."""
    return name.replace(".", "-").replace("/", "-")


def _label_in_full(name: str) -> str:
    """Of a kind's parameter with the label of the choice that it belongs to."""
    of_choice, _, parameter = name.partition(".")
    label = wording.label(of_choice)
    return f"{label}, {wording.label(parameter.rpartition('.')[2]).lower()}" if parameter else label


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
        return _key(self.name)


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
    def wrong(self) -> list[tuple[str, str]]:
        """Labels and keys of the fields that are wrong, in the form's order."""
        names = ["preset", *FIRST, *(name for name in self.texts if name not in FIRST)]
        return [(_label_in_full(name), _key(name)) for name in names if name in self.errors]

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
            most = MOST_ENTRIES if name in STRUCTURED else None
            return FormField(**shared, kind="lines", bounds="", syntax=lines_syntax(name), most=most)
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


PARSERS: Mapping[str, Callable[[str], Any]] = {
    "behaviours": parse_behaviours,
    "population": parse_population,
    "detectors": parse_detectors,
    "slashing": parse_slashing,
    "shadows": parse_shadows,
}


def parse(texts: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Values for SimulationConfig, and errors of texts that are no value at all, by the form's field."""
    values: dict[str, Any] = {}
    errors = {}
    for name in FIELDS:
        text = texts[name]
        try:
            if name in LINES:
                values[name] = PARSERS[name](text)
            elif name not in CHOICES:
                values[name] = value_of(FIELDS[name].metadata["parameter"], text)
            elif text not in kinds.family(CHOICES[name]):
                values[name] = text
            else:
                values[name] = {"kind": text}
                for each, parameter in kinds.family(CHOICES[name])[text].parameters.items():
                    full = f"{name}.{text}.{each}"
                    try:
                        values[name][each] = value_of(parameter, texts[full])
                    except ValueError as error:
                        errors[full] = str(error)
        except ValueError as error:
            errors[name] = str(error)
    return values, errors


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


def detector_catalogue() -> list[dict[str, Any]]:
    """What a row of detectors may choose, as the page's script reads it: each kind with its fields."""
    return [_of_detector(kind, kind.parameters) for kind in kinds.family("detector").values()]


def threshold_catalogue() -> list[dict[str, Any]]:
    """The same of what costs stake: from which score on it costs how much, and the detector's own fields."""
    return [
        _of_detector(
            kind,
            {"above": ABOVE, "share": SHARE, **{f"detector.{name}": each for name, each in kind.parameters.items()}},
        )
        for kind in kinds.family("detector").values()
    ]


def _of_detector(kind: Kind, parameters: Mapping[str, Parameter]) -> dict[str, Any]:
    """As of behaviours."""
    fields = [
        dataclasses.asdict(_of_parameter(parameter, _shared_of_row(name, parameter)))
        | {"label": wording.THRESHOLD.get(name, wording.label(name.removeprefix("detector.")))}
        for name, parameter in parameters.items()
    ]
    return {"name": kind.name, "label": wording.kind("detector", kind.name), "help": kind.help, "fields": fields}


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
        elif name in LINES:
            example = "norm,replay" if name == "detectors" else "replay:0.99:0.5,norm:0.8:1"
            made |= {"words": [], "hint": f"; as in {example}; {NO_LIMIT}: none", "bounds": "without spaces"}
        else:
            parameter = field.metadata["parameter"]
            made["words"] = [(word, wording.short(word)) for word in parameter.choices]
            made["hint"] = f"; {NO_LIMIT}: no limit" if parameter.is_optional else ""
            made["bounds"] = parameter.bounds_text
        found.append(made)
    return found


def _shared_of_row(name: str, parameter: Parameter) -> dict[str, str]:
    usual = inline(parameter.plain(parameter.default))
    return {
        "name": name,
        "label": wording.label(name),
        "value": usual,
        "default": usual,
        "error": "",
        "help": parameter.help,
    }
