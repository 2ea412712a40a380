"""What recent runs took, for estimates of the next one's time."""

from __future__ import annotations

from typing import Any

from django.core.cache import cache
from django.db.models import Avg, Count

from kinds import ConfigError
from simulations.config import SimulationConfig
from simulations.durations import PHASES, Past
from simulations.models import Round, Simulation

RUNS = 20  # the newest that have trained a round
ROUNDS = 20  # the first of each that are looked at
KEPT_SECONDS = 30


def past() -> list[Past]:
    """Of the newest runs, whoever's; two queries, remembered for half a minute."""
    found: list[Past] | None = cache.get("paces")
    if found is None:
        found = _read()
        cache.set("paces", found, KEPT_SECONDS)
    return found


def _read() -> list[Past]:
    newest = list(Simulation.objects.filter(rounds_done__gte=1).order_by("-pk").only("config", "scheme")[:RUNS])
    means: dict[str, Any] = {phase: Avg(f"{phase}_seconds") for phase in PHASES} | {"looked_at": Count("pk")}
    rows = Round.objects.filter(simulation__in=newest, number__lte=ROUNDS).values("simulation_id").annotate(**means)
    taken = {row.pop("simulation_id"): row for row in rows}
    found = []
    for simulation in newest:
        try:
            config = SimulationConfig.from_record(simulation.config, simulation.scheme)
        except ConfigError:
            continue  # of a plug-in that is gone, or of an older release
        if config.device == "cpu" and simulation.pk in taken:
            seconds = taken[simulation.pk]
            found.append(Past(config=config, rounds=seconds.pop("looked_at"), seconds=seconds))
    return found
