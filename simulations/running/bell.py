"""Doorbells on the channel layer. The database holds the truth; a lost ring only delays, so failures are logged."""

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.conf import settings
from redis import Redis, RedisError

log = logging.getLogger(__name__)
WORKER_CHANNEL = "simulations"
LOOK = {"type": "simulations.look"}
RING_SECONDS = 2.0  # a layer that hangs must not hold up what rings


def viewers_group(simulation_id: int) -> str:
    return f"simulation-{simulation_id}"


async def ring_viewers(simulation_id: int) -> None:
    """Something new is in the simulation's log."""
    layer = get_channel_layer()
    sent = layer.group_send(viewers_group(simulation_id), {"type": "simulation.changed"})
    await _within_reason(sent, "viewers")


async def ring_worker() -> None:
    """The queue has changed, or a run was cancelled."""
    await _within_reason(get_channel_layer().send(WORKER_CHANNEL, LOOK), "workers")


async def _within_reason(sent: Awaitable[None], who: str) -> None:
    try:
        async with asyncio.timeout(RING_SECONDS):  # wait_for would swallow a cancellation that comes with the answer
            await sent
    except Exception as error:
        log.warning("The channel layer does not answer (%s); %s will look by themselves", error or "too slow", who)


async def _both(simulation_id: int) -> None:
    await ring_worker()
    await ring_viewers(simulation_id)


def ring(simulation_id: int) -> None:
    """Both bells, from synchronous code outside an event loop."""
    call: Any = async_to_sync(_both)
    call(simulation_id)


def problem() -> str | None:
    """Why Redis does not answer; None where it does, or where there is none to ask."""
    if not settings.REDIS_URL:
        return None
    limits = {"socket_timeout": RING_SECONDS, "socket_connect_timeout": RING_SECONDS}
    try:
        with Redis.from_url(settings.REDIS_URL, **limits) as redis:
            redis.ping()
    except RedisError as error:
        return f"Redis does not answer: {error}"
    return None
