"""Compute a run's contributions and payments again from what was kept, and compare."""

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from simulations import repricing
from simulations.models import Simulation
from simulations.running.folding import CannotFold


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("id", type=int, metavar="ID", help="of the simulation")
        parser.add_argument("--round", type=int, metavar="N", help="only this round")

    def handle(self, *args: Any, id: int, round: int | None = None, **options: Any) -> None:
        simulation = Simulation.objects.filter(pk=id).first()
        if simulation is None:
            raise CommandError(f"ID: there is no simulation {id}", returncode=2)
        if round is not None and not 1 <= round <= simulation.rounds_done:
            raise CommandError(f"--round: {simulation} has rounds 1 to {simulation.rounds_done}", returncode=2)
        economies, payments = set(), 0
        try:
            for label, number, wrong in repricing.recompute(simulation, round):
                economies.add(label)
                payments += 1
                if wrong:
                    self.stderr.write(f"{label}, round {number}: {wrong}")
                    sys.exit(1)
        except CannotFold as error:
            self.stderr.write(str(error))
            sys.exit(1)
        self.stdout.write(f"Equal: {payments:,} payments of {len(economies):,} economies, computed again")
