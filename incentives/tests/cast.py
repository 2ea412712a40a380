"""The small cast of the ledger's tests: a mint, a treasury and three clients."""

from __future__ import annotations

from django.db import connection

from incentives import ledger, triggers
from incentives.ledger import Entry
from incentives.models import Account, Ledger, Transaction


def pay(to: Ledger, key: str, *rewards: int, memo: dict[str, int | str] | None = None) -> Transaction:
    """A round's transaction: the sum into the treasury, and to clients 1, 2, ... what each has earned."""
    return ledger.post(
        to.pk,
        key=key,
        transfers=[
            Entry("mint", "treasury", sum(rewards), "pool"),
            *(Entry("treasury", f"client:{n}", amount, "reward") for n, amount in enumerate(rewards, 1)),
        ],
        description=f"Reward of {key}",
        memo=memo or {"round": 1},
    )


def three_rounds(name: str = "simulation-1") -> Ledger:
    """Four transactions, twelve transfers; the second is taken back by the third."""
    opened = ledger.open_ledger(name)
    pay(opened, "round:1", 5, 3, 2)
    second = pay(opened, "round:2", 1, 1)
    ledger.reverse(second, "paid by mistake")
    pay(opened, "round:3", 7)
    opened.refresh_from_db()
    return opened


def balances(of: Ledger) -> dict[str, int]:
    return dict(Account.objects.filter(ledger=of).order_by("pk").values_list("name", "balance"))


def execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def without_triggers() -> None:
    """What somebody with all rights over the database would do first. The test's rollback brings them back."""
    connection.check_constraints()  # PostgreSQL alters no table that has checks pending
    triggers.remove(connection)
