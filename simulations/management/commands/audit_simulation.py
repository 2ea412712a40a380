"""Train a recorded run again, unrecorded, and compare every hash, contribution and payment."""

import asyncio
import signal
import sys
from contextlib import aclosing
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from simulations import processes
from simulations.audit import Comparison
from simulations.models import Simulation
from simulations.running.unrecorded import unrecorded
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
        found = Comparison(simulation)
        try:
            asyncio.run(self.work(simulation, found))
        except (KeyboardInterrupt, asyncio.CancelledError):
            sys.exit(INTERRUPTED)
        if found.difference or found.failure:
            self.stderr.write(found.difference or found.failure)
            sys.exit(1)
        later = simulation.shadows.exclude(added_at=None).count()
        self.stdout.write(
            f"Equal: {found.rounds:,} rounds trained again, {found.payments:,} payments of {found.economies} economies"
            + (f"; economies priced later, here {later:,}, are checked by recompute" if later else "")
        )

    async def work(self, simulation: Simulation, found: Comparison) -> None:
        processes.end_gently(asyncio.current_task(), signal.SIGINT, signal.SIGTERM, signal.SIGHUP, say=lambda: None)
        again = unrecorded(simulation.config, simulation.scheme)
        async with aclosing(Progress(sys.stderr).show(again)) as happenings:
            async for event in happenings:
                await asyncio.to_thread(found.hear, event)
                if found.is_done:
                    return
