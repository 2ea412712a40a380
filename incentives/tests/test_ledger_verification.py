"""Verification names what somebody with all rights over the database has changed."""

import re

import pytest
from django.db import connection

from incentives import ledger
from incentives.models import Account, Ledger, Transaction, Transfer
from incentives.tests.cast import execute, pay, three_rounds, without_triggers

pytestmark = [pytest.mark.django_db, pytest.mark.database]


def change(sequence: int, /, **values) -> None:
    rows = Transaction.objects.filter(ledger__name="simulation-1")
    rows.filter(sequence=sequence).update(**values)


def change_transfer(sequence: int, position: int, /, **values) -> None:
    rows = Transfer.objects.filter(transaction__ledger__name="simulation-1", transaction__sequence=sequence)
    rows.filter(position=position).update(**values)


def account(name: str) -> Account:
    return Account.objects.get(ledger__name="simulation-1", name=name)


def delete(sequence: int) -> None:
    gone = Transaction.objects.filter(ledger__name="simulation-1", sequence=sequence)
    Transfer.objects.filter(transaction__in=gone)._raw_delete("default")
    gone._raw_delete("default")


def change_one_unit() -> None:
    change_transfer(1, 2, amount=6)


def change_one_unit_and_the_balances() -> None:
    change_transfer(4, 2, amount=6)
    Account.objects.filter(name="client:1").update(balance=11)
    Account.objects.filter(name="treasury").update(balance=1)


def swap() -> None:
    for old, new in ((1, 99), (2, 1), (99, 2)):
        change(old, sequence=new)


def swap_positions() -> None:
    for old, new in ((2, 99), (3, 2), (99, 3)):
        change_transfer(1, old, position=new)


def rename() -> None:
    for old, new, number in (("client:1", "client:99", 99), ("client:3", "client:1", 1), ("client:99", "client:3", 3)):
        Account.objects.filter(name=old).update(name=new, client=number)


def add_a_transfer() -> None:
    Transfer.objects.create(
        transaction=Transaction.objects.get(ledger__name="simulation-1", sequence=2),
        position=4,
        debit_account=account("client:1"),
        credit_account=account("client:2"),
        amount=1,
        code="gift",
    )


def take_a_transfer() -> None:
    Transfer.objects.filter(transaction__sequence=1, position=3)._raw_delete("default")


def take_all_transfers() -> None:
    Transfer.objects.filter(transaction__sequence=2)._raw_delete("default")


def lend_an_account() -> None:
    other = ledger.open_ledger("manual")
    change_transfer(2, 1, credit_account=other.accounts.get(name="treasury"))


def break_a_memo() -> None:
    change(1, memo={"round": 1.5})


def make_a_memo_a_list() -> None:
    change(1, memo=[1])


def reverse_another() -> None:
    first = Transaction.objects.get(ledger__name="simulation-1", sequence=1)
    change(3, reverses=first)


def reverse_elsewhere() -> None:
    change(3, reverses=pay(ledger.open_ledger("manual"), "k", 1))


def cut_the_tail() -> None:
    delete(4)


def move_a_balance() -> None:
    Account.objects.filter(name="client:1").update(balance=11)
    Account.objects.filter(name="client:2").update(balance=4)


TAMPERING = {
    "one unit": (change_one_unit, "transaction 1: .*content hash"),
    "one unit and the balances": (change_one_unit_and_the_balances, "transaction 4: .*content hash"),
    "code": (lambda: change_transfer(3, 2, code="gift"), "transaction 3: .*content hash"),
    "memo": (lambda: change(2, memo={"round": 2}), "transaction 2: .*content hash"),
    "memo with a float": (break_a_memo, r"transaction 1: 1\.5 is not an integer"),
    "memo no object": (make_a_memo_a_list, "transaction 1: memo"),
    "key": (lambda: change(2, key="round:9"), "transaction 2: .*content hash"),
    "description": (lambda: change(4, description="x"), "transaction 4: .*content hash"),
    "content hash": (lambda: change(2, content_sha256="0" * 64), "transaction 2: .*content hash"),
    "previous hash": (lambda: change(2, previous_hash="0" * 64), "transaction 2: .*previous hash"),
    "chain hash": (lambda: change(2, hash="0" * 64), "transaction 2: .*chain hash"),
    "what it reverses": (reverse_another, "transaction 3: .*content hash"),
    "reverses another ledger's": (reverse_elsewhere, "transaction 3: reverses"),
    "reverses nothing": (lambda: change(3, reverses=None), "transaction 3: .*content hash"),
    "first deleted": (lambda: delete(1), "transaction 1: missing; 2 comes next"),
    "middle deleted": (lambda: (delete(3), delete(2)), "transaction 2: missing; 4 comes next"),
    "tail cut": (cut_the_tail, "transaction 4: missing; the ledger counts 4"),
    "order swapped": (swap, "transaction 1: .*previous hash"),
    "transfers swapped": (swap_positions, "transaction 1: .*content hash"),
    "transfer added": (add_a_transfer, "transaction 2: .*content hash"),
    "transfer taken": (take_a_transfer, "transaction 1, transfer 3: missing; 4 comes next"),
    "transfers taken": (
        take_all_transfers,
        "transaction 2: key, description, memo or transfers are not what was posted",
    ),
    "accounts renamed": (rename, "transaction 1: .*content hash"),
    "account of another ledger": (lend_an_account, "transaction 2, transfer 1: account row"),
    "balance": (lambda: Account.objects.filter(name="client:1").update(balance=13), "client:1 holds 13 .* make 12"),
    "balance moved": (move_a_balance, "after transaction 4: client:1 holds 11 micro-tokens, its transfers make 12"),
    "client of an account": (lambda: Account.objects.filter(name="client:1").update(client=7), "is of client 7"),
    "head": (lambda: Ledger.objects.update(head="0" * 64), "transaction 4: its hash is not the ledger's head"),
    "length": (lambda: Ledger.objects.update(length=3), "transaction 4: one too many; the ledger counts 3"),
}


@pytest.mark.parametrize(("tamper", "problem"), TAMPERING.values(), ids=TAMPERING)
def test_it_names_the_tampering(tamper, problem):
    opened = three_rounds()
    without_triggers()
    tamper()
    found = ledger.verify(opened)
    assert not found.ok
    assert_matches(found.problem, f"^simulation-1, .*{problem}")


def assert_matches(text: str, pattern: str) -> None:
    assert re.search(pattern, text), text


def test_it_sees_a_cut_tail_behind_a_doctored_ledger_by_a_second_copy():
    opened = three_rounds()
    noted = (opened.head, opened.length)
    without_triggers()
    doctor_a_shorter_ledger(opened)
    assert ledger.verify(opened).ok
    found = ledger.verify(opened, lambda _: noted)
    assert found.problem == "simulation-1, transaction 4: missing; 4 were noted elsewhere"


def doctor_a_shorter_ledger(opened: Ledger) -> None:
    """All traces of the last transaction are gone, from balances, head and length too."""
    delete(4)
    third = opened.transactions.get(sequence=3)
    Ledger.objects.update(head=third.hash, length=3)
    Account.objects.filter(name="client:1").update(balance=5)
    Account.objects.filter(name="mint").update(balance=-10)


def test_it_sees_a_rewritten_history_by_a_second_copy():
    honest = three_rounds("simulation-1")
    forged = ledger.open_ledger("simulation-2")
    for n in range(1, 5):
        pay(forged, f"round:{n}", 5)
    assert ledger.verify(forged).ok
    found = ledger.verify(forged, lambda _: (honest.head, honest.length))
    assert found.problem == "simulation-2, transaction 4: its hash is not the head noted elsewhere"


def test_it_goes_on_past_the_second_copy():
    """As it was when the reading began, for whoever posts writes it too; but no further."""
    opened = three_rounds()
    noted = (opened.head, opened.length)
    pay(opened, "round:4", 1)
    opened.refresh_from_db()
    copies = iter([noted, (opened.head, opened.length)])
    assert ledger.verify(opened, lambda _: next(copies)).ok
    assert_matches(ledger.verify(opened, lambda _: noted).problem, "transaction 5: .* row ends with transaction 4")


def test_it_compares_the_second_copy_of_an_empty_ledger():
    opened = ledger.open_ledger("simulation-1")
    assert ledger.verify(opened, lambda _: (opened.head, 0)).ok
    assert not ledger.verify(opened, lambda _: ("0" * 64, 0)).ok


def test_it_goes_on_from_a_point():
    opened = three_rounds()
    point = ledger.verify(opened).point
    assert ledger.verify(opened, known=point, full=False).read == 0
    pay(opened, "round:4", 1, 0x7F, 3, 4)  # client 4 is new
    found = ledger.verify(opened, known=point, full=False)
    everything = ledger.verify(opened, known=point)
    assert (found.ok, found.read, found.is_complete) == (True, 1, False)
    assert (everything.ok, everything.read, everything.is_complete) == (True, 5, True)
    assert found.point == everything.point


@pytest.mark.parametrize("name", ["balance", "balance moved", "client of an account", "head", "length", "tail cut"])
def test_it_names_the_same_from_a_point_at_the_end(name):
    opened = three_rounds()
    point = ledger.verify(opened).point
    tamper, problem = TAMPERING[name]
    without_triggers()
    tamper()
    found = ledger.verify(opened, known=point, full=False)
    assert found.is_complete  # since something did not fit
    assert_matches(found.problem, f"^simulation-1, .*{problem}")


@pytest.mark.parametrize("full", [True, False])
def test_it_takes_an_earlier_point_for_a_copy(full):
    """A chain that was cut, with every row and copy made to fit, does not pass through what was verified before."""
    opened = three_rounds()
    point = ledger.verify(opened).point
    without_triggers()
    doctor_a_shorter_ledger(opened)
    found = ledger.verify(opened, known=point, full=full)
    assert found.problem == "simulation-1, transaction 4: missing; 4 were noted elsewhere"


def test_it_counts_what_it_derived():
    opened = three_rounds()
    found = ledger.verify(opened)
    assert (found.ok, found.problem) == (True, None)
    assert (found.ledger, found.transactions, found.transfers) == ("simulation-1", 4, 12)
    assert found.head == opened.head


def test_it_names_the_ledger_among_several():
    for name in ("simulation-1", "simulation-2", "manual"):
        three_rounds(name)
    without_triggers()
    execute("UPDATE incentives_ledger SET length = 9 WHERE name = 'simulation-2'")
    found = [ledger.verify(each) for each in Ledger.objects.order_by("pk")]
    assert [(each.ledger, each.ok) for each in found] == [
        ("simulation-1", True),
        ("simulation-2", False),
        ("manual", True),
    ]


def test_it_reads_a_long_ledger_in_pieces():
    opened = ledger.open_ledger("simulation-1")
    for n in range(150):
        pay(opened, f"round:{n}", n + 1)
    assert ledger.verify(opened).transactions == 150
    without_triggers()
    change_transfer(130, 1, amount=1)
    assert_matches(ledger.verify(opened).problem, "transaction 130")


def test_it_reads_one_moment_though_somebody_posts(monkeypatch):
    """Whatever is posted after the ledger's own row was read is left out."""
    from incentives import verification

    opened = three_rounds()
    read = verification._read_state

    def read_then_post(of):
        state = read(of)
        pay(opened, "round:4", 1)
        return state

    monkeypatch.setattr(verification, "_read_state", read_then_post)
    found = ledger.verify(opened)
    assert (found.problem, found.transactions) == (None, 4)


@pytest.mark.skipif(connection.vendor != "sqlite", reason="SQLite's own")
@pytest.mark.parametrize("amount", ["5.5", "'five'"])
def test_it_names_what_sqlite_takes_for_an_integer(amount):
    opened = three_rounds()
    without_triggers()
    execute("PRAGMA ignore_check_constraints = ON")
    try:
        execute(f"UPDATE incentives_transfer SET amount = {amount} WHERE position = 2")
    finally:
        execute("PRAGMA ignore_check_constraints = OFF")
    assert_matches(ledger.verify(opened).problem, "transaction 1, transfer 2: amount .* is not a positive integer")
