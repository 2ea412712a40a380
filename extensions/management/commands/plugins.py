"""The plug-ins that are here, each with its checks or its error. Exit status 1 where one is broken."""

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from extensions import catalogue


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="one JSON array instead of lines")

    def handle(self, *args: Any, json: bool, **options: Any) -> None:
        catalogue.current.settle()
        entries = catalogue.current.entries()
        if json:
            self.stdout.write(as_json(entries))
        else:
            self._lines(entries)
        broken = sum(entry.is_broken for entry in entries)
        if broken:
            raise CommandError(f"{broken} of {len(entries)} plug-ins {'is' if broken == 1 else 'are'} broken")

    def _lines(self, entries: list[catalogue.Entry]) -> None:
        if not entries:
            self.stdout.write("There are no plug-ins.")
        for entry in entries:
            source = f"  source {entry.sha256[:12]}" if entry.sha256 else ""
            self.stdout.write(f"{entry.where}{source}")
            if entry.error:
                self.stdout.write(f"  broken: {entry.error}")
            for member in entry.members:
                state = "offered" if member.is_offered else "refused" if member.refused else "switched off"
                kept = sum(result["status"] == "holds" for result in member.results)
                text = f"  {member.kind.name}  {member.kind.family}, version {member.kind.version}, {state}"
                self.stdout.write(f"{text}, {kept} of {len(member.results)} checks hold")
                if member.refused and member.refused != entry.error:
                    self.stdout.write(f"    {member.refused}")


def as_json(entries: list[catalogue.Entry]) -> str:
    found = [
        {
            "where": entry.where,
            "error": entry.error or None,
            "traceback": entry.traceback or None,
            "source_sha256": entry.sha256 or None,
            "kinds": [
                {
                    "family": member.kind.family,
                    **member.kind.to_dict(),
                    "offered": member.is_offered,
                    "enabled": member.is_enabled,
                    "refused": member.refused or None,
                    "checks": list(member.results),
                }
                for member in entry.members
            ],
        }
        for entry in entries
    ]
    return json.dumps(found, indent=2)
