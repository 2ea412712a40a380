"""The workers that run something, as their claims tell. One that has nothing to do leaves no trace in the data base."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from django.conf import settings
from django.db.models import Max, Min

from simulations import lifecycle
from simulations.models import Event, Simulation, Status

MOST = 500  # runs that are looked at
CLAIMED = ("starting", "resumed")  # what a claim says first


@dataclass(frozen=True, kw_only=True)
class Run:
    simulation: Simulation
    since: datetime | None  # of the claim that runs it now


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A process, with what it runs."""

    host: str
    process: str
    last_heard: datetime  # its newest heartbeat
    is_lost: bool
    runs: list[Run]


def at_work() -> list[Worker]:
    """By host and process. Two queries."""
    running = list(Simulation.objects.filter(status=Status.RUNNING).order_by("owner", "id")[:MOST])
    claims = Event.objects.filter(simulation__in=running, kind__in=CLAIMED)
    since = dict(claims.values_list("simulation").annotate(Max("at")))
    return [_worker(name, list(runs), since) for name, runs in groupby(running, key=_process)]


def _process(simulation: Simulation) -> tuple[str, str]:
    host, process, _ = simulation.owner.split(":", 2)
    return host, process


def _worker(name: tuple[str, str], runs: list[Simulation], since: dict[int, datetime]) -> Worker:
    return Worker(
        host=name[0],
        process=name[1],
        last_heard=max(run.lease_expires_at for run in runs) - timedelta(seconds=settings.FEDSITE_LEASE_SECONDS),
        is_lost=all(lifecycle.is_lost(run) for run in runs),
        runs=[Run(simulation=run, since=since.get(run.pk)) for run in runs],
    )


def queue() -> dict[str, Any]:
    """How many wait, and for how long the first of them. One query."""
    found = lifecycle.waiting().aggregate(oldest=Min("created_at"))
    return {"waiting": lifecycle.waiting().count(), "oldest": found["oldest"]}
