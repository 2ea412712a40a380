"""The workers: who is there, as each of them says every few seconds, and what it runs, as its claims tell."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Count, F, Max, Min, Q

from simulations import processes
from simulations.models import Audit, AuditStatus, Event, Simulation, Status, Worker
from simulations.running import leases, turns

MOST = 500  # workers, and runs, that are looked at
CLAIMED = ("starting", "resumed")  # what a claim says first
KEPT_SECONDS = 3600  # that the row of a worker stays which has not been heard of


# What a worker says of itself


def beat_seconds() -> float:
    """Between two heartbeats of a worker: several fit into the time after which it counts as lost."""
    return min(5.0, settings.FEDSITE_LEASE_SECONDS / 3)


@transaction.atomic
def arrive() -> None:
    """This process is a worker now. Rows of workers that are gone go with whoever arrives."""
    mine = processes.name()
    dead = [name for name in Worker.objects.values_list("name", flat=True) if processes.is_dead(name)]
    old = Q(seen_at__lt=leases.clock(-KEPT_SECONDS))
    Worker.objects.filter(old | Q(name__in=[mine, *dead])).delete()
    at, most = leases.clock(), settings.FEDSITE_MAX_MEMORY
    Worker.objects.create(name=mine, started_at=at, seen_at=at, most_bytes=most)


def beat() -> None:
    """It is still there. One query."""
    if not Worker.objects.filter(name=processes.name()).update(seen_at=leases.clock()):
        arrive()  # again: it was silent for so long that somebody took its row away


def leave() -> None:
    Worker.objects.filter(name=processes.name()).delete()


# What others see of it


@dataclass(frozen=True, kw_only=True)
class Run:
    simulation: Simulation
    since: datetime | None  # of the claim that runs it now
    lease_expires_at: datetime
    audit: Audit | None = None  # that is done, in place of the simulation


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A process, with what it runs."""

    host: str
    process: str
    started_at: datetime | None  # None of a shell, which runs its own simulation only, and of one that is swept
    silent_seconds: float  # since its newest heartbeat
    is_lost: bool
    runs: list[Run]

    @property
    def shown(self) -> list[Run | None]:
        """A line for each run, and one for a worker that runs nothing."""
        return [*self.runs] or [None]


def present(at: datetime) -> list[tuple[str, datetime, float]]:
    """Name, start and seconds of silence of every worker that was heard of in the last hour. One query."""
    rows = Worker.objects.filter(seen_at__gte=at - timedelta(seconds=KEPT_SECONDS)).order_by("name")[:MOST]
    return [(row.name, row.started_at, (at - row.seen_at).total_seconds()) for row in rows]


def everybody() -> list[Seen]:
    """By host and process: who says that it is there, and who holds a claim. Four queries, and one for the clock."""
    at = leases.now()
    started = {name: (began, silent) for name, began, silent in present(at)}
    runs = _runs()
    return [_seen(name, *started.get(name, (None, None)), runs.get(name, []), at) for name in sorted({*started, *runs})]


def _runs() -> dict[str, list[Run]]:
    """By the name of the process that holds the claim."""
    running = list(Simulation.objects.filter(status=Status.RUNNING).order_by("id")[:MOST])
    claims = Event.objects.filter(simulation__in=running, kind__in=CLAIMED)
    since = dict(claims.values_list("simulation").annotate(Max("at")))
    found: dict[str, list[Run]] = {}
    for simulation in running:
        name = simulation.claimed_by.rpartition(":")[0]
        lease = simulation.lease_expires_at
        run = Run(simulation=simulation, since=since.get(simulation.pk), lease_expires_at=lease)
        found.setdefault(name, []).append(run)
    audited = Audit.objects.filter(status=AuditStatus.RUNNING).select_related("simulation").order_by("id")[:MOST]
    for audit in audited:
        run = Run(
            simulation=audit.simulation, since=audit.began_at, lease_expires_at=audit.lease_expires_at, audit=audit
        )
        found.setdefault(audit.claimed_by.rpartition(":")[0], []).append(run)
    return found


def _seen(name: str, started_at: datetime | None, silent: float | None, runs: list[Run], at: datetime) -> Seen:
    host, process = processes.host_and_process(name)
    renewed = timedelta(seconds=settings.FEDSITE_LEASE_SECONDS)
    held = [(at - run.lease_expires_at + renewed).total_seconds() for run in runs]
    heard = min([*held, *([] if silent is None else [silent])])
    return Seen(
        host=host,
        process=process,
        started_at=started_at,
        silent_seconds=max(heard, 0.0),
        is_lost=heard > settings.FEDSITE_LEASE_SECONDS or processes.is_dead(name),
        runs=runs,
    )


def queue() -> dict[str, Any]:
    """How many wait, and since when the first of them; a newest event tells when its simulation began to. One query."""
    newest = turns.waiting().order_by().filter(events__sequence=F("last_sequence"))
    return newest.aggregate(waiting=Count("id"), oldest=Min("events__at"))
