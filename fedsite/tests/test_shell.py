"""Commands in odd shells: without UTF-8, into pipes that end, with closed ends and a full disk."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from fedsite.tests import servers
from fedsite.tests.machine import PROJECT

MANAGE = f"{sys.executable} manage.py"
SEED = """
from incentives import ledger
manual = ledger.open_ledger("manual")
for n in range(400):
    ledger.post(manual.pk, key=f"key {n}", description="Zo\\xeb \\U0001f4a9 " * 10,
                transfers=[ledger.Entry("mint", "client:1", 1, "pool")])
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> dict[str, str]:
    """The environment of a site whose ledger is longer than a pipe is wide."""
    folder = tmp_path_factory.mktemp("shell")
    (folder / "db.sqlite3").write_bytes(migrated_database.read_bytes())
    environment = servers.site_environment(folder)
    seeded = servers.run_manage("shell", "-v0", "-c", SEED, environment=environment)
    assert seeded.returncode == 0, seeded.stderr
    return environment


def shell(site: dict[str, str], command: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A line of bash whose status is that of the first part of a pipe that failed."""
    bash = ["bash", "-c", f"set -o pipefail; {command}"]
    done = subprocess.run(bash, cwd=PROJECT, env=site | environment, capture_output=True, stdin=subprocess.DEVNULL)
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    assert b"Exception ignored" not in done.stderr
    return done


@pytest.mark.parametrize("locale", [{"LC_ALL": "C", "PYTHONUTF8": "0"}, {"PYTHONIOENCODING": "ascii"}])
def test_files_are_utf8_in_every_locale(site: dict[str, str], locale: dict[str, str]) -> None:
    done = shell(site, f"{MANAGE} export_ledger --format jsonl", **locale)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.decode("utf-8").splitlines()]
    assert len(lines) == 400
    assert lines[-1]["description"].startswith("Zoë 💩")


@pytest.mark.parametrize("command", ["export_ledger --format csv", "export_ledger --format jsonl"])
def test_a_reader_who_has_seen_enough_ends_it_quietly(site: dict[str, str], command: str) -> None:
    done = shell(site, f"{MANAGE} {command} | head -c 10")
    assert (done.returncode, len(done.stdout), done.stderr) == (141, 10, b"")


@pytest.mark.parametrize("ends", [">&-", "2>&-", ">&- 2>&-"])
def test_it_works_with_closed_ends(site: dict[str, str], ends: str) -> None:
    assert shell(site, f"{MANAGE} verify_ledger {ends}").returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has this device")
def test_a_full_disk_is_said_in_a_sentence(site: dict[str, str]) -> None:
    done = shell(site, f"{MANAGE} export_ledger --format csv > /dev/full")
    assert (done.returncode, done.stderr) == (
        1,
        b"What was to be printed could not be written: No space left on device\n",
    )


@pytest.mark.parametrize(
    "command",
    [
        r"export_ledger --format csv --ledger $'\xff'",
        r"run_simulation --set $'lr=\xff'",
        "verify_ledger --simulation 99999999999999999999",
        "run_simulation --resume 99999999999999999999",
        "make_token nobody",
        "make_token $'a\\nb' --days 9999999999999",
        "nonsense",
    ],
)
def test_bad_arguments_are_exit_2_in_words(site: dict[str, str], command: str) -> None:
    done = shell(site, f"{MANAGE} {command}")
    assert (done.returncode, done.stdout) == (1 if command == "nonsense" else 2, b"")
    assert done.stderr


def test_a_run_ends_though_nobody_reads_of_it(site: dict[str, str]) -> None:
    run = "run_simulation --dataset digits --num-clients 2 --num-rounds 2 --valuation none"
    assert shell(site, f"{MANAGE} {run} 2>&1 | head -n 1").stdout
    with sqlite3.connect(Path(site["DATABASE_URL"].removeprefix("sqlite:///"))) as database:
        assert database.execute("SELECT status, rounds_done FROM simulations_simulation").fetchall() == [
            ("completed", 2)
        ]
    database.close()


def test_ctrl_c_ends_it_quietly_with_130(site: dict[str, str]) -> None:
    """At the first rows that it reads."""
    interrupted = (
        "import os, signal, sys; from django.db.models.query import QuerySet; from fedsite import shell; "
        "QuerySet._fetch_all = lambda self: os.kill(os.getpid(), signal.SIGINT); "
        "os.environ['DJANGO_SETTINGS_MODULE'] = 'fedsite.settings'; shell.main(['manage.py', 'recompute', '1'])"
    )
    done = subprocess.run([sys.executable, "-c", interrupted], cwd=PROJECT, env=site, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
