"""The plug-ins of simulations: whose source a configuration was queued with, and whether that is here."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import kinds
from extensions import catalogue
from extensions.models import Source
from extensions.records import files_of
from extensions.sources import needed
from kinds import Choice, ConfigError
from simulations.config import CHOICES, SimulationConfig

PATIENCE = 20.0  # seconds for the description of a plug-in that has just changed


def with_todays_sources(config: SimulationConfig) -> SimulationConfig:
    """The same with the hash of each plug-in's source as it is here now. ConfigError where one is not here, or is not
    described within PATIENCE."""
    if not config.plugins:
        return config
    if not wait_for(config.plugins):
        raise ConfigError(
            {"": f"{' or '.join(config.plugins)} has just changed and is still being looked at; try again"}
        )
    errors: dict[str, str] = {}

    def hashed(family: str, kind: str, field: str) -> str:
        try:
            return kinds.find(family, kind).source_sha256
        except ValueError as error:
            errors[field] = str(error)
            return ""

    given: dict[str, Any] = {}
    for name, family in CHOICES.items():
        choice = getattr(config, name)
        if "/" in choice.kind:
            given[name] = dataclasses.replace(choice, source_sha256=hashed(family, choice.kind, name))

    def renewed(value: Any, field: str) -> Any:
        if isinstance(value, Choice):
            has_source = "/" in value.kind
            return (
                dataclasses.replace(value, source_sha256=hashed(value.family, value.kind, field))
                if has_source
                else value
            )
        if isinstance(value, Mapping):
            return {name: renewed(each, field) for name, each in value.items()}
        return tuple(renewed(each, field) for each in value) if isinstance(value, tuple) else value

    given |= {name: renewed(getattr(config, name), name) for name in ("detectors", "slashing", "shadows")}

    def behaviour(values: Mapping[str, Any], field: str) -> dict[str, Any]:
        if "/" not in values["kind"]:
            return dict(values)
        return {**values, "source_sha256": hashed("behaviour", values["kind"], field)}

    given["behaviours"] = {client: behaviour(each, "behaviours") for client, each in config.behaviours.items()}
    given["population"] = tuple(behaviour(each, "population") for each in config.population)
    if errors:
        raise ConfigError(errors)
    return dataclasses.replace(config, **given)


def keep_sources(config: SimulationConfig) -> None:
    """The text of each of its plug-ins, once for all runs. ConfigError where one has just changed."""
    for kind, sha256 in config.plugins.items():
        files = catalogue.current.source(sha256)
        if files is None:
            raise ConfigError({"": f"the plug-in {kind} has just changed; try again"})
        Source.objects.get_or_create(sha256=sha256, defaults={"files": dict(files)})


def changed_sources(record: Mapping[str, Any], config: SimulationConfig) -> list[str]:
    """What of a record's plug-ins has another source in the configuration, in sentences."""
    now = config.plugins
    return [
        f"{kind} has another source: {then[:12]} then, {now[kind][:12]} now"
        for kind, then in sorted(set(needed(record)))
        if then and now.get(kind, then) != then
    ]


def wait_for(names: Iterable[str]) -> bool:
    """Whether these plug-ins are known as they are now, after up to PATIENCE: not while a transaction is open."""
    namespaces = {name.partition("/")[0] for name in names}
    return not namespaces or catalogue.current.settle(PATIENCE, namespaces)


def lacking(record: Mapping[str, Any]) -> list[str]:
    """Which plug-ins of a recorded configuration are not here with the source that it was queued with, in sentences.
    One that has just changed is not, until it is described."""
    wanted = sorted(set(needed(record)))
    if not wanted:
        return []
    catalogue.current.look()
    entries = catalogue.current.entries()
    here = {member.kind.name: member.kind.source_sha256 for entry in entries for member in entry.members}
    changing = {member.kind.name for entry in entries if entry.is_waiting for member in entry.members}
    found = []
    for kind, sha256 in wanted:
        if kind in changing:
            found.append(f"the plug-in {kind} has just changed and is being looked at")
        elif kind not in here:
            found.append(f"the plug-in {kind} is not here")
        elif here[kind] != sha256:
            then, now = sha256[:12], here[kind][:12]
            found.append(f"the plug-in {kind} has another source here: {then} when it was queued, {now} now")
    return found


def sources(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The plug-ins of a recorded configuration with their texts, for its page."""
    return [{"kind": kind, "sha256": sha256, "files": files_of(sha256)} for kind, sha256 in sorted(set(needed(record)))]


def rule_source(record: Mapping[str, Any]) -> str:
    """The hash of the source of a recorded configuration's reward rule; empty for a built-in one."""
    rule = record.get("reward_rule")
    return str(rule.get("source_sha256", "")) if isinstance(rule, Mapping) else ""
