"""The ledger as a file."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from incentives.export import FORMATS
from incentives.models import Ledger


class Command(BaseCommand):
    help = "Write ledgers to standard output, oldest first."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--format", choices=FORMATS, required=True)
        parser.add_argument("--ledger", metavar="NAME", help="one ledger only: simulation-12, manual, ...")

    def handle(self, *args: Any, **options: Any) -> None:
        ledgers = Ledger.objects.order_by("pk")
        if options["ledger"] is not None:
            ledgers = ledgers.filter(name=options["ledger"])
            if not ledgers:
                raise CommandError(f"--ledger: there is no ledger {options['ledger']!r}", returncode=2)
        for line in FORMATS[options["format"]](ledgers.iterator()):
            self.stdout.write(line, ending="")
