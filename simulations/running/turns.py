"""Whose turn it is: how many may wait, and in which order they start.

People take turns, however many simulations each has waiting. A person is an account, or an address where nobody has
signed in. Each simulation is given a number when it is queued: that of the turn that is on, or the one after its
person's last. So whoever is new comes next, and whoever has a hundred waiting starts one of them a turn.
"""

from typing import Any

from django.conf import settings
from django.db import connection
from django.db.models import Max, Min, Q, QuerySet
from django.utils.crypto import salted_hmac

from simulations.models import UNFINISHED, Origin, Simulation, Starter, Status

LOCK = 0x66656473697465  # of PostgreSQL's advisory locks the one that is ours


class QueueFull(Exception):
    """Too many simulations wait; the text is a plain sentence."""


def waiting() -> QuerySet[Simulation]:
    """The queue that workers serve, in order."""
    return Simulation.objects.filter(status=Status.QUEUED).exclude(origin=Origin.SHELL).order_by("turn", "id")


def place_in_queue(simulation: Simulation) -> int:
    """How many go before it: 0 is the next one."""
    same = Q(turn=simulation.turn, pk__lt=simulation.pk)
    return waiting().filter(Q(turn__lt=simulation.turn) | same).count()


def only_one_at_a_time() -> None:
    """Until the end of the transaction nobody else queues, so that what is counted stays true. On SQLite its own lock,
    which every one of our transactions begins with, does that."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])


def next_turn(user_id: int | None, address: str, simulation_id: int | None = None) -> dict[str, Any]:
    """The columns of a simulation that joins the queue for this person. QueueFull where there are too many already.

    Call it in the transaction that queues it, after only_one_at_a_time. All that waits or runs is counted, but for the
    simulation itself where it has a number already.
    """
    others = Simulation.objects.filter(status__in=UNFINISHED).exclude(pk=simulation_id)
    if waiting().exclude(pk=simulation_id).count() >= settings.FEDSITE_MAX_QUEUED:
        raise QueueFull(f"{settings.FEDSITE_MAX_QUEUED} simulations are waiting already; try again later")
    forget()
    starter = None
    if user_id is not None or address:
        who = f"user {user_id}" if user_id is not None else f"address {address}"
        starter, _ = Starter.objects.get_or_create(who=salted_hmac("simulations.starter", who).hexdigest())
    if user_id is not None and others.filter(owned_by=user_id).count() >= settings.FEDSITE_MAX_PER_USER:
        many = f"{settings.FEDSITE_MAX_PER_USER} simulations of one user"
        raise QueueFull(f"{many} are queued or running already; wait for one, or cancel one")
    if user_id is None and starter and others.filter(starter=starter).count() >= settings.FEDSITE_MAX_PER_ADDRESS:
        many = f"{settings.FEDSITE_MAX_PER_ADDRESS} simulations from one address"
        raise QueueFull(f"{many} are queued or running already; wait for one, or cancel one")
    turn = _turn_that_is_on(simulation_id)
    if starter:
        turn = max(turn, starter.turn + 1)
        Starter.objects.filter(pk=starter.pk).update(turn=turn)
    return {"turn": turn, "starter": starter}


def _turn_that_is_on(simulation_id: int | None) -> int:
    """That of the newest one which runs, or just before the first one which waits; 0 where there is nothing."""
    first = waiting().exclude(pk=simulation_id).order_by().aggregate(found=Min("turn"))["found"]
    running = Simulation.objects.filter(status=Status.RUNNING).exclude(origin=Origin.SHELL)
    newest = running.aggregate(found=Max("turn"))["found"]
    return max(newest or 0, (first or 0) - 1, 0)


def forget() -> None:
    """Drop whoever has nothing that waits or runs, and no turn that others still wait for."""
    idle = Starter.objects.filter(simulations=None)
    first = waiting().order_by().aggregate(found=Min("turn"))["found"]
    (idle if first is None else idle.filter(turn__lt=first - 1)).delete()
