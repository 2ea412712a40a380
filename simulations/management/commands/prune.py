"""Let go of old log text, evidence, checkpoints, and archived runs' contributions. Without --yes it only says what."""

import argparse
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import connection
from django.template.defaultfilters import filesizeformat
from django.utils import timezone

from simulations import pruning

DAYS = 90


def days(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 36_500:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days from 0 to 36500")
    return int(text)


class Command(BaseCommand):
    help = __doc__
    requires_migrations_checks = True

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--older-than", type=days, default=DAYS, metavar="DAYS", help=f"default {DAYS}")
        parser.add_argument("--yes", action="store_true", help="do it; it cannot be undone")

    def handle(self, *args: Any, older_than: int, yes: bool, **options: Any) -> None:
        simulations = pruning.finished_before(timezone.now() - timedelta(days=older_than))
        self.stdout.write(f"Of {simulations.count():,} simulations that finished more than {older_than} days ago:")
        for part in pruning.plan(simulations):
            size = "" if part.bytes is None else f" ({filesizeformat(part.bytes)})".replace("\xa0", " ")
            self.stdout.write(f"  {part.number:,} {part.what}{size}: {part.afterwards}")
        self.stdout.write(
            "Afterwards verify_ledger proves what it did before: no transaction is ever removed. Configuration, rounds,"
            " hashes and sums stay, so that a run can be trained again and compared."
        )
        if not yes:
            self.stdout.write("Nothing was changed. With --yes it is done, and cannot be undone.")
            return
        self.stdout.write(f"Pruned {pruning.prune(simulations):,} simulations.")
        if connection.vendor == "sqlite":
            self.stdout.write(
                "The file keeps its size and is filled again; VACUUM, with the site stopped, makes it smaller."
            )
