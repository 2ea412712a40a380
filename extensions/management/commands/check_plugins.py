"""Run the whole contract of plug-ins, of all or of one. Exit status 1 where one does not keep it."""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from extensions import discovery
from extensions.descriptions import OUT, Description, described

FRESH = "fresh_process"


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("id", nargs="?", default="", help="a plug-in's file (lab), or one kind of it (lab/wage)")

    def handle(self, *args: Any, id: str, **options: Any) -> None:
        candidates = discovery.look(Path(settings.FEDSITE_PLUGINS_DIR), settings.FEDSITE_PLUGINS)
        namespace = id.partition("/")[0]
        if id:
            candidates = [candidate for candidate in candidates if candidate.namespace == namespace]
        broken = seen = 0
        for candidate in candidates:
            first = described(candidate, None, full=True)
            if first.error:
                self.stdout.write(f"{candidate.where}\n  broken: {first.error}")
                broken, seen = broken + 1, seen + 1
                continue
            second = described(candidate, None)
            for kind in first.kinds:
                if "/" in id and kind.name != id:
                    continue
                seen += 1
                self.stdout.write(f"{kind.name}  {kind.family}, version {kind.version}")
                results = [*first.results(kind), fresh(first, second, kind.name)]
                for result in results:
                    witness = f": {result['witness']}" if result["witness"] else ""
                    self.stdout.write(f"  {result['status']:<14} {result['check']}: {result['says']}{witness}")
                broken += any(result["status"] in OUT for result in results)
        if id and not seen:
            raise CommandError(f"There is no plug-in {id}")
        if broken:
            raise CommandError(f"{broken} of {seen} do not keep their contract")
        self.stdout.write(
            f"{seen} {'keeps its' if seen == 1 else 'keep their'} contract." if seen else "There are no plug-ins."
        )


def fresh(first: Description, second: Description, name: str) -> dict[str, Any]:
    """Whether two processes found the same."""
    one, two = (each.checks.get(name, {}).get("digest") for each in (first, second))
    holds = bool(one) and one == two
    return {
        "check": FRESH,
        "says": "gives the same in another process",
        "status": "holds" if holds else "refused",
        "witness": "" if holds else "another process, with another order of sets and hashes, gives something else",
        "required": True,
    }
