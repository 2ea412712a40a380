"""`manage.py verify_ledger` finds whatever was changed, though the ledger's own row was changed along with it."""

import re
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from incentives import ledger
from incentives.models import Account, Ledger, Transaction, Transfer
from incentives.tests.cast import execute
from simulations import reversals
from simulations.management.commands import verify_ledger
from simulations.tests.cast import recorded

pytestmark = [pytest.mark.django_db, pytest.mark.database]
TRIGGERED = ("incentives_transaction", "incentives_transfer", "incentives_account", "incentives_ledger")


def verify(*arguments) -> tuple[int, str]:
    out, errors = StringIO(), StringIO()
    try:
        call_command("verify_ledger", *arguments, stdout=out, stderr=errors)
    except SystemExit as ended:
        return ended.code, errors.getvalue()
    return 0, out.getvalue()


@pytest.fixture
def unguarded():
    """The triggers taken away, as somebody with the database's password can."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET session_replication_role = replica")
            yield cursor
            cursor.execute("SET session_replication_role = DEFAULT")
            return
        cursor.execute(
            f"SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name IN ({', '.join(['%s'] * 4)})",
            TRIGGERED,
        )
        for (name,) in cursor.fetchall():
            cursor.execute(f"DROP TRIGGER {name}")
        yield cursor


def test_it_counts_what_it_verified():
    recorded(), recorded()
    ledger.post(ledger.open_ledger("manual").pk, key="a", transfers=[ledger.Entry("mint", "treasury", 5, "pool")])
    code, text = verify()
    transfers = Transfer.objects.count()
    assert (code, text) == (0, f"Verified 3 ledgers: 7 transactions, {transfers} transfers\n")


def test_it_verifies_one_simulation_alone():
    first, second = recorded(), recorded()
    assert verify("--simulation", str(second.pk))[1].startswith("Verified 1 ledgers: 3 transactions")
    assert first.pk != second.pk
    with pytest.raises(CommandError, match="there is no simulation 999999"):
        verify("--simulation", "999999")


@pytest.mark.parametrize("sequence", [1, 2, 3])
def test_it_names_one_changed_unit(unguarded, sequence):
    simulation = recorded()
    transfer = Transfer.objects.filter(transaction__ledger=simulation.ledger, transaction__sequence=sequence).last()
    unguarded.execute("UPDATE incentives_transfer SET amount = amount + 1 WHERE id = %s", [transfer.pk])
    code, text = verify()
    assert code == 1
    assert f"{simulation.ledger.name}, transaction {sequence}" in text


def test_it_names_a_changed_balance():
    simulation = recorded()
    account = Account.objects.get(ledger=simulation.ledger, name="client:1")
    Account.objects.filter(pk=account.pk).update(balance=account.balance + 1)
    code, text = verify()
    assert code == 1
    assert "client:1" in text
    assert simulation.ledger.name in text


def test_it_names_a_cut_tail_though_every_row_of_the_ledger_was_made_to_fit(unguarded):
    simulation = recorded()
    last = Transaction.objects.filter(ledger=simulation.ledger).order_by("sequence").last()
    move = "UPDATE incentives_account SET balance = balance + %s WHERE id = %s"
    for transfer in last.transfers.order_by("-position"):
        unguarded.execute(move, [-transfer.amount, transfer.credit_account_id])
        unguarded.execute(move, [transfer.amount, transfer.debit_account_id])
    unguarded.execute("DELETE FROM incentives_transfer WHERE transaction_id = %s", [last.pk])
    unguarded.execute("DELETE FROM incentives_transaction WHERE id = %s", [last.pk])
    unguarded.execute(
        "UPDATE incentives_ledger SET head = %s, length = 2 WHERE id = %s", [last.previous_hash, simulation.ledger_id]
    )
    assert ledger.verify(Ledger.objects.get(pk=simulation.ledger_id)).ok
    code, text = verify()
    assert code == 1
    assert simulation.ledger.name in text
    assert "transaction 3" in text


def test_it_names_a_forged_tail_though_it_is_a_valid_chain():
    simulation = recorded()
    gift = ledger.Entry("mint", "client:1", 5_000_000, "reward")
    ledger.post(simulation.ledger_id, key="gift", transfers=[gift])
    assert ledger.verify(simulation.ledger).ok
    assert verify() == (1, f"{simulation.ledger.name}, transaction 4: its simulation's row ends with transaction 3\n")
    assert verify("--simulation", str(simulation.pk))[0] == 1


def test_what_is_posted_while_it_reads_is_not_forged(monkeypatch):
    """A round that is recorded after the copies were read, and a reversal: both write row and ledger together."""
    simulation = recorded()
    newest = simulation.ledger.transactions.order_by("-sequence")
    real = verify_ledger.noted

    def noted_before(opened):
        copy = real(opened)
        if newest.count() == 3:
            reversals.reverse(newest[0], "a mistake", actor="ada")
        return copy

    monkeypatch.setattr(verify_ledger, "noted", noted_before)
    assert verify()[0] == 0
    assert newest.count() == 4


def test_it_reads_only_the_rest_and_says_so():
    simulation = recorded()
    assert verify("--since")[1].endswith("transfers; 3 transactions were read now\n")
    recorded()
    text = verify("--since")[1]
    assert re.search(
        r"Verified 2 ledgers: 6 transactions, .* transfers; 3 transactions were read now, the others since 20.*Z\n",
        text,
    )
    Account.objects.filter(ledger=simulation.ledger, name="client:1").update(balance=1)
    assert verify("--since")[0] == 1


def test_it_names_missing_triggers_in_a_sentence_and_puts_them_back():
    on_table = " ON incentives_transfer" if connection.vendor == "postgresql" else ""
    execute(f"DROP TRIGGER incentives_transfer_no_update{on_table}")
    code, text = verify()
    assert code == 1
    assert text.startswith("The database does not refuse any more to change what was posted: triggers are missing")
    assert text.count("\n") == 1
    assert "incentives_transfer_no_update" in text
    code, text = verify("--restore-triggers")
    assert (code, text[:18]) == (0, "Verified 0 ledgers")
    assert verify()[0] == 0
    recorded()
    assert verify()[0] == 0
