"""The data of a site of version 0.1, to prove that later versions still read and verify them.

    python -m fedsite.tests.first_ledger make FILE     runs simulations on a database of its own and writes its rows
    python -m fedsite.tests.first_ledger load FILE     into a database (DATABASE_URL) migrated as far as FILE knows

FILE has a JSON object a line: first the newest migrations that its rows know, then each row as `dumpdata` writes it.
first_ledger.jsonl was made once, by version 0.1; a later version that changes what is hashed adds a file beside it.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from fedsite.tests import servers

FILE = Path(__file__).with_suffix(".jsonl")
APPS = ("incentives", "simulations")
RUNS = (
    ("--num-clients", "3", "--num-rounds", "3", "--set", "behaviours.2.kind=free_rider"),
    ("--num-clients", "4", "--num-rounds", "2", "--valuation", "leave_one_out", "--pool", "fixed"),
    ("--num-clients", "2", "--num-rounds", "1", "--valuation", "none"),
)
BY_HAND = """
from incentives import ledger
from incentives.chain import Entry
manual = ledger.open_ledger("manual")
gift = ledger.post(manual.pk, key="gift", transfers=[Entry("mint", "client:1", 2_500_000, "reward"),
    Entry("mint", "client:7", 1, "reward")], description="Für die ersten Zwei", memo={"note": "ä ö ü", "round": 1})
ledger.post(manual.pk, key="second", transfers=[Entry("client:1", "treasury", 500_000, "refund")])
ledger.reverse(ledger.post(manual.pk, key="slip", transfers=[Entry("mint", "client:7", 9, "reward")]), "a slip")
"""


def make(file: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        servers.migrate(Path(folder))
        environment = servers.site_environment(Path(folder))
        for options in RUNS:
            manage(environment, "run_simulation", "--dataset", "digits", *options)
        manage(environment, "shell", "-v0", "-c", BY_HAND)
        print(manage(environment, "verify_ledger"), end="")
        migrations = {app: newest(manage(environment, "showmigrations", app)) for app in APPS}
        rows = manage(environment, "dumpdata", "--format", "jsonl", *APPS)
    file.write_text(json.dumps(migrations) + "\n" + rows)


def manage(environment: dict[str, str], *arguments: str) -> str:
    done = servers.run_manage(*arguments, environment=environment)
    if done.returncode:
        raise SystemExit(f"{arguments[0]}: {done.stdout}{done.stderr}")
    return done.stdout


def migrate_to(environment: dict[str, str], file: Path) -> None:
    """A database with the migrations that the file's rows know, by one process."""
    targets = [*migrations_of(file).items()]
    code = "from django.core.management import call_command\n"
    manage(
        environment, "shell", "-v0", "-c", f"{code}for each in {targets}: call_command('migrate', *each, verbosity=0)"
    )


def newest(shown: str) -> str:
    return shown.split()[-1]


def migrations_of(file: Path) -> dict[str, str]:
    """The newest migration of each app that the file's rows know."""
    with file.open() as lines:
        head = dict(json.loads(next(lines)))
    return dict(head.get("migrations", head))


def load(file: Path) -> None:
    """Through the models as they were then; the triggers of then watch."""
    import django

    django.setup()
    from django.core.management.color import no_style
    from django.db import connection, transaction
    from django.db.migrations.executor import MigrationExecutor

    states = MigrationExecutor(connection).loader.project_state(list(migrations_of(file).items()))
    with transaction.atomic(), file.open() as lines:
        for row in [json.loads(line) for line in lines][1:]:
            made(states.apps.get_model(row["model"]), row).save(force_insert=True)
        models = [model for model in states.apps.get_models() if model._meta.app_label in APPS]
        for statement in connection.ops.sequence_reset_sql(no_style(), models):  # rows came with their numbers
            connection.cursor().execute(statement)


def made(model: Any, row: dict[str, Any]) -> Any:
    values = {
        field.attname: row["fields"][field.name] for field in model._meta.concrete_fields if not field.primary_key
    }
    parsed = {name: model._meta.get_field(name.removesuffix("_id")).to_python(value) for name, value in values.items()}
    return model(pk=row["pk"], **parsed)


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fedsite.settings")
    {"make": make, "load": load}[sys.argv[1]](Path(sys.argv[2]))
