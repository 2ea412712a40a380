"""How fast tokens are posted: `python -m benchmarks.ledger [SECONDS]`.

Transactions of eleven transfers (a round of ten clients) through `ledger.post`, each its own commit: on a SQLite file
as the site uses it (WAL, synchronous=FULL), and on a PostgreSQL of its own with its defaults (fsync on); by one
process, then by four on PostgreSQL, each with its own ledger. Beside it the bare cost of a durable commit on this disk.
"""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fedsite.tests import servers
from fedsite.tests.machine import PROJECT
from fedsite.tests.with_postgres import postgres

TRANSFERS = 11


def main(seconds: float) -> None:
    print(f"{platform.machine()}, {os.cpu_count()} cores, {seconds:g} s each")
    with tempfile.TemporaryDirectory() as folder:
        on_sqlite = servers.site_environment(Path(folder)) | {"DEBUG": "0"}
        report("bare commits, SQLite", 1, [bare(Path(folder) / "bare.sqlite3", seconds)])
        report("SQLite, 1 process", TRANSFERS, measure(on_sqlite, 1, seconds))
    with postgres() as url:
        environment = os.environ | {"DATABASE_URL": url, "DEBUG": "0"}
        report("PostgreSQL, 1 process", TRANSFERS, measure(environment, 1, seconds))
        report("PostgreSQL, 4 processes", TRANSFERS, measure(environment, 4, seconds))


def report(name: str, transfers: int, measured: list[tuple[int, float, float]]) -> None:
    """Each process: transactions, seconds of wall clock, seconds of processor."""
    rate = sum(count / wall for count, wall, _ in measured)
    cost = 1000 * sum(cpu for _, _, cpu in measured) / sum(count for count, _, _ in measured)
    print(
        f"{name}: {rate:,.0f} transactions/s, {transfers * rate:,.0f} transfers/s, {cost:.2f} ms of our processor each"
    )


def bare(path: Path, seconds: float) -> tuple[int, float, float]:
    """One small row a commit."""
    database = sqlite3.connect(path, isolation_level=None)
    database.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE t (x TEXT);")
    begin, cpu, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - begin < seconds:
        database.execute("INSERT INTO t VALUES (?)", ("x" * 1000,))
        count += 1
    database.close()
    return count, time.perf_counter() - begin, time.process_time() - cpu


def measure(environment: dict[str, str], processes: int, seconds: float) -> list[tuple[int, float, float]]:
    migrated = servers.run_manage("migrate", "--verbosity", "0", environment=environment)
    if migrated.returncode:
        raise SystemExit(migrated.stderr)
    command = [sys.executable, "-m", "benchmarks.ledger", "post", str(seconds)]
    posters = [
        subprocess.Popen([*command, str(n)], cwd=PROJECT, env=environment, stdout=subprocess.PIPE, text=True)
        for n in range(processes)
    ]
    told = [poster.communicate()[0].split() for poster in posters]
    return [(int(count), float(wall), float(cpu)) for count, wall, cpu in told]


def post(seconds: float, name: str) -> None:
    """Post for some time and print how it went."""
    import django

    django.setup()
    from incentives import ledger
    from incentives.ledger import Entry

    opened = ledger.open_ledger(f"benchmark-{name}-{os.getpid()}")
    entries = [
        Entry("mint", "treasury", 10_000, "pool"),
        *(Entry("treasury", f"client:{client}", 1000, "reward") for client in range(1, TRANSFERS)),
    ]
    begin, cpu, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - begin < seconds:
        count += 1
        ledger.post(
            opened.pk,
            key=f"round:{count}:reward",
            transfers=entries,
            description=f"Reward of round {count}",
            memo={"round": count, "rule": "proportional@1", "evidence_sha256": "0" * 64, "weights_sha256": "1" * 64},
        )
    print(count, time.perf_counter() - begin, time.process_time() - cpu)
    if not ledger.verify(opened).ok:
        raise SystemExit("the ledger does not verify")


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fedsite.settings")
    os.environ.setdefault("SECRET_KEY", "only-for-measuring-only-for-measuring")
    if sys.argv[1:2] == ["post"]:
        post(float(sys.argv[2]), sys.argv[3])
    else:
        main(float(sys.argv[1]) if len(sys.argv) > 1 else 5.0)
