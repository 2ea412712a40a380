"""The only writer of ledgers: open, post, reverse.

Every function is one short database transaction, and may be called within another. The ledger's row is locked
first (on SQLite the settings' BEGIN IMMEDIATE locks the whole file), so sequence numbers have no gap and
commits are in their order.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from django.db import connection, transaction
from django.utils import timezone

from incentives import models
from incentives.chain import GENESIS, Content, Entry, chain_hash
from incentives.errors import (
    AlreadyReversed,
    InsufficientBalance,
    InvalidTransaction,
    KeyConflict,
    LedgerError,
    SupplyExhausted,
)
from incentives.models import MAX_SUPPLY, MINT, TREASURY, Account, Ledger, Transaction, Transfer
from incentives.verification import Verification, verify

__all__ = [
    "AlreadyReversed",
    "Entry",
    "InsufficientBalance",
    "InvalidTransaction",
    "KeyConflict",
    "LedgerError",
    "SupplyExhausted",
    "Verification",
    "client_account",
    "ensure_accounts",
    "open_ledger",
    "post",
    "reverse",
    "verify",
]

MAX_TRANSFERS = 16_000  # of a transaction; 10,000 clients and their pool fit, and so do SQLite's 32,766 parameters
ROWS = 5_000  # of transfers in a statement, six parameters each
LEDGER_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
ACCOUNT_NAME = re.compile(r"[a-z]{1,32}(?::([1-9][0-9]{0,18}))?")
CODE = re.compile(r"[a-z][a-z0-9_]{0,31}")
MEMO_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
REVERSAL = "reverse:"  # keys of reversals; nobody else's


def client_account(number: int) -> str:
    return f"client:{number}"


def open_ledger(name: str) -> Ledger:
    """The ledger of this name with its mint and treasury, made if it is not there."""
    if not LEDGER_NAME.fullmatch(name):
        raise InvalidTransaction(f"ledger name {name!r}: at most 64 of a-z, 0-9 and inner hyphens")
    with transaction.atomic():
        ledger, is_new = Ledger.objects.get_or_create(name=name, defaults={"head": GENESIS})
        if is_new:
            _create_accounts(ledger.pk, [MINT, TREASURY])
    return ledger


def ensure_accounts(ledger: Ledger, clients: Iterable[int]) -> None:
    """An account for each client number, before it has ever been paid."""
    with transaction.atomic():
        _accounts(_locked(ledger.pk), {client_account(client) for client in clients})


def post(
    ledger_id: int,
    *,
    key: str,
    transfers: Sequence[Entry],
    description: str = "",
    memo: Mapping[str, int | str] | None = None,
) -> Transaction:
    """Append one transaction: all its transfers or none. Accounts that are missing are made.

    A key that is known already posts nothing and returns its transaction; KeyConflict if the content differs.
    Balances are looked at when all transfers are done: InsufficientBalance, or SupplyExhausted for the mint.
    InvalidTransaction names what is malformed. Costs a handful of queries, whatever the number of transfers.
    """
    content = Content(key=key, transfers=tuple(transfers), description=description, memo=memo or {})
    _check(content)
    if key.startswith(REVERSAL):
        raise InvalidTransaction(f"key {key!r}: {REVERSAL} belongs to reversals")
    return _append(ledger_id, content)


def reverse(original: Transaction, reason: str, *, actor: str = "") -> Transaction:
    """Append the mirror image of a transaction, with the user name of who wants it in the memo.

    A repeat by the same actor for the same reason is harmless, any other is AlreadyReversed. InsufficientBalance
    where somebody has spent what would be taken back.
    """
    rows = Transfer.objects.filter(transaction=original).order_by("position")
    rows = rows.select_related("debit_account", "credit_account")
    content = Content(
        key=f"{REVERSAL}{original.sequence}",
        transfers=tuple(Entry(row.credit_account.name, row.debit_account.name, row.amount, "reversal") for row in rows),
        description=reason,
        memo={"actor": actor} if actor else {},
        reverses=original.sequence,
    )
    _check(content)
    try:
        return _append(original.ledger_id, content, reverses=original)
    except KeyConflict:
        raise AlreadyReversed(f"{original} of {original.ledger} is reversed already") from None


@transaction.atomic
def _append(ledger_id: int, content: Content, reverses: Transaction | None = None) -> Transaction:
    ledger = _locked(ledger_id)
    known = _known(ledger, content.key)
    if known is not None:
        return _repeat(ledger, known, content)
    changes = _changes(content.transfers)
    accounts = _accounts(ledger, set(changes))
    _refuse_overdraft(ledger, accounts, changes)
    posted = _record(ledger, content, reverses)
    _record_transfers(posted, content, accounts)
    _move(accounts, changes)
    query("UPDATE incentives_ledger SET head = %s, length = %s WHERE id = %s", posted.hash, posted.sequence, ledger.pk)
    return posted


def query(statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """A statement's rows. What every posting does is written in SQL, since the ORM would take four times as long as
    the database does; the statements are those of both databases."""
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.fetchall() if cursor.description else []


def _places(count: int, width: int = 0) -> str:
    """%s, %s for two values; (%s, %s), (%s, %s) for two rows of two."""
    one = f"({_places(width)})" if width else "%s"
    return ", ".join([one] * count)


class _Locked(NamedTuple):
    """A ledger's row, ours until the transaction ends."""

    pk: int
    name: str
    head: str
    length: int


class _Held(NamedTuple):
    """An account's row; it changes only under its ledger's lock."""

    pk: int
    balance: int


def _locked(ledger_id: int) -> _Locked:
    lock = " FOR UPDATE" if connection.features.has_select_for_update else ""
    rows = query(f"SELECT id, name, head, length FROM incentives_ledger WHERE id = %s{lock}", ledger_id)
    if not rows:
        raise Ledger.DoesNotExist(f"There is no ledger {ledger_id}")
    return _Locked(*rows[0])


def _known(ledger: _Locked, key: str) -> Transaction | None:
    """After the lock, in a statement of its own: only so PostgreSQL shows what was committed while we waited."""
    found = query("SELECT id FROM incentives_transaction WHERE ledger_id = %s AND key = %s", ledger.pk, key)
    return Transaction.objects.get(pk=found[0][0]) if found else None


def _repeat(ledger: _Locked, known: Transaction, content: Content) -> Transaction:
    if known.content_sha256 != content.sha256():
        taken = f"key {content.key!r} is taken by transaction {known.sequence}, with other content"
        raise KeyConflict(f"{ledger.name}: {taken}")
    return known


def _changes(transfers: Sequence[Entry]) -> dict[str, int]:
    """What each account gains, in micro-tokens."""
    changes: Counter[str] = Counter()
    for entry in transfers:
        changes[entry.debit] -= entry.amount
        changes[entry.credit] += entry.amount
    return dict(changes)


def _accounts(ledger: _Locked, names: set[str]) -> dict[str, _Held]:
    """The accounts by name; the ledger's lock makes it safe to add the missing ones."""
    wanted = (
        f"SELECT name, id, balance FROM incentives_account WHERE ledger_id = %s AND name IN ({_places(len(names))})"
    )
    accounts = {name: _Held(pk, balance) for name, pk, balance in query(wanted, ledger.pk, *sorted(names))}
    missing = _create_accounts(ledger.pk, sorted(names - accounts.keys())) if len(accounts) < len(names) else []
    return accounts | {account.name: _Held(account.pk, account.balance) for account in missing}


def _create_accounts(ledger_id: int, names: Sequence[str]) -> list[Account]:
    return Account.objects.bulk_create(
        Account(ledger_id=ledger_id, name=name, client=models.client_number(name)) for name in names
    )


def _refuse_overdraft(ledger: _Locked, accounts: Mapping[str, _Held], changes: Mapping[str, int]) -> None:
    for name, change in sorted(changes.items()):
        balance = accounts[name].balance
        if name == MINT and balance + change < -MAX_SUPPLY:
            raise SupplyExhausted(f"{ledger.name}: {-change} micro-tokens more would pass the supply of {MAX_SUPPLY}")
        if name != MINT and balance + change < 0:
            raise InsufficientBalance(f"{ledger.name}: {name} holds {balance} micro-tokens and cannot give {-change}")


def _record(ledger: _Locked, content: Content, reverses: Transaction | None) -> Transaction:
    sequence, recorded_at = ledger.length + 1, timezone.now()
    row: dict[str, Any] = {
        "ledger_id": ledger.pk,
        "sequence": sequence,
        "key": content.key,
        "content_sha256": content.sha256(),
        "description": content.description,
        "memo": dict(content.memo),
        "previous_hash": ledger.head,
        "hash": chain_hash(ledger.head, content, sequence),
        "reverses_id": reverses and reverses.pk,
        "recorded_at": recorded_at,
    }
    stored = row | {
        "memo": json.dumps(row["memo"]),
        "recorded_at": connection.ops.adapt_datetimefield_value(recorded_at),
    }
    insert = f"INSERT INTO incentives_transaction ({', '.join(row)}) VALUES {_places(1, len(row))} RETURNING id"
    [(pk,)] = query(insert, *stored.values())
    return Transaction.from_db(connection.alias, ["id", *row], [pk, *row.values()])


def _record_transfers(posted: Transaction, content: Content, accounts: Mapping[str, _Held]) -> None:
    columns = ("transaction_id", "position", "debit_account_id", "credit_account_id", "amount", "code")
    rows = [
        (posted.pk, position, accounts[entry.debit].pk, accounts[entry.credit].pk, entry.amount, entry.code)
        for position, entry in enumerate(content.transfers, start=1)
    ]
    for batch in (rows[start : start + ROWS] for start in range(0, len(rows), ROWS)):
        insert = f"INSERT INTO incentives_transfer ({', '.join(columns)}) VALUES {_places(len(batch), len(columns))}"
        query(insert, *chain.from_iterable(batch))


def _move(accounts: Mapping[str, _Held], changes: Mapping[str, int]) -> None:
    """All balances in one statement."""
    rows = ", ".join(f"({accounts[name].pk:d}, {change:d})" for name, change in changes.items())
    query(
        f"WITH change (account_id, amount) AS (VALUES {rows}) "
        "UPDATE incentives_account SET balance = balance + change.amount "
        "FROM change WHERE incentives_account.id = change.account_id"
    )


def _check(content: Content) -> None:
    """InvalidTransaction for what is malformed, before anything is locked."""
    _check_text("key", content.key, 200)
    if not content.key:
        raise InvalidTransaction("key: must not be empty")
    _check_text("description", content.description, 500)
    for name, value in content.memo.items():
        _check_memo(name, value)
    if not 1 <= len(content.transfers) <= MAX_TRANSFERS:
        raise InvalidTransaction(f"transfers: from 1 to {MAX_TRANSFERS}, not {len(content.transfers)}")
    for position, entry in enumerate(content.transfers, start=1):
        _check_entry(position, entry)


def is_account_name(name: object) -> bool:
    """mint, treasury, client:3 and the like; numbers as the database's integers hold them."""
    match = ACCOUNT_NAME.fullmatch(name) if isinstance(name, str) else None
    return match is not None and int(match[1] or 0) < 2**63


def _check_text(name: str, value: object, longest: int) -> None:
    if not isinstance(value, str) or len(value) > longest:
        raise InvalidTransaction(f"{name}: a text of at most {longest} characters")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
        raise InvalidTransaction(f"{name}: one line without control characters")


def _check_memo(name: object, value: object) -> None:
    if not isinstance(name, str) or not MEMO_NAME.fullmatch(name):
        raise InvalidTransaction(f"memo: {name!r} is not a name of a-z, 0-9 and _")
    if type(value) is int:
        if abs(value) > MAX_SUPPLY:
            raise InvalidTransaction(f"memo.{name}: JSON does not count beyond {MAX_SUPPLY}")
    else:
        _check_text(f"memo.{name}", value, 1000)


def _check_entry(position: int, entry: Entry) -> None:
    for side, name in (("debit", entry.debit), ("credit", entry.credit)):
        if not is_account_name(name):
            raise InvalidTransaction(f"transfer {position}: {side} {name!r} is not an account name like client:3")
    if entry.debit == entry.credit:
        raise InvalidTransaction(f"transfer {position}: debit and credit are both {entry.debit}")
    if type(entry.amount) is not int or not 1 <= entry.amount <= MAX_SUPPLY:
        raise InvalidTransaction(
            f"transfer {position}: amount {entry.amount!r} is not a whole number from 1 to {MAX_SUPPLY}"
        )
    if not isinstance(entry.code, str) or not CODE.fullmatch(entry.code):
        raise InvalidTransaction(f"transfer {position}: code {entry.code!r} is not a word of a-z, 0-9 and _")
