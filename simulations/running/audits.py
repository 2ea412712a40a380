"""An audit's way from being asked for to its end: the only writer of its row.

As with a simulation each step is one transaction with a conditional UPDATE, whoever does it holds a lease, and a worker
with an older fence changes nothing any more. An audit that is given back, or whose worker is gone, begins anew.
"""

from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from extensions.sources import needed
from simulations import plugins
from simulations.models import Audit, AuditStatus, Simulation
from simulations.running import bell, leases, turns
from simulations.running.leases import Conflict
from simulations.running.recorder import StaleClaim


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The right to write about an audit, until somebody holds a newer fence."""

    audit_id: int
    simulation_id: int
    fence: int


def ask(simulation: Simulation, *, asked_by: Any | None = None, address: str = "") -> Audit:
    """Queue an audit of a finished run and ring the worker; the one that waits or runs already, where there is one.

    It counts among its person's simulations, and takes a turn like one. Raises Conflict, QueueFull.
    """
    if not simulation.is_finished or not simulation.rounds_done:
        raise Conflict(f"{simulation} is {simulation.status}; only a finished run with rounds is audited")
    plugins.wait_for(kind for kind, _ in needed(simulation.config))  # before the lock
    if missing := plugins.lacking(simulation.config):
        raise Conflict(f"{simulation} cannot be trained again here: {'; '.join(missing)}")
    with transaction.atomic():
        turns.only_one_at_a_time()
        if there := under_way(simulation):
            return there
        place = turns.next_turn(asked_by and asked_by.pk, address)
        audit = Audit.objects.create(simulation=simulation, asked_by=asked_by, **place)
        transaction.on_commit(lambda: bell.ring(simulation.pk))
    return audit


def newest(simulation: Simulation) -> Audit | None:
    return simulation.audits.select_related("asked_by").order_by("-id").first()


def under_way(simulation: Simulation) -> Audit | None:
    return simulation.audits.filter(ended_at=None).first()


def cancel(simulation: Simulation) -> Audit:
    """End the audit that waits or runs; its worker finds its claim stale and ends the trainer. Raises Conflict."""
    with transaction.atomic():
        audit = under_way(simulation)
        mine = Audit.objects.filter(pk=audit and audit.pk, ended_at=None)
        if audit is None or not mine.update(status=AuditStatus.CANCELLED, fence=F("fence") + 1, **_ended()):
            raise Conflict(f"No audit of {str(simulation).lower()} waits or runs")
    audit.refresh_from_db()
    return audit


@transaction.atomic
def take(audit: Audit) -> Claim | None:
    """Claim an audit as it was read; None where somebody was faster. One whose worker was lost so often fails."""
    seen = Audit.objects.filter(pk=audit.pk, fence=audit.fence, status=audit.status)
    lost = audit.lost_leases + (audit.status == AuditStatus.RUNNING)
    claimed = seen.update(
        status=AuditStatus.RUNNING,
        claimed_by=leases.new_claimant(),
        fence=F("fence") + 1,
        lease_expires_at=leases.lease_end(),
        began_at=timezone.now(),
        lost_leases=lost,
        rounds=0,
    )
    if not claimed:
        return None
    claim = Claim(audit_id=audit.pk, simulation_id=audit.simulation_id, fence=audit.fence + 1)
    if lost >= leases.MOST_LOST:
        end(claim, AuditStatus.FAILED, f"Its worker was lost {leases.MOST_LOST} times in a row")
        return None
    return claim


def _change(claim: Claim, **values: Any) -> None:
    """StaleClaim where the claim no longer holds."""
    mine = Audit.objects.filter(pk=claim.audit_id, fence=claim.fence, status=AuditStatus.RUNNING)
    if not mine.update(**values):
        raise StaleClaim(f"the audit of simulation {claim.simulation_id} was cancelled or taken over")


def report(claim: Claim, rounds: int) -> None:
    """How far it is; renews the lease. Raises StaleClaim."""
    _change(claim, rounds=rounds, lease_expires_at=leases.lease_end())


def release(claim: Claim) -> None:
    """Give it back, unfinished. Raises StaleClaim."""
    _change(claim, status=AuditStatus.QUEUED, claimed_by="", lease_expires_at=None, rounds=0)


@transaction.atomic
def end(claim: Claim, status: AuditStatus, problem: str = "", **found: int) -> None:
    """What was found. Raises StaleClaim, also of a repeat, since the claim has ended."""
    _change(claim, status=status, problem=problem, **found, **_ended())


def _ended() -> dict[str, Any]:
    """The columns of one that runs and waits no more. Who asked is forgotten, unless it was an account."""
    transaction.on_commit(turns.forget, robust=True)
    return {"ended_at": timezone.now(), "claimed_by": "", "lease_expires_at": None, "starter": None}
