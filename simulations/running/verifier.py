"""Ledgers are verified in the background, by one of all workers at a time, so that no request waits for it.

A look reads what was posted since the one before; once a day it reads each ledger from its beginning. Twice a minute
rows are counted that were read before. Most of the time it rests: the thread shares its processor with whoever serves
pages or runs simulations.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator

from django.db import close_old_connections, connection
from django.db.models import Exists, OuterRef, Q

from incentives import triggers, verified
from incentives.models import Ledger
from simulations import records
from simulations.database import SILENCE
from simulations.models import Duty, Shadow, Simulation
from simulations.running import leases

log = logging.getLogger(__name__)
LOOK_SECONDS = 2.0
REST = 4  # times as long as it has worked
LEASE_SECONDS = 30.0
DUTY = "verify ledgers"
COUNT_SECONDS = 30.0  # between two counts, or more: they may take a twentieth of the time
COUNTING = "count transfers"


class Stopped(Exception):
    """The process ends, or another one verifies."""


def noted(ledger: Ledger) -> tuple[str, int] | None:
    """The copy of a chain's head and length in its simulation's or shadow's row; whoever posts writes both at once."""
    rows = Shadow if ledger.is_shadow else Simulation
    return rows.objects.filter(ledger=ledger).values_list("ledger_head", "ledger_length").first()


def unlike() -> Q:
    """Holds for a ledger that does not end as its simulation's or shadow's row says."""
    paying, shadows = (rows.objects.filter(ledger=OuterRef("pk")) for rows in (Simulation, Shadow))
    same = {"ledger_head": OuterRef("head"), "ledger_length": OuterRef("length")}
    return Q(Exists(paying.exclude(**same))) | Exists(shadows.exclude(**same))


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
    counting_next = time.monotonic()
    while not stopping.wait(LOOK_SECONDS):
        try:
            look(stopping.wait)
            if time.monotonic() >= counting_next:
                counting_next = time.monotonic() + COUNT_SECONDS  # where it fails
                counting_next = time.monotonic() + recount(stopping.wait)
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
    return _see_to(verified.due(unlike(), leases.now()), wait)


def recount(wait: Callable[[float], bool] = lambda seconds: False) -> float:
    """Read those ledgers again in full of which rows are gone, or came, that had been verified; unless another process
    has counted lately. In how many seconds to do so again."""
    if not take(COUNTING, COUNT_SECONDS / 2):
        return COUNT_SECONDS
    began = time.monotonic()
    changed = verified.changed()
    took = time.monotonic() - began
    _see_to([(ledger, True) for ledger in changed], wait)
    return max(COUNT_SECONDS, 20 * took)


def _see_to(ledgers: list[tuple[Ledger, bool]], wait: Callable[[float], bool]) -> int:
    """Verify these, each in full or what is new of it, unless another process verifies. How many it were."""
    if not ledgers or not take():
        return 0
    if any(full for _, full in ledgers) and (missing := triggers.missing(connection)):
        log.error("%s", triggers.sentence(missing))
    try:
        pause = rest(wait)
        for ledger, full in ledgers:
            found = verified.look(ledger, noted, records.wrong, full=full, pause=pause)
            if found.problem:
                log.error("A ledger is not what was posted: %s", found.problem)
            pause()
    finally:
        Duty.objects.filter(name=DUTY, claimed_by=claimant).update(lease_expires_at=None)
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


claimant = leases.new_claimant()


def take(duty: str = DUTY, seconds: float = LEASE_SECONDS) -> bool:
    """Whether the duty is ours now, for so many seconds more: one conditional UPDATE."""
    expired = Q(lease_expires_at__isnull=True) | Q(lease_expires_at__lt=leases.clock())
    set_back = Q(lease_expires_at__gt=leases.clock(2 * seconds))  # the clock was, since it was taken
    free = Duty.objects.filter(Q(claimed_by=claimant) | expired | set_back, name=duty)
    values = {"claimed_by": claimant, "lease_expires_at": leases.clock(seconds)}
    if free.update(**values):
        return True
    made = Duty.objects.get_or_create(name=duty, defaults=values)[1]
    return made
