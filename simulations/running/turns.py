"""Whose turn it is: how many may wait, and in which order they start.

People take turns, however many simulations each has waiting, audits counted in: one trains as long as its run did. A
person is an account, or an address where nobody has signed in. Each simulation is given a number when it is queued:
that of the turn that is on, or the one after its person's last. So whoever is new comes next, and whoever has a hundred
waiting starts one of them a turn.
"""

from typing import Any

from django.conf import settings
from django.db import connection
from django.db.models import Max, Min, Q, QuerySet
from django.utils.crypto import salted_hmac

from simulations.models import UNFINISHED, Audit, AuditStatus, Origin, Simulation, Starter, Status

LOCK = 0x66656473697465  # of PostgreSQL's advisory locks the one that is ours


class QueueFull(Exception):
    """Too many simulations wait; the text is a plain sentence."""


def waiting() -> QuerySet[Simulation]:
    """The queue that workers serve, in order."""
    return Simulation.objects.filter(status=Status.QUEUED).exclude(origin=Origin.SHELL).order_by("turn", "id")


def waiting_audits() -> QuerySet[Audit]:
    """The same of audits; of one turn they go after the simulations."""
    return Audit.objects.filter(status=AuditStatus.QUEUED).order_by("turn", "id")


def place_in_queue(one: Simulation | Audit) -> int:
    """How many simulations and audits go before it: 0 is the next one."""
    before, same = Q(turn__lt=one.turn), Q(turn=one.turn, pk__lt=one.pk)
    if isinstance(one, Audit):
        return waiting().filter(turn__lte=one.turn).count() + waiting_audits().filter(before | same).count()
    return waiting().filter(before | same).count() + waiting_audits().filter(before).count()


def only_one_at_a_time() -> None:
    """Until the end of the transaction nobody else queues, so that what is counted stays true. On SQLite its own lock,
    which every one of our transactions begins with, does that."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])


def next_turn(user_id: int | None, address: str, simulation_id: int | None = None) -> dict[str, Any]:
    """The columns of a simulation or audit that joins the queue for this person. QueueFull where there are too many
    already.

    Call it in the transaction that queues it, after only_one_at_a_time. All that waits or runs is counted, but for the
    simulation itself where it has a number already.
    """
    others = Simulation.objects.filter(status__in=UNFINISHED).exclude(pk=simulation_id)
    audited = Audit.objects.filter(ended_at=None)
    if waiting().exclude(pk=simulation_id).count() + waiting_audits().count() >= settings.FEDSITE_MAX_QUEUED:
        raise QueueFull(f"{settings.FEDSITE_MAX_QUEUED} simulations are waiting already; try again later")
    forget()
    starter = None
    if user_id is not None or address:
        who = f"user {user_id}" if user_id is not None else f"address {address}"
        starter, _ = Starter.objects.get_or_create(who=salted_hmac("simulations.starter", who).hexdigest())
    if user_id is not None:
        theirs = others.filter(owned_by=user_id).count() + audited.filter(asked_by=user_id).count()
        if theirs >= settings.FEDSITE_MAX_PER_USER:
            many = f"{settings.FEDSITE_MAX_PER_USER} simulations of one user, counting audits,"
            raise QueueFull(f"{many} are queued or running already; wait for one, or cancel one")
    elif starter:
        theirs = others.filter(starter=starter).count() + audited.filter(starter=starter).count()
        if theirs >= settings.FEDSITE_MAX_PER_ADDRESS:
            many = f"{settings.FEDSITE_MAX_PER_ADDRESS} simulations from one address, counting audits,"
            raise QueueFull(f"{many} are queued or running already; wait for one, or cancel one")
    turn = _turn_that_is_on(simulation_id)
    if starter:
        turn = max(turn, starter.turn + 1)
        Starter.objects.filter(pk=starter.pk).update(turn=turn)
    return {"turn": turn, "starter": starter}


def _turn_that_is_on(simulation_id: int | None) -> int:
    """That of the newest one which runs, or just before the first one which waits; 0 where there is nothing."""
    first = _first_turn(waiting().exclude(pk=simulation_id))
    running = Simulation.objects.filter(status=Status.RUNNING).exclude(origin=Origin.SHELL)
    audited = Audit.objects.filter(status=AuditStatus.RUNNING)
    newest = (rows.aggregate(found=Max("turn"))["found"] or 0 for rows in (running, audited))
    return max(*newest, (first or 0) - 1)


def _first_turn(simulations: QuerySet[Simulation]) -> int | None:
    """Of those of the simulations and audits that wait."""
    found = [rows.order_by().aggregate(found=Min("turn"))["found"] for rows in (simulations, waiting_audits())]
    return min((turn for turn in found if turn is not None), default=None)


def forget() -> None:
    """Drop whoever has nothing that waits or runs, and no turn that others still wait for."""
    idle, first = Starter.objects.filter(simulations=None, audits=None), _first_turn(waiting())
    (idle if first is None else idle.filter(turn__lt=first - 1)).delete()
