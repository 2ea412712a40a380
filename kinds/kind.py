"""A member of a family of choices."""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from kinds.parameter import Parameter

NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,59}")
ID = re.compile(rf"({NAME.pattern}/)?{NAME.pattern}")  # with a slash: of a plug-in
OF_BEHAVIOURS = {"from_round", "to_round", "share"}  # which any of them takes, beside its own


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What the catalogue knows of it.

    `code` does it: a function or object, or its dotted name, `package.module:name`, which is imported where it is used,
    so that whoever reads the catalogue loads nothing. `version` rises whenever the same parameters come to mean another
    result; `older` holds the code of earlier ones, for rows that mean them (of built-in kinds: a plug-in's source is
    kept instead). `traits` are what others may rely on, by the family's own words. ValueError for what no catalogue can
    hold.
    """

    family: str
    name: str
    help: str
    label: str = ""  # what a person reads in its place; made from the name where it is empty
    source: str = ""  # paper and section, or "ours"
    version: int = 1
    code: str | Callable[..., Any] | Any = ""
    older: Mapping[int, str | Callable[..., Any]] = field(default_factory=dict)
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    traits: frozenset[str] = frozenset()
    cost: Callable[..., int] | None = None  # valuations: (n, **parameters) -> coalitions that it asks for at most
    source_sha256: str = ""  # of a plug-in's files

    def __post_init__(self) -> None:
        if not ID.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is no name of a kind: small letters, digits and underscores")
        taken = {"kind", "source_sha256"} | (OF_BEHAVIOURS if self.family == "behaviour" else set())
        for name in self.parameters:
            if not NAME.fullmatch(name) or name in taken:
                raise ValueError(f"{self.name}: {name!r} cannot be the name of a parameter")
        if not isinstance(self.version, int) or self.version < 1:
            raise ValueError(f"{self.name}: version {self.version!r} is not a whole number from 1")
        if not all(1 <= version < self.version for version in self.older):
            raise ValueError(f"{self.name}: versions {sorted(self.older)} are not all below {self.version}")
        object.__setattr__(self, "older", dict(self.older))
        object.__setattr__(self, "parameters", dict(self.parameters))
        object.__setattr__(self, "traits", frozenset(self.traits))
        object.__setattr__(self, "label", self.label or self.name.rpartition("/")[2].replace("_", " "))

    def at(self, version: int | None) -> Self:
        """This kind as it was in an earlier version; None is today's. ValueError for one whose code is not kept."""
        if version in (None, self.version):
            return self
        if version not in self.older:
            raise ValueError(f"{self.name}: there is no version {version} any more")
        older = {each: code for each, code in self.older.items() if each < version}
        return dataclasses.replace(self, version=version, code=self.older[version], older=older)

    def load(self, version: int | None = None) -> Any:
        """Its code, or that of an earlier version. Only for processes that train: it may import PyTorch or foreign
        code."""
        code = self.at(version).code
        if not isinstance(code, str):
            return code
        module, _, name = code.partition(":")
        return getattr(importlib.import_module(module), name)

    def to_dict(self) -> dict[str, Any]:
        """The description, ready for JSON."""
        return {
            "kind": self.name,
            "label": self.label,
            "help": self.help,
            "source": self.source,
            "version": self.version,
            "parameters": {name: parameter.to_dict() for name, parameter in self.parameters.items()},
            **({"source_sha256": self.source_sha256} if self.source_sha256 else {}),
        }

    def schema(self) -> dict[str, Any]:
        """As JSON schema of `{"kind": ..., parameter: ...}`; null is a parameter's default."""
        parameters = {name: parameter.schema() for name, parameter in self.parameters.items()}
        for schema in parameters.values():
            types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
            schema["type"] = [*types, *({"null"} - set(types))]
            if "enum" in schema:
                schema["enum"] = [*schema["enum"], None]
        return {
            "type": "object",
            "title": self.name,
            "description": self.help,
            "required": ["kind"],
            "additionalProperties": False,
            "properties": {"kind": {"const": self.name}, **parameters},
        }
