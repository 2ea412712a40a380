"""The worker as a process of its own: rung or polling, ended by SIGTERM once or twice, and what it logs meanwhile."""

import json
import signal
import sqlite3
import time
from contextlib import closing, contextmanager

import httpx
import pytest

from fedsite.tests import servers

RUN = {"dataset": "digits", "num_clients": 2, "num_rounds": 3, "valuation": "leave_one_out"}
ENDLESS = RUN | {"num_rounds": 5000, "evaluate_every": 5000}
QUEUE = (
    "from simulations.running import lifecycle; from simulations.config import SimulationConfig; "
    "print(lifecycle.queue(SimulationConfig.from_dict({}), origin='api').pk)"
)


def queue(worker, fields: dict) -> int:
    done = worker.manage("shell", "-v0", "-c", QUEUE.format(fields))
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


def ask(worker, question: str, *values):
    with closing(sqlite3.connect(worker.folder / "db.sqlite3", timeout=20)) as connection:
        return connection.execute(question, values).fetchone()


def row(worker, number: int) -> tuple[str, int]:
    return ask(worker, "SELECT status, rounds_done FROM simulations_simulation WHERE id = ?", number)


def wait_until(true, worker) -> None:
    deadline = time.monotonic() + servers.PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < deadline, worker.log
        time.sleep(0.05)


def in_mid_run(worker) -> int:
    number = queue(worker, ENDLESS)
    wait_until(lambda: row(worker, number)[1] >= 2, worker)
    return number


@contextmanager
def locked(worker):
    """Nobody else writes meanwhile."""
    with closing(sqlite3.connect(worker.folder / "db.sqlite3", timeout=20)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


def test_without_redis_it_looks_by_itself_and_a_file_tells_that_it_is_not_stuck(start_worker):
    worker = start_worker()
    alive = worker.folder / "worker-1.alive"
    before = alive.stat().st_mtime_ns
    wait_until(lambda: alive.stat().st_mtime_ns > before, worker)
    number = queue(worker, RUN)
    wait_until(lambda: row(worker, number) == ("completed", 3), worker)
    assert " looks every 1 s" in worker.log


def test_with_redis_it_serves_a_site_that_has_no_worker_of_its_own(start_server, start_worker, redis_server):
    site = start_server(REDIS_URL=redis_server)
    number = httpx.post(f"{site.url}/api/simulations/", json=RUN).json()["id"]
    worker = start_worker(site.folder, REDIS_URL=redis_server)
    wait_until(lambda: row(worker, number) == ("completed", 3), worker)
    assert "is rung by Redis" in worker.log
    second = httpx.post(f"{site.url}/api/simulations/", json=RUN).json()["id"]
    wait_until(lambda: row(worker, second) == ("completed", 3), worker)


def test_it_renews_its_lease_every_third_of_it_and_sigterm_gives_the_run_back_and_claims_nothing_more(start_worker):
    """Each renewal is a write that the disk must confirm; twice a second it was."""
    worker = start_worker(FEDSITE_LEASE_SECONDS="12")
    number, next_one = in_mid_run(worker), queue(worker, RUN)
    leases = set()
    until = time.monotonic() + 6
    while time.monotonic() < until:
        leases.add(ask(worker, "SELECT lease_expires_at FROM simulations_simulation WHERE id = ?", number))
        time.sleep(0.1)
    assert 1 < len(leases) <= 3
    worker.stop()  # and no trainer outlives it
    assert worker.process.returncode == 0
    assert row(worker, number)[0] == row(worker, next_one)[0] == "queued"
    newest = "SELECT kind FROM simulations_event WHERE simulation_id = ? ORDER BY sequence DESC"
    assert ask(worker, newest, number) == ("interrupted",)
    assert ask(worker, "SELECT owner, lease_expires_at FROM simulations_simulation WHERE id = ?", number) == ("", None)


def test_a_second_sigterm_ends_it_at_once_and_another_worker_goes_on(start_worker):
    worker = start_worker()
    number = in_mid_run(worker)
    children = servers.descendants(worker.process)
    with locked(worker):
        worker.process.terminate()
        wait_until(lambda: "giving back" in worker.log, worker)
        worker.process.terminate()
        assert worker.process.wait(servers.STOP_SECONDS) == -signal.SIGTERM
    rounds = row(worker, number)[1]
    wait_until(lambda: not any(servers.lives(child) for child in children), worker)
    again = start_worker(worker.folder)
    wait_until(lambda: row(again, number)[1] > rounds, again)


def test_where_the_data_base_does_not_let_it_give_back_it_ends_all_the_same(start_worker):
    worker = start_worker()
    in_mid_run(worker)
    with locked(worker):
        worker.process.terminate()
        assert worker.process.wait(servers.STOP_SECONDS) == -signal.SIGALRM


def test_its_log_names_simulation_and_worker_and_ctrl_c_gives_the_run_back_too(start_worker):
    worker = start_worker(FEDSITE_LOG="json")
    number = in_mid_run(worker)
    (trainer,) = servers.descendants(worker.process)
    trainer.kill()
    wait_until(lambda: "signal SIGKILL" in worker.log, worker)
    worker.process.send_signal(signal.SIGINT)
    assert worker.process.wait(servers.STOP_SECONDS) == 0
    assert row(worker, number)[0] == "queued"
    entries = [json.loads(line) for line in worker.log.splitlines()]
    (told,) = [entry for entry in entries if "signal SIGKILL" in entry["message"]]
    assert told["worker"] == told["process"] == entries[0]["process"]
    assert told["worker"].split(":")[1] == str(worker.process.pid)
    assert (told["simulation"], told["fence"], told["level"]) == (number, 1, "WARNING")
    assert "simulation" not in entries[0]


def test_it_does_not_start_on_a_wrong_setting(start_worker):
    with pytest.raises(servers.ServerError, match="FEDSITE_LOG='xml': expected line or json"):
        start_worker(FEDSITE_LOG="xml")
