"""Ledgers are verified in the background: by one process at a time, against the simulations' copies."""

import threading
import time

import pytest
from django.test import Client

from incentives import ledger
from incentives.models import Verified
from simulations.models import Duty
from simulations.running import verifier
from simulations.tests.cast import happened, recorded
from simulations.tests.test_verify_ledger import unguarded, verify  # noqa: F401  # a fixture

pytestmark = [pytest.mark.django_db, pytest.mark.database]


@pytest.fixture(autouse=True, scope="module")
def trained() -> None:
    """Before any transaction begins, of which PostgreSQL ends the idle ones."""
    happened()


def told() -> tuple[str, list]:
    """The badge, and whether the API says ok."""
    badge = Client().get("/ledger/state/").content.decode()
    return badge, [row["ok"] for row in Client().get("/api/incentives/verify/").json()]


def test_badge_and_api_say_what_the_command_says_of_a_forged_tail():
    """A valid chain, but longer than its simulation knows."""
    simulation = recorded()
    assert verifier.look() == 1
    assert told()[1] == [True]
    ledger.post(simulation.ledger_id, key="gift", transfers=[ledger.Entry("mint", "client:1", 5_000_000, "reward")])
    verifier.look()
    assert "Chain broken" in told()[0]
    assert told()[1] == [False]
    assert f"{verify()[1].strip()}" == Client().get("/api/incentives/verify/").json()[0]["problem"]


def test_a_copy_that_was_changed_is_seen_though_no_ledger_moved():
    simulation = recorded()
    verifier.look()
    type(simulation).objects.update(ledger_head="0" * 64)
    assert verifier.look() == 1
    badge, ok = told()
    assert ok == [False]
    assert f"{simulation.ledger.name}, transaction 3" in badge


def test_the_command_tells_the_badge(unguarded):  # noqa: F811
    simulation = recorded()
    verifier.look()
    unguarded.execute(
        "UPDATE incentives_transaction SET description = 'x' WHERE ledger_id = %s", [simulation.ledger_id]
    )
    assert verifier.look() == 0
    assert told()[1] == [True]  # for a day at most
    assert verify()[0] == 1
    assert told()[1] == [False]


def test_an_idle_look_is_one_query(django_assert_num_queries):
    recorded()
    assert verifier.look() == 1
    with django_assert_num_queries(1 if verifier.lifecycle.connection.vendor == "sqlite" else 2):  # one for the clock
        assert verifier.look() == 0


def test_one_process_verifies_at_a_time(monkeypatch):
    recorded()
    Duty.objects.create(name=verifier.DUTY, owner="another:1:x", lease_expires_at=verifier.lifecycle.clock(20))
    assert verifier.look() == 0
    Duty.objects.update(lease_expires_at=verifier.lifecycle.clock(-1))
    assert verifier.look() == 1
    assert Duty.objects.get().lease_expires_at is None
    Duty.objects.update(owner="another:1:x", lease_expires_at=verifier.lifecycle.clock(3600))  # a clock was set back
    assert verifier.take()


def test_it_stops_between_two_pieces():
    recorded()
    with pytest.raises(verifier.Stopped):
        verifier.look(lambda seconds: True)
    assert not Verified.objects.exists()
    assert Duty.objects.get().lease_expires_at is None


def test_it_stops_with_its_process():
    stopping = threading.Event()
    stopping.set()
    began = time.monotonic()
    verifier.keep_looking(stopping)
    assert time.monotonic() - began < verifier.LOOK_SECONDS
