"""What is wrong with a database is told apart and said in a sentence: what passes is waited for, what lasts is not."""

import contextlib
import logging
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from django.db import Error, OperationalError, connection, connections

from fedsite.tests import servers
from fedsite.tests.machine import PROJECT
from simulations import database
from simulations.running import patience
from simulations.tests.cast import FIELDS
from simulations.tests.test_outages import give_up_privileges

LONG = FIELDS | {"num_rounds": 150}


def as_django_says(error: sqlite3.Error) -> OperationalError:
    raised = OperationalError(*error.args)
    raised.__cause__ = error
    return raised


def sqlite_error(folder: Path, what: str) -> OperationalError:
    """What SQLite really says of a file that is in such a state."""
    file = folder / "some.sqlite3"
    with contextlib.closing(sqlite3.connect(file)) as holder:
        holder.execute("CREATE TABLE t (x)")
        holder.commit()
        try:
            if what == "locked":
                holder.execute("BEGIN IMMEDIATE")
                sqlite3.connect(file, timeout=0).execute("BEGIN IMMEDIATE")
            if what == "full":
                holder.execute("PRAGMA max_page_count = 2")
                holder.execute("INSERT INTO t VALUES (zeroblob(100000))")
            if what == "read-only":
                sqlite3.connect(f"file:{file}?mode=ro", uri=True).execute("INSERT INTO t VALUES (1)")
            if what == "behind":
                holder.execute("INSERT INTO t (y) VALUES (1)")
            if what == "unmigrated":
                holder.execute("SELECT * FROM u")
            if what == "nowhere":
                sqlite3.connect(folder / "missing" / "some.sqlite3")
        except sqlite3.OperationalError as error:
            return as_django_says(error)
    raise AssertionError(f"SQLite does not mind: {what}")


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("what", "passes", "reason"),
    [
        ("locked", True, "is locked by another process"),
        ("full", False, "'s disk is full"),
        ("read-only", False, "may only be read"),
        ("behind", False, "lacks migrations"),
        ("unmigrated", False, "lacks migrations"),
        ("nowhere", False, "'s file cannot be opened"),
    ],
)
def test_it_knows_what_sqlite_means(tmp_path, what, passes, reason):
    error = sqlite_error(tmp_path, what)
    assert database.is_trouble(error)
    assert database.passes(error) is passes
    assert database.reason(error) == f"the database{'' if reason.startswith(chr(39)) else ' '}{reason}"
    assert database.name() in database.sentence(error)
    assert database.name() not in database.reason(error)


@pytest.mark.django_db
@pytest.mark.database
@pytest.mark.parametrize(
    ("statement", "passes", "reason"),
    [
        ("SELECT absent FROM simulations_simulation", False, "lacks migrations"),
        ("SELECT * FROM absent", False, "lacks migrations"),
        ("SET TRANSACTION READ ONLY; DELETE FROM simulations_worker", False, "may only be read"),
        ("SELECT pg_terminate_backend(pg_backend_pid())", True, "does not answer"),
        ("SET statement_timeout = 1; SELECT pg_sleep(9)", True, "does not answer"),
    ],
)
def test_it_knows_what_the_database_of_these_tests_means(statement, passes, reason):
    if connection.vendor == "sqlite":
        statement, passes, reason = "SELECT absent FROM simulations_simulation", False, "lacks migrations"
    own = connections.create_connection("default")  # what it breaks is not the test's
    try:
        with pytest.raises(Error) as raised, own.cursor() as cursor:
            cursor.execute(statement)
    finally:
        own.close()
    assert database.is_trouble(raised.value)
    assert (database.passes(raised.value), database.reason(raised.value)) == (passes, f"the database {reason}")


async def test_what_lasts_is_given_up_and_what_passes_is_not_and_neither_fills_the_log(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(patience, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(database, "_complained", {})
    (tmp_path / "other").mkdir()
    full, locked, said = sqlite_error(tmp_path, "full"), sqlite_error(tmp_path / "other", "locked"), []

    def call(error, times):
        said.append(error)
        if len(said) <= times:
            raise error
        return "an answer"

    with caplog.at_level(logging.WARNING):
        assert await patience.insist(call, locked, 30, give_up_seconds=0.05) == "an answer"
        said.clear()
        with pytest.raises(OperationalError, match="full"):
            await patience.insist(call, full, 10**9, give_up_seconds=0.2)
        said.clear()
        assert await patience.insist(call, full, 30) == "an answer"
    assert len(caplog.records) == 2  # one of each kind, and not one a try


# A whole site


def post(server: servers.Server, fields=FIELDS) -> httpx.Response:
    return httpx.post(f"{server.url}/api/simulations/", json=fields, timeout=60)


def record(server: servers.Server) -> dict:
    return httpx.get(f"{server.url}/api/simulations/1/", timeout=60).json()


def wait_for(condition, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_while_somebody_holds_the_lock_pages_are_shown_and_a_start_is_a_plain_503(start_server):
    """A process that was stopped within a transaction holds it for as long as it likes."""
    server = start_server()
    holder = sqlite3.connect(server.folder / "db.sqlite3", isolation_level=None, timeout=60)
    holder.execute("BEGIN IMMEDIATE")
    begin = time.monotonic()
    refused = post(server)
    assert time.monotonic() - begin < 18  # 5 s are what it waits
    assert refused.status_code == 503
    assert refused.json()["detail"].startswith("This cannot be done now: the database is locked by another process.")
    assert int(refused.headers["Retry-After"]) > 0
    assert httpx.get(server.url, timeout=60).status_code == 200
    holder.execute("ROLLBACK")
    holder.close()
    assert post(server).status_code == 201
    assert "Traceback" not in server.log
    assert "Internal Server Error" not in server.log


@contextlib.contextmanager
def small_disk(folder: Path):
    """A file system of 80 MB, somewhat more than a site wants to have free; None where we may not make one."""
    folder.mkdir()
    mounted = sys.platform == "linux" and shutil.which("mount")
    done = mounted and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", folder], capture_output=True)
    try:
        yield folder if done and done.returncode == 0 else None
    finally:
        if done and done.returncode == 0:
            subprocess.run(["umount", "--lazy", folder], check=True)


def test_on_a_full_disk_a_start_is_a_plain_503_and_a_run_ends_with_its_reason_and_goes_on(
    tmp_path, migrated_database, start_server
):
    with small_disk(tmp_path / "small") as folder:
        if folder is None:
            return pytest.xfail("no file system can be mounted here")
        shutil.copyfile(migrated_database, folder / "db.sqlite3")
        server = start_server(DATABASE_URL=f"sqlite:///{folder / 'db.sqlite3'}")
        assert post(server, LONG).status_code == 201
        wait_for(lambda: record(server)["rounds_done"] >= 2)
        filler = folder / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            for size in (1 << 20, 4096):
                while file.write(bytes(size)) == size:
                    pass
        wait_for(lambda: "disk is full" in server.log)
        refused = post(server)
        assert refused.status_code == 503
        assert "the database's disk is full" in refused.json()["detail"]
        wait_for(lambda: "cannot be recorded" in server.log)
        filler.unlink()
        wait_for(lambda: record(server)["status"] == "failed")
        assert record(server)["failure"] == "What the trainer said could not be recorded: the database's disk is full"
        assert server.log.count("disk is full") < 12
        assert "Traceback" not in server.log
        assert httpx.post(f"{server.url}/api/simulations/1/resume/", json={}).status_code == 200
        before = record(server)["rounds_done"]
        wait_for(lambda: record(server)["rounds_done"] > before)
        server.stop()


def test_what_the_database_lacks_fails_the_run_in_bounded_time_and_it_goes_on_by_resume(start_server):
    server = start_server()
    assert post(server, LONG).status_code == 201
    wait_for(lambda: record(server)["rounds_done"] >= 2)
    rename(server, "rule", "rule_of_another_release")
    wait_for(lambda: status(server) == "failed")
    rename(server, "rule_of_another_release", "rule")
    assert record(server)["failure"] == "What the trainer said could not be recorded: the database lacks migrations"
    assert "Traceback" not in server.log
    assert httpx.post(f"{server.url}/api/simulations/1/resume/", json={}).status_code == 200
    wait_for(lambda: record(server)["status"] == "completed")
    assert server.manage("verify_ledger").returncode == 0


def rename(server: servers.Server, old: str, new: str) -> None:
    with contextlib.closing(sqlite3.connect(server.folder / "db.sqlite3", timeout=60)) as file:
        file.execute(f"ALTER TABLE simulations_round RENAME COLUMN {old} TO {new}")
        file.commit()


def status(server: servers.Server) -> str:
    with contextlib.closing(sqlite3.connect(server.folder / "db.sqlite3", timeout=60)) as file:
        return file.execute("SELECT status FROM simulations_simulation WHERE id = 1").fetchone()[0]


PROGRAMS = {
    "shell": ("manage.py", "run_simulation", "--dataset", "digits", "--num-rounds", "1"),
    "worker": ("manage.py", "runworker", "simulations"),
    "server": ("-m", "daphne", "--port", "0", "fedsite.asgi:application"),
}
STATES = {
    "in a missing folder": "The database's file cannot be opened: {file}",
    "read-only": "The database may only be read: {file}",
    "unmigrated": r"The database lacks \d+ migrations",
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_start_on_a_database_that_cannot_be_used_is_one_sentence_with_its_file(
    tmp_path, migrated_database, program, state
):
    folder = tmp_path / "folder"
    file = folder / "db.sqlite3"
    if state != "in a missing folder":
        folder.mkdir()
    if state == "read-only":
        shutil.copyfile(migrated_database, file)
        file.chmod(0o444)
        folder.chmod(0o555)
    environment = servers.site_environment(tmp_path) | {"DATABASE_URL": f"sqlite:///{file}"}
    done = subprocess.run(
        [sys.executable, *PROGRAMS[program]],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=give_up_privileges if sys.platform == "linux" else None,
    )
    folder.chmod(0o755) if folder.exists() else None
    assert done.returncode not in (0, 130)
    assert str(file) in done.stderr
    assert done.stdout == ""
    assert [line for line in done.stderr.splitlines() if "INFO" not in line] == [done.stderr.splitlines()[-1]]
    assert re.match(STATES[state].format(file=re.escape(str(file))), done.stderr.splitlines()[-1])
