"""Ledgers are verified in the background, by one of all workers at a time, so that no request waits for it.

A look reads what was posted since the one before; once a day it reads each ledger from its beginning. Most of the time
it rests: the thread shares its processor with whoever serves pages or runs simulations.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator

from django.db import close_old_connections
from django.db.models import Exists, OuterRef, Q

from incentives import verified
from incentives.models import Ledger
from simulations.database import SILENCE
from simulations.models import Duty, Simulation
from simulations.running import lifecycle

log = logging.getLogger(__name__)
LOOK_SECONDS = 2.0
REST = 4  # times as long as it has worked
LEASE_SECONDS = 30.0
DUTY = "verify ledgers"


class Stopped(Exception):
    """The process ends, or another one verifies."""


def noted(ledger: Ledger) -> tuple[str, int] | None:
    """The copy of a chain's head and length in its simulation's row; whoever posts writes both at once."""
    return Simulation.objects.filter(ledger=ledger).values_list("ledger_head", "ledger_length").first()


def unlike() -> Exists:
    """Holds for a ledger that does not end as its simulation's row says."""
    mine = Simulation.objects.filter(ledger=OuterRef("pk"))
    return Exists(mine.exclude(ledger_head=OuterRef("head"), ledger_length=OuterRef("length")))


@contextlib.contextmanager
def in_background() -> Iterator[None]:
    """Look until the block ends."""
    stopping = threading.Event()
    threading.Thread(target=keep_looking, args=[stopping], name="verifier", daemon=True).start()
    try:
        yield
    finally:
        stopping.set()


def keep_looking(stopping: threading.Event) -> None:
    while not stopping.wait(LOOK_SECONDS):
        try:
            look(stopping.wait)
        except (Stopped, *SILENCE):
            pass  # of a database that does not answer whoever looks at the queue tells
        except Exception:
            log.exception("The ledgers could not be verified; looking again")
        finally:
            close_old_connections()


def look(wait: Callable[[float], bool] = lambda seconds: False) -> int:
    """Verify what is to be verified, unless another process does. How many ledgers it were. An idle look is one query.

    `wait` rests for so many seconds; True tells it to stop.
    """
    ledgers = verified.due(unlike(), lifecycle.now())
    if not ledgers or not take():
        return 0
    try:
        pause = rest(wait)
        for ledger, full in ledgers:
            found = verified.look(ledger, noted, full=full, pause=pause)
            if found.problem:
                log.error("A ledger is not what was posted: %s", found.problem)
            pause()
    finally:
        Duty.objects.filter(name=DUTY, owner=owner).update(lease_expires_at=None)
    return len(ledgers)


def rest(wait: Callable[[float], bool]) -> Callable[[], None]:
    """What is called between pieces of the work: it rests, and renews the lease. Raises Stopped."""
    worked_from = renewed = time.monotonic()

    def pause() -> None:
        nonlocal worked_from, renewed
        if wait(REST * (time.monotonic() - worked_from)):
            raise Stopped
        worked_from = time.monotonic()
        if worked_from - renewed > LEASE_SECONDS / 3:
            renewed = worked_from
            if not take():
                raise Stopped

    return pause


owner = lifecycle.new_owner()


def take() -> bool:
    """Whether the duty is ours now, for another LEASE_SECONDS: one conditional UPDATE."""
    expired = Q(lease_expires_at__isnull=True) | Q(lease_expires_at__lt=lifecycle.clock())
    set_back = Q(lease_expires_at__gt=lifecycle.clock(2 * LEASE_SECONDS))  # the clock was, since it was taken
    free = Duty.objects.filter(Q(owner=owner) | expired | set_back, name=DUTY)
    values = {"owner": owner, "lease_expires_at": lifecycle.clock(LEASE_SECONDS)}
    if free.update(**values):
        return True
    made = Duty.objects.get_or_create(name=DUTY, defaults=values)[1]
    return made
