"""A worker is seen from its start to its end, whether it runs anything or not."""

import time
from datetime import timedelta

import httpx
import pytest
from django.utils import timezone

from simulations import processes
from simulations.models import Worker
from simulations.running import workers
from simulations.tests.test_run_simulation import LONG, begin
from simulations.tests.test_workers import ask

ROWS = "SELECT name, seen_at FROM simulations_worker"


def until(condition):
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


@pytest.mark.django_db
@pytest.mark.database
def test_it_arrives_beats_and_leaves(django_assert_num_queries):
    workers.arrive()
    row = Worker.objects.get()
    assert row.name == processes.name()
    assert abs(row.seen_at - timezone.now()) < timedelta(seconds=60)
    with django_assert_num_queries(1):
        workers.beat()
    again = Worker.objects.get()
    assert again.started_at == row.started_at
    assert again.seen_at > row.seen_at
    workers.leave()
    assert not Worker.objects.exists()
    workers.beat()  # after its row was swept while it slept
    assert Worker.objects.get().name == row.name


@pytest.mark.django_db
@pytest.mark.database
def test_whoever_arrives_sweeps_away_who_is_gone():
    here, now = f"anything:4194305:{processes.machine()}-1", timezone.now()
    ages = {here: 0, processes.name(): 99, "elsewhere:4194305": 60, "elsewhere:1": 3700}
    for name, seconds in ages.items():  # the first is above the largest pid, the second had our pid before us
        Worker.objects.create(name=name, started_at=now, seen_at=now - timedelta(seconds=seconds))
    workers.arrive()
    assert set(Worker.objects.values_list("name", flat=True)) == {processes.name(), "elsewhere:4194305"}


def test_a_worker_that_has_nothing_to_do_is_seen_until_it_ends(start_worker):
    worker = start_worker(FEDSITE_LEASE_SECONDS="2")  # so that it beats more often
    [(name, first)] = until(lambda: ask(worker.environment, ROWS))
    assert processes.host_and_process(name)[1] == str(worker.process.pid)
    until(lambda: ask(worker.environment, ROWS) > [(name, first)])
    worker.stop()
    assert ask(worker.environment, ROWS) == []


def test_a_killed_worker_stays_on_the_list_until_another_arrives(start_worker):
    worker = start_worker()
    until(lambda: ask(worker.environment, ROWS))
    worker.kill()
    assert len(ask(worker.environment, ROWS)) == 1
    other = start_worker(worker.folder)
    until(lambda: [name.split(":")[1] for name, _ in ask(other.environment, ROWS)] == [str(other.process.pid)])


def test_the_worker_inside_the_server_is_one_too(start_server):
    site = start_server()
    [(name, _)] = until(lambda: ask(site.environment, ROWS))
    assert processes.host_and_process(name)[1] == str(site.process.pid)
    assert "fedsite_workers 1.0" in httpx.get(f"{site.url}/metrics").text
    site.stop()
    assert ask(site.environment, ROWS) == []


def test_a_shell_that_was_killed_is_soon_seen_by_a_site_and_goes_on_by_its_page(start_server):
    """It was shown as running, with its time left, for ever: a killed process says nothing."""
    site = start_server()
    shell = begin(site.environment, *LONG)
    address = f"{site.url}/api/simulations/1/"
    seen = httpx.get(address).json()
    assert (seen["status"], seen["interrupted"]) == ("running", False)
    shell.kill()
    shell.communicate()
    assert httpx.get(address).json()["interrupted"]  # at once, on the machine where it was killed
    until(lambda: ask(site.environment, "SELECT status FROM simulations_simulation") == [("queued",)])
    events = httpx.get(f"{address}events/?limit=1000").json()
    assert (events[-1]["kind"], events[-1]["message"][:17]) == ("interrupted", "Its shell is gone")
    assert httpx.post(f"{address}resume/", json={}).status_code == 200
    until(lambda: httpx.get(address).json()["status"] == "completed")
