"""The families and their kinds: the built-in ones, and beside them the plugged-in ones of this moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from kinds.kind import Kind
from kinds.parameter import shown

FAMILIES: dict[str, str] = {  # and what its members decide
    "dataset": "what is learned from",
    "partition": "how the examples are split over the clients",
    "model": "the network that the clients train",
    "sampler": "which clients take part in a round",
    "behaviour": "what a client does in place of honest training",
    "strategy": "how the server joins the updates",
    "valuation": "how a client's contribution is measured",
    "pool": "how many tokens a round pays",
    "rule": "how the pool is split over the contributions",
    "detector": "what points at clients that may not play fair",
}
PLUGGABLE = ("model", "behaviour", "strategy", "valuation", "pool", "rule", "detector")

_built_in: dict[str, dict[str, Kind]] = {name: {} for name in FAMILIES}
_plugged: dict[str, Mapping[str, Kind]] = {}
_before_reading: Callable[[], None] | None = None


def register(*kinds: Kind) -> None:
    """Adds built-in kinds, once each; ValueError for a name that is taken or has a slash."""
    for kind in kinds:
        if kind.name in _built_in[kind.family] or "/" in kind.name:
            raise ValueError(f"{kind.family}: there is a {kind.name} already, or its name has a slash")
        _built_in[kind.family][kind.name] = kind


def plug(kinds: Iterable[Kind]) -> None:
    """Puts these in the place of all that were plugged in before; at once, for other threads too."""
    found: dict[str, dict[str, Kind]] = {}
    for kind in kinds:
        if "/" not in kind.name or kind.family not in PLUGGABLE:
            raise ValueError(f"{kind.family} {kind.name}: cannot be plugged in")
        found.setdefault(kind.family, {})[kind.name] = kind
    global _plugged
    _plugged = {name: MappingProxyType(members) for name, members in found.items()}


def before_reading(look: Callable[[], None] | None) -> None:
    """Has this called whenever the catalogue is read: whoever plugs kinds in sees there whether they have changed."""
    global _before_reading
    _before_reading = look


def family(name: str) -> Mapping[str, Kind]:
    """Its kinds by name, the built-in ones first."""
    if _before_reading is not None and name in PLUGGABLE:
        _before_reading()
    plugged = _plugged.get(name)
    return MappingProxyType(_built_in[name] | dict(plugged)) if plugged else MappingProxyType(_built_in[name])


def find(family_name: str, name: object) -> Kind:
    """ValueError with what there is."""
    kinds = family(family_name)
    if not isinstance(name, str) or name not in kinds:
        raise ValueError(f"{shown(name)} is not one of {', '.join(kinds)}")
    return kinds[name]
