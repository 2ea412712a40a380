"""The worker inside the server: no second process to start, no broker to install."""

import asyncio
import logging
import sys
from typing import Any

from channels.layers import get_channel_layer
from twisted.internet.defer import Deferred

from simulations.running.bell import WORKER_CHANNEL
from simulations.running.worker import PollingWorker

log = logging.getLogger(__name__)


class EmbeddedWorker:
    """An ASGI application that also runs the worker on the server's own event loop.

    Daphne knows no start-up hook, but its loop exists before it runs: what is scheduled there now runs first thing when
    the server serves, and never in other commands. Under other servers the first connection starts it.
    """

    def __init__(self, application: Any) -> None:
        self.application = application
        self.task: asyncio.Task | None = None
        daphne = sys.modules.get("daphne.server")
        if daphne is not None:
            daphne.twisted_loop.call_soon(self.start)
            daphne.reactor.addSystemEventTrigger("before", "shutdown", self.stop)

    def start(self) -> None:
        if self.task is None or self.task.done():
            self.task = asyncio.get_running_loop().create_task(self._work())

    def stop(self) -> Deferred | None:
        """Give back what runs, before the server ends."""
        if self.task is None or self.task.done():
            return None
        self.task.cancel()
        return Deferred.fromFuture(asyncio.gather(self.task, return_exceptions=True))

    async def _work(self) -> None:
        worker = PollingWorker(self.application, [WORKER_CHANNEL], get_channel_layer())
        try:
            await worker.handle()
        except Exception:
            log.exception("The embedded worker stopped; the next request starts it again")

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        if scope["type"] != "channel":
            self.start()
        await self.application(scope, receive, send)
