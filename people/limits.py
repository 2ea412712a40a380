"""How often somebody may try: requests to the API, and passwords.

Counters lie in the cache named `shared`, which all processes share where there is a Redis. Where Redis does not answer,
each process counts for itself: nobody is locked out, and nothing stands open.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import math
import time
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import Any

from django.conf import settings
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.http import HttpRequest
from redis.exceptions import RedisError

log = logging.getLogger(__name__)
MINUTE = 60
FORGET_SECONDS = 3600  # failures of an hour count together
LONGEST_SECONDS = 900
FREE_OF_PERSON = 5  # attempts at one name from one address before each next one has to wait
FREE_OF_ADDRESS = 20  # at any names
FREE_OF_RESETS = 5  # mails that one address may ask for


def address(request: HttpRequest) -> str:
    """Where a request comes from: behind N proxies of ours, what the outermost of them saw. IPv6 by its /64, since one
    customer is given as many; an IPv4 address in IPv6's clothes, or with a port, is the same address."""
    seen = request.META.get("REMOTE_ADDR") or ""
    told = [part.strip() for part in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",") if part.strip()]
    if settings.FEDSITE_PROXIES and told:
        seen = told[-min(settings.FEDSITE_PROXIES, len(told))]
    for text in (seen, seen.rpartition(":")[0].strip("[]")):
        with suppress(ValueError):
            found = ip_address(text)
            found = getattr(found, "ipv4_mapped", None) or found
            return str(ip_network((found, 64), strict=False) if found.version == 6 else found)
    return seen[:64]


def seconds_over(who: str, per_minute: int) -> int:
    """Count one request; 0, or the seconds until the next minute where there were too many in this one. 0: no limit."""
    if per_minute == 0:
        return 0
    minute, second = divmod(time.time(), MINUTE)
    key = _key("requests", who, str(int(minute)))
    tried = _counted(lambda cache: _count(cache, key, 2 * MINUTE))
    return math.ceil(MINUTE - second) if tried > per_minute else 0


def seconds_to_sign_in(name: str, address: str) -> int:
    """0, and the attempt counts as failed until `forgive`; or the seconds to wait, twice as many after each failure."""
    return _admit("sign-in", _person(name), address, free=FREE_OF_PERSON) or _admit(
        "from", address, free=FREE_OF_ADDRESS
    )


def forgive(name: str, address: str) -> None:
    """It was the right password."""
    _counted(lambda cache: cache.delete(_key("tries", "sign-in", _person(name), address)))
    _counted(lambda cache: _take_back(cache, _key("tries", "from", address)))


def seconds_to_reset(address: str) -> int:
    """0, or the seconds until this address may have another mail sent."""
    return _admit("reset", address, free=FREE_OF_RESETS)


def _person(name: str) -> str:
    return name.strip().casefold()


def _admit(*who: str, free: int) -> int:
    tries, gate = _key("tries", *who), _key("gate", *who)
    return _counted(lambda cache: _admit_by(cache, tries, gate, free))


def _admit_by(cache: BaseCache, tries: str, gate: str, free: int) -> int:
    """Counted first and taken back where refused, so that attempts in parallel do not slip through together."""
    tried = _count(cache, tries, FORGET_SECONDS)
    if tried <= free:
        return 0
    now = time.time()
    delay = min(2 ** (tried - free), LONGEST_SECONDS)
    if cache.add(gate, now + delay, delay):
        return 0
    _take_back(cache, tries)
    return max(1, math.ceil(cache.get(gate, now) - now))


@functools.cache
def shared() -> BaseCache:
    """One for all threads: Django's own handler makes another, with connections of its own, for each request."""
    return caches.create_connection("shared")


def _counted(count: Callable[[BaseCache], Any]) -> Any:
    try:
        return count(shared())
    except (RedisError, OSError) as error:
        log.warning("Redis does not answer (%s); this process counts for itself", error)
        return count(caches["default"])


def _count(cache: BaseCache, key: str, seconds: int) -> int:
    """One more; how many there are since the first one, at most `seconds` ago."""
    cache.add(key, 0, seconds)
    try:
        return cache.incr(key)
    except ValueError:  # it was forgotten between the two
        cache.set(key, 1, seconds)
        return 1


def _take_back(cache: BaseCache, key: str) -> None:
    with suppress(ValueError):  # it was forgotten
        cache.decr(key)


def _key(kind: str, *who: str) -> str:
    """Names that people type are neither short nor free of odd characters."""
    return f"{kind}:{hashlib.sha256(json.dumps(who).encode()).hexdigest()}"
