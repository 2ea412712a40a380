"""Who may run a simulation, and what becomes of it."""

import socket
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from simulations import processes
from simulations.models import Event, Origin, Simulation, Status
from simulations.running import leases, lifecycle, recorder, turns
from simulations.running.events import Log
from simulations.running.recorder import StaleClaim
from simulations.tests.cast import claimed, config, queued, recorded

pytestmark = [pytest.mark.django_db, pytest.mark.database]


def status(simulation_id: int) -> str:
    return Simulation.objects.get(pk=simulation_id).status


def kinds(simulation_id: int) -> list[str]:
    return list(Event.objects.filter(simulation_id=simulation_id).order_by("sequence").values_list("kind", flat=True))


def expire(claim) -> None:
    Simulation.objects.filter(pk=claim.simulation_id).update(lease_expires_at=timezone.now() - timedelta(seconds=1))


def test_it_serves_the_queue_in_order():
    first, second = queued(), queued()
    assert turns.place_in_queue(second) == 1
    assert lifecycle.claim_next().simulation_id == first.pk
    assert turns.place_in_queue(second) == 0
    assert lifecycle.claim_next().simulation_id == second.pk
    assert lifecycle.claim_next() is None


def test_only_one_of_two_gets_a_simulation():
    simulation = queued()
    assert lifecycle.take(simulation) is not None
    assert lifecycle.take(simulation) is None


def test_a_full_queue_takes_no_more(settings):
    settings.FEDSITE_MAX_QUEUED = 2
    queued(), queued()
    with pytest.raises(lifecycle.QueueFull, match="2 simulations"):
        queued()
    lifecycle.claim_next()
    queued()


def test_the_first_word_of_a_simulation_is_that_it_is_queued():
    simulation = queued()
    assert kinds(simulation.pk) == ["queued"]
    assert simulation.last_sequence == 1


def test_an_expired_lease_is_taken_over_and_the_old_holder_writes_nothing():
    old = claimed()
    assert lifecycle.claim_next() is None
    expire(old)
    new = lifecycle.claim_next()
    assert new.fence == old.fence + 1
    before = kinds(old.simulation_id)
    for write in (
        lambda: lifecycle.heartbeat(old),
        lambda: lifecycle.release(old),
        lambda: lifecycle.complete(old, "done"),
        lambda: lifecycle.fail(old, "broken", ""),
        lambda: recorder.record(old, Log(message="still here")),
    ):
        with pytest.raises(StaleClaim):
            write()
    assert kinds(old.simulation_id) == before
    assert status(old.simulation_id) == Status.RUNNING
    lifecycle.heartbeat(new)


GONE = f"any-name:4194305:{processes.machine()}-1:token"  # a number above the largest one that there is


def test_a_dead_process_of_this_machine_is_replaced_at_once_whatever_its_host_was_called():
    claim = claimed()
    Simulation.objects.filter(pk=claim.simulation_id).update(claimed_by=GONE)
    assert lifecycle.claim_next().simulation_id == claim.simulation_id


@pytest.mark.parametrize("birth", ["another-machine-1", "token"])  # the second is what earlier releases wrote
def test_a_process_of_another_machine_keeps_its_lease_whatever_its_host_is_called(birth):
    claim = claimed()
    host = socket.gethostname()
    Simulation.objects.filter(pk=claim.simulation_id).update(claimed_by=f"{host}:4194305:{birth}:token")
    assert lifecycle.claim_next() is None


def test_three_lost_leases_fail_it():
    claim = claimed()
    for _ in range(2):
        lifecycle.lose(claim)
        claim = lifecycle.claim_next()
    lifecycle.lose(claim)
    assert lifecycle.claim_next() is None
    simulation = Simulation.objects.get(pk=claim.simulation_id)
    assert simulation.status == Status.FAILED
    assert "3 times" in simulation.failure
    assert kinds(simulation.pk)[-1] == "failed"


def test_a_released_run_waits_in_the_queue_and_counts_as_no_loss():
    claim = claimed()
    lifecycle.release(claim)
    assert status(claim.simulation_id) == Status.QUEUED
    assert lifecycle.claim_next().simulation_id == claim.simulation_id
    assert Simulation.objects.get(pk=claim.simulation_id).lost_leases == 0


@pytest.mark.parametrize("running", [False, True])
def test_cancelling_ends_it_at_once(running):
    simulation = queued()
    claim = claimed(simulation) if running else None
    assert lifecycle.cancel(simulation.pk).status == Status.CANCELLED
    assert kinds(simulation.pk)[-1] == "cancelled"
    if running:
        with pytest.raises(StaleClaim):
            recorder.record(claim, Log(message="too late"))
    with pytest.raises(lifecycle.Conflict, match="cancelled"):
        lifecycle.cancel(simulation.pk)
    assert lifecycle.claim_next() is None


def test_a_completed_one_can_neither_be_cancelled_nor_go_on():
    simulation = recorded()
    assert simulation.status == Status.COMPLETED
    for act in (lifecycle.cancel, lifecycle.resume):
        with pytest.raises(lifecycle.Conflict, match="completed"):
            act(simulation.pk)


def test_a_cancelled_or_failed_one_can_go_on():
    simulation = queued()
    lifecycle.cancel(simulation.pk)
    assert lifecycle.resume(simulation.pk).status == Status.QUEUED
    claim = lifecycle.claim_next()
    lifecycle.fail(claim, "broken", "Traceback")
    again = lifecycle.resume(simulation.pk)
    assert (again.status, again.failure, again.traceback, again.finished_at) == (Status.QUEUED, "", "", None)


def test_what_is_not_there_cannot_be_cancelled():
    with pytest.raises(Simulation.DoesNotExist):
        lifecycle.cancel(10**9)


def test_workers_leave_a_shell_run_alone_until_it_is_told_to_go_on():
    simulation = lifecycle.queue(config(), origin=Origin.SHELL)
    assert lifecycle.claim_next() is None
    claim = claimed(simulation)
    with pytest.raises(lifecycle.Conflict, match="running"):
        lifecycle.resume(simulation.pk)
    lifecycle.release(claim)
    assert lifecycle.claim_next() is None
    assert lifecycle.is_interrupted(Simulation.objects.get(pk=simulation.pk))
    lifecycle.resume(simulation.pk)
    assert lifecycle.claim_next().simulation_id == simulation.pk


def of_a_shell() -> Simulation:
    """One that runs in a shell which is alive."""
    claim = claimed(lifecycle.queue(config(), origin=Origin.SHELL))
    return Simulation.objects.get(pk=claim.simulation_id)


@pytest.mark.parametrize("how", ["dead here", "silent elsewhere"])
def test_a_shell_that_was_killed_leaves_a_run_that_any_worker_sees_is_interrupted(how):
    simulation = of_a_shell()
    assert lifecycle.claim_next() is None
    assert kinds(simulation.pk)[-1] == "starting"
    if how == "dead here":
        Simulation.objects.filter(pk=simulation.pk).update(claimed_by=GONE)
    else:
        Simulation.objects.filter(pk=simulation.pk).update(
            claimed_by="elsewhere:1:m-1:token", lease_expires_at=timezone.now() - timedelta(seconds=60)
        )
    assert lifecycle.is_interrupted(Simulation.objects.get(pk=simulation.pk))  # before anybody has looked
    assert lifecycle.claim_next() is None
    now = Simulation.objects.get(pk=simulation.pk)
    assert (now.status, now.claimed_by, now.fence, now.lost_leases) == (Status.QUEUED, "", simulation.fence + 1, 1)
    assert kinds(simulation.pk)[-1] == "interrupted"
    assert lifecycle.is_interrupted(now)
    assert lifecycle.claim_next() is None  # and nobody but its shell takes it until it is resumed


def test_a_shell_that_lives_may_take_its_own_run_again_when_its_trainer_has_died():
    simulation = of_a_shell()
    lifecycle.lose(recorder.Claim(simulation_id=simulation.pk, fence=simulation.fence))
    assert lifecycle.claim_next() is None
    assert status(simulation.pk) == Status.RUNNING
    assert lifecycle.take(Simulation.objects.get(pk=simulation.pk)).fence == simulation.fence + 1


def test_a_shell_whose_run_is_lost_three_times_in_a_row_is_told_so():
    simulation = of_a_shell()
    for _ in range(3):
        Simulation.objects.filter(pk=simulation.pk).update(claimed_by=GONE)
        assert lifecycle.claim_next() is None
        claim = lifecycle.take(Simulation.objects.get(pk=simulation.pk))
    assert claim is None
    assert status(simulation.pk) == Status.FAILED


def test_whether_a_run_is_interrupted_is_told_by_the_clock_that_leases_are_measured_by(monkeypatch):
    """On PostgreSQL it is the database's; that of the host that shows the page may be wrong by hours."""
    simulation, later = of_a_shell(), timezone.now() + timedelta(hours=3)
    if connection.vendor == "postgresql":
        monkeypatch.setattr(timezone, "now", lambda: later)
    assert not lifecycle.is_interrupted(simulation)
    assert not Simulation.objects.filter(lifecycle.interrupted(leases.now())).exists()
    monkeypatch.setattr(leases, "now", lambda: later)
    assert lifecycle.is_interrupted(simulation)


def test_who_goes_on_is_back_on_the_lists():
    simulation = queued()
    lifecycle.cancel(simulation.pk)
    lifecycle.archive(simulation.pk)
    assert not lifecycle.resume(simulation.pk).archived


def test_a_shell_goes_on_with_what_the_page_would_and_workers_leave_it_alone():
    simulation = queued()
    lifecycle.cancel(simulation.pk)
    again = lifecycle.resume(simulation.pk, by_shell=True)
    assert (again.status, again.origin) == (Status.QUEUED, Origin.SHELL)
    assert lifecycle.claim_next() is None
    assert lifecycle.take(again) is not None


def test_one_key_is_one_simulation():
    first = lifecycle.queue(config(), origin=Origin.API, idempotency_key="k")
    assert lifecycle.queue(config(), origin=Origin.API, idempotency_key="k").pk == first.pk
    assert lifecycle.queue(config(), origin=Origin.API, idempotency_key="l").pk != first.pk


def test_lost_runs_go_before_the_queue_and_both_by_age():
    lost = [claimed() for _ in range(2)]
    waiting = [queued() for _ in range(2)]
    well = claimed()
    for claim in reversed(lost):
        expire(claim)
    found = [lifecycle.claim_next().simulation_id for _ in range(4)]
    assert found == [claim.simulation_id for claim in lost] + [simulation.pk for simulation in waiting]
    assert lifecycle.claim_next() is None
    lifecycle.heartbeat(well)


def test_a_lost_run_is_found_behind_any_number_of_others():
    for _ in range(lifecycle.LOOKED_AT + 1):
        claimed()
    lost = claimed()
    for _ in range(lifecycle.LOOKED_AT + 1):
        queued()
    expire(lost)
    assert lifecycle.claim_next().simulation_id == lost.simulation_id


def test_a_lease_from_a_clock_that_was_set_back_ends():
    claim = claimed()
    Simulation.objects.filter(pk=claim.simulation_id).update(lease_expires_at=timezone.now() + timedelta(hours=1))
    assert lifecycle.is_lost(Simulation.objects.get(pk=claim.simulation_id))
    assert lifecycle.claim_next().simulation_id == claim.simulation_id


def test_to_see_that_a_claim_holds_writes_nothing_and_is_one_query(django_assert_num_queries):
    here, there = claimed(), claimed()
    lifecycle.cancel(there.simulation_id)
    with django_assert_num_queries(1) as asked:
        assert lifecycle.stale([here, there]) == [there]
    assert asked.captured_queries[0]["sql"].startswith("SELECT")
    lifecycle.confirm(here)
    with pytest.raises(StaleClaim):
        lifecycle.confirm(there)


def test_who_runs_it_does_not_take_it_from_himself_after_a_silence():
    claim = claimed()
    expire(claim)
    assert lifecycle.claim_next([claim.simulation_id]) is None
    assert lifecycle.claim_next().fence == claim.fence + 1


def test_a_look_that_finds_nothing_is_one_query_and_a_heartbeat_another(django_assert_num_queries):
    here, there = claimed(), claimed()
    Simulation.objects.filter(pk=there.simulation_id).update(claimed_by="elsewhere:1:token")
    lifecycle.queue(config(), origin=Origin.SHELL)
    with django_assert_num_queries(1):
        assert lifecycle.claim_next() is None
    with django_assert_num_queries(1):
        lifecycle.heartbeat(here)
