"""Give a finished run another economy, priced from its evidence: as if it had been in the configuration."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from extensions import catalogue
from incentives.rewards import MICROTOKENS
from kinds import ConfigError
from simulations import repricing
from simulations.management.commands.run_simulation import assign
from simulations.models import Simulation
from simulations.running.folding import CannotFold
from simulations.showing import results
from simulations.showing.progress import clients_table


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("id", type=int, metavar="ID", help="of the simulation")
        parser.add_argument("--label", required=True, help="how the economy is called")
        parser.add_argument(
            "--set",
            action="append",
            dest="texts",
            default=[],
            metavar="FIELD=VALUE",
            help="what it does not take from the paying economy, as in reward_rule.kind=equal",
        )

    def handle(self, *args: Any, id: int, label: str, texts: list[str], **options: Any) -> None:
        simulation = Simulation.objects.filter(pk=id).first()
        if simulation is None:
            raise CommandError(f"ID: there is no simulation {id}", returncode=2)
        catalogue.current.look()
        values: dict[str, Any] = {}
        try:
            for text in texts:
                assign(values, text)
        except ValueError as error:
            raise CommandError(f"--set: {error}", returncode=2) from None
        try:
            shadow = repricing.reprice(simulation, label, values)
        except ConfigError as error:
            raise CommandError(str(error), returncode=2) from None
        except CannotFold as error:
            raise CommandError(f"{label}: {error}") from None
        self.stdout.write(clients_table(results.clients_of(simulation, shadow)) + "\n\n")
        tokens = shadow.paid_microtokens / MICROTOKENS
        self.stdout.write(
            f"{shadow.label}: {tokens:,.6f} tokens over {shadow.rounds_done:,} rounds on ledger {shadow.ledger.name}, "
            f"head {shadow.ledger_head}"
        )
