"""What is computed again while somebody waits for a page or an answer: how much, how long, and by how many at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from django.db.models import Count, Q, Sum
from django.db.models.functions import Length

from incentives.models import Evidence
from simulations.models import ShadowRound, Simulation

MOST_ROUNDS = 2_000  # more by a command
MOST_UTILITIES = 2_000_000
SECONDS = 60.0  # of computing
AT_ONCE = threading.BoundedSemaphore(2)  # children of this process


def too_large(simulation: Simulation, number: int | None = None) -> str:
    """Why a run, or one round of it, is not computed for somebody who waits; empty where it is."""
    rounds = simulation.rounds.all() if number is None else simulation.rounds.filter(number=number)
    shadows = ShadowRound.objects.filter(shadow__simulation=simulation, number__in=rounds.values("number"))
    kept = Evidence.objects.filter(
        Q(sha256__in=rounds.values("evidence_sha256")) | Q(sha256__in=shadows.values("evidence_sha256"))
    )
    size = kept.aggregate(sum=Sum(Length("content"), default=0))["sum"]
    size += rounds.aggregate(sum=Sum(Length("evidence"), default=0))["sum"]
    told = rounds.aggregate(rounds=Count("pk"), parts=Sum("cohort_size", default=0))
    figures = {
        "rounds": (told["rounds"], MOST_ROUNDS),
        "utilities": (size // 8, MOST_UTILITIES),
        "contributions": (told["parts"], MOST_UTILITIES),
    }
    for what, (there, most) in figures.items():
        if there > most:
            return f"About {there:,} {what} are more than the {most:,} computed while you wait"
    return ""


@contextmanager
def a_child() -> Iterator[bool]:
    """The right to let a child of this process compute; False where others have it."""
    if not AT_ONCE.acquire(blocking=False):
        yield False
        return
    try:
        yield True
    finally:
        AT_ONCE.release()
