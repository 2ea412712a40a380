"""The whole site as one ASGI application: pages, JSON and streams over HTTP, and the worker on its channel."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fedsite.settings")

from channels.routing import ChannelNameRouter, ProtocolTypeRouter
from django.core.asgi import get_asgi_application

http = get_asgi_application()  # loads the apps, so it comes before what uses models

from django.conf import settings  # noqa: E402

from fedsite.migrated import require_migrations  # noqa: E402
from fedsite.root import OwnRoot  # noqa: E402
from simulations.running.embedded import EmbeddedWorker  # noqa: E402
from simulations.running.worker import SimulationConsumer  # noqa: E402

require_migrations()
application = ProtocolTypeRouter(
    {"http": OwnRoot(http), "channel": ChannelNameRouter({"simulations": SimulationConsumer.as_asgi()})}
)
if settings.EMBEDDED_WORKER:
    application = EmbeddedWorker(application)
