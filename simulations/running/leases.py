"""The clock that all workers of a database share, and how long a lease on something lasts that one of them does."""

import uuid
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection
from django.db.models.functions import Now
from django.utils import timezone

from simulations import processes

MOST_LOST = 3  # leases in a row that end without a word, before what was held is given up


class Conflict(Exception):
    """The status of what is to be changed forbids it; the text is a plain sentence."""


def now() -> datetime:
    """The clock that all workers of a database share: its own, or on SQLite this machine's. Where it jumps, a lease
    ends too soon, which costs time and nothing else: the fence decides who writes."""
    if connection.vendor != "postgresql":
        return timezone.now()
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        at: datetime = cursor.fetchone()[0]
        return at


def clock(seconds: float = 0) -> Any:
    """The same, so many seconds from now, as a part of a statement: no query of its own."""
    later = timedelta(seconds=seconds)
    return Now() + later if connection.vendor == "postgresql" else now() + later


def clock_in_sql(seconds: float) -> str:
    if connection.vendor == "postgresql":
        return f"statement_timestamp() + interval '{seconds} seconds'"
    return f"'{connection.ops.adapt_datetimefield_value(clock(seconds))}'"


def new_claimant() -> str:
    """This process, and this claim of it: a name that no other claim has."""
    return f"{processes.name()}:{uuid.uuid4().hex}"


def lease_end() -> Any:
    return clock(settings.FEDSITE_LEASE_SECONDS)


def impossible_seconds() -> float:
    """No lease lasts as long as this, unless the clock was set back since it was taken."""
    lease: float = settings.FEDSITE_LEASE_SECONDS
    return 60 + 2 * lease


def heartbeat_seconds() -> float:
    """Between two renewals: three fit into a lease."""
    lease: float = settings.FEDSITE_LEASE_SECONDS
    return lease / 3
