"""Audits over JSON and on a simulation's page: asking for one, how far it is, what it found."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.http import HttpRequest
from ninja import Router, Schema
from ninja import Status as Answer
from pydantic import Field

from incentives.paging import Problem
from simulations import owners
from simulations.models import Audit, AuditStatus, Simulation
from simulations.running import audits
from simulations.showing import fragments
from simulations.showing.api import SimulationId, found

router = Router(tags=["economies"])
MOST = 100  # in an answer
VERDICTS = (AuditStatus.EQUAL, AuditStatus.DIFFERENT)


class AuditOut(Schema):
    status: AuditStatus = Field(description="different: the first difference is told; failed: why")
    rounds: int = Field(description="trained again and equal so far")
    num_rounds: int = Field(description="that the run has")
    payments: int = Field(description="that were compared")
    economies: int = Field(description="that were compared; those priced after the run are for recompute")
    difference: str | None = Field(description="in words")
    failure: str | None = Field(description="why it could not be done")
    asked_by: str | None
    asked_at: datetime
    began_at: datetime | None
    ended_at: datetime | None


def record(audit: Audit, simulation: Simulation) -> dict[str, Any]:
    names = ("status", "rounds", "payments", "economies", "asked_at", "began_at", "ended_at")
    is_different = audit.status == AuditStatus.DIFFERENT
    return {name: getattr(audit, name) for name in names} | {
        "num_rounds": simulation.rounds_done,
        "difference": audit.problem if is_different else None,
        "failure": audit.problem if audit.problem and not is_different else None,
        "asked_by": audit.asked_by and audit.asked_by.get_username(),
    }


@router.get("/{simulation_id}/audit/", response={200: list[AuditOut], 404: Problem})
def audited(request: HttpRequest, simulation_id: SimulationId):
    """The newest audits of a simulation, newest first."""
    simulation = found(request, simulation_id)
    rows = simulation.audits.select_related("asked_by").order_by("-id")[:MOST]
    return [record(audit, simulation) for audit in rows]


@router.post("/{simulation_id}/audit/", response={202: AuditOut, 404: Problem, 409: Problem, 429: Problem})
def audit(request: HttpRequest, simulation_id: SimulationId):
    """Have a worker train a finished run again and compare every hash, contribution and payment.

    It waits its turn like a simulation and counts as one; this address tells how far it is. While one waits or runs a
    repeat asks for no other.
    """
    simulation = found(request, simulation_id)
    asked = audits.ask(simulation, asked_by=owners.person(request), address=request.address)
    return Answer(202, record(asked, simulation))


@router.post("/{simulation_id}/audit/cancel/", response={200: AuditOut, 403: Problem, 404: Problem, 409: Problem})
def cancel_audit(request: HttpRequest, simulation_id: SimulationId):
    """End the audit that waits or runs. Whoever asked for it may, the simulation's owner, and operators."""
    simulation = found(request, simulation_id)
    return record(cancelled(request, simulation), simulation)


def cancelled(request: HttpRequest, simulation: Simulation) -> Audit:
    """Cancel what waits or runs; NotYours, Conflict."""
    there = audits.under_way(simulation)
    if there is None or not may_cancel(request.user, there, simulation):
        owners.require(request.user, simulation)
    return audits.cancel(simulation)


def may_cancel(user: Any, audit: Audit, simulation: Simulation) -> bool:
    return owners.may_act(user, simulation) or (audit.asked_by_id is not None and audit.asked_by_id == user.pk)


def context(request: HttpRequest, simulation: Simulation) -> dict[str, Any]:
    """What the page's part about audits shows: the newest one, and of those before it what the last one that came to
    an end found."""
    newest = audits.newest(simulation)
    told: dict[str, Any] = {
        "simulation": simulation,
        "can_audit": simulation.is_finished and simulation.rounds_done > 0,
        "audit": newest,
        "priced_later": simulation.shadows.exclude(added_at=None).count() if newest else 0,
    }
    if newest is None:
        return told
    if newest.status not in VERDICTS:
        told["verdict"] = simulation.audits.filter(status__in=VERDICTS).order_by("-id").first()
    if newest.ended_at is None:
        told["can_cancel_audit"] = may_cancel(request.user, newest, simulation)
        told["audits_ahead"] = fragments.ahead(newest) if newest.status == AuditStatus.QUEUED else 0
        left = simulation.rounds_done - newest.rounds
        told["audit_left"] = simulation.duration_seconds / simulation.rounds_done * left
    return told
