"""Derive every hash, number and balance of the ledgers again, and compare their heads with the simulations' copies."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from incentives.ledger import Verification, verify
from incentives.models import Ledger
from simulations.models import Simulation


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--simulation", type=int, metavar="ID", help="only the ledger of this simulation")

    def handle(self, *args: Any, simulation: int | None = None, **options: Any) -> None:
        ledgers = transactions = transfers = 0
        for found in verified(simulation):
            if not found.ok:
                self.stderr.write(str(found.problem))
                sys.exit(1)
            ledgers, transactions, transfers = (
                ledgers + 1,
                transactions + found.transactions,
                transfers + found.transfers,
            )
        self.stdout.write(f"Verified {ledgers:,} ledgers: {transactions:,} transactions, {transfers:,} transfers")


def verified(simulation_id: int | None) -> Iterator[Verification]:
    """Ledgers in the order in which they were opened, each held against its simulation's copy of head and length."""
    simulations = Simulation.objects.filter(ledger__isnull=False)
    ledgers = Ledger.objects.order_by("pk")
    if simulation_id is not None:
        simulations = simulations.filter(pk=simulation_id)
        if not simulations:
            raise CommandError(f"--simulation: there is no simulation {simulation_id}", returncode=2)
        ledgers = ledgers.filter(pk__in=simulations.values("ledger"))
    # The copies first: what is posted meanwhile makes a ledger longer than its copy, and its copy too.
    copies = {row[0]: row[1:] for row in simulations.values_list("ledger_id", "ledger_head", "ledger_length")}
    for ledger in ledgers:
        found = verify(ledger, copies.get(ledger.pk))
        yield no_longer(found, ledger.pk) if found.ok and ledger.pk in copies else found


def no_longer(found: Verification, ledger_id: int) -> Verification:
    """Whoever posts to a simulation's ledger writes its row's copy in the same transaction: more is forged."""
    noted = Simulation.objects.values_list("ledger_length", flat=True).get(ledger=ledger_id)
    if found.transactions <= noted:
        return found
    problem = f"{found.ledger}, transaction {noted + 1}: its simulation's row ends with transaction {noted}"
    return replace(found, ok=False, problem=problem)
