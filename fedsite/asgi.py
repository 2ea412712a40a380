"""The whole site as one ASGI application: pages, JSON and streams over HTTP, and the worker on its channel."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fedsite.settings")

from contextlib import ExitStack
from typing import Any

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from channels.routing import ChannelNameRouter, ProtocolTypeRouter
from django.core.asgi import get_asgi_application

pages = get_asgi_application()  # loads the apps, so it comes before what uses models

from django.conf import settings  # noqa: E402
from django.db import connection, connections  # noqa: E402

from fedsite.connections import at_the_readers_pace, guard  # noqa: E402
from fedsite.root import OwnRoot  # noqa: E402
from simulations import database  # noqa: E402
from simulations.running.embedded import EmbeddedWorker  # noqa: E402
from simulations.running.worker import SimulationConsumer  # noqa: E402


async def http(scope: Any, receive: Any, send: Any) -> None:
    """A request has a thread of its own. When it ends, `scope["at_end"]` gives back what it has taken, in that thread,
    where nothing of it runs any more. A visitor who leaves early leaves a response that nobody closes, and what is
    only forgotten stays until memory is tidied up."""
    async with ThreadSensitiveContext():
        ends = scope["at_end"] = ExitStack()
        ends.callback(connections.close_all)
        try:
            await pages(scope, receive, at_the_readers_pace(send))
        finally:
            await sync_to_async(ends.close)()


guard()
if connection.vendor == "sqlite":  # whoever waits for a page is told that the file is locked; the worker asks again
    connection.settings_dict["OPTIONS"]["timeout"] = 5
try:
    database.require()
finally:
    connection.close()
application = ProtocolTypeRouter(
    {"http": OwnRoot(http), "channel": ChannelNameRouter({"simulations": SimulationConsumer.as_asgi()})}
)
if settings.EMBEDDED_WORKER:
    application = EmbeddedWorker(application)
