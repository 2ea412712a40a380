"""Derive every hash, number and balance of the ledgers again, and compare their heads with the simulations' copies."""

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection, transaction
from django.db.models import Min, Q, QuerySet

from incentives import triggers, verified
from incentives.models import Ledger, Verified
from simulations import records
from simulations.models import Shadow, Simulation
from simulations.running.verifier import noted
from simulations.showing.stream import timestamp


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--simulation", type=int, metavar="ID", help="only the ledgers of this simulation")
        parser.add_argument("--since", action="store_true", help="only what was posted since the last verification")
        parser.add_argument(
            "--restore-triggers", action="store_true", help="first put back what refuses to change history"
        )

    def handle(
        self,
        *args: Any,
        simulation: int | None = None,
        since: bool = False,
        restore_triggers: bool = False,
        **options: Any,
    ) -> None:
        chosen, found = ledgers(simulation), []
        if restore_triggers:
            with transaction.atomic():
                triggers.remove(connection)
                triggers.install(connection)
        if missing := triggers.missing(connection):
            self.stderr.write(triggers.sentence(missing))
        oldest = Verified.objects.filter(ledger__in=chosen).aggregate(oldest=Min("complete_at"))["oldest"]
        for ledger in list(chosen):
            found.append(verified.look(ledger, noted, records.wrong, full=not since))
            if not found[-1].ok:
                self.stderr.write(str(found[-1].problem))
                sys.exit(1)
        transactions, transfers = sum(each.transactions for each in found), sum(each.transfers for each in found)
        said = f"Verified {len(found):,} ledgers: {transactions:,} transactions, {transfers:,} transfers"
        if since:
            read = sum(each.read for each in found)
            said += f"; {read:,} transactions were read now"
            said += f", the others since {timestamp(oldest)}" if read < transactions else ""
        self.stdout.write(said)
        if missing:
            sys.exit(1)


def ledgers(simulation_id: int | None) -> QuerySet[Ledger]:
    """In the order in which they were opened."""
    if simulation_id is None:
        return Ledger.objects.order_by("pk")
    simulations = Simulation.objects.filter(pk=simulation_id, ledger__isnull=False)
    if not simulations:
        raise CommandError(f"--simulation: there is no simulation {simulation_id}", returncode=2)
    shadows = Shadow.objects.filter(simulation=simulation_id)
    return Ledger.objects.filter(Q(pk__in=simulations.values("ledger")) | Q(pk__in=shadows.values("ledger"))).order_by(
        "pk"
    )
