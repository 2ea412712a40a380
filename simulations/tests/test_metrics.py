"""The numbers that Prometheus reads are the database's, whatever happened before, and cost few queries."""

from datetime import timedelta

import pytest
from django.db import OperationalError
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from incentives import ledger
from incentives.chain import Entry
from incentives.models import Ledger
from simulations import processes
from simulations.models import Event, Simulation, Worker
from simulations.running import lifecycle, workers
from simulations.showing import metrics
from simulations.tests.cast import claimed, config, queued, recorded

pytestmark = [pytest.mark.django_db, pytest.mark.database]


def read(client) -> dict[str, float]:
    """Every sample of the site's own, as Prometheus parses it: `name` or `name{label,label}`."""
    response = client.get("/metrics", headers={"host": "localhost"})
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    return {
        sample.name.removeprefix("fedsite_")
        + (
            f"{{{','.join(sample.labels[key] for key in sorted(sample.labels, reverse=True))}}}"
            if sample.labels
            else ""
        ): (sample.value)
        for family in text_string_to_metric_families(response.content.decode())
        for sample in family.samples
        if sample.name.startswith("fedsite_")
    }


def test_an_empty_site_has_a_number_for_everything(client):
    found = read(client)
    assert found.pop("database_up") == 1
    assert found.pop("disk_bytes{database}") > 0
    found = {name: value for name, value in found.items() if not name.startswith("disk_")}
    assert {"queue_length", "rounds_total", "events_total", "streams_open", "simulations{queued}"} <= set(found)
    assert set(found.values()) == {0}


def test_it_counts_what_is_there(client):
    done = recorded()
    claimed()
    queued()
    queued()
    found = read(client)
    assert [found[f"simulations{{{status}}}"] for status in ("completed", "running", "queued", "failed")] == [
        1,
        1,
        2,
        0,
    ]
    assert found["queue_length"] == 2
    assert found["rounds_total"] == done.num_rounds
    assert found["events_total"] == Event.objects.count()
    assert found["ledgers"] == Ledger.objects.count() == 4
    assert found["ledger_transactions_total"] == done.ledger_length > 0


def test_the_ledgers_height_grows_with_every_transaction(client):
    before = read(client)["ledger_transactions_total"]
    book = ledger.open_ledger("manual")
    ledger.post(book.pk, key="gift", transfers=[Entry("mint", "client:1", 5, "reward")])
    assert read(client)["ledger_transactions_total"] == before + 1


def test_a_wait_begins_when_it_was_queued_the_last_time(client):
    old, shell = queued(), queued()
    Simulation.objects.filter(pk=shell.pk).update(origin="shell")
    Event.objects.filter(simulation__in=(old, shell)).update(at=timezone.now() - timedelta(hours=1))
    Event.objects.filter(simulation=queued()).update(at=timezone.now() - timedelta(minutes=5))
    found = read(client)
    assert found["queue_length"] == 2  # nobody but its shell may serve a shell's run
    assert 3600 <= found["queue_oldest_wait_seconds"] < 3700
    lifecycle.release(claimed(old))
    assert 300 <= read(client)["queue_oldest_wait_seconds"] < 400


def test_a_run_whose_shell_was_killed_neither_runs_nor_waits(client):
    """However long ago it was: before, it stayed `running` for ever."""
    claim = claimed(lifecycle.queue(config(), origin="shell"))
    assert read(client)["simulations{running}"] == 1
    gone = Simulation.objects.filter(pk=claim.simulation_id)
    gone.update(lease_expires_at=timezone.now() - timedelta(seconds=60), claimed_by="elsewhere:1:m-1:token")
    for _ in range(2):
        found = read(client)
        names = ("running", "queued", "interrupted")
        assert [found[f"simulations{{{name}}}"] for name in names] == [0, 0, 1]
        assert found["queue_length"] == 0
        assert lifecycle.claim_next() is None  # a worker's look, which gives the run back to whoever resumes it


def test_the_queues_age_counts_from_when_it_was_queued_the_last_time():
    """For the admin's page of workers as for Prometheus."""
    simulation = queued()
    Simulation.objects.filter(pk=simulation.pk).update(created_at=timezone.now() - timedelta(days=3))
    assert timezone.now() - workers.queue()["oldest"] < timedelta(minutes=5)
    assert workers.queue()["waiting"] == 1


def test_it_tells_how_long_a_worker_holds_its_run(client):
    claim = claimed()
    name = f"worker_lease_seconds{{{processes.name()},{claim.simulation_id}}}"
    assert read(client)[name] > 0
    mine = Simulation.objects.filter(pk=claim.simulation_id)
    mine.update(lease_expires_at=timezone.now() - timedelta(minutes=10))
    assert -700 < read(client)[name] <= -600
    lifecycle.heartbeat(claim)
    assert read(client)[name] > 0
    lifecycle.release(claim)
    assert name not in read(client)


def test_it_tells_when_each_worker_was_heard_of(client):
    workers.arrive()
    name, now = processes.name(), timezone.now()
    for other, silence in (("elsewhere:1", 600), ("forgotten:1", 4000)):
        Worker.objects.create(name=other, started_at=now, seen_at=now - timedelta(seconds=silence))
    found = read(client)
    assert found["workers"] == 1
    assert 0 <= found[f"worker_heartbeat_seconds{{{name}}}"] < 15
    assert 600 <= found["worker_heartbeat_seconds{elsewhere:1}"] < 700
    assert "worker_heartbeat_seconds{forgotten:1}" not in found


def test_it_asks_little_of_the_data_base(client, django_assert_max_num_queries):
    claimed(), claimed(), workers.arrive()
    with django_assert_max_num_queries(7):
        client.get("/metrics", headers={"host": "localhost"})


def test_without_its_data_base_it_still_tells_of_the_process(client, monkeypatch):
    def gone():
        raise OperationalError("server closed the connection")

    monkeypatch.setattr(metrics, "queue", gone)
    found = read(client)
    assert (found["database_up"], found["streams_open"]) == (0, 0)
    assert "rounds_total" not in found
    assert b"process_open_fds" in client.get("/metrics", headers={"host": "localhost"}).content
