"""Eight processes post to one ledger at the same time, on a database that keeps what they commit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from django.db import connection

from fedsite.tests import servers
from fedsite.tests.machine import PROJECT
from incentives.tests.poster import DUPLICATES, POSTS, REPEATS

PROCESSES = 8


@pytest.fixture
def scratch(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a migrated database of its own, of the kind that the tests run on."""
    if connection.vendor == "sqlite":
        shutil.copyfile(request.getfixturevalue("migrated_database"), tmp_path / "db.sqlite3")
        yield os.environ | {"DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}"}
        return
    name = f"scratch_{uuid.uuid4().hex}"
    on_server(f"CREATE DATABASE {name}")
    try:
        address = urlunsplit(urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}"))
        environment = os.environ | {"DATABASE_URL": address}
        migrated = servers.run_manage("migrate", "--verbosity", "0", environment=environment)
        assert migrated.returncode == 0, migrated.stderr
        yield environment
    finally:
        on_server(f"DROP DATABASE {name} WITH (FORCE)")


def on_server(statement: str) -> None:
    import psycopg2

    server = psycopg2.connect(os.environ["DATABASE_URL"])
    server.autocommit = True
    with server.cursor() as cursor:
        cursor.execute(statement)
    server.close()


def start(environment: dict[str, str], step: str, name: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "incentives.tests.poster", step, name],
        cwd=PROJECT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate("go\n")
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def race(environment: dict[str, str]) -> list[dict[str, Any]]:
    """All are loaded before the first begins."""
    racers = [start(environment, "race", str(n)) for n in range(PROCESSES)]
    try:
        for racer in racers:
            assert racer.stdout.readline() == "ready\n", racer.stderr.read()
        for racer in racers:
            racer.stdin.write("go\n")
            racer.stdin.flush()
        return [finish(racer) for racer in racers]
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()


@pytest.mark.database
def test_it_keeps_its_promises_among_eight_processes(scratch):
    finish(start(scratch, "fund"))
    answers = race(scratch)
    found = finish(start(scratch, "check"))
    assert sum(answer["spent"] for answer in answers) == 1
    assert len({answer["other_ledger"] for answer in answers}) == 1
    assert found["rewards"] == 10  # as many as one address may have, to the last one
    assert sum(answer["minted"] for answer in answers) >= 10  # a repeat is told the same
    assert found["problem"] is None
    assert DUPLICATES * PROCESSES == 1000
    assert found["transactions"] == 1 + 1 + 1 + REPEATS + PROCESSES * POSTS
    assert found["balances"] == {
        "mint": -(100 + 1 + REPEATS + PROCESSES * POSTS),
        **{"treasury": 0, "client:1": 0, "client:2": 100, "client:3": REPEATS, "client:4": 1},
        **{f"client:{10 + n}": PROCESSES for n in range(POSTS)},
    }
