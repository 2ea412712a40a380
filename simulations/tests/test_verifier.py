"""Ledgers are verified in the background: by one process at a time, against the simulations' copies."""

import threading
import time

import pytest
from django.test import Client

from incentives import ledger, verified
from incentives.models import Verified
from incentives.tests.cast import execute, without_triggers
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
    with django_assert_num_queries(1 if verifier.leases.connection.vendor == "sqlite" else 2):  # one for the clock
        assert verifier.look() == 0


def test_one_process_verifies_at_a_time(monkeypatch):
    recorded()
    Duty.objects.create(name=verifier.DUTY, claimed_by="another:1:x", lease_expires_at=verifier.leases.clock(20))
    assert verifier.look() == 0
    Duty.objects.update(lease_expires_at=verifier.leases.clock(-1))
    assert verifier.look() == 1
    assert Duty.objects.get().lease_expires_at is None
    Duty.objects.update(claimed_by="another:1:x", lease_expires_at=verifier.leases.clock(3600))  # a clock was set back
    assert verifier.take()


def test_a_full_look_names_missing_triggers_in_a_sentence(caplog):
    simulation = recorded()
    verifier.look()
    assert not caplog.records
    without_triggers()
    verifier.look()
    assert not caplog.records  # nothing to look at
    Verified.objects.filter(ledger=simulation.ledger_id).delete()
    verifier.look()
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith("The database does not refuse any more to change what was posted: triggers are missing")


CHANGES = {
    "a balance": "UPDATE incentives_account SET balance = balance + 1 WHERE name = 'client:1'",
    "all balances": "UPDATE incentives_account SET balance = 9000000000000000000 WHERE name <> 'mint'",
    "a transfer that is gone": "DELETE FROM incentives_transfer WHERE id = (SELECT max(id) FROM incentives_transfer)",
    "all transfers": "DELETE FROM incentives_transfer",
}


@pytest.mark.parametrize("statement", CHANGES.values(), ids=CHANGES)
def test_a_count_finds_what_was_changed_in_verified_rows(statement, django_assert_num_queries):
    recorded(), recorded()
    verifier.look()
    verifier.recount()
    assert told()[1] == [True, True]
    without_triggers()
    execute(statement)
    assert verifier.look() == 0
    assert all(told()[1])
    with django_assert_num_queries(1):
        changed = verified.changed()
    assert changed
    verifier.recount()
    badge, ok = told()
    assert "Chain broken" in badge
    assert ok.count(False) == len(changed)
    assert verified.changed() == []  # what is known to be wrong is not read again every minute


def test_a_count_of_what_is_right_costs_a_query(django_assert_num_queries):
    recorded()
    verifier.look()
    ledger.post(ledger.open_ledger("manual").pk, key="a", transfers=[ledger.Entry("mint", "treasury", 5, "pool")])
    verifier.look()
    ledger.post(ledger.open_ledger("manual").pk, key="b", transfers=[ledger.Entry("mint", "treasury", 5, "pool")])
    with django_assert_num_queries(1):
        assert verified.changed() == []  # also of what came since


def test_one_process_counts_at_a_time(monkeypatch):
    recorded()
    verifier.look()
    Duty.objects.create(name=verifier.COUNTING, claimed_by="another:1:x", lease_expires_at=verifier.leases.clock(10))
    monkeypatch.setattr(verified, "changed", lambda: pytest.fail("counted"))
    assert verifier.recount() == verifier.COUNT_SECONDS


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
