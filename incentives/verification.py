"""Whether a ledger is what was posted: every hash, number and balance derived again.

One function for the badge, the JSON, the pages and the command. Where a chain ends is noted elsewhere too, and what it
pays follows from rows that this room does not know; whoever composes the site passes what reads them.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple

from django.db.models import Max, Subquery
from django.db.models.functions import Coalesce

from incentives.chain import GENESIS, Content, Entry, chain_hash
from incentives.models import MINT, Ledger, Transaction, Transfer, client_number

_Row = tuple[int, int, int, int, str]  # position, debit account's row, credit account's row, amount, code
Noted = Callable[[Ledger], tuple[str, int] | None]  # head and length of a ledger as somebody else wrote them down


class Posted(NamedTuple):
    """A transaction that is as it was posted."""

    sequence: int
    key: str
    memo: Mapping[str, Any]
    transfers: Sequence[Entry]
    is_reversal: bool


# Of some transactions, each once and in their order, what does not follow from the rows that they rest on: their
# sequence numbers with what is wrong. Called once more with None where a ledger was read from its first transaction to
# its end: what is wrong with sums over them, with the sequence number 0.
Derived = Callable[[Ledger, Sequence[Posted] | None], Iterator[tuple[int, str]]]

CHUNK = 64  # transactions read at a time; memory depends on it and on the number of accounts, not on the length


def nowhere(ledger: Ledger) -> tuple[str, int] | None:
    """For a ledger whose end nobody else has noted."""
    return None


def nothing_said(ledger: Ledger, posted: Sequence[Posted] | None) -> Iterator[tuple[int, str]]:
    """For a ledger that rests on no rows."""
    return iter(())


def nothing() -> None:
    """For whoever reads a chain at one go."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """Where a verification ended well, for the next one to go on from."""

    sequence: int = 0
    hash: str = GENESIS
    transfers: int = 0
    balances_sha256: str = hashlib.sha256().hexdigest()  # of who held what


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was found. `head` is the chain hash as derived, up to the problem if there is one."""

    ledger: str
    ok: bool
    transactions: int  # that are known without a problem, those before the point included
    transfers: int
    head: str
    problem: str | None  # ledger, sequence number, what is wrong
    read: int  # transactions that were read now
    is_complete: bool  # from the first one
    balances_sha256: str

    @property
    def point(self) -> Point:
        return Point(
            sequence=self.transactions,
            hash=self.head,
            transfers=self.transfers,
            balances_sha256=self.balances_sha256,
        )


@dataclass(kw_only=True)
class _Walk:
    """Where the derivation stands."""

    began: Point
    head: str
    transactions: int
    transfers: int
    balances: dict[int, int] = field(default_factory=lambda: defaultdict(int))  # account row -> micro-tokens since then
    balances_sha256: str = ""  # at its end


@dataclass(frozen=True, kw_only=True)
class _State:
    """What the ledger says of itself, read in one statement: one moment, though somebody may be posting."""

    ledger_id: int
    head: str
    length: int
    newest: int  # highest sequence among its transactions
    accounts: dict[int, tuple[str, int | None, int]]  # row -> name, client, balance


def verify(
    ledger: Ledger,
    noted: Noted = nowhere,
    derived: Derived = nothing_said,
    *,
    known: Point | None = None,
    full: bool = True,
    pause: Callable[[], None] = nothing,
) -> Verification:
    """Derive the ledger again and compare. Streams; memory grows with the accounts only.

    `noted` tells the head and length that somebody else keeps. The chain must pass through it, so a tail that was cut
    is seen even where the ledger's own row was doctored too; and whoever posts writes it in the same transaction, so
    nothing may lie beyond it. `known` is where an earlier verification ended: the chain must pass through it as well.
    Without `full` only what lies beyond it is read; where that does not fit, everything is, to name what is wrong
    first. `derived` compares what was posted with the rows that it rests on. `pause` is called between pieces of the
    work; what it raises ends it. Transactions that are posted while we read are left out.
    """
    if not full and known:
        found = _verified(ledger, noted, derived, known, known, pause)
        if found.ok:
            return found
    return _verified(ledger, noted, derived, Point(), known, pause)


def _verified(
    ledger: Ledger, noted: Noted, derived: Derived, began: Point, known: Point | None, pause: Callable[[], None]
) -> Verification:
    expected = noted(ledger)
    places = [expected] if expected else []
    if known:
        places.append((known.hash, known.sequence))
    walk = _Walk(began=began, head=began.hash, transactions=began.sequence, transfers=began.transfers)
    problem = next(_problems(ledger, walk, places, derived, pause), None)
    if problem is None and (now := noted(ledger)) and now[1] < walk.transactions:  # read again: it may have grown
        problem = f"transaction {now[1] + 1}: its simulation's row ends with transaction {now[1]}"
    return Verification(
        ledger=ledger.name,
        ok=problem is None,
        transactions=walk.transactions,
        transfers=walk.transfers,
        head=walk.head,
        problem=problem and f"{ledger.name}, {problem}",
        read=walk.transactions - began.sequence,
        is_complete=began.sequence == 0,
        balances_sha256=walk.balances_sha256,
    )


def _problems(
    ledger: Ledger, walk: _Walk, places: list[tuple[str, int]], derived: Derived, pause: Callable[[], None]
) -> Iterator[str]:
    """What is wrong, first things first. Each begins with the place."""
    state = _read_state(ledger)
    if state.newest < walk.began.sequence:
        yield f"transaction {state.newest + 1}: missing; {walk.began.sequence} were verified before"
    yield from _elsewhere(walk, places)
    for chunk in _history(ledger, walk.transactions, state.newest):
        posted = []
        for row, transfers in chunk:
            yield from _wrong_transaction(row, transfers, walk, state)
            yield from _elsewhere(walk, places)
            entries = _content(row, transfers, state).transfers
            is_reversal = row["reverses_id"] is not None
            posted.append(Posted(row["sequence"], row["key"], row["memo"], entries, is_reversal))
        for sequence, text in derived(ledger, posted):
            yield f"transaction {sequence}: {text}"
        pause()
    yield from _wrong_end(walk, state, places)
    yield from _wrong_balances(walk, state)
    if walk.began.sequence == 0:
        for _, text in derived(ledger, None):
            yield f"after transaction {walk.transactions}: {text}"


def _elsewhere(walk: _Walk, places: list[tuple[str, int]]) -> Iterator[str]:
    for head, length in places:
        if length == walk.transactions and head != walk.head:
            yield f"transaction {length}: its hash is not the head noted elsewhere"


def _read_state(ledger: Ledger) -> _State:
    newest = Transaction.objects.filter(ledger_id=ledger.pk).values("ledger").annotate(newest=Max("sequence"))
    rows = list(
        Ledger.objects.filter(pk=ledger.pk)
        .order_by("accounts__id")  # or what is named first would be up to the database
        .values_list(
            *("head", "length", Coalesce(Subquery(newest.values("newest")), 0)),
            *("accounts__id", "accounts__name", "accounts__client", "accounts__balance"),
        )
    )
    accounts = {id: (name, client, balance) for _, _, _, id, name, client, balance in rows if id is not None}
    head, length, newest_sequence = rows[0][:3]
    return _State(ledger_id=ledger.pk, head=head, length=length, newest=newest_sequence, accounts=accounts)


def _history(ledger: Ledger, last: int, newest: int) -> Iterator[list[tuple[dict[str, Any], list[_Row]]]]:
    """The ledger's transactions after `last`, by sequence, in pieces, each with its transfers by position."""
    names = ("id", "sequence", "key", "description", "memo", "content_sha256", "previous_hash", "hash")
    rows = Transaction.objects.filter(ledger_id=ledger.pk).order_by("sequence")
    rows = rows.values(*names, "reverses_id", "reverses__sequence", "reverses__ledger_id")
    last = last or -1  # from the first one on whatever has a number is read
    while chunk := list(rows.filter(sequence__gt=last, sequence__lte=newest)[:CHUNK]):
        transfers = _transfers([row["id"] for row in chunk])
        yield [(row, transfers.get(row["id"], [])) for row in chunk]
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


def _wrong_end(walk: _Walk, state: _State, places: list[tuple[str, int]]) -> Iterator[str]:
    """A tail that was cut or put on, a doctored row of the ledger."""
    found = walk.transactions
    if state.length > found:
        yield f"transaction {found + 1}: missing; the ledger counts {state.length}"
    if state.length < found:
        yield f"transaction {state.length + 1}: one too many; the ledger counts {state.length}"
    if state.head != walk.head:
        yield f"transaction {found}: its hash is not the ledger's head"
    for _, length in places:
        if length > found:
            yield f"transaction {found + 1}: missing; {length} were noted elsewhere"


def _wrong_balances(walk: _Walk, state: _State) -> Iterator[str]:
    place = f"after transaction {walk.transactions}"
    for row, (name, client, balance) in state.accounts.items():
        if type(balance) is not int:
            yield f"{place}: {name} holds {balance!r}, which is not an integer"
        if walk.began.sequence == 0 and balance != walk.balances[row]:
            yield f"{place}: {name} holds {balance} micro-tokens, its transfers make {walk.balances[row]}"
        if balance < 0 and name != MINT:
            yield f"{place}: {name} holds less than nothing"
        if client != client_number(name):
            yield f"{place}: {name} says it is of client {client}"
    before = {name: balance - walk.balances[row] for row, (name, _, balance) in state.accounts.items()}
    if walk.began.balances_sha256 != balances_sha256(before):
        yield f"{place}: the balances are not those of transaction {walk.began.sequence} with what came after it"
    total = sum(balance for _, _, balance in state.accounts.values())
    if total:
        yield f"{place}: the balances sum to {total}, not to zero"
    walk.balances_sha256 = balances_sha256({name: balance for name, _, balance in state.accounts.values()})


def balances_sha256(balances: Mapping[str, int]) -> str:
    """Of a line for each account that holds something, by name: an account that was opened since changes nothing."""
    lines = sorted(f"{name} {balance}\n" for name, balance in balances.items() if balance)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
