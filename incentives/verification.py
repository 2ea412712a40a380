"""Whether a ledger is what was posted: every hash, number and balance derived again from the beginning."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from django.db.models import Max, Subquery
from django.db.models.functions import Coalesce

from incentives.chain import GENESIS, Content, Entry, chain_hash
from incentives.models import MINT, Ledger, Transaction, Transfer, client_number

_Row = tuple[int, int, int, int, str]  # position, debit account's row, credit account's row, amount, code

CHUNK = 64  # transactions read at a time; memory depends on it and on the number of accounts, not on the length


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was found. `head` is the chain hash as derived, up to the problem if there is one."""

    ledger: str
    ok: bool
    transactions: int  # that were derived without a problem
    transfers: int
    head: str
    problem: str | None  # ledger, sequence number, what is wrong


@dataclass(kw_only=True)
class _Walk:
    """Where the derivation stands."""

    head: str = GENESIS
    transactions: int = 0
    transfers: int = 0
    balances: dict[int, int] = field(default_factory=lambda: defaultdict(int))  # account row -> micro-tokens


@dataclass(frozen=True, kw_only=True)
class _State:
    """What the ledger says of itself, read in one statement: one moment, though somebody may be posting."""

    ledger_id: int
    head: str
    length: int
    newest: int  # highest sequence among its transactions
    accounts: dict[int, tuple[str, int | None, int]]  # row -> name, client, balance


def verify_all() -> Iterator[Verification]:
    """Every ledger, oldest first."""
    for ledger in Ledger.objects.order_by("pk"):
        yield verify(ledger)


def verify(ledger: Ledger, expected: tuple[str, int] | None = None) -> Verification:
    """Derive the ledger again and compare. Streams; memory grows with the accounts only.

    `expected` is a head and length noted elsewhere: the chain must pass through it, so a tail that was cut is
    seen even where the ledger's own row was doctored too. Transactions posted while we read are left out.
    """
    walk = _Walk()
    problem = next(_problems(ledger, walk, expected), None)
    return Verification(
        ledger=ledger.name,
        ok=problem is None,
        transactions=walk.transactions,
        transfers=walk.transfers,
        head=walk.head,
        problem=problem and f"{ledger.name}, {problem}",
    )


def _problems(ledger: Ledger, walk: _Walk, expected: tuple[str, int] | None) -> Iterator[str]:
    """What is wrong, first things first. Each begins with the place."""
    state = _read_state(ledger)
    if expected and expected[1] == 0 and expected[0] != GENESIS:
        yield "transaction 0: the noted head of the empty chain is not the genesis hash"
    for row, transfers in _history(ledger, state.newest):
        yield from _wrong_transaction(row, transfers, walk, state)
        if expected and expected[1] == walk.transactions and expected[0] != walk.head:
            yield f"transaction {walk.transactions}: its hash is not the head noted elsewhere"
    yield from _wrong_end(walk, state, expected)
    yield from _wrong_balances(walk, state)


def _read_state(ledger: Ledger) -> _State:
    newest = Transaction.objects.filter(ledger_id=ledger.pk).values("ledger").annotate(newest=Max("sequence"))
    rows = list(
        Ledger.objects.filter(pk=ledger.pk).values_list(
            *("head", "length", Coalesce(Subquery(newest.values("newest")), 0)),
            *("accounts__id", "accounts__name", "accounts__client", "accounts__balance"),
        )
    )
    accounts = {id: (name, client, balance) for _, _, _, id, name, client, balance in rows if id is not None}
    head, length, newest_sequence = rows[0][:3]
    return _State(ledger_id=ledger.pk, head=head, length=length, newest=newest_sequence, accounts=accounts)


def _history(ledger: Ledger, newest: int) -> Iterator[tuple[dict[str, Any], list[_Row]]]:
    """Each transaction of the ledger, by sequence, with its transfers by position."""
    names = ("id", "sequence", "key", "description", "memo", "content_sha256", "previous_hash", "hash")
    rows = Transaction.objects.filter(ledger_id=ledger.pk).order_by("sequence")
    rows = rows.values(*names, "reverses_id", "reverses__sequence", "reverses__ledger_id")
    last = -1
    while chunk := list(rows.filter(sequence__gt=last, sequence__lte=newest)[:CHUNK]):
        transfers = _transfers([row["id"] for row in chunk])
        for row in chunk:
            yield row, transfers.get(row["id"], [])
        last = chunk[-1]["sequence"]


def _transfers(transactions: list[int]) -> dict[int, list[_Row]]:
    names = ("transaction_id", "position", "debit_account_id", "credit_account_id", "amount", "code")
    rows = Transfer.objects.filter(transaction_id__in=transactions).order_by("transaction_id", "position", "id")
    grouped = groupby(rows.values_list(*names).iterator(), key=lambda row: row[0])
    return {transaction: [row[1:] for row in group] for transaction, group in grouped}


def _wrong_transaction(row: dict[str, Any], transfers: list[_Row], walk: _Walk, state: _State) -> Iterator[str]:
    """What is wrong with the next transaction; if nothing is, the walk has taken it in."""
    sequence = walk.transactions + 1
    place = f"transaction {sequence}"
    if row["sequence"] != sequence:
        yield f"{place}: missing; {row['sequence']} comes next"
    for wrong in _wrong_transfers(transfers, state):
        yield f"{place}, {wrong}"
    try:
        content = _content(row, transfers, state)
        content_sha256, derived = content.sha256(), chain_hash(walk.head, content, sequence)
    except ValueError as error:
        yield f"{place}: {error}"
        return
    if content_sha256 != row["content_sha256"]:
        yield f"{place}: key, description, memo or transfers are not what was posted (content hash)"
    if row["previous_hash"] != walk.head:
        yield f"{place}: it does not follow the transaction before it (previous hash)"
    if row["hash"] != derived:
        yield f"{place}: its place or its hash was changed (chain hash)"
    _take_in(transfers, walk, derived)


def _wrong_transfers(transfers: list[_Row], state: _State) -> Iterator[str]:
    if not transfers:
        yield "transfer 1: missing"
    for expected, (position, debit, credit, amount, _) in enumerate(transfers, start=1):
        if position != expected:
            yield f"transfer {expected}: missing; {position} comes next"
        for account in (debit, credit):
            if account not in state.accounts:
                yield f"transfer {expected}: account row {account} is not one of this ledger"
        if type(amount) is not int or amount < 1:
            yield f"transfer {expected}: amount {amount!r} is not a positive integer"
        if debit == credit:
            yield f"transfer {expected}: debit and credit are the same account"


def _content(row: dict[str, Any], transfers: list[_Row], state: _State) -> Content:
    """As it was posted. ValueError where it could not have been."""
    if not isinstance(row["memo"], dict):
        raise ValueError("memo: not an object")
    if row["reverses_id"] is not None and row["reverses__ledger_id"] != state.ledger_id:
        raise ValueError("reverses: not a transaction of this ledger")
    return Content(
        key=row["key"],
        description=row["description"],
        memo=row["memo"],
        reverses=row["reverses__sequence"],
        transfers=tuple(
            Entry(state.accounts[debit][0], state.accounts[credit][0], amount, code)
            for _, debit, credit, amount, code in transfers
        ),
    )


def _take_in(transfers: list[_Row], walk: _Walk, derived: str) -> None:
    walk.head = derived
    walk.transactions += 1
    walk.transfers += len(transfers)
    for _, debit, credit, amount, _ in transfers:
        walk.balances[debit] -= amount
        walk.balances[credit] += amount


def _wrong_end(walk: _Walk, state: _State, expected: tuple[str, int] | None) -> Iterator[str]:
    """A tail that was cut or put on, a doctored row of the ledger."""
    found = walk.transactions
    if state.length > found:
        yield f"transaction {found + 1}: missing; the ledger counts {state.length}"
    if state.length < found:
        yield f"transaction {state.length + 1}: one too many; the ledger counts {state.length}"
    if state.head != walk.head:
        yield f"transaction {found}: its hash is not the ledger's head"
    if expected and expected[1] > found:
        yield f"transaction {found + 1}: missing; {expected[1]} were noted elsewhere"


def _wrong_balances(walk: _Walk, state: _State) -> Iterator[str]:
    place = f"after transaction {walk.transactions}"
    for account, (name, client, balance) in state.accounts.items():
        if balance != walk.balances[account]:
            yield f"{place}: {name} holds {balance} micro-tokens, its transfers make {walk.balances[account]}"
        if balance < 0 and name != MINT:
            yield f"{place}: {name} holds less than nothing"
        if client != client_number(name):
            yield f"{place}: {name} says it is of client {client}"
    total = sum(balance for _, _, balance in state.accounts.values())
    if total:
        yield f"{place}: the balances sum to {total}, not to zero"
