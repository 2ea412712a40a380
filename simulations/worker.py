"""The background worker: claims what waits, has a child process train it, records what the child says.

A Channels worker on the channel "simulations". The message is only a doorbell; the worker also looks by itself.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

from channels.consumer import AsyncConsumer
from channels.db import database_sync_to_async
from channels.worker import Worker
from django.conf import settings

from simulations import bell, lifecycle, logs, recorder
from simulations.events import Completed, Event, Failed, Log
from simulations.models import Simulation
from simulations.process import Trainer
from simulations.recorder import Claim, Diverged, StaleClaim
from simulations.trainer import Assignment

log = logging.getLogger(__name__)
POLL_SECONDS = 1.0
RETRY_SECONDS = 2.0


def checkpoint_folder(simulation_id: int) -> Path:
    return settings.FEDSITE_CHECKPOINT_DIR / f"simulation-{simulation_id}"


def assignment_for(claim: Claim) -> Assignment:
    """What the trainer of a claimed simulation is told."""
    simulation = Simulation.objects.get(pk=claim.simulation_id)
    newest = simulation.rounds.exclude(checkpoint_sha256="").order_by("-number")[:2]
    return Assignment(
        config=simulation.config,
        data_dir=str(settings.FEDSITE_DATA_DIR),
        checkpoint_dir=str(checkpoint_folder(simulation.pk)),
        checkpoints=tuple(newest.values_list("number", "checkpoint_sha256")),
        recorded_rounds=simulation.rounds_done,
    )


def write(claim: Claim, event: Event) -> None:
    """One event of a run into the data base."""
    if isinstance(event, Completed):
        lifecycle.complete(claim, event.message)
    elif isinstance(event, Failed):
        lifecycle.fail(claim, event.message, event.traceback)
    else:
        recorder.record(claim, event)


async def run(claim: Claim) -> AsyncIterator[Event]:
    """Train a claimed simulation and yield each event once it is recorded.

    Ends early, without a word, where the claim goes stale. Closed or cancelled before its end, it gives the run back.
    """
    logs.about(simulation=claim.simulation_id, fence=claim.fence, worker=logs.process_name())
    trainer = await Trainer.start(await database_sync_to_async(assignment_for)(claim))
    lease = asyncio.create_task(_keep_lease(claim, trainer))
    try:
        async for event in trainer.events():
            await _tell(claim, write, claim, event)
            yield event
            if isinstance(event, Completed | Failed):
                return
        await _bury(claim, trainer)
    except StaleClaim as stale:
        log.info("Stopped: %s", stale)
    except Diverged as error:
        await _tell(claim, lifecycle.fail, claim, str(error), "")
    except (asyncio.CancelledError, GeneratorExit):
        trainer.kill()
        await _give_back(claim)
        raise
    finally:
        lease.cancel()
        await trainer.close()


async def _tell(claim: Claim, write_it: Any, *arguments: Any) -> None:
    await database_sync_to_async(write_it)(*arguments)
    await bell.ring_viewers(claim.simulation_id)


async def _keep_lease(claim: Claim, trainer: Trainer) -> None:
    """Renew the lease; where it is no longer ours, end the trainer, and with it the run."""
    while True:
        await asyncio.sleep(lifecycle.HEARTBEAT_SECONDS)
        try:
            await database_sync_to_async(lifecycle.heartbeat)(claim)
        except StaleClaim:
            return trainer.kill()
        except Exception:
            log.exception("The lease of simulation %s could not be renewed", claim.simulation_id)


async def _bury(claim: Claim, trainer: Trainer) -> None:
    """The trainer ended without a last event: the run is lost for now, and claimed again at the next look."""
    how = await trainer.ended()
    log.warning("The trainer of simulation %s ended: %s", claim.simulation_id, how)
    line = Log(message=f"The trainer ended without a word ({how})", level="warning")
    await _tell(claim, recorder.record, claim, line)
    await database_sync_to_async(lifecycle.lose)(claim)


async def _give_back(claim: Claim) -> None:
    try:
        await _tell(claim, lifecycle.release, claim)
    except StaleClaim:
        pass
    except Exception:
        log.exception("Simulation %s could not be given back; its lease will expire", claim.simulation_id)


class Runs:
    """The simulations that this process runs now."""

    def __init__(self) -> None:
        self.tasks: dict[Claim, asyncio.Task] = {}
        self.looking = asyncio.Lock()
        self.stopping = False

    async def look(self) -> None:
        """Claim what waits while there is room, and end what is no longer ours."""
        await asyncio.shield(self._look())  # whoever is cancelled here must not leave a claim that nobody knows of

    async def _look(self) -> None:
        async with self.looking:
            for claim in list(self.tasks):
                await self._end_if_stale(claim)
            while not self.stopping and len(self.tasks) < settings.FEDSITE_MAX_CONCURRENT:
                claim = await database_sync_to_async(lifecycle.claim_next)()
                if claim is None:
                    return
                self._start(claim)

    def _start(self, claim: Claim) -> None:
        task = asyncio.create_task(self._run(claim))
        self.tasks[claim] = task
        task.add_done_callback(lambda _: self.tasks.pop(claim, None))

    async def _run(self, claim: Claim) -> None:
        try:
            await bell.ring_viewers(claim.simulation_id)
            async with aclosing(run(claim)) as happenings:
                async for _ in happenings:
                    pass
        except Exception:
            log.exception("The run of simulation %s broke off; its lease will expire", claim.simulation_id)
        await bell.ring_worker()

    async def _end_if_stale(self, claim: Claim) -> None:
        try:
            await database_sync_to_async(lifecycle.heartbeat)(claim)
        except StaleClaim:
            if task := self.tasks.get(claim):
                task.cancel()

    async def stop(self) -> None:
        """Give back what runs."""
        self.stopping = True
        async with self.looking:  # what a last look has claimed is ours too
            tasks = list(self.tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


runs = Runs()


class SimulationConsumer(AsyncConsumer):
    """Answers the doorbell."""

    async def simulations_look(self, message: dict) -> None:
        await runs.look()


class PollingWorker(Worker):
    """Channels' worker that also looks by itself, outlives its channel layer, and gives its runs back at the end."""

    async def handle(self) -> None:
        tasks = [asyncio.create_task(self._poll())]
        tasks += [asyncio.create_task(self.listener(channel)) for channel in self.channels]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await runs.stop()

    async def listener(self, channel: str) -> None:
        while True:
            try:
                await super().listener(channel)
            except Exception as error:
                log.warning("The channel layer does not answer (%s); looking every %s s", error, POLL_SECONDS)
                await asyncio.sleep(RETRY_SECONDS)

    async def _poll(self) -> None:
        while True:
            try:
                await runs.look()
            except Exception:
                log.exception("The queue could not be read; trying again")
                await asyncio.sleep(RETRY_SECONDS)
            await asyncio.sleep(POLL_SECONDS)
