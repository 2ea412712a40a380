"""What a site may let go of, by age: log text, evidence, details of archived runs, checkpoints. Never the ledger.

Only finished runs are touched. Their rows stay, so that events keep their numbers and rounds their figures and hashes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from django.db import transaction
from django.db.models import Q, QuerySet, Sum
from django.db.models.functions import Length
from django.utils import timezone

from simulations import disk
from simulations.models import UNFINISHED, Contribution, Event, Round, Simulation, Status

ROUNDS = 500  # in a transaction: whoever else wants to write waits no longer


@dataclass(frozen=True, kw_only=True)
class Part:
    what: str
    number: int
    bytes: int | None  # None where nobody knows
    afterwards: str


def finished_before(moment: datetime) -> QuerySet[Simulation]:
    return Simulation.objects.filter(finished_at__lt=moment).exclude(status__in=UNFINISHED)


def log_lines(simulations: QuerySet[Simulation]) -> QuerySet[Event]:
    return Event.objects.filter(simulation__in=simulations, kind="log").exclude(message="")


def evidence(simulations: QuerySet[Simulation]) -> QuerySet[Round]:
    return Round.objects.filter(simulation__in=simulations, evidence__isnull=False)


def contributions(simulations: QuerySet[Simulation]) -> QuerySet[Contribution]:
    return Contribution.objects.filter(round__simulation__in=simulations.filter(archived=True))


def checkpoints(simulations: QuerySet[Simulation]) -> Iterator[Path]:
    """All of old archived runs; of every completed one those that were left beside the final weights."""
    archived = set(simulations.filter(archived=True).values_list("id", flat=True))
    completed = set(Simulation.objects.filter(status=Status.COMPLETED).values_list("id", flat=True))
    for number in sorted(archived | completed):
        if number in archived:
            yield from sorted(disk.checkpoint_folder(number).glob("round-*"))
        else:
            yield from disk.all_but_final(number)


def plan(simulations: QuerySet[Simulation]) -> list[Part]:
    """What would go. Changes nothing."""
    texts, files = log_lines(simulations), list(checkpoints(simulations))
    return [
        Part(
            what="log lines",
            number=texts.count(),
            bytes=texts.aggregate(sum=Sum(Length("message"), default=0))["sum"],
            afterwards="keep number, kind and time, and lose their text",
        ),
        Part(
            what="rounds' evidence",
            number=evidence(simulations).count(),
            bytes=evidence(simulations).aggregate(sum=Sum(Length("evidence"), default=0))["sum"],
            afterwards="keeps its hash; these payments can be computed again only by training again",
        ),
        Part(
            what="contributions of archived runs",
            number=contributions(simulations).count(),
            bytes=None,
            afterwards="stay as each client's sum; who was in which round is no longer known",
        ),
        Part(
            what="checkpoints",
            number=len(files),
            bytes=disk.size_of(files),
            afterwards="completed runs keep their final weights, archived ones none; Resume trains from round 1 again",
        ),
    ]


def prune(simulations: QuerySet[Simulation]) -> int:
    """Let go of it, in short transactions. How many simulations it were. May be stopped and repeated at any time."""
    touched = set(log_lines(simulations).values_list("simulation_id", flat=True).distinct())
    touched |= set(evidence(simulations).values_list("simulation_id", flat=True).distinct())
    touched |= set(contributions(simulations).values_list("round__simulation_id", flat=True).distinct())
    for number in sorted(touched):
        for last in range(ROUNDS, Simulation.objects.get(pk=number).last_sequence + ROUNDS, ROUNDS):
            _prune_some(simulations.filter(pk=number), last - ROUNDS, last)
    disk.remove(list(checkpoints(simulations)))
    return len(touched)


@transaction.atomic
def _prune_some(simulation: QuerySet[Simulation], after: int, last: int) -> None:
    """Events and rounds with these numbers, if the run is finished still; one that goes on is left alone."""
    if not simulation.update(pruned_at=timezone.now()):
        return
    log_lines(simulation).filter(sequence__gt=after, sequence__lte=last).update(message="")
    numbers = Q(number__gt=after, number__lte=last)
    evidence(simulation).filter(numbers).update(evidence=None)
    rounds = Round.objects.filter(numbers, simulation__in=simulation.filter(archived=True))
    parts = Contribution.objects.filter(round__in=rounds)
    parts._raw_delete(parts.db)
