"""Train a recorded run again, unrecorded, and compare every hash, contribution and payment."""

import asyncio
import signal
import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from simulations import audit, processes
from simulations.models import Simulation
from simulations.running.process import Trainer
from simulations.running.trainer import Assignment
from simulations.showing.progress import Progress

INTERRUPTED = 130


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("id", type=int, metavar="ID", help="of the simulation")

    def handle(self, *args: Any, id: int, **options: Any) -> None:
        simulation = Simulation.objects.filter(pk=id).first()
        if simulation is None:
            raise CommandError(f"ID: there is no simulation {id}", returncode=2)
        if not simulation.rounds_done:
            raise CommandError(f"ID: {simulation} has no round that could be audited", returncode=2)
        found = audit.Audit(simulation)
        try:
            asyncio.run(self.work(simulation, found))
        except (KeyboardInterrupt, asyncio.CancelledError):
            sys.exit(INTERRUPTED)
        if found.difference:
            self.stderr.write(found.difference)
            sys.exit(1)
        later = simulation.shadows.exclude(added_at=None).count()
        self.stdout.write(
            f"Equal: {found.rounds:,} rounds trained again, {found.payments:,} payments of {found.economies} economies"
            + (f"; economies priced later, here {later:,}, are checked by recompute" if later else "")
        )

    async def work(self, simulation: Simulation, found: audit.Audit) -> None:
        processes.end_gently(asyncio.current_task(), signal.SIGINT, signal.SIGTERM, signal.SIGHUP, say=lambda: None)
        assignment = Assignment(
            config=simulation.config,
            scheme=simulation.scheme,
            data_dir=str(settings.FEDSITE_DATA_DIR),
            most_bytes=settings.FEDSITE_MAX_MEMORY,
            plugins_dir=str(settings.FEDSITE_PLUGINS_DIR),
            plugins=tuple(settings.FEDSITE_PLUGINS),
        )
        trainer = await Trainer.start(assignment)
        try:
            async for event in Progress(sys.stderr).show(trainer.events()):
                await asyncio.to_thread(found.hear, event)
                if found.is_done:
                    return
                if hasattr(event, "round_number"):
                    trainer.go_on()
            found.difference = f"the trainer ended with {await trainer.ended()} before all rounds were trained again"
        finally:
            await trainer.close()
