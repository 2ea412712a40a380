"""A chosen kind with its parameters: checked, in its canonical form, and as it enters a hash."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from kinds import catalogue
from kinds.errors import ConfigError
from kinds.kind import Kind
from kinds.parameter import shown


@dataclass(frozen=True)
class Choice:
    """Of a family: a kind's name and a value for each of its parameters. Equal meanings are equal."""

    family: str
    kind: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    source_sha256: str = ""  # of a plug-in, from when the run is queued
    version: int | None = None  # of the kind, where an earlier one is meant

    def __getitem__(self, name: str) -> Any:
        """A parameter; KeyError where this kind has no such."""
        return self.parameters[name]

    @property
    def description(self) -> Kind:
        """The catalogue's, in the version that is meant; ValueError where a plug-in's is not there any more."""
        return catalogue.find(self.family, self.kind).at(self.version)

    def has(self, trait: str) -> bool:
        """A plug-in that is gone has none, so that its runs stay readable."""
        kind = catalogue.family(self.family).get(self.kind)
        return kind is not None and trait in kind.traits

    def load(self) -> Any:
        """The kind's code, in the version that is meant; see Kind.load."""
        return self.description.load()

    def to_dict(self) -> dict[str, Any]:
        """The canonical form: the kind and all of its parameters, ready for JSON."""
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in self.parameters.items()}
        source = {"source_sha256": self.source_sha256} if self.source_sha256 else {}
        return {"kind": self.kind, **values, **source}

    def hashed(self) -> dict[str, Any]:
        """What enters a hash: the kind without parameters at their defaults, the version that is meant unless it is 1,
        and a plug-in's source. A release that adds parameters to a kind moves no hash."""
        found = self.to_dict()
        if self.kind not in catalogue.family(self.family):
            return found
        kind = self.description
        usual = {name: parameter.plain(parameter.default) for name, parameter in kind.parameters.items()}
        kept = {name: value for name, value in found.items() if name not in usual or value != usual[name]}
        return kept | ({"version": kind.version} if kind.version > 1 else {})


def checked(
    family: str,
    value: Any,
    field: str,
    *,
    recorded: bool = False,
    versions: Mapping[tuple[str, str], int] = MappingProxyType({}),
) -> Choice:
    """A choice from `{"kind": ..., parameter: ...}`, a bare name, or a Choice. ConfigError names `field` for the kind,
    `field.parameter` for a parameter.

    None is a parameter's default, and so is what is left out. A plug-in's source hash is taken from records alone.
    versions: of kinds, by family and name, of which another version than today's is meant.
    """
    if isinstance(value, Choice):
        value, recorded = value.to_dict(), True
    given = dict(value) if isinstance(value, Mapping) else {"kind": value}
    name = given.pop("kind", None)
    source = str(given.pop("source_sha256", "")) if recorded else ""
    if recorded and "/" in str(name) and name not in catalogue.family(family):
        return Choice(family, str(name), given, source)  # of a plug-in that is gone: its runs stay readable
    try:
        if name is None:
            raise ValueError('expected a name or {"kind": ...}')
        kind = catalogue.find(family, name)
    except ValueError as error:
        raise ConfigError({field: str(error)}) from None
    errors, parameters = {}, {}
    for name in given:
        if name not in kind.parameters:
            errors[f"{field}.{name}"] = lacks(kind, str(name))
    for name, parameter in kind.parameters.items():
        found = given.get(name)
        try:
            parameters[name] = parameter.check(parameter.default if found is None else found)
        except ValueError as error:
            errors[f"{field}.{name}"] = str(error)
    if errors:
        raise ConfigError(errors)
    return Choice(family, kind.name, parameters, source, versions.get((family, kind.name)))


def lacks(kind: Kind, name: str) -> str:
    """That a kind has no such parameter, in words."""
    there = f"; it has {', '.join(kind.parameters)}" if kind.parameters else ""
    return f"{kind.name} has no {shown(name)}{there}"
