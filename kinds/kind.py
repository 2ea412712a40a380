"""A member of a family of choices."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kinds.parameter import Parameter

NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,59}")
ID = re.compile(rf"({NAME.pattern}/)?{NAME.pattern}")  # with a slash: of a plug-in
OF_BEHAVIOURS = {"from_round", "to_round", "share"}  # which any of them takes, beside its own


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What the catalogue knows of it.

    `code` does it: a function or object, or its dotted name, `package.module:name`, which is imported where it is used,
    so that whoever reads the catalogue loads nothing. `version` rises whenever the same parameters come to mean another
    result. `traits` are what others may rely on, by the family's own words. ValueError for what no catalogue can hold.
    """

    family: str
    name: str
    help: str
    label: str = ""  # what a person reads in its place; made from the name where it is empty
    source: str = ""  # paper and section, or "ours"
    version: int = 1
    code: str | Callable[..., Any] | Any = ""
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
        object.__setattr__(self, "parameters", dict(self.parameters))
        object.__setattr__(self, "traits", frozenset(self.traits))
        object.__setattr__(self, "label", self.label or self.name.rpartition("/")[2].replace("_", " "))

    def load(self) -> Any:
        """Its code. Only for processes that train: it may import PyTorch or foreign code."""
        if not isinstance(self.code, str):
            return self.code
        module, _, name = self.code.partition(":")
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
        """As JSON schema of `{"kind": ..., parameter: ...}`."""
        parameters = {name: parameter.schema() for name, parameter in self.parameters.items()}
        return {
            "type": "object",
            "title": self.name,
            "description": self.help,
            "required": ["kind"],
            "additionalProperties": False,
            "properties": {"kind": {"const": self.name}, **parameters},
        }
