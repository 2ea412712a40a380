"""`manage.py runworker simulations`: Channels' command with a worker that polls too and ends as supervisors expect."""

import asyncio
import logging
import signal
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from channels.management.commands import runworker
from django.conf import settings
from django.core.management.base import CommandParser
from django.db import connection

from simulations import database, processes
from simulations.running.worker import POLL_SECONDS, PollingWorker

log = logging.getLogger(__name__)
END_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StandingWorker(PollingWorker):
    """Ends on SIGTERM as on Ctrl-C: what runs is given back first, within a bounded time; a second one ends at once."""

    def __init__(self, *args: Any, alive_file: Path | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.alive_file = alive_file

    async def arun(self) -> None:
        with suppress(asyncio.CancelledError):
            await super().arun()
        log.info("The worker %s has ended", processes.name())

    async def handle(self) -> None:
        # Cancelled here and not in arun, which would not wait until what runs is given back. Where the database does
        # not answer in time, the lease expires instead; trainers end with us, however we do.
        say = partial(log.info, "Ending: giving back what runs")
        processes.end_gently(asyncio.current_task(), *END_SIGNALS, say=say)
        touching = asyncio.create_task(keep_touching(self.alive_file)) if self.alive_file else None
        try:
            await super().handle()
        finally:
            if touching:
                touching.cancel()


async def keep_touching(path: Path) -> None:
    """Show a supervisor, by the time of a file, that the worker is not stuck."""
    while True:
        path.touch()
        await asyncio.sleep(POLL_SECONDS)


class Command(runworker.Command):
    help = "Claims simulations that wait and has them trained, until SIGTERM. Start as many as you like."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--alive-file", type=Path, metavar="PATH", help="a file to touch every second")

    def handle(self, *args: Any, alive_file: Path | None = None, **options: Any) -> None:
        database.require()
        connection.close()  # the worker's threads have their own
        self.worker_class = partial(StandingWorker, alive_file=alive_file)
        how = "is rung by Redis, and looks" if settings.REDIS_URL else "looks"
        log.info("The worker %s %s every %g s", processes.name(), how, POLL_SECONDS)
        super().handle(*args, **options)
