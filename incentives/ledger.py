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
from incentives.rewards import MAX_TRANSFERS
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
    "stake_account",
    "verify",
]

ROWS = 5_000  # of transfers in a statement, six parameters each
LEDGER_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
ACCOUNT_NAME = re.compile(r"[a-z]{1,32}(?::([1-9][0-9]{0,18}))?")
CODE = re.compile(r"[a-z][a-z0-9_]{0,31}")
MEMO_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
REVERSAL = "reverse:"  # keys of reversals; nobody else's


def client_account(number: int) -> str:
    return f"client:{number}"


def stake_account(number: int) -> str:
    return f"stake:{number}"


def open_ledger(name: str, *, is_shadow: bool = False) -> Ledger:
    """The ledger of this name with its mint and treasury, made if it is not there. A shadow's pays nobody."""
    if not LEDGER_NAME.fullmatch(name):
        raise InvalidTransaction(f"ledger name {name!r}: at most 64 of a-z, 0-9 and inner hyphens")
    with transaction.atomic():
        ledger, is_new = Ledger.objects.get_or_create(name=name, defaults={"head": GENESIS, "is_shadow": is_shadow})
        if is_new:
            _create_accounts([(ledger.pk, MINT), (ledger.pk, TREASURY)])
    return ledger


def ensure_accounts(ledger: Ledger, clients: Iterable[int]) -> None:
    """An account for each client number, before it has ever been paid."""
    with transaction.atomic():
        _locked([ledger.pk])
        _accounts({ledger.pk: {client_account(client) for client in clients}})


class Posting(NamedTuple):
    """A transaction to be, and the ledger that it is for."""

    ledger_id: int
    key: str
    transfers: Sequence[Entry]
    description: str
    memo: Mapping[str, int | str]


def post(
    ledger_id: int,
    *,
    key: str,
    transfers: Sequence[Entry],
    description: str = "",
    memo: Mapping[str, int | str] | None = None,
) -> Transaction:
    """Append one transaction; see `post_together`."""
    return post_together([Posting(ledger_id, key, transfers, description, memo or {})])[0]


def post_together(postings: Sequence[Posting]) -> list[Transaction]:
    """Append one transaction to each of some ledgers, all of them or none. Accounts that are missing are made.

    A key that is known already posts nothing and returns its transaction; KeyConflict if the content differs.
    Balances are looked at when all transfers are done: InsufficientBalance, or SupplyExhausted for the mint.
    InvalidTransaction names what is malformed. Costs a handful of queries, whatever the number of ledgers and
    transfers.
    """
    wanted: dict[int, Content] = {}
    for posting in postings:
        content = Content(
            key=posting.key,
            transfers=tuple(posting.transfers),
            description=posting.description,
            memo=posting.memo,
        )
        _check(content)
        if posting.key.startswith(REVERSAL):
            raise InvalidTransaction(f"key {posting.key!r}: {REVERSAL} belongs to reversals")
        if posting.ledger_id in wanted:
            raise InvalidTransaction("two transactions for one ledger cannot be posted together")
        wanted[posting.ledger_id] = content
    posted = _append(wanted)
    return [posted[posting.ledger_id] for posting in postings]


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
    if not content.transfers:
        raise InvalidTransaction(f"{original} of {original.ledger} moved nothing")
    _check(content)
    try:
        return _append({original.ledger_id: content}, reverses=original)[original.ledger_id]
    except KeyConflict:
        raise AlreadyReversed(f"{original} of {original.ledger} is reversed already") from None


@transaction.atomic
def _append(wanted: Mapping[int, Content], reverses: Transaction | None = None) -> dict[int, Transaction]:
    """By ledger, what is posted now or was before."""
    ledgers = _locked(wanted)
    posted = _known(ledgers, wanted)
    new = {ledger: content for ledger, content in wanted.items() if ledger not in posted}
    if not new:
        return posted
    changes = {ledger: _changes(content.transfers) for ledger, content in new.items()}
    accounts = _accounts({ledger: set(of_ledger) for ledger, of_ledger in changes.items()})
    for ledger, of_ledger in changes.items():
        _refuse_overdraft(ledgers[ledger].name, accounts[ledger], of_ledger)
    recorded = _record(ledgers, new, reverses)
    rows = [
        (recorded[ledger].pk, position, of_ledger[entry.debit].pk, of_ledger[entry.credit].pk, entry.amount, entry.code)
        for ledger, content in new.items()
        for of_ledger in [accounts[ledger]]
        for position, entry in enumerate(content.transfers, start=1)
    ]
    columns = ("transaction_id", "position", "debit_account_id", "credit_account_id", "amount", "code")
    for batch in (rows[start : start + ROWS] for start in range(0, len(rows), ROWS)):
        insert = f"INSERT INTO incentives_transfer ({', '.join(columns)}) VALUES {_places(len(batch), len(columns))}"
        query(insert, *chain.from_iterable(batch))
    moves = [
        (accounts[ledger][name].pk, change)
        for ledger, of_ledger in changes.items()
        for name, change in of_ledger.items()
    ]
    if moves:
        values = ", ".join(f"({account:d}, {change:d})" for account, change in moves)
        query(
            f"WITH change (account_id, amount) AS (VALUES {values}) "
            "UPDATE incentives_account SET balance = balance + change.amount "
            "FROM change WHERE incentives_account.id = change.account_id"
        )
    # Last, since a transaction counts as posted from when its ledger is as long: see incentives.triggers.
    ends = ", ".join(f"({ledger:d}, '{each.hash}', {each.sequence:d})" for ledger, each in recorded.items())
    query(
        f"WITH ends (ledger_id, head, length) AS (VALUES {ends}) "
        "UPDATE incentives_ledger SET head = ends.head, length = ends.length "
        "FROM ends WHERE incentives_ledger.id = ends.ledger_id"
    )
    return posted | recorded


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


def _locked(ledger_ids: Iterable[int]) -> dict[int, _Locked]:
    """In the order of their rows, so that two who want the same ones do not wait for each other for ever."""
    wanted = sorted(ledger_ids)
    lock = " FOR UPDATE" if connection.features.has_select_for_update else ""
    rows = query(
        f"SELECT id, name, head, length FROM incentives_ledger WHERE id IN ({_places(len(wanted))}) ORDER BY id{lock}",
        *wanted,
    )
    if len(rows) < len(wanted):
        there = {row[0] for row in rows}
        missing = next(ledger for ledger in wanted if ledger not in there)
        raise Ledger.DoesNotExist(f"There is no ledger {missing}")
    return {row[0]: _Locked(*row) for row in rows}


def _known(ledgers: Mapping[int, _Locked], wanted: Mapping[int, Content]) -> dict[int, Transaction]:
    """By ledger, the transaction that has the key already. KeyConflict where it has other content.

    After the lock, in a statement of its own: only so PostgreSQL shows what was committed while we waited.
    """
    pairs = [(ledger, content.key) for ledger, content in wanted.items()]
    found = query(
        "SELECT id FROM incentives_transaction WHERE " + " OR ".join(["(ledger_id = %s AND key = %s)"] * len(pairs)),
        *chain.from_iterable(pairs),
    )
    known = (
        {each.ledger_id: each for each in Transaction.objects.filter(pk__in=[pk for (pk,) in found])} if found else {}
    )
    for ledger, each in known.items():
        if each.content_sha256 != wanted[ledger].sha256():
            taken = f"key {each.key!r} is taken by transaction {each.sequence}, with other content"
            raise KeyConflict(f"{ledgers[ledger].name}: {taken}")
    return known


def _changes(transfers: Sequence[Entry]) -> dict[str, int]:
    """What each account gains, in micro-tokens."""
    changes: Counter[str] = Counter()
    for entry in transfers:
        changes[entry.debit] -= entry.amount
        changes[entry.credit] += entry.amount
    return dict(changes)


def _accounts(names: Mapping[int, set[str]]) -> dict[int, dict[str, _Held]]:
    """The accounts of each ledger by name; the ledgers' locks make it safe to add the missing ones."""
    found: dict[int, dict[str, _Held]] = {ledger: {} for ledger in names}
    every = sorted(set().union(*names.values()))
    if every:
        wanted = (
            "SELECT ledger_id, name, id, balance FROM incentives_account "
            f"WHERE ledger_id IN ({_places(len(names))}) AND name IN ({_places(len(every))})"
        )
        for ledger, name, pk, balance in query(wanted, *names, *every):
            found[ledger][name] = _Held(pk, balance)
    missing = [(ledger, name) for ledger in names for name in sorted(names[ledger] - found[ledger].keys())]
    for account in _create_accounts(missing):
        found[account.ledger_id][account.name] = _Held(account.pk, account.balance)
    return found


def _create_accounts(names: Sequence[tuple[int, str]]) -> list[Account]:
    """Each of a ledger."""
    return Account.objects.bulk_create(
        Account(ledger_id=ledger, name=name, client=models.client_number(name)) for ledger, name in names
    )


def _refuse_overdraft(ledger: str, accounts: Mapping[str, _Held], changes: Mapping[str, int]) -> None:
    for name, change in sorted(changes.items()):
        balance = accounts[name].balance
        if name == MINT and balance + change < -MAX_SUPPLY:
            raise SupplyExhausted(f"{ledger}: {-change} micro-tokens more would pass the supply of {MAX_SUPPLY}")
        if name != MINT and balance + change < 0:
            raise InsufficientBalance(f"{ledger}: {name} holds {balance} micro-tokens and cannot give {-change}")


def _record(
    ledgers: Mapping[int, _Locked], contents: Mapping[int, Content], reverses: Transaction | None
) -> dict[int, Transaction]:
    """The transactions without their transfers, by ledger."""
    recorded_at, rows = timezone.now(), []
    for ledger_id, content in contents.items():
        ledger = ledgers[ledger_id]
        row: dict[str, Any] = {
            "ledger_id": ledger.pk,
            "sequence": ledger.length + 1,
            "key": content.key,
            "content_sha256": content.sha256(),
            "description": content.description,
            "memo": dict(content.memo),
            "previous_hash": ledger.head,
            "hash": chain_hash(ledger.head, content, ledger.length + 1),
            "reverses_id": reverses and reverses.pk,
            "recorded_at": recorded_at,
        }
        rows.append(row)
    stored_at = connection.ops.adapt_datetimefield_value(recorded_at)
    stored = [{**row, "memo": json.dumps(row["memo"]), "recorded_at": stored_at}.values() for row in rows]
    insert = (
        f"INSERT INTO incentives_transaction ({', '.join(rows[0])}) VALUES {_places(len(rows), len(rows[0]))} "
        "RETURNING id, ledger_id"
    )
    numbers = {ledger: pk for pk, ledger in query(insert, *chain.from_iterable(stored))}
    return {
        row["ledger_id"]: Transaction.from_db(
            connection.alias, ["id", *row], [numbers[row["ledger_id"]], *row.values()]
        )
        for row in rows
    }


def _check(content: Content) -> None:
    """InvalidTransaction for what is malformed, before anything is locked."""
    _check_text("key", content.key, 200)
    if not content.key:
        raise InvalidTransaction("key: must not be empty")
    _check_text("description", content.description, 500)
    for name, value in content.memo.items():
        _check_memo(name, value)
    if len(content.transfers) > MAX_TRANSFERS:
        raise InvalidTransaction(f"transfers: at most {MAX_TRANSFERS}, not {len(content.transfers)}")
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
