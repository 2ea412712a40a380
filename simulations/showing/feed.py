"""New events of a simulation, read once per process however many watch.

A feed lives while somebody watches. It looks when the doorbell rings and every second besides, and hands what it
reads to all watchers as one batch. Events have no gap and commit in the order of their numbers, so "after N" misses
nothing.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from channels.layers import get_channel_layer

from simulations.models import Event, Simulation
from simulations.running import bell
from simulations.running.patience import insist

log = logging.getLogger(__name__)
LOOK_SECONDS = 1.0
GATHER_SECONDS = 0.1  # at most ten batches a second
BATCH_EVENTS = 500
KEPT_BATCHES = 50
LOOK_AGAIN_SECONDS = 10.0  # whether those who watch still may
# All that streams ask of the database is asked here. A viewer's own thread would keep a connection (three files of
# SQLite's) for as long as he watches, and a feed outlives the viewer who came first.
READERS = ThreadPoolExecutor(4, "reader")


async def ask(call: Callable[..., Any], *arguments: Any) -> Any:
    """What the call gives, once the database answers."""
    return await insist(call, *arguments, threads=READERS)


class Watcher(Protocol):
    """Whoever watches. Those of one key may stay together, or not at all."""

    key: Hashable
    may_stay: Callable[[], bool]
    is_over: bool


@dataclass(eq=False)
class Batch:
    """Consecutive events, the simulation as it was right after them, and what has been made of both."""

    simulation: Simulation
    events: list[Event]
    rendered: dict[str, str] = field(default_factory=dict)  # by format
    rendering: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def render_once(self, name: str, make: Callable[[], Awaitable[str]]) -> str:
        """The batch in a format, made by the first watcher that needs it."""
        async with self.rendering:
            if name not in self.rendered:
                self.rendered[name] = await make()
            return self.rendered[name]

    @property
    def last(self) -> int:
        return self.events[-1].sequence


def read_after(simulation_id: int, sequence: int) -> tuple[Simulation, list[Event]]:
    """The simulation, and its events after a number. The row comes first: no event is newer than it."""
    simulation = Simulation.objects.get(pk=simulation_id)
    fresh = Event.objects.filter(simulation_id=simulation_id, sequence__gt=sequence)
    return simulation, list(fresh.filter(sequence__lte=simulation.last_sequence).order_by("sequence")[:BATCH_EVENTS])


def unwelcome(watchers: list[Watcher]) -> list[Watcher]:
    """Those who may no longer look."""
    answers = {watcher.key: watcher.may_stay for watcher in watchers}
    told = {key: may_stay() for key, may_stay in answers.items()}
    return [watcher for watcher in watchers if not told[watcher.key]]


class Feed:
    """What is new in one simulation."""

    def __init__(self, simulation_id: int, start: int) -> None:
        self.simulation_id = simulation_id
        self.head = start  # newest number read
        self.batches: deque[Batch] = deque(maxlen=KEPT_BATCHES)
        self.changed = asyncio.Condition()
        self.watchers: set[Watcher] = set()
        self.looked_at_them = time.monotonic()
        self.task: asyncio.Task | None = None
        self.is_deaf = False  # the channel layer does not answer

    async def keep_reading(self) -> None:
        """Look for ever, whatever goes wrong: watchers wait for it. A database that does not answer is asked again; so
        is a channel layer, which forgets who listens when it is restarted."""
        while True:
            try:
                await self._look_when_it_rings()
            except Exception as error:
                if not self.is_deaf:
                    log.warning("No doorbell (%s); looking every %s s", error or type(error), LOOK_SECONDS)
                self.is_deaf = True
            try:
                await self._look()
            except Exception:
                log.exception("Simulation %s could not be looked at; trying again", self.simulation_id)
            await asyncio.sleep(LOOK_SECONDS)

    async def _look_when_it_rings(self) -> None:
        """Until the channel layer fails."""
        layer = get_channel_layer()
        async with _subscription(layer, bell.viewers_group(self.simulation_id)) as channel:
            self.is_deaf = False
            while True:
                await self._look()
                await _ring_or_timeout(layer, channel)
                await asyncio.sleep(GATHER_SECONDS)

    async def _look(self) -> None:
        await self._see_who_may_stay()
        simulation, fresh = await ask(read_after, self.simulation_id, self.head)
        if fresh:
            async with self.changed:
                self.batches.append(Batch(simulation, fresh))
                self.head = fresh[-1].sequence
                self.changed.notify_all()

    async def _see_who_may_stay(self) -> None:
        if time.monotonic() < self.looked_at_them + LOOK_AGAIN_SECONDS:
            return
        self.looked_at_them = time.monotonic()
        gone = await ask(unwelcome, list(self.watchers))
        async with self.changed:
            for watcher in gone:
                watcher.is_over = True
            self.changed.notify_all()

    async def batch_after(self, cursor: int, timeout: float, watcher: Watcher) -> Batch | None:
        """The batch that holds the event after the cursor; None where there is none in time, or for this watcher."""
        try:
            async with asyncio.timeout(timeout), self.changed:
                await self.changed.wait_for(lambda: self.head > cursor or watcher.is_over)
        except TimeoutError:
            return None
        if watcher.is_over:
            return None
        for batch in self.batches:
            if batch.events[0].sequence <= cursor + 1 <= batch.last:
                return batch
        return Batch(*await ask(read_after, self.simulation_id, cursor))  # it came late or fell behind


feeds: dict[int, Feed] = {}


@asynccontextmanager
async def watching(simulation_id: int, start: int, watcher: Watcher) -> AsyncIterator[Feed]:
    """The simulation's feed, which reads from `start` on where nobody else watched before."""
    feed = feeds.setdefault(simulation_id, Feed(simulation_id, start))
    feed.watchers.add(watcher)
    if feed.task is None:
        feed.task = asyncio.create_task(feed.keep_reading())
    try:
        yield feed
    finally:
        feed.watchers.discard(watcher)
        if not feed.watchers:
            feed.task.cancel()
            feeds.pop(simulation_id, None)


@asynccontextmanager
async def _subscription(layer, group: str) -> AsyncIterator[str]:
    """A channel that the doorbell reaches."""
    channel = await layer.new_channel()
    await layer.group_add(group, channel)
    try:
        yield channel
    finally:
        with suppress(Exception):  # it forgets us by itself
            await layer.group_discard(group, channel)


async def _ring_or_timeout(layer, channel: str) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(LOOK_SECONDS):
            await layer.receive(channel)
        while True:  # rings that gathered meanwhile say the same
            async with asyncio.timeout(0.001):
                await layer.receive(channel)
