"""Where a request comes from, and how often one may ask in a minute. Passwords are behind people.gates.

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


@functools.cache
def shared() -> BaseCache:
    """One for all threads: Django's own handler makes another, with connections of its own, for each request."""
    return caches.create_connection("shared")


def _counted(count: Callable[[BaseCache], Any]) -> Any:
    try:
        return count(shared())
    except (RedisError, OSError) as error:
        log.warning("Redis does not answer (%s); this process counts for itself", error)
        return count(caches["alone"])


def _count(cache: BaseCache, key: str, seconds: int) -> int:
    """One more; how many there are since the first one, at most `seconds` ago."""
    cache.add(key, 0, seconds)
    try:
        return cache.incr(key)
    except ValueError:  # it was forgotten between the two
        cache.set(key, 1, seconds)
        return 1


def _key(kind: str, *who: str) -> str:
    return f"{kind}:{hashlib.sha256(json.dumps(who).encode()).hexdigest()}"
