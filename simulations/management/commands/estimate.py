"""What a simulation would take, from its configuration alone: seconds, memory, rows, coalitions, tokens."""

import argparse
import json
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import Error

from kinds import ConfigError
from simulations import estimates, paces
from simulations.management.commands.run_simulation import add_fields, configuration
from simulations.running import lifecycle
from simulations.showing import wording


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.formatter_class = argparse.HelpFormatter
        parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
        add_fields(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Exit 1 where the run would be refused, 2 where it is no configuration."""
        config = configuration(options.get("fields", {}))
        try:
            past = paces.past()
        except Error:
            past = []  # without a database the model's own pace will do
        found = estimates.estimate(config, past)
        refused = None
        try:
            lifecycle.refuse_what_is_too_much(config, by_shell=True)
        except ConfigError as error:
            refused = error.errors
        if options["json"]:
            self.stdout.write(json.dumps(found.to_dict() | {"refused": refused}))
        else:
            self.stdout.write(in_lines(found, wording.most_tokens(config, found.tokens) or "none"))
            for name, text in (refused or {}).items():
                self.stderr.write(f"{name}: {text}")
        if refused:
            raise SystemExit(1)


def in_lines(found: estimates.Estimate, tokens: str) -> str:
    pace = f"by {found.paced_by} runs here" if found.paced_by else "nothing has run here yet"
    return "\n".join(
        f"{name:<12}{value}"
        for name, value in (
            ("Time", f"{estimates.duration(found.seconds)} ({pace})"),
            ("Memory", f"{found.memory_bytes / estimates.GIGABYTE:.1f} GB"),
            ("Rows", f"{found.rows:,}"),
            ("Coalitions", f"{found.coalitions:,}"),
            ("Tokens", tokens),
        )
    )
