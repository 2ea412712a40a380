"""What an economy is: how contributions are measured and how they are paid. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Self

import incentives.catalogue  # noqa: F401  the kinds of valuations, pools and rules
import kinds
from kinds import Choice

FAMILIES = {"valuation": "valuation", "pool": "pool", "reward_rule": "rule"}

DEFAULTS: dict[str, Any] = {
    "game": "server",
    "utility": "loss",
    "utility_weights": "fixed",
    "pool": {"kind": "improvement"},
    "burn_share": 0.0,
    "budget_tokens": None,
}


@dataclass(frozen=True, kw_only=True)
class Specification:
    """An economy with nothing left to `auto`. Its fields are those of the configuration by the same names."""

    game: str
    valuation: Choice
    utility: str
    utility_weights: str
    pool: Choice
    reward_rule: Choice
    burn_share: float = 0.0
    budget_tokens: float | None = None

    @property
    def is_valued(self) -> bool:
        """Whether anything is measured and paid."""
        return self.valuation.kind != "none"

    @property
    def asks_game(self) -> bool:
        """Whether coalitions are asked what they are worth."""
        return not self.valuation.has("no_game")

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], versions: Mapping[tuple[str, str], int] = MappingProxyType({})
    ) -> Self:
        """Of `to_dict`, or of a resolved configuration's record, whose other fields are not read. `versions`: see
        kinds.checked."""
        given = {each.name: values[each.name] for each in fields(cls) if each.name in values}
        chosen = {
            name: kinds.checked(FAMILIES[name], given[name], name, recorded=True, versions=versions)
            for name in FAMILIES
        }
        return cls(**given | chosen)

    def to_dict(self) -> dict[str, Any]:
        """The canonical form, ready for JSON."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value.to_dict() if isinstance(value, Choice) else value for name, value in values.items()}

    def hashed(self) -> dict[str, Any]:
        """What enters a payment's hash: all that is not at its default, of choices their own parameters alone. Of a
        plug-in all of its parameters, and its source in place of its version: the hash can be derived again when nobody
        knows any more what was usual for it."""
        found: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, Choice):
                value = value.to_dict() if "/" in value.kind else value.hashed()
            found[each.name] = value
        return {name: value for name, value in found.items() if name not in DEFAULTS or value != DEFAULTS[name]}
