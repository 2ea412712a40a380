"""`manage.py runworker simulations`: Channels' command with a worker that also polls."""

import asyncio
import signal
from contextlib import suppress

from channels.management.commands import runworker

from simulations.worker import PollingWorker


class StandingWorker(PollingWorker):
    """Ends on SIGTERM as on Ctrl-C: what runs is given back first."""

    async def arun(self) -> None:
        task = asyncio.current_task()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        with suppress(asyncio.CancelledError):
            await super().arun()


class Command(runworker.Command):
    worker_class = StandingWorker
