"""What is known of the chains: written by whoever verifies, read by badge, pages and JSON, which never verify."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, F, FloatField, Max, Min, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Cast, Coalesce
from django.utils import timezone

from incentives.models import Account, Ledger, Transfer, Verified
from incentives.verification import Derived, Noted, Point, Verification, nothing, nothing_said, verify

FULL_SECONDS = 24 * 3600  # everything is read again at least so often
DOUBTFUL_SECONDS = 2 * FULL_SECONDS  # what was not read for so long is not called verified


def look(
    ledger: Ledger, noted: Noted, derived: Derived = nothing_said, *, full: bool, pause: Callable[[], None] = nothing
) -> Verification:
    """Verify a ledger, all of it or what came since the last time, and write down what was found.

    The first look reads everything, and so does each one at a ledger that is wrong.
    """
    known = Verified.objects.filter(ledger=ledger).first()
    found = verify(
        ledger,
        noted,
        derived,
        known=known and Point(**{name: getattr(known, name) for name in Point.__dataclass_fields__}),
        full=full or known is None or bool(known.problem),
        pause=pause,
    )
    _write(ledger, known, found)
    return found


def _write(ledger: Ledger, known: Verified | None, found: Verification) -> None:
    """The last good point stays where something is wrong, or a cut chain would soon be a good one."""
    at = timezone.now()
    values: dict[str, Any] = {"problem": found.problem or "", "at": at}
    if found.is_complete:
        values["complete_at"] = at
    if found.ok or known is None:
        point = found.point if found.ok else Point()
        values |= {name: getattr(point, name) for name in Point.__dataclass_fields__}
    rows = Verified.objects.filter(ledger=ledger)
    if not found.is_complete:
        rows.filter(problem="").update(**values)  # whoever read everything meanwhile knows better
    elif not rows.update(**values):
        Verified.objects.bulk_create([Verified(ledger=ledger, **values)], ignore_conflicts=True)


def due(unlike: Any, at: datetime, most: int = 100) -> list[tuple[Ledger, bool]]:
    """Ledgers to be looked at and whether in full, those first that have moved. One query.

    `unlike`: a condition that holds for a ledger that does not end as somebody else has noted.
    """
    moved = Q(verified__problem="") & (~Q(verified__hash=F("head"), verified__sequence=F("length")) | Q(unlike))
    stale = Q(verified__complete_at__lt=at - timedelta(seconds=FULL_SECONDS))
    rows = Ledger.objects.filter(Q(verified__isnull=True) | moved | stale).select_related("verified")
    rows = rows.order_by(F("verified__complete_at").desc(nulls_first=True), "pk")[:most]
    return [(row, is_stale(row, at)) for row in rows]


def doubt(ledger_id: int | None) -> None:
    """Somebody found what does not follow: the ledger is due to be read again in full, and no longer called verified
    until it was. What is known to be wrong stays so."""
    at = timezone.now() - timedelta(seconds=DOUBTFUL_SECONDS)
    Verified.objects.filter(ledger=ledger_id, problem="", complete_at__gt=at).update(complete_at=at)


def is_doubtful(known: Verified) -> bool:
    """Whether a ledger was not read in full for long, or is to be since somebody found a difference."""
    return known.complete_at <= timezone.now() - timedelta(seconds=DOUBTFUL_SECONDS)


def changed() -> list[Ledger]:
    """Ledgers that were well, and now have more or fewer transfers up to where they were verified, or balances that do
    not sum to zero: a cheap look at rows that were read before, which leaves all else to whoever reads them again.
    One query, which counts every transfer in an index."""
    there = Transfer.objects.filter(
        transaction__ledger=OuterRef("pk"), transaction__sequence__lte=OuterRef("verified__sequence")
    )
    held = Account.objects.filter(ledger=OuterRef("pk"))
    # Exact: no partial sum of a ledger that is right needs more than a float's 53 bits. And nothing overflows.
    total = Sum(Cast("balance", FloatField()))
    rows = Ledger.objects.filter(verified__problem="").alias(
        there=Coalesce(
            Subquery(there.order_by().values("transaction__ledger").annotate(count=Count("pk")).values("count")), 0
        ),
        held=Coalesce(Subquery(held.order_by().values("ledger").annotate(total=total).values("total")), 0.0),
    )
    return list(rows.exclude(there=F("verified__transfers"), held=0.0).order_by("pk"))


def is_stale(ledger: Ledger, at: datetime) -> bool:
    verified = getattr(ledger, "verified", None)
    return verified is None or verified.complete_at < at - timedelta(seconds=FULL_SECONDS)


@dataclass(frozen=True, kw_only=True)
class State:
    """Of some ledgers together, as the last looks left it."""

    ledgers: int
    transactions: int  # that were verified
    transfers: int
    waiting: int  # transactions that were posted since
    wrong_ledgers: int
    problem: str  # of the oldest ledger that has one: ledger, transaction, what is wrong
    since: datetime | None  # every ledger was read from its beginning then or later
    looked_at: datetime | None  # newest look

    @property
    def place(self) -> str:
        """Ledger and transaction of the problem; the problem's text begins with them."""
        return self.problem.partition(":")[0]

    @property
    def since_seconds(self) -> float | None:
        return self.since and (timezone.now() - self.since).total_seconds()

    @property
    def is_doubtful(self) -> bool:
        """Whether some ledger was not read in full for long, or is to be since somebody found a difference."""
        return (self.since_seconds or 0.0) >= DOUBTFUL_SECONDS

    @property
    def looked_seconds(self) -> float | None:
        return self.looked_at and (timezone.now() - self.looked_at).total_seconds()


def state(ledgers: QuerySet[Ledger]) -> State:
    """One query, however many ledgers there are, and one more where something is wrong."""
    wrong = Q(verified__problem__gt="")
    found = ledgers.aggregate(
        ledgers=Count("pk"),
        transactions=Sum("verified__sequence", default=0),
        transfers=Sum("verified__transfers", default=0),
        waiting=Sum(F("length") - Coalesce("verified__sequence", 0), filter=~wrong, default=0),
        wrong_ledgers=Count("pk", filter=wrong),
        since=Min("verified__complete_at"),
        looked_at=Max("verified__at"),
    )
    first = ledgers.filter(wrong).order_by("pk").values_list("verified__problem", flat=True)
    return State(**found, problem=(first.first() or "") if found["wrong_ledgers"] else "")
