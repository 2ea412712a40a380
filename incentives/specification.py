"""What an economy is: how contributions are measured and how they are paid. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Self

import incentives.catalogue  # noqa: F401  the kinds of valuations, pools, rules and detectors
import kinds
from incentives import rewards
from kinds import Choice, ConfigError
from kinds.parameter import shown

FAMILIES = {"valuation": "valuation", "pool": "pool", "reward_rule": "rule"}

DEFAULTS: dict[str, Any] = {
    "game": "server",
    "utility": "loss",
    "utility_weights": "fixed",
    "pool": {"kind": "improvement"},
    "burn_share": 0.0,
    "budget_tokens": None,
    "stake": 0.0,
    "detectors": [],
    "slashing": [],
    "slashed_to": "treasury",
}
ABOVE = kinds.number(0.99, "the score above which stake is lost", minimum=0.0, maximum=1.0)
SHARE = kinds.number(1.0, "the share of the stake that is lost each time", minimum=0.0, maximum=1.0)
MOST_ENTRIES = 20  # of detectors, and of slashing


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
    stake: float = 0.0  # tokens of each holder, before round 1
    detectors: tuple[Choice, ...] = ()  # that score, beside those of `slashing`
    slashing: tuple[Mapping[str, Any], ...] = ()  # {"detector": Choice, "above": score, "share": of the stake}
    slashed_to: str = "treasury"  # or burn

    @property
    def is_valued(self) -> bool:
        """Whether anything is measured and paid."""
        return self.valuation.kind != "none"

    @property
    def asks_game(self) -> bool:
        """Whether coalitions are asked what they are worth."""
        return not self.valuation.has("no_game")

    @property
    def scorers(self) -> tuple[Choice, ...]:
        """All of its detectors, each once."""
        found = [*self.detectors, *(entry["detector"] for entry in self.slashing)]
        return tuple({each.kind: each for each in found}.values())

    @property
    def asks_products(self) -> bool:
        """Whether products of updates with each other are asked for, see incentives.products."""
        by_choice = any(each.has("products") for each in (self.valuation, self.reward_rule, *self.scorers))
        return self.is_valued and by_choice

    @property
    def keeps(self) -> frozenset[str]:
        """What a training must keep from round to round for its products: `summed`, `previous_step`."""
        asking = [each for each in (self.valuation, self.reward_rule, *self.scorers) if self.is_valued]
        asking = [each for each in asking if each.parameters.get("by") != "replication"]
        return frozenset(trait for each in asking for trait in ("summed", "previous_step") if each.has(trait))

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], versions: Mapping[tuple[str, str], int] = MappingProxyType({})
    ) -> Self:
        """Of `to_dict`, or of a resolved configuration's record, whose other fields are not read. `versions`: see
        kinds.checked."""
        given = {each.name: values[each.name] for each in fields(cls) if each.name in values}
        chosen: dict[str, Any] = {
            name: kinds.checked(FAMILIES[name], given[name], name, recorded=True, versions=versions)
            for name in FAMILIES
        }
        for name, check in STRUCTURED.items():
            if name in given:
                chosen[name] = check(given[name], recorded=True)
        return cls(**given | chosen)

    def to_dict(self) -> dict[str, Any]:
        """The canonical form, ready for JSON."""
        return {each.name: plain(getattr(self, each.name)) for each in fields(self)}

    def hashed(self) -> dict[str, Any]:
        """What enters a payment's hash: all that is not at its default, of choices their own parameters alone. Of a
        plug-in all of its parameters, and its source in place of its version: the hash can be derived again when nobody
        knows any more what was usual for it."""
        found = {each.name: plain(getattr(self, each.name), hashes=True) for each in fields(self)}
        return {name: value for name, value in found.items() if name not in DEFAULTS or value != DEFAULTS[name]}


@dataclass(frozen=True, kw_only=True)
class Members:
    """Who takes part in a run, and what its sampler wants to know of the paying economy."""

    num_clients: int  # numbers run from 1 to this; identities are among them
    holders: Mapping[int, int] = field(default_factory=dict)  # identity -> who holds it; not named: itself
    balances: bool = False  # whether these are kept

    def stakes(self, specification: Specification) -> dict[int, int]:
        """By client, micro-tokens at stake before round 1: a holder's divided over its identities, to the unit by
        largest remainder. Empty where nothing is at stake."""
        whole = rewards.fixed_pool(specification.stake)
        if not whole or not specification.is_valued:
            return {}
        found = dict.fromkeys(range(1, self.num_clients + 1), whole)
        of_holder: dict[int, list[int]] = {}
        for identity, holder in self.holders.items():
            of_holder.setdefault(holder, [holder]).append(identity)
        for identities in of_holder.values():
            shares = rewards.largest_remainder([1] * len(identities), whole)
            found |= zip(sorted(identities), shares, strict=True)
        return found


NOBODY = Members(num_clients=0)  # for economies in which nobody has a stake


def plain(value: Any, *, hashes: bool = False) -> Any:
    """A field ready for JSON; with `hashes` as it enters a hash."""
    if isinstance(value, Choice):
        return value.hashed() if hashes and "/" not in value.kind else value.to_dict()
    if isinstance(value, Mapping):
        return {name: plain(each, hashes=hashes) for name, each in value.items()}
    if isinstance(value, tuple):
        return [plain(each, hashes=hashes) for each in value]
    return value


def detectors_of(value: Any, *, recorded: bool = False) -> tuple[Choice, ...]:
    """A list of detectors, each once; ValueError says which is none."""
    found = tuple(_detector(each, recorded) for each in _entries(value))
    if len({each.kind for each in found}) < len(found):
        raise ValueError("a detector is there twice")
    return found


def slashing_of(value: Any, *, recorded: bool = False) -> tuple[dict[str, Any], ...]:
    """A list of {"detector": ..., "above": ..., "share": ...}; ValueError says what is none."""
    found = []
    for each in _entries(value):
        unknown = [name for name in each if name not in ("detector", "above", "share")] if _is_mapping(each) else []
        if not _is_mapping(each) or "detector" not in each or unknown:
            what = f"it has no {shown(unknown[0])}" if unknown else f"not {shown(each)}"
            raise ValueError(f'expected {{"detector": ..., "above": ..., "share": ...}}, {what}')
        entry: dict[str, Any] = {"detector": _detector(each["detector"], recorded)}
        for name, parameter in (("above", ABOVE), ("share", SHARE)):
            try:
                entry[name] = parameter.check(parameter.default if each.get(name) is None else each[name])
            except ValueError as error:
                raise ValueError(f"{entry['detector'].kind}: {name}: {error}") from None
        found.append(entry)
    return tuple(found)


def differing(detectors: tuple[Choice, ...], slashing: tuple[Mapping[str, Any], ...]) -> str:
    """The name of a detector that is there with two sets of parameters, or an empty text."""
    known: dict[str, Choice] = {}
    for each in (*detectors, *(entry["detector"] for entry in slashing)):
        if known.setdefault(each.kind, each) != each:
            return str(each.kind)
    return ""


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _entries(value: Any) -> Iterator[Any]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"expected a list, not {shown(value)}")
    if len(value) > MOST_ENTRIES:
        raise ValueError(f"{len(value)} entries are more than {MOST_ENTRIES}")
    return iter(value)


def _detector(value: Any, recorded: bool) -> Choice:
    try:
        return kinds.checked("detector", value, "detector", recorded=recorded)
    except ConfigError as error:
        name, text = next(iter(error.errors.items()))
        raise ValueError(text if name == "detector" else f"{name}: {text}") from None


STRUCTURED = {"detectors": detectors_of, "slashing": slashing_of}
