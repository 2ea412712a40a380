"""Write a plug-in that keeps its contract, to begin with."""

import re
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from extensions.contract import FAMILIES
from kinds.kind import NAME

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("family", choices=FAMILIES)
        parser.add_argument("name", help="wage, in a file of its own, wage.py; or lab/wage, in lab.py")

    def handle(self, *args: Any, family: str, name: str, **options: Any) -> None:
        namespace, _, kind = name.rpartition("/")
        namespace = namespace or kind
        for each in (namespace, kind):
            if not NAME.fullmatch(each) or not each.isidentifier():
                raise CommandError(f"{each!r} is no name: a small letter, then small letters, digits and underscores")
        text = (EXAMPLES / f"{family}.py").read_text()
        usual = re.search(r'name="(\w+)"', text)
        assert usual is not None, "an example names its kind"
        text = re.sub(rf"\b{usual[1]}(?=\(|,\n)", kind, text).replace(usual[0], f'name="{kind}"')
        folder = Path(settings.FEDSITE_PLUGINS_DIR)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{namespace}.py"
        try:
            with path.open("x") as file:
                file.write(text)
        except FileExistsError:
            raise CommandError(f"{path} is there already") from None
        self.stdout.write(f"{path} has {namespace}/{kind}; `manage.py check_plugins {namespace}/{kind}` checks it")
