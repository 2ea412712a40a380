"""A run that nobody writes down: its events from a trainer of its own, live."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from django.conf import settings

from simulations.running.events import Completed, Event, Failed, Round
from simulations.running.process import Trainer
from simulations.running.trainer import Assignment


async def unrecorded(config: Mapping[str, Any], scheme: int, *, trainers: int = 1) -> AsyncIterator[Event]:
    """The events of a configuration as a record holds it, of so many `trainers` that may be at work at once here.

    Ends with `completed` or `failed`, of a trainer that dies too. Closed before, it ends the trainer.
    """
    assignment = Assignment(
        config=dict(config),
        scheme=scheme,
        data_dir=str(settings.FEDSITE_DATA_DIR),
        most_bytes=settings.FEDSITE_MAX_MEMORY,
        trainers=trainers,
        plugins_dir=str(settings.FEDSITE_PLUGINS_DIR),
        plugins=tuple(settings.FEDSITE_PLUGINS),
    )
    trainer = await Trainer.start(assignment)
    try:
        async for event in trainer.events():
            yield event
            if isinstance(event, Completed | Failed):
                return
            if isinstance(event, Round):
                trainer.go_on()
        yield Failed(message=f"The trainer ended without a word ({await trainer.ended()})", traceback="")
    finally:
        await trainer.close()
