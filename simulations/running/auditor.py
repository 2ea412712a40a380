"""The worker's part of an audit: a child trains the run again, unrecorded, and rounds are held against their record."""

import asyncio
import logging
import time
from contextlib import aclosing

from channels.db import database_sync_to_async
from django.conf import settings

from simulations import database, logs, processes
from simulations.audit import Comparison
from simulations.models import AuditStatus, Simulation
from simulations.running import audits
from simulations.running.audits import Claim
from simulations.running.patience import insist
from simulations.running.recorder import StaleClaim
from simulations.running.unrecorded import unrecorded

log = logging.getLogger(__name__)
REPORT_SECONDS = 2.0  # between two words of how far it is; a tenth of a lease at most
GIVE_UP_SECONDS = 10.0  # of a database whose disk is full, which may only be read, or which lacks something


async def run(claim: Claim) -> None:
    """See to a claimed audit. Ends early, without a word, where the claim goes stale; cancelled before its end, it
    gives the audit back. A database that does not answer is waited for."""
    logs.about(simulation=claim.simulation_id, audit=claim.audit_id, worker=processes.name())
    training = None
    try:
        comparison = await insist(_comparison, claim.simulation_id, give_up_seconds=GIVE_UP_SECONDS)
        training = asyncio.create_task(train(comparison))
        pause, began = min(REPORT_SECONDS, settings.FEDSITE_LEASE_SECONDS / 10), time.monotonic()
        while not (await asyncio.wait([training], timeout=pause))[0]:
            await insist(audits.report, claim, comparison.rounds, give_up_seconds=GIVE_UP_SECONDS)
            if settings.FEDSITE_MAX_SECONDS and time.monotonic() - began > settings.FEDSITE_MAX_SECONDS:
                comparison.failure = (
                    f"The audit took longer than the {settings.FEDSITE_MAX_SECONDS:,} seconds that are allowed "
                    "(FEDSITE_MAX_SECONDS)"
                )
                break
        else:
            await training
        await insist(_end, claim, comparison, give_up_seconds=GIVE_UP_SECONDS)
    except StaleClaim as stale:
        log.info("Stopped: %s", stale)
    except asyncio.CancelledError:
        await _give_back(claim)
        raise
    except Exception as error:
        await _fail(claim, error)
    finally:
        if training:
            training.cancel()
            await asyncio.gather(training, return_exceptions=True)  # it ends the child


async def train(comparison: Comparison) -> None:
    """Until all rounds are compared, or one of them differs."""
    simulation = comparison.simulation
    again = unrecorded(simulation.config, simulation.scheme, trainers=settings.FEDSITE_MAX_CONCURRENT)
    async with aclosing(again) as happenings:
        async for event in happenings:
            await insist(comparison.hear, event, give_up_seconds=GIVE_UP_SECONDS)
            if comparison.is_done:
                return


def _comparison(simulation_id: int) -> Comparison:
    return Comparison(Simulation.objects.get(pk=simulation_id))


def _end(claim: Claim, comparison: Comparison) -> None:
    status = AuditStatus.EQUAL
    if comparison.failure or comparison.difference:
        status = AuditStatus.FAILED if comparison.failure else AuditStatus.DIFFERENT
    names = ("rounds", "payments", "economies")
    found = {name: getattr(comparison, name) for name in names}
    audits.end(claim, status, comparison.failure or comparison.difference, **found)


async def _fail(claim: Claim, error: Exception) -> None:
    if database.is_trouble(error):
        log.error("The audit of simulation %s: %s", claim.simulation_id, database.sentence(error))
    else:
        log.error("The audit of simulation %s cannot go on", claim.simulation_id, exc_info=error)
    text = f"The audit could not go on: {database.reason(error) if database.is_trouble(error) else error}"
    try:
        await insist(audits.end, claim, AuditStatus.FAILED, text)
    except StaleClaim as stale:
        log.info("Stopped: %s", stale)


async def _give_back(claim: Claim) -> None:
    """Once, without insisting: we are asked to end. Where it fails the lease runs out."""
    try:
        await database_sync_to_async(audits.release)(claim)
    except StaleClaim:
        pass
    except Exception:
        log.exception("The audit of simulation %s could not be given back; its lease will expire", claim.simulation_id)
