"""Ledgers as text, line by line: CSV of transfers, JSON Lines of transactions, and beancount.

JSON Lines hold all that is hashed, so the chain can be derived again from them alone (see `chain`). Beancount checks
by itself that every transaction balances and that the balances at the end are those of the accounts. Both say on what
the run was trained whose ledger it is; in a table there is no place for it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Max, Min, Prefetch
from django.utils.module_loading import import_string

from incentives.models import MINT, Account, Ledger, Transaction, Transfer

CHUNK = 64  # transactions read at a time
COLUMNS = (
    *("ledger", "sequence", "position", "debit", "credit", "amount_microtokens", "code"),
    *("key", "description", "reverses", "recorded_at", "hash"),
)
CURRENCY = "MICROTOKEN"
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # the last ones are full width


def csv_lines(ledgers: Iterable[Ledger]) -> Iterator[str]:
    """A header, then a line for every transfer, oldest first within its ledger."""
    writer = csv.writer(_Line(), lineterminator="\n")
    yield writer.writerow(COLUMNS)
    for ledger in ledgers:
        for posted in history(ledger):
            for transfer in posted.transfers.all():
                yield writer.writerow(_row(ledger, posted, transfer))


class _Line:
    """What csv writes to, so that writerow returns the line."""

    def write(self, text: str) -> str:
        return text


def _row(ledger: Ledger, posted: Transaction, transfer: Transfer) -> list[Any]:
    row = [
        *(ledger.name, posted.sequence, transfer.position),
        *(transfer.debit_account.name, transfer.credit_account.name, transfer.amount, transfer.code),
        *(posted.key, posted.description, _reverses(posted), posted.recorded_at.isoformat(), posted.hash),
    ]
    return [csv_cell(value) for value in row]


def csv_cell(value: Any) -> Any:
    """Spreadsheets compute what begins like a formula, and somebody may have typed it: an apostrophe makes it text. To
    be used for every cell of every table that is written."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def jsonl_lines(ledgers: Iterable[Ledger]) -> Iterator[str]:
    """A JSON object for every transaction, with its transfers as [debit, credit, amount, code]. A run's first one has
    its manifests too: nobody hashes them."""
    for ledger in ledgers:
        for posted in history(ledger):
            more = {"manifests": found} if posted.sequence == 1 and (found := manifests(ledger)) else {}
            yield json.dumps(as_object(ledger, posted) | more, ensure_ascii=False) + "\n"


def manifests(ledger: Ledger) -> list[dict[str, Any]]:
    """On what it was computed what this ledger pays for, as the simulations tell; the ledger knows none of them, so
    settings.LEDGERS_MADE_ON names the function that is asked."""
    found: list[dict[str, Any]] = import_string(settings.LEDGERS_MADE_ON)(ledger.pk)
    return found


def as_object(ledger: Ledger, posted: Transaction) -> dict[str, Any]:
    """A transaction with its transfers: all that is hashed, and what came of it."""
    return {
        "ledger": ledger.name,
        "sequence": posted.sequence,
        "key": posted.key,
        "description": posted.description,
        "memo": posted.memo,
        "reverses": _reverses(posted),
        "transfers": [
            [transfer.debit_account.name, transfer.credit_account.name, transfer.amount, transfer.code]
            for transfer in posted.transfers.all()
        ],
        "previous_hash": posted.previous_hash,
        "hash": posted.hash,
        "recorded_at": posted.recorded_at.isoformat(),
    }


def beancount_lines(ledgers: Iterable[Ledger]) -> Iterator[str]:
    """What bean-check accepts, in whole micro-tokens. Days are those of UTC."""
    yield f'option "title" "fedsite"\noption "operating_currency" "{CURRENCY}"\n'
    for ledger in ledgers:
        yield from _beancount_ledger(ledger)


def _beancount_ledger(ledger: Ledger) -> Iterator[str]:
    """The ledger as it is now: what is posted while it is written is left out, in rows and balances alike."""
    accounts = _moment(ledger)
    posted_until = ledger.transactions.filter(sequence__lte=ledger.length)
    days = posted_until.aggregate(first=Min("recorded_at"), last=Max("recorded_at"))
    first = min(_day(days["first"] or ledger.created_at), _day(ledger.created_at))
    after = max(_day(days["last"] or ledger.created_at), first) + timedelta(days=1)
    yield f"\n; {ledger.name}: {ledger.length} transactions, head {ledger.head}\n"
    for manifest in manifests(ledger):
        yield f"; manifest: {json.dumps(manifest)}\n"
    for account in accounts:
        yield f"{first} open {beancount_account(ledger, account)} {CURRENCY}\n"
    for posted in history(ledger):
        yield _beancount_transaction(ledger, posted)
    yield "\n"
    for account in accounts:
        yield f"{after} balance {beancount_account(ledger, account)} {account.balance} {CURRENCY}\n"


def _moment(ledger: Ledger) -> list[Account]:
    """The accounts with their balances; head and length of the ledger are set to those of the same moment, as both are
    read in one statement."""
    names = ("head", "length", "accounts__id", "accounts__name", "accounts__balance")
    rows = list(Ledger.objects.filter(pk=ledger.pk).order_by("accounts__id").values_list(*names))
    ledger.head, ledger.length = rows[0][:2]
    return [Account(pk=pk, name=name, balance=balance) for _, _, pk, name, balance in rows if pk is not None]


def _beancount_transaction(ledger: Ledger, posted: Transaction) -> str:
    lines = [
        f'{_day(posted.recorded_at)} * "{_quoted(posted.description)}"',
        f"  sequence: {posted.sequence}",
        f'  key: "{_quoted(posted.key)}"',
        f'  hash: "{posted.hash}"',
    ]
    if posted.reverses_id:
        lines.append(f"  reverses: {_reverses(posted)}")
    for transfer in posted.transfers.all():
        debit, credit = (beancount_account(ledger, side) for side in (transfer.debit_account, transfer.credit_account))
        lines.append(f"  {debit} {-transfer.amount} {CURRENCY}")
        lines.append(f'    code: "{transfer.code}"')
        lines.append(f"  {credit} {transfer.amount} {CURRENCY}")
    return "\n" + "\n".join(lines) + "\n"


def beancount_account(ledger: Ledger, account: Account) -> str:
    """client:3 of simulation-12 is Assets:Simulation-12:Client-3; what the mint owes is Equity."""
    kind = "Equity" if account.name == MINT else "Assets"
    return f"{kind}:{ledger.name.capitalize()}:{account.name.capitalize().replace(':', '-')}"


def history(ledger: Ledger) -> Iterator[Transaction]:
    """The ledger's transactions by sequence, each with its transfers by position, a chunk in memory at a time."""
    accounts = {account.pk: account for account in ledger.accounts.all()}
    transfers = Prefetch("transfers", Transfer.objects.order_by("position"))
    rows = ledger.transactions.select_related("reverses").prefetch_related(transfers).order_by("sequence")
    last = 0
    while chunk := list(rows.filter(sequence__gt=last, sequence__lte=ledger.length)[:CHUNK]):
        for posted in chunk:
            for transfer in posted.transfers.all():
                transfer.debit_account = accounts[transfer.debit_account_id]
                transfer.credit_account = accounts[transfer.credit_account_id]
            yield posted
        last = chunk[-1].sequence


def _reverses(posted: Transaction) -> int | None:
    return posted.reverses.sequence if posted.reverses else None


def _day(moment: Any) -> date:
    return moment.astimezone(UTC).date()


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


FORMATS: dict[str, Callable[[Iterable[Ledger]], Iterator[str]]] = {
    "csv": csv_lines,
    "jsonl": jsonl_lines,
    "beancount": beancount_lines,
}
