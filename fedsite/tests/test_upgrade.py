"""A site of version 0.1 is upgraded by `migrate`: its ledgers still verify, are still append-only, and go on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedsite.tests import first_ledger, servers
from fedsite.tests.machine import PROJECT
from fedsite.tests.with_postgres import postgres

TAMPER = "from django.db import connection; connection.cursor().execute('UPDATE {}')"
CHANGES = {
    "sqlite": ("incentives_transfer SET amount = 1", "incentives_account SET rowid = id + 5000"),
    "postgresql": ("incentives_transfer SET amount = 1", "incentives_account SET id = id + 5000"),
}
POST = (
    "from incentives import ledger; from incentives.chain import Entry; from incentives.models import Ledger; "
    "ledger.post(Ledger.objects.get(name='manual').pk, key='new', transfers=[Entry('mint', 'client:9', 5, 'reward')])"
)


@pytest.fixture(params=["sqlite", "postgresql"])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a site whose data base is as version 0.1 left it."""
    environment = servers.site_environment(tmp_path)
    if request.param == "sqlite":
        yield loaded(environment)
        return
    with postgres() as url:
        yield loaded(environment | {"DATABASE_URL": url})


def loaded(environment: dict[str, str]) -> dict[str, str]:
    for app, migration in first_ledger.migrations_of(first_ledger.FILE).items():
        first_ledger.manage(environment, "migrate", "-v0", app, migration)
    command = [sys.executable, "-m", "fedsite.tests.first_ledger", "load", str(first_ledger.FILE)]
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return environment


def test_the_first_ledgers_still_verify_and_go_on(old: dict[str, str]) -> None:
    first_ledger.manage(old, "migrate", "-v0")
    assert first_ledger.manage(old, "verify_ledger") == "Verified 4 ledgers: 9 transactions, 24 transfers\n"
    for change in CHANGES["postgresql" if "DATABASE_URL" in old and "postgres" in old["DATABASE_URL"] else "sqlite"]:
        refused = servers.run_manage("shell", "-v0", "-c", TAMPER.format(change), environment=old)
        assert "append-only" in refused.stderr
    first_ledger.manage(old, "shell", "-v0", "-c", POST)
    assert first_ledger.manage(old, "verify_ledger") == "Verified 4 ledgers: 10 transactions, 25 transfers\n"
