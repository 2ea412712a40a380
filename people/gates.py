"""Gates before passwords and mails: some attempts are free, each further one waits twice as long as the one before.

They lie in the database, so that every process sees the same ones, none is washed out by attempts at other names, and a
restart opens none. A refused attempt counts nowhere.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db import connection, transaction
from django.db.models import F

from people.models import Gate

FORGET_SECONDS = 3600  # failures of an hour count together
LONGEST_NAME = 254  # more than Django's; the rest of what somebody types tells nobody apart
MANY = 100  # forgotten rows that go at once


@dataclass(frozen=True, kw_only=True)
class Throttle:
    """What is counted together: so many attempts are free, then come pauses of `first`, twice `first`, ... seconds."""

    who: tuple[str, ...]
    free: int
    first: int = 2
    longest: int = 900

    @property
    def key(self) -> str:
        """Names that people type are neither short nor free of odd characters."""
        return hashlib.sha256(json.dumps(self.who).encode()).hexdigest()

    def pause(self, tried: int) -> timedelta:
        """After so many attempts."""
        over = tried - self.free
        return timedelta(seconds=min(self.first * 2 ** min(over - 1, 30), self.longest) if over > 0 else 0)


def person(name: str) -> str:
    """One name however it is spelled: Django takes a full-width A for an A, and a person takes an a for it."""
    return unicodedata.normalize("NFKC", name[:LONGEST_NAME]).strip().casefold()


def ways_to_sign_in(name: str, address: str, browser: str) -> list[Throttle]:
    """A browser that its person has used before has a way of its own, so that nobody else can shut it out. All others
    are counted by name and address, by address, and by name: many addresses together are slowed down too.
    """
    if browser:
        return [Throttle(who=("browser", person(name), browser), free=5)]
    return [
        Throttle(who=("sign-in", person(name), address), free=5),
        Throttle(who=("from", address), free=20),
        Throttle(who=("name", person(name)), free=50, longest=60),
    ]


def seconds_to_sign_in(name: str, address: str, browser: str = "") -> int:
    """0, and the attempt counts as failed until `forgive`; or the seconds to wait."""
    return _pass(ways_to_sign_in(name, address, browser))


def forgive(name: str, address: str, browser: str = "") -> None:
    """It was the right password: nothing is held against this person here, and one attempt less against all others."""
    own, *shared = [way.key for way in ways_to_sign_in(name, address, browser)]
    Gate.objects.filter(who=own).delete()
    Gate.objects.filter(who__in=shared, tried__gt=0).update(tried=F("tried") - 1)


def seconds_to_reset(address: str) -> int:
    """0, or the seconds until this address may ask for another mail."""
    return _pass([Throttle(who=("reset", address), free=5)])


def seconds_to_mail(mailbox: str) -> int:
    """0, or the seconds until this mailbox may be sent another mail that anybody can ask for: three an hour."""
    return _pass([Throttle(who=("mail", person(mailbox)), free=2, first=3600, longest=3600)])


def _pass(ways: list[Throttle]) -> int:
    """0, and one more attempt on every way; or the seconds until all are open, and none more on any."""
    ways = sorted(ways, key=lambda way: way.key)  # all lock in one order
    keys, now = [way.key for way in ways], datetime.fromtimestamp(time.time(), UTC)
    if seconds := _closed(Gate.objects.filter(who__in=keys), now):  # a flood of refusals only reads
        return seconds
    _forget(now)
    with transaction.atomic():
        new = [Gate(who=key, tried=0, open_at=now, forgotten_at=now) for key in keys]
        # An upsert that changes nothing locks the rows, be they old or new.
        Gate.objects.bulk_create(new, update_conflicts=True, unique_fields=["who"], update_fields=["who"])
        gates = {gate.who: gate for gate in Gate.objects.filter(who__in=keys)}
        if seconds := _closed(gates.values(), now):
            return seconds
        for way in ways:
            gate = gates[way.key]
            if gate.forgotten_at <= now:
                gate.tried, gate.forgotten_at = 0, now + timedelta(seconds=FORGET_SECONDS)
            gate.tried += 1
            gate.open_at = now + way.pause(gate.tried)
            gate.save(update_fields=["tried", "open_at", "forgotten_at"])
    return 0


def _closed(gates, now: datetime) -> int:
    """Seconds until the last of them opens, rounded up."""
    return max([0, *(math.ceil((gate.open_at - now).total_seconds()) for gate in gates)])


def _forget(now: datetime) -> None:
    skip = {"skip_locked": True} if connection.features.has_select_for_update_skip_locked else {}
    with transaction.atomic():
        old = Gate.objects.select_for_update(**skip).filter(forgotten_at__lt=now, open_at__lt=now)[:MANY]
        Gate.objects.filter(pk__in=[gate.pk for gate in old]).delete()
