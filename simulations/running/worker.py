"""The background worker: claims what waits, has a child process train it, records what the child says.

A Channels worker on the channel "simulations". The message is only a doorbell; the worker also looks by itself.
"""

import asyncio
import logging
import time
import traceback
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from channels.consumer import AsyncConsumer
from channels.db import database_sync_to_async
from channels.worker import Worker
from django.conf import settings

from simulations import database, disk, economies, logs, processes
from simulations.models import Simulation
from simulations.running import auditor, audits, bell, leases, lifecycle, recorder, verifier, workers
from simulations.running.events import Completed, Event, Failed, Log, Round
from simulations.running.patience import insist
from simulations.running.process import Trainer
from simulations.running.recorder import Claim, Diverged, StaleClaim
from simulations.running.trainer import Assignment
from training import failpoints

log = logging.getLogger(__name__)
POLL_SECONDS = 1.0
MOST_LINES = 500  # that are recorded at once
LINE_WAITS_SECONDS = 0.2  # for what comes after it, so that both are recorded at once; nobody reads faster
RETRY_SECONDS = 2.0
GIVE_UP_SECONDS = 10.0  # of a database whose disk is full, which may only be read, or which lacks something


def assignment_for(claim: Claim) -> Assignment:
    """What the trainer of a claimed simulation is told."""
    simulation = Simulation.objects.get(pk=claim.simulation_id)
    newest = simulation.rounds.exclude(checkpoint_sha256="").order_by("-number")[:2]
    checkpoints = [(each.number, each.checkpoint_sha256, economies.states_after(simulation, each)) for each in newest]
    return Assignment(
        config=simulation.config,
        scheme=simulation.scheme,
        data_dir=str(settings.FEDSITE_DATA_DIR),
        checkpoint_dir=str(disk.checkpoint_folder(simulation.pk)),
        checkpoints=tuple(checkpoints),
        recorded_rounds=simulation.rounds_done,
        most_bytes=settings.FEDSITE_MAX_MEMORY,
        trainers=settings.FEDSITE_MAX_CONCURRENT,
        plugins_dir=str(settings.FEDSITE_PLUGINS_DIR),
        plugins=tuple(settings.FEDSITE_PLUGINS),
    )


def write(claim: Claim, event: Event, after: int | None = None, lines: Sequence[Log] = ()) -> int | None:
    """One event of a run into the database, with the lines before it; `after` and the number are recorder.record's.

    A repeat of the last event finds its claim stale, since that event has ended it.
    """
    if lines and isinstance(event, Completed | Failed):
        recorder.record(claim, lines[-1], after, lines[:-1])
    if isinstance(event, Completed):
        return lifecycle.complete(claim, event.message)
    if isinstance(event, Failed):
        return lifecycle.fail(claim, event.message, event.traceback)
    return recorder.record(claim, event, after, lines)


async def run(claim: Claim) -> AsyncIterator[Event]:
    """Train a claimed simulation and yield each event once it is recorded.

    Ends early, without a word, where the claim goes stale. Closed or cancelled before its end, it gives the run back.
    A database that does not answer is waited for, and the trainer waits with it.
    """
    logs.about(simulation=claim.simulation_id, fence=claim.fence, worker=processes.name())
    trainer = lease = limit = None
    try:
        failpoints.reach("claimed")
        number = await insist(recorder.held, claim, give_up_seconds=GIVE_UP_SECONDS)
        trainer = await Trainer.start(await insist(assignment_for, claim, give_up_seconds=GIVE_UP_SECONDS))
        lease = asyncio.create_task(_keep_lease(claim, trainer))
        if settings.FEDSITE_MAX_SECONDS:
            limit = asyncio.create_task(_end_in_time(claim, trainer, settings.FEDSITE_MAX_SECONDS))
        failpoints.reach("trainer_running")
        async with aclosing(together(heard(trainer))) as groups:
            async for *lines, event in groups:
                number = await _tell(claim, write, claim, event, number, lines)
                for each in (*lines, event):
                    yield each
                if isinstance(event, Completed | Failed):
                    if isinstance(event, Completed):
                        await asyncio.to_thread(lambda: disk.remove(disk.all_but_final(claim.simulation_id)))
                    failpoints.reach("completed")
                    return
                if isinstance(event, Round):
                    trainer.go_on()
        await _bury(claim, trainer, number)
    except StaleClaim as stale:
        log.info("Stopped: %s", stale)
    except (asyncio.CancelledError, GeneratorExit):
        if trainer:
            trainer.kill()
        await _give_back(claim)
        raise
    except Exception as error:
        if trainer:
            trainer.kill()
        await _fail(claim, error)
    finally:
        for task in filter(None, (lease, limit)):
            task.cancel()
        if trainer:
            await trainer.close()


async def heard(trainer: Trainer) -> AsyncIterator[Event]:
    async for event in trainer.events():
        failpoints.reach("completion_heard" if isinstance(event, Completed) else "event_heard")
        yield event


async def together(happenings: AsyncIterator[Event]) -> AsyncIterator[list[Event]]:
    """What is recorded at once: a line waits for a moment, and whatever else comes takes the lines before it along."""
    group: list[Event] = []
    since = 0.0
    coming: asyncio.Task[Event | None] | None = None
    try:
        while True:
            coming = coming or asyncio.create_task(_next(happenings))
            left = max(0.0, since + LINE_WAITS_SECONDS - time.monotonic()) if group else None
            await asyncio.wait([coming], timeout=left)
            if coming.done():
                event, coming = coming.result(), None
                if event is None:
                    break
                since = since if group else time.monotonic()
                group.append(event)
                if isinstance(event, Log) and len(group) < MOST_LINES:
                    continue
            yield group
            group = []
        if group:
            yield group
    finally:
        if coming:
            coming.cancel()


async def _next(happenings: AsyncIterator[Event]) -> Event | None:
    return await anext(happenings, None)


async def _tell(claim: Claim, write_it: Any, *arguments: Any) -> Any:
    told = await insist(write_it, *arguments, give_up_seconds=GIVE_UP_SECONDS)
    await bell.ring_viewers(claim.simulation_id)
    return told


async def _keep_lease(claim: Claim, trainer: Trainer) -> None:
    """Renew the lease now and then; where it is no longer ours, end the trainer within seconds, and with it the run.

    To look is a read and costs next to nothing; to renew is a write that the disk must confirm.
    """
    renewed = time.monotonic()
    while True:
        await asyncio.sleep(min(POLL_SECONDS, leases.heartbeat_seconds()))
        is_due = time.monotonic() - renewed >= leases.heartbeat_seconds()
        try:
            await insist(lifecycle.heartbeat if is_due else lifecycle.confirm, claim)
        except StaleClaim:
            return trainer.kill()
        except Exception:
            log.exception("The lease of simulation %s could not be renewed", claim.simulation_id)
        renewed = time.monotonic() if is_due else renewed


async def _end_in_time(claim: Claim, trainer: Trainer, most_seconds: int) -> None:
    """Fail the run once its rounds, those of earlier claims too, have taken so long."""
    rows = Simulation.objects.filter(pk=claim.simulation_id).values_list("duration_seconds", flat=True)
    await asyncio.sleep(max(0.0, most_seconds - await insist(rows.get)))
    line = f"The run took longer than the {most_seconds:,} seconds that are allowed (FEDSITE_MAX_SECONDS)"
    try:
        await _tell(claim, lifecycle.fail, claim, line, "")
    except StaleClaim:
        pass
    finally:
        trainer.kill()


async def _bury(claim: Claim, trainer: Trainer, number: int) -> None:
    """The trainer ended without a last event: the run is lost for now, and claimed again at the next look. One that
    fell in a plug-in's code would fall there again, and has failed."""
    how = await trainer.ended()
    log.warning("The trainer of simulation %s ended: %s", claim.simulation_id, how)
    sentence = f"The trainer ended without a word ({how})"
    if trainer.fell_inside:
        await _tell(claim, write, claim, Failed(message=sentence, traceback=""))
    else:
        await _tell(claim, write, claim, Log(message=sentence, level="warning"), number)
        await insist(lifecycle.lose, claim)


async def _fail(claim: Claim, error: Exception) -> None:
    """What cannot be recorded ends the run; trying again would only meet it again. Where not even that can be recorded,
    as on a full disk, it is as soon as it can, unless the process ends before: then the lease runs out."""
    if isinstance(error, Diverged):
        message, trace = str(error), ""
    elif database.is_trouble(error):
        log.error("The run of simulation %s cannot be recorded: %s", claim.simulation_id, database.sentence(error))
        message, trace = f"What the trainer said could not be recorded: {database.reason(error)}", ""
    else:
        log.error("The run of simulation %s cannot be recorded", claim.simulation_id, exc_info=error)
        message, trace = f"What the trainer said could not be recorded: {error}", traceback.format_exc()
    try:
        await insist(lifecycle.fail, claim, message, trace)
        await bell.ring_viewers(claim.simulation_id)
    except StaleClaim as stale:
        log.info("Stopped: %s", stale)


async def _give_back(claim: Claim) -> None:
    """Once, without insisting: we are asked to end. Where it fails the lease runs out."""
    try:
        await database_sync_to_async(lifecycle.release)(claim)
        await bell.ring_viewers(claim.simulation_id)
    except StaleClaim:
        pass
    except Exception:
        log.exception("Simulation %s could not be given back; its lease will expire", claim.simulation_id)


class Runs:
    """The simulations that this process runs now, and those that it audits."""

    def __init__(self) -> None:
        self.tasks: dict[Claim | audits.Claim, asyncio.Task] = {}
        self.looking = asyncio.Lock()
        self.stopping = False

    async def look(self) -> None:
        """Claim what waits while there is room, and end what is no longer ours."""
        await asyncio.shield(self._look())  # whoever is cancelled here must not leave a claim that nobody knows of

    async def _look(self) -> None:
        async with self.looking:
            if running := [claim for claim in self.tasks if isinstance(claim, Claim)]:
                for stale in await database_sync_to_async(lifecycle.stale)(running):
                    if task := self.tasks.get(stale):
                        task.cancel()
            while not self.stopping and len(self.tasks) < settings.FEDSITE_MAX_CONCURRENT:
                ours = [claim.simulation_id for claim in self.tasks if isinstance(claim, Claim)]
                audited = [claim.audit_id for claim in self.tasks if isinstance(claim, audits.Claim)]
                claim = await database_sync_to_async(lifecycle.claim_next)(ours, audited)
                if claim is None:
                    return
                self._start(claim)

    def _start(self, claim: Claim | audits.Claim) -> None:
        task = asyncio.create_task(self._run(claim) if isinstance(claim, Claim) else self._audit(claim))
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

    async def _audit(self, claim: audits.Claim) -> None:
        try:
            await auditor.run(claim)
        except Exception:
            log.exception("The audit of simulation %s broke off; its lease will expire", claim.simulation_id)
        await bell.ring_worker()

    async def stop(self) -> None:
        """Give back what runs."""
        self.stopping = True
        async with self.looking:  # what a last look has claimed is ours too
            tasks = list(self.tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


runs = Runs()


async def look() -> None:
    """See to the queue and to what runs. What goes wrong is told, and tried again at the next look."""
    try:
        await runs.look()
    except Exception as error:
        if database.is_trouble(error):
            database.complain(log, error, "looking again")
        else:
            log.exception("The queue could not be served; looking again")


async def be_present() -> None:
    """Say every few seconds that this process is there; only operators read it."""
    say = workers.arrive
    while True:
        try:
            await database_sync_to_async(say)()
            say = workers.beat
        except Exception as error:
            if not database.is_trouble(error):  # of that whoever looks at the queue tells
                log.exception("That this worker is there could not be said")
        await asyncio.sleep(workers.beat_seconds())


async def go() -> None:
    """Once, without insisting. Where it fails the row is swept by whoever arrives."""
    try:
        await database_sync_to_async(workers.leave)()
    except Exception as error:
        log.warning("That this worker has ended could not be said: %s", database.in_a_line(error))


class SimulationConsumer(AsyncConsumer):
    """Answers the doorbell."""

    async def simulations_look(self, message: dict) -> None:
        await look()


class PollingWorker(Worker):
    """Channels' worker that also looks by itself, outlives its channel layer, and gives its runs back at the end."""

    async def handle(self) -> None:
        tasks = [asyncio.create_task(self._poll()), asyncio.create_task(be_present())]
        tasks += [asyncio.create_task(self.listener(channel)) for channel in self.channels]
        try:
            with verifier.in_background():
                await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await runs.stop()
            await go()

    async def listener(self, channel: str) -> None:
        while True:
            try:
                await super().listener(channel)
            except Exception as error:
                log.warning("The channel layer does not answer (%s); looking every %s s", error, POLL_SECONDS)
                await asyncio.sleep(RETRY_SECONDS)

    async def _poll(self) -> None:
        while True:
            await look()
            await asyncio.sleep(POLL_SECONDS)
