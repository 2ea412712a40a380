"""The form that starts a simulation. It turns text into values; SimulationConfig alone says what is wrong with them."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.http import QueryDict

from simulations import estimates
from simulations.config import FIELDS, GROUPS, PRESETS, SimulationConfig
from simulations.showing import wording
from training.config import BEHAVIOURS, ConfigError, bounds_text

FIRST = ("num_clients", "num_rounds", "partition", "valuation")  # beside the button; all others are under More
BEHAVIOUR_LINE = re.compile(r"\s*(?P<client>\d+)\s*:\s*(?P<kind>[^=]*?)(?P<parameters>(\s+\w+\s*=\s*\S+)*)\s*")
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
    kind: str  # choice, number, lines
    choices: tuple[tuple[str, str], ...]
    mode: str  # which keyboard a phone shows: numeric, decimal
    optional: bool

    @property
    def id(self) -> str:
        return f"field-{self.name}"


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
        given = {name: _newlines(data.get(name, before[name])) for name in FIELDS}
        self.texts = {name: now[name] if text.strip() == before[name] else text for name, text in given.items()}

    def config(self) -> SimulationConfig | None:
        """The configuration, or None and `errors` by field."""
        values, errors = parse(self.texts)
        try:
            config = SimulationConfig.from_dict(values)
            estimates.refuse_too_large(config, settings.FEDSITE_MAX_MEMORY)
        except ConfigError as error:
            errors = error.errors | errors
        self.errors |= errors
        return None if self.errors else config

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
        return any(name in FIELDS and name not in FIRST for name in self.errors)

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
        metadata = FIELDS[name].metadata
        choices = tuple((value, wording.choice(value)) for value in metadata["choices"] or ())
        kind = "lines" if name == "behaviours" else "choice" if choices else "number"
        return FormField(
            name=name,
            label=wording.label(name),
            value=self.texts[name],
            default=preset_texts("default")[name],
            help=behaviours_help(metadata["help"]) if name == "behaviours" else metadata["help"],
            bounds=bounds_text(metadata),
            error=self.errors.get(name, ""),
            kind=kind,
            choices=choices,
            mode="numeric" if str(FIELDS[name].type).startswith("int") else "decimal",
            optional=str(FIELDS[name].type).endswith("| None"),
        )


def preset_texts(preset: str) -> dict[str, str]:
    """Every field's text under a preset; the usual ones where there is no such preset."""
    values = PRESETS[preset].values if preset in PRESETS else {}
    usual = {name: _default(field) for name, field in FIELDS.items()}
    return {name: as_text(value) for name, value in (usual | dict(values)).items()}


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def as_text(value: Any) -> str:
    """A value as one would type it."""
    if isinstance(value, Mapping):
        return "\n".join(_behaviour_text(client, given) for client, given in value.items())
    return "" if value is None else str(value)


def _behaviour_text(client: Any, given: Mapping[str, Any]) -> str:
    rest = [f"{name}={value:g}" for name, value in given.items() if name != "kind"]
    return f"{client}: {' '.join([given['kind'], *rest])}"


def parse(texts: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Values for SimulationConfig, and errors of texts that are no value at all."""
    values: dict[str, Any] = {}
    errors = {}
    for name, text in texts.items():
        try:
            values[name] = _value(name, text)
        except ValueError as error:
            errors[name] = str(error)
    return values, errors


def _value(name: str, text: str) -> Any:
    kind = str(FIELDS[name].type)
    if name == "behaviours":
        return parse_behaviours(text)
    if kind.endswith("| None") and not text.strip():
        return None
    if kind.startswith(("int", "float")):
        return number(text)
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
    """'3: free_rider' and '5: label_flip fraction=0.5', one client a line. ValueError names the line."""
    behaviours: dict[str, dict[str, Any]] = {}
    for place, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        match = BEHAVIOUR_LINE.fullmatch(line[:200])
        if match is None or not match["kind"].strip():
            raise ValueError(f"line {place}: expected a client, a colon and a behaviour, as in 3: free_rider")
        client = match["client"].lstrip("0") or "0"
        if client in behaviours:
            raise ValueError(f"line {place}: client {client} is named twice")
        parameters = {name: _parameter(value) for name, value in PARAMETER.findall(match["parameters"])}
        behaviours[client] = {"kind": "_".join(match["kind"].split()), **parameters}
    return behaviours


def _parameter(text: str) -> Any:
    try:
        return number(text)
    except ValueError:
        return text  # SimulationConfig says what is wrong with it


def behaviours_help(help: str) -> str:
    kinds = "; ".join(" ".join([kind, *_examples(parameters)]) for kind, parameters in BEHAVIOURS.items())
    return f"{help}. One line for each, as in 3: free_rider. There are: {kinds}"


def _examples(parameters: Mapping[str, Any]) -> list[str]:
    return [f"{name}={parameter.default:g}" for name, parameter in parameters.items()]


def _newlines(text: str) -> str:
    """A browser sends the lines of a text area with carriage returns."""
    return text.replace("\r\n", "\n")
