"""What is known of the chains: each look goes on from the one before, and what was wrong stays wrong."""

from datetime import timedelta

import pytest
from django.db.models import Q
from django.utils import timezone

from incentives import ledger, verified
from incentives.models import Ledger, Verified
from incentives.tests.cast import execute, pay, three_rounds, without_triggers
from incentives.tests.test_ledger_verification import change_transfer, doctor_a_shorter_ledger
from incentives.verification import nowhere

pytestmark = [pytest.mark.django_db, pytest.mark.database]
NEVER = Q(pk__in=[])


def look(opened: Ledger, full: bool = False):
    return verified.look(opened, nowhere, full=full)


def due(later: float = 0) -> list[tuple[str, bool]]:
    found = verified.due(NEVER, timezone.now() + timedelta(seconds=later))
    return [(opened.name, full) for opened, full in found]


def test_a_look_reads_what_came_since_the_one_before():
    opened = three_rounds()
    assert (look(opened).read, look(opened).read) == (4, 0)
    pay(opened, "round:4", 1)
    assert look(opened).read == 1
    row = Verified.objects.get()
    assert (row.sequence, row.transfers, row.problem) == (5, 14, "")
    assert row.complete_at < row.at
    assert look(opened, full=True).read == 5
    assert Verified.objects.get().complete_at > row.at


def test_what_has_moved_is_due_and_everything_once_a_day():
    first, second = three_rounds("simulation-1"), three_rounds("simulation-2")
    assert due() == [("simulation-1", True), ("simulation-2", True)]
    look(first), look(second)
    assert due() == []
    pay(first, "round:4", 1)
    assert due() == [("simulation-1", False)]
    look(first)
    assert verified.due(Q(pk=second.pk), timezone.now()) == [(second, False)]  # somebody has noted another end
    assert {name for name, full in due(verified.FULL_SECONDS + 1) if full} == {"simulation-1", "simulation-2"}


def test_what_was_wrong_stays_wrong_until_it_is_put_right():
    opened = three_rounds()
    look(opened)
    without_triggers()
    change_transfer(1, 2, amount=6)
    assert look(opened).ok  # what was read before is not read again,
    assert look(opened, full=True).problem.startswith("simulation-1, transaction 1")  # but once a day
    pay(opened, "round:4", 1)
    assert not look(opened).ok
    assert due() == []
    change_transfer(1, 2, amount=5)
    assert look(opened).ok
    assert Verified.objects.get().problem == ""


def test_a_cut_chain_is_wrong_every_day():
    """Were what is left the new point, tomorrow's look would find nothing."""
    opened = three_rounds()
    look(opened)
    without_triggers()
    doctor_a_shorter_ledger(opened)
    for _ in range(2):
        assert look(opened, full=True).problem == "simulation-1, transaction 4: missing; 4 were noted elsewhere"


def test_the_state_is_of_the_ledgers_that_are_asked_for(django_assert_num_queries):
    first, second = three_rounds("simulation-1"), three_rounds("simulation-2")
    look(first)
    without_triggers()
    execute(f"UPDATE incentives_ledger SET length = 3 WHERE id = {second.pk}")
    look(second)
    with django_assert_num_queries(1):
        mine = verified.state(Ledger.objects.filter(pk=first.pk))
    assert (mine.ledgers, mine.transactions, mine.transfers, mine.wrong_ledgers) == (1, 4, 12, 0)
    with django_assert_num_queries(2):
        everybodys = verified.state(Ledger.objects.all())
    assert (everybodys.wrong_ledgers, everybodys.place) == (1, "simulation-2, transaction 4")
    assert verified.state(Ledger.objects.none()).since is None


def test_a_first_look_at_a_wrong_ledger_leaves_no_point():
    opened = three_rounds()
    without_triggers()
    change_transfer(1, 2, amount=6)
    assert not look(opened).ok
    assert (Verified.objects.get().sequence, Verified.objects.get().transfers) == (0, 0)
    change_transfer(1, 2, amount=5)
    assert look(opened).ok
    assert ledger.verify(opened).ok
