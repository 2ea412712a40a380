"""queue, claim, heartbeat, release, cancel, resume, archive, complete, fail: the only writer of a simulation's status.

Every step is one transaction with a conditional UPDATE. A run is held by a lease that its worker renews; each claim
raises the fence, and a worker with an older fence changes nothing any more.
"""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from extensions.sources import needed
from incentives import ledger
from simulations import economies, estimates, paces, plugins, processes
from simulations.config import SimulationConfig, renewed
from simulations.models import UNFINISHED, Audit, Origin, Simulation, Status, Worker
from simulations.running import audits, bell, leases, turns
from simulations.running.leases import Conflict as Conflict
from simulations.running.recorder import Claim, StaleClaim, append, change
from simulations.running.turns import QueueFull as QueueFull
from training import failpoints

SHELL_SECONDS = 5  # after its lease has ended in which a shell may still take its own run again
LOOKED_AT = 20  # of the queue in one look: somebody may be faster with the first ones


def most_bytes() -> int:
    """Of memory that a simulation may need which workers are to run: as much as the largest one that is alive allows,
    or this process where none is. One query."""
    alive = Worker.objects.filter(seen_at__gte=leases.clock(-settings.FEDSITE_LEASE_SECONDS), most_bytes__isnull=False)
    rows = alive.order_by("-most_bytes").values_list("name", "most_bytes")
    ours: int = settings.FEDSITE_MAX_MEMORY
    return next((most for name, most in rows if not processes.is_dead(name)), ours)


def refuse_what_is_too_much(config: SimulationConfig, *, by_shell: bool = False) -> None:
    """ConfigError where no worker can bear the run, or this machine one of the shell's, or where it would write or
    last longer than is allowed."""
    estimates.refuse(
        config,
        most_bytes=settings.FEDSITE_MAX_MEMORY if by_shell else most_bytes(),
        most_rows=settings.FEDSITE_MAX_ROWS,
        most_seconds=settings.FEDSITE_MAX_SECONDS,
        past=paces.past() if settings.FEDSITE_MAX_SECONDS else (),
    )


def queue(
    config: SimulationConfig,
    *,
    origin: str,
    owned_by: Any | None = None,
    address: str = "",
    idempotency_key: str | None = None,
    request_sha256: str = "",
    changed: Sequence[str] = (),
) -> Simulation:
    """Record a simulation and ring the worker. With a key that is known already: the simulation of that key.

    `changed` goes into the log: what of an older run's meaning the configuration cannot say.
    The address is whose turn it is where nobody owns the simulation. Raises QueueFull, and ConfigError
    where no worker can bear the run, or this machine one of the shell's.
    """
    config = plugins.with_todays_sources(config)
    refuse_what_is_too_much(config, by_shell=origin == Origin.SHELL)
    with transaction.atomic():
        place = {}
        if origin != Origin.SHELL:
            turns.only_one_at_a_time()
            same_key = Simulation.objects.filter(idempotency_key=idempotency_key)
            if idempotency_key is not None and (known := same_key.first()):
                return known
            place = turns.next_turn(owned_by and owned_by.pk, address)
        plugins.keep_sources(config)
        simulation = Simulation.objects.create(
            **place,
            origin=origin,
            owned_by=owned_by,
            config=config.to_dict(),
            scheme=config.scheme,
            dataset=config.dataset.kind,
            num_clients=config.num_clients,
            num_rounds=config.num_rounds,
            fraction_fit=config.fraction_fit,
            idempotency_key=idempotency_key,
            request_sha256=request_sha256,
            needs_bytes=estimates.memory(config).total,
        )
        simulation.ledger = ledger.open_ledger(f"simulation-{simulation.pk}")
        simulation.ledger_head = simulation.ledger.head
        simulation.save(update_fields=["ledger", "ledger_head"])
        for number, (label, economy) in enumerate(config.economies[1:], 1):
            economies.open_shadow(simulation.pk, number, label, economy.to_dict())
        append(simulation.pk, "queued", f"Simulation {simulation.pk} is queued")
        for sentence in changed:
            append(simulation.pk, "log", f"Other than the run that it repeats: {sentence}", {"level": "warning"})
        simulation.refresh_from_db()
    failpoints.reach("queued")
    if origin != Origin.SHELL:
        transaction.on_commit(lambda: bell.ring(simulation.pk))
    return simulation


def run_again(
    simulation: Simulation, *, origin: str, owned_by: Any | None = None, address: str = ""
) -> tuple[Simulation, list[str]]:
    """Queue what a simulation was asked once more, with its meaning; and what of that cannot be asked any more.

    Raises ConfigError where its configuration can no longer be run, QueueFull.
    """
    config, changed = renewed(simulation.config, simulation.scheme)
    config = plugins.with_todays_sources(config)
    changed += plugins.changed_sources(simulation.config, config)
    return queue(config, origin=origin, owned_by=owned_by, address=address, changed=changed), changed


def is_lost(simulation: Simulation, at: datetime | None = None) -> bool:
    """Whether whoever ran it is gone: its lease has expired, or its process is dead on this machine."""
    if simulation.status != Status.RUNNING:
        return False
    at, longest = at or leases.now(), timedelta(seconds=leases.impossible_seconds())
    return not at <= simulation.lease_expires_at <= at + longest or processes.is_dead(simulation.claimed_by)


def is_interrupted(simulation: Simulation, at: datetime | None = None) -> bool:
    """Whether it is a shell's and its shell is gone: it stands still until somebody says that it shall go on."""
    waits = simulation.status == Status.QUEUED or is_lost(simulation, at)
    return simulation.origin == Origin.SHELL and not simulation.is_finished and waits


def interrupted(at: datetime) -> Q:
    """The same as a condition, but for a process that has just died: its lease tells of it, or a worker's next look."""
    held = Q(lease_expires_at__range=(at, at + timedelta(seconds=leases.impossible_seconds())))
    return Q(origin=Origin.SHELL) & (Q(status=Status.QUEUED) | (Q(status=Status.RUNNING) & ~held))


def claim_next(ours: Collection[int] = (), audited: Collection[int] = ()) -> Claim | audits.Claim | None:
    """The next simulation that nobody runs, or audit that nobody does, now ours; None where there is none. Lost ones go
    before the queue, and a shell's whose shell is gone is given back to whoever resumes it. Simulations and audits,
    by their numbers, that we see to already we do not lose to us."""
    lacking: list[int] = []  # they wait for a worker that has their plug-ins, and others pass them
    while True:
        seen = waiting = 0
        for simulation in _unheld(lacking):
            if audit := simulation.audit:  # type: ignore[attr-defined]  # of the statement
                if audit not in audited and (claimed := audits.take(Audit.objects.get(pk=audit))):
                    return claimed
                continue
            seen += 1
            if simulation.pk in ours:
                continue
            if simulation.origin == Origin.SHELL:
                _interrupt(simulation)
            elif plugins.lacking(simulation.config):
                waiting += simulation.status == Status.QUEUED
                lacking.append(simulation.pk)
            elif claim := take(simulation):
                return claim
        if not waiting or seen < LOOKED_AT:
            return None


# Every worker asks this every second, so it is one query, and in SQL, which costs a fraction of what the ORM takes to
# write it: runs and audits whose worker may be gone, however many others are well, then the head of the queue. What
# needs more memory than we have is left to a larger worker that is alive.
BEARABLE = """(needs_bytes IS NULL OR needs_bytes <= %s OR NOT EXISTS (
    SELECT 1 FROM simulations_worker WHERE most_bytes >= needs_bytes AND seen_at >= {heard}))"""
UNHELD = f"""
    SELECT simulation.*, NULL AS audit, owner AS held_by, lease_expires_at BETWEEN {{now}} AND {{longest}} AS is_held,
        CASE status WHEN 'running' THEN 0 ELSE turn + 1 END AS place, 0 AS is_audit
    FROM simulations_simulation AS simulation
    WHERE status IN ('queued', 'running') AND (origin = 'shell' OR {BEARABLE}) AND (
        (status = 'running' AND (owner LIKE %s OR lease_expires_at NOT BETWEEN {{now}} AND {{longest}}))
        OR id IN (SELECT id FROM simulations_simulation WHERE status = 'queued' AND origin <> 'shell'{{but}}
            AND {BEARABLE} ORDER BY turn, id LIMIT {LOOKED_AT}))
    UNION ALL
    SELECT simulation.*, audit.id, audit.owner, audit.lease_expires_at BETWEEN {{now}} AND {{longest}},
        CASE audit.status WHEN 'running' THEN 0 ELSE audit.turn + 1 END, 1
    FROM simulations_audit AS audit JOIN simulations_simulation AS simulation ON simulation.id = simulation_id
    WHERE audit.ended_at IS NULL AND {BEARABLE} AND (
        audit.owner LIKE %s OR audit.lease_expires_at NOT BETWEEN {{now}} AND {{longest}}
        OR audit.id IN (SELECT id FROM simulations_audit WHERE ended_at IS NULL AND owner = ''
            ORDER BY turn, id LIMIT {LOOKED_AT}))
    ORDER BY place, is_audit, audit, id
"""


def _unheld(left_out: Sequence[int] = ()) -> Iterator[Simulation]:
    """Those that wait, but for these, and those whose worker may be gone; with `audit`, the number of one, those of
    which an audit is so."""
    look = UNHELD.format(
        now=leases.clock_in_sql(0),
        longest=leases.clock_in_sql(leases.impossible_seconds()),
        but=f" AND id NOT IN ({', '.join(map(str, left_out))})" if left_out else "",
        heard=leases.clock_in_sql(-settings.FEDSITE_LEASE_SECONDS),
    )
    mine, here = settings.FEDSITE_MAX_MEMORY, f"%:{processes.machine()}-%"
    for seen in Simulation.objects.raw(look, [mine, here, mine, mine, here]):
        held_by, is_held = seen.held_by, seen.is_held  # type: ignore[attr-defined]  # of the statement
        if not held_by or not is_held or processes.is_dead(held_by):
            yield seen


@transaction.atomic
def take(simulation: Simulation) -> Claim | None:
    """Claim a simulation as it was read; None where somebody was faster. A third lost lease fails it instead."""
    seen = Simulation.objects.filter(pk=simulation.pk, fence=simulation.fence, status=simulation.status)
    lost = simulation.lost_leases + (simulation.status == Status.RUNNING)
    claimed = seen.update(
        status=Status.RUNNING,
        claimed_by=leases.new_claimant(),
        fence=F("fence") + 1,
        lease_expires_at=leases.lease_end(),
        started_at=simulation.started_at or timezone.now(),
        lost_leases=lost,
    )
    if not claimed:
        return None
    claim = Claim(simulation_id=simulation.pk, fence=simulation.fence + 1)
    if lost >= leases.MOST_LOST:
        fail(claim, f"Its worker was lost {leases.MOST_LOST} times in a row without finishing a round", "")
        return None
    append(simulation.pk, *_start_line(simulation))
    return claim


def _start_line(simulation: Simulation) -> tuple[str, str]:
    if simulation.status == Status.RUNNING:
        return "resumed", f"The worker was lost; another one goes on after round {simulation.rounds_done}"
    if simulation.rounds_done:
        return "resumed", f"Going on after round {simulation.rounds_done}"
    return "starting", "Starting the trainer; PyTorch takes a few seconds to load"


@transaction.atomic
def _interrupt(simulation: Simulation) -> None:
    """A shell is gone that said nothing, killed or cut off: its run waits for it, as if it had given the run back."""
    seen = Simulation.objects.filter(pk=simulation.pk, fence=simulation.fence, status=Status.RUNNING)
    if not processes.is_dead(simulation.claimed_by):  # it may live, and take the run again whose trainer it has lost
        seen = seen.exclude(
            lease_expires_at__range=(leases.clock(-SHELL_SECONDS), leases.clock(leases.impossible_seconds()))
        )
    lost = {"lost_leases": F("lost_leases") + 1, "fence": F("fence") + 1}
    if seen.update(status=Status.QUEUED, claimed_by="", lease_expires_at=None, **lost):
        append(simulation.pk, "interrupted", "Its shell is gone; it can go on after its last recorded round")


def heartbeat(claim: Claim) -> None:
    """Renew the lease. Raises StaleClaim where the simulation was cancelled or taken over."""
    change(claim, lease_expires_at=leases.lease_end())


def confirm(claim: Claim) -> None:
    """StaleClaim where the simulation was cancelled or taken over. Writes nothing."""
    if stale([claim]):
        raise StaleClaim(f"simulation {claim.simulation_id} was cancelled or taken over")


def stale(claims: Sequence[Claim]) -> list[Claim]:
    """Those that no longer hold. One query."""
    running = Simulation.objects.filter(pk__in=[claim.simulation_id for claim in claims], status=Status.RUNNING)
    fences = dict(running.values_list("pk", "fence"))
    return [claim for claim in claims if fences.get(claim.simulation_id) != claim.fence]


@transaction.atomic
def release(claim: Claim) -> None:
    """Give a run back, unfinished: it waits in the queue, or for its shell."""
    change(claim, status=Status.QUEUED, claimed_by="", lease_expires_at=None)
    append(claim.simulation_id, "interrupted", "Interrupted; it can go on after its last recorded round")


def lose(claim: Claim) -> None:
    """The trainer died without a word: the lease ends now, so that the next look claims it again."""
    with transaction.atomic():
        change(claim, lease_expires_at=leases.clock(-1))


def ended() -> dict[str, Any]:
    """The columns of whatever runs and waits no more. Who started it is forgotten, unless an account owns it."""
    transaction.on_commit(turns.forget, robust=True)
    return {"finished_at": timezone.now(), "claimed_by": "", "lease_expires_at": None, "starter": None}


@transaction.atomic
def complete(claim: Claim, message: str) -> None:
    change(claim, status=Status.COMPLETED, **ended())
    append(claim.simulation_id, "log", f"Simulation record saved with ID: {claim.simulation_id}", {"level": "info"})
    append(claim.simulation_id, "completed", message)
    failpoints.reach("completion_written")


@transaction.atomic
def fail(claim: Claim, message: str, traceback: str) -> None:
    change(claim, status=Status.FAILED, failure=message, traceback=traceback, **ended())
    append(claim.simulation_id, "failed", message)


def cancel(simulation_id: int) -> Simulation:
    """End a simulation at once; its worker finds its claim stale and kills the trainer. Conflict, DoesNotExist."""
    with transaction.atomic():
        unfinished = Simulation.objects.filter(pk=simulation_id, status__in=UNFINISHED)
        if not unfinished.update(status=Status.CANCELLED, fence=F("fence") + 1, **ended()):
            status = Simulation.objects.values_list("status", flat=True).get(pk=simulation_id)
            raise Conflict(f"Simulation {simulation_id} is {status}; only a queued or running one can be cancelled")
        append(simulation_id, "cancelled", "Cancelled")
    bell.ring(simulation_id)
    return Simulation.objects.get(pk=simulation_id)


def can_resume(simulation: Simulation) -> bool:
    return simulation.status in (Status.FAILED, Status.CANCELLED) or is_interrupted(simulation)


def resume(simulation_id: int, *, address: str = "", by_shell: bool = False) -> Simulation:
    """Queue a failed, cancelled or interrupted simulation again, or let it wait for a shell alone. It takes a new turn:
    its owner's, or where it has none that of the address.

    Raises Conflict, QueueFull, DoesNotExist.
    """
    plugins.wait_for(kind for kind, _ in needed(Simulation.objects.get(pk=simulation_id).config))  # before the lock
    with transaction.atomic():
        if not by_shell:
            turns.only_one_at_a_time()
        simulation = Simulation.objects.get(pk=simulation_id)
        if not can_resume(simulation):
            allowed = "only a failed, cancelled or interrupted one can go on"
            raise Conflict(f"Simulation {simulation_id} is {simulation.status}; {allowed}")
        if missing := plugins.lacking(simulation.config):
            how = "put it back as it was, or run the simulation again with what is here"
            raise Conflict(f"Simulation {simulation_id} cannot go on: {'; '.join(missing)}; {how}")
        seen = Simulation.objects.filter(pk=simulation_id, status=simulation.status, fence=simulation.fence)
        values = {"status": Status.QUEUED, "fence": F("fence") + 1, "lost_leases": 0, "failure": "", "traceback": ""}
        values |= {"archived": False, "finished_at": None, "claimed_by": "", "lease_expires_at": None}
        if by_shell:
            values |= {"origin": Origin.SHELL, "starter": None}
        else:
            values |= turns.next_turn(simulation.owned_by_id, address, simulation_id)
            values |= {"origin": Origin.API} if simulation.origin == Origin.SHELL else {}
        if not seen.update(**values):
            raise Conflict(f"Simulation {simulation_id} has just changed; look again")
        append(simulation_id, "queued", f"Queued again; it goes on after round {simulation.rounds_done}")
    bell.ring(simulation_id)
    return Simulation.objects.get(pk=simulation_id)


def archive(simulation_id: int) -> Simulation:
    """Take a finished simulation off the lists. What it did and paid stays. Raises Conflict, DoesNotExist."""
    finished = Simulation.objects.filter(pk=simulation_id).exclude(status__in=UNFINISHED)
    if not finished.update(archived=True):
        status = Simulation.objects.values_list("status", flat=True).get(pk=simulation_id)
        raise Conflict(f"Simulation {simulation_id} is {status}; only a finished one can be archived")
    return Simulation.objects.get(pk=simulation_id)


def unarchive(simulation_id: int) -> Simulation:
    """Put a simulation back on the lists. Raises DoesNotExist."""
    Simulation.objects.filter(pk=simulation_id).update(archived=False)
    return Simulation.objects.get(pk=simulation_id)
