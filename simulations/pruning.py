"""What a site may let go of, by age: log text, evidence, details of archived runs, checkpoints. Never the ledger.

Only finished runs are touched. Their rows stay, so that events keep their numbers and rounds their figures and hashes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet, Sum
from django.db.models.functions import Length
from django.utils import timezone

from incentives.models import Evidence
from simulations import disk
from simulations.models import UNFINISHED, Contribution, Event, Round, ShadowRound, Simulation, Status

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
    """In rounds' own rows, as runs of schemes 1 and 2 keep it."""
    return Round.objects.filter(simulation__in=simulations, evidence__isnull=False)


def shared_evidence(simulations: QuerySet[Simulation]) -> QuerySet[Evidence]:
    """By hash, on which these runs rest and no others."""
    rounds, shadows = (rows.objects.filter(evidence_sha256=OuterRef("pk")) for rows in (Round, ShadowRound))
    mine = Exists(rounds.filter(simulation__in=simulations)) | Exists(
        shadows.filter(shadow__simulation__in=simulations)
    )
    others = Exists(rounds.exclude(simulation__in=simulations)) | Exists(
        shadows.exclude(shadow__simulation__in=simulations)
    )
    return Evidence.objects.filter(mine, ~others)


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
            number=evidence(simulations).count() + shared_evidence(simulations).count(),
            bytes=evidence(simulations).aggregate(sum=Sum(Length("evidence"), default=0))["sum"]
            + shared_evidence(simulations).aggregate(sum=Sum(Length("content"), default=0))["sum"],
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
    for rows, path in ((Round, "simulation_id"), (ShadowRound, "shadow__simulation_id")):
        resting = rows.objects.filter(evidence_sha256__in=shared_evidence(simulations).values("pk"))
        touched |= set(resting.values_list(path, flat=True).distinct())
    touched |= set(contributions(simulations).values_list("round__simulation_id", flat=True).distinct())
    for number in sorted(touched):
        for last in range(ROUNDS, Simulation.objects.get(pk=number).last_sequence + ROUNDS, ROUNDS):
            _prune_some(simulations.filter(pk=number), last - ROUNDS, last)
    _prune_shared(simulations)
    disk.remove(list(checkpoints(simulations)))
    return len(touched)


def _prune_shared(simulations: QuerySet[Simulation]) -> None:
    """Of runs that are marked as pruned. Locked first and looked at once more: a run that is just being written may
    rest on it, see simulations.economies.keep."""
    simulations = simulations.filter(pruned_at__isnull=False)
    while chosen := list(shared_evidence(simulations).values_list("pk", flat=True)[:ROUNDS]):
        with transaction.atomic():
            list(Evidence.objects.select_for_update().filter(pk__in=chosen).values_list("pk"))
            gone, _ = shared_evidence(simulations).filter(pk__in=chosen).delete()
        if not gone:
            return


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
