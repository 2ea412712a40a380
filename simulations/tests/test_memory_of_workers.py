"""What a simulation may need is what the largest worker that is alive can bear, and that one runs it."""

import json
from datetime import timedelta

import pytest
from django.conf import settings
from django.test import Client
from django.utils import timezone

from simulations import estimates, processes
from simulations.models import Origin, Simulation, Worker
from simulations.running import lifecycle, workers
from simulations.tests.cast import claimed, config, queued
from training.config import ConfigError

pytestmark = [pytest.mark.django_db, pytest.mark.database]
LARGE = {"num_clients": 5000, "model": "cnn", "dataset": "mnist"}  # some 30 GB
DEAD = f"anything:4194305:{processes.machine()}-1"  # above the largest pid


@pytest.fixture(autouse=True)
def small(settings) -> None:
    """This machine."""
    settings.FEDSITE_MAX_MEMORY = estimates.GIGABYTE


def there_is(name: str, gigabytes: int | None, silent_seconds: float = 0) -> None:
    at = timezone.now()
    most = gigabytes and gigabytes * estimates.GIGABYTE
    Worker.objects.create(name=name, started_at=at, seen_at=at - timedelta(seconds=silent_seconds), most_bytes=most)


def asked() -> list[int]:
    """The answers of page and API to a large run."""
    page = Client().post("/simulations/", {name: str(value) for name, value in LARGE.items()})
    api = Client().post("/api/simulations/", json.dumps(LARGE), content_type="application/json")
    return [page.status_code, api.status_code]


def test_the_largest_worker_decides_what_is_refused():
    assert asked() == [422, 422]
    there_is("far:1:a-1", 8)
    there_is("large:1:b-1", 100)
    assert asked() == [302, 201]
    assert [row.needs_bytes > 8 * estimates.GIGABYTE for row in Simulation.objects.all()] == [True, True]


def test_a_smaller_worker_than_this_machine_decides_too():
    settings.FEDSITE_MAX_MEMORY = 100 * estimates.GIGABYTE
    there_is("far:1:a-1", 8)
    with pytest.raises(ConfigError, match=r"8\.0 GB are allowed"):
        lifecycle.queue(config(**LARGE), origin=Origin.API)


def test_workers_that_are_gone_or_do_not_say_count_for_nothing():
    there_is("silent:1:a-1", 100, silent_seconds=settings.FEDSITE_LEASE_SECONDS + 5)
    there_is(DEAD, 100)
    there_is("of an older release:1:c-1", None)
    assert lifecycle.most_bytes() == estimates.GIGABYTE
    assert asked() == [422, 422]


def test_a_worker_says_what_it_can_bear(django_assert_num_queries):
    workers.arrive()
    assert Worker.objects.get().most_bytes == estimates.GIGABYTE
    with django_assert_num_queries(1):
        lifecycle.most_bytes()


def test_a_shell_runs_on_its_own_machine():
    there_is("large:1:b-1", 100)
    with pytest.raises(ConfigError, match=r"1\.0 GB are allowed"):
        lifecycle.queue(config(**LARGE), origin=Origin.SHELL)


def test_what_is_too_large_for_a_worker_is_left_to_a_larger_one():
    there_is("large:1:b-1", 100)
    large = lifecycle.queue(config(**LARGE), origin=Origin.API)
    small = queued()
    assert lifecycle.claim_next().simulation_id == small.pk
    assert lifecycle.claim_next() is None
    settings.FEDSITE_MAX_MEMORY = 100 * estimates.GIGABYTE
    assert lifecycle.claim_next().simulation_id == large.pk


def test_a_large_run_whose_worker_is_lost_is_left_to_a_larger_one_too():
    there_is("large:1:b-1", 100)
    large = lifecycle.queue(config(**LARGE), origin=Origin.API)
    claimed(large)
    Simulation.objects.update(lease_expires_at=timezone.now() - timedelta(seconds=1))
    assert lifecycle.claim_next() is None
    Worker.objects.all().delete()  # nobody can bear it any more: whoever tries says so
    assert lifecycle.claim_next().simulation_id == large.pk
