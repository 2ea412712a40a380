"""Doorbells on the channel layer. The data base holds the truth; a lost ring only delays, so failures are logged."""

import logging
from typing import Any

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer

log = logging.getLogger(__name__)
WORKER_CHANNEL = "simulations"
LOOK = {"type": "simulations.look"}


def viewers_group(simulation_id: int) -> str:
    return f"simulation-{simulation_id}"


async def ring_viewers(simulation_id: int) -> None:
    """Something new is in the simulation's log."""
    try:
        await get_channel_layer().group_send(viewers_group(simulation_id), {"type": "simulation.changed"})
    except Exception:
        log.warning("The channel layer does not answer; viewers will look by themselves", exc_info=True)


async def ring_worker() -> None:
    """The queue has changed, or a run was cancelled."""
    try:
        await get_channel_layer().send(WORKER_CHANNEL, LOOK)
    except Exception:
        log.warning("The channel layer does not answer; workers will look by themselves", exc_info=True)


async def _both(simulation_id: int) -> None:
    await ring_worker()
    await ring_viewers(simulation_id)


def ring(simulation_id: int) -> None:
    """Both bells, from synchronous code outside an event loop."""
    call: Any = async_to_sync(_both)
    call(simulation_id)
