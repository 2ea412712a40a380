"""Several real workers on one database, killed and stopped: nothing is done twice, nothing is lost."""

import itertools
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
import torch

from benchmarks import economies
from fedsite.tests import servers
from fedsite.tests.machine import PROJECT
from incentives.tests.test_ledger_concurrency import scratch  # noqa: F401  # a fixture
from simulations.models import Client, Simulation, Status
from simulations.running.engine import simulate
from simulations.running.worker import write
from simulations.tests.cast import FIELDS, NOWHERE, claimed, config, queued

KILLS = int(os.environ.get("FEDSITE_TEST_KILLS", 12))  # `make chaos` sets more
SIMULATIONS = 8  # and more where these are done before all kills are
PAUSE_SECONDS = 2  # at most, between two kills: less than a trainer takes to start
ZOMBIES = 6
SHADOWS = list(economies.SHADOWS)
RISKED = {  # updates summed and the step before lie in checkpoints, stakes and what they lost in states
    "behaviours": {"2": {"kind": "free_rider"}, "3": {"kind": "replay"}},
    "stake": 3.0,
    "detectors": ["foolsgold"],
    "slashing": [
        {"detector": "replay", "above": 0.99, "share": 0.5},
        {"detector": "norm", "above": 0.01, "share": 0.1},
    ],
    "slashed_to": "burn",
    "sampler": "by_stake",
    "fraction_fit": 0.75,
    "shadows": SHADOWS,
}
SEED = int(os.environ.get("FEDSITE_TEST_SEED", 0))
PATIENCE_SECONDS = 900


def ask(environment: dict[str, str], statement: str) -> list[tuple]:
    """Rows of the workers' database."""
    url = environment["DATABASE_URL"]
    if url.startswith("sqlite"):
        database = sqlite3.connect(url.removeprefix("sqlite:///"), timeout=60)
    else:
        import psycopg2

        database = psycopg2.connect(url)
    try:
        cursor = database.cursor()
        cursor.execute(statement)
        return cursor.fetchall()
    finally:
        database.close()


def queue(environment: dict[str, str], number: int, **fields) -> None:
    code = (
        "from simulations.running import lifecycle; from simulations.config import SimulationConfig as C\n"
        f"for _ in range({number}): lifecycle.queue(C.from_dict({FIELDS | fields}), origin='api')"
    )
    done = servers.run_manage("shell", "-v0", "-c", code, environment=environment)
    assert done.returncode == 0, done.stderr


def work(environment: dict[str, str]) -> subprocess.Popen:
    command = [sys.executable, "manage.py", "runworker", "simulations"]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, cwd=PROJECT, env=environment, start_new_session=True, **quiet)


def end(workers: list[subprocess.Popen]) -> None:
    children = [child for worker in workers for child in servers.descendants(worker)]
    for worker in workers:
        worker.kill()
        worker.wait()
    servers.end([child for child in children if servers.lives(child)])


@pytest.fixture
def site(scratch, tmp_path) -> dict[str, str]:  # noqa: F811
    return scratch | {"FEDSITE_CHECKPOINT_DIR": str(tmp_path / "checkpoints"), "FEDSITE_MAX_CONCURRENT": "2"}


def unfinished(site: dict[str, str]) -> int:
    return ask(site, "SELECT count(*) FROM simulations_simulation WHERE status IN ('queued', 'running')")[0][0]


def may_die(site: dict[str, str], worker: subprocess.Popen) -> bool:
    """It runs something, and no simulation would be given up for being lost three times in a row."""
    held = ask(site, f"SELECT lost_leases FROM simulations_simulation WHERE owner LIKE '%:{worker.pid}:%'")
    return bool(held) and max(lost for (lost,) in held) < 2


@pytest.mark.django_db
@pytest.mark.database
def test_simulations_survive_workers_killed_again_and_again(site):
    """Each has six economies beside the paying one, stakes that are lost, and a sampler that looks at them."""
    queue(site, SIMULATIONS, **RISKED)
    dice, kills, simulations = random.Random(SEED), 0, SIMULATIONS
    workers = [work(site), work(site)]
    deadline = time.monotonic() + PATIENCE_SECONDS
    try:
        while (left := unfinished(site)) or kills < KILLS:
            assert time.monotonic() < deadline
            if left < len(workers) and kills < KILLS:
                queue(site, len(workers), **RISKED)
                simulations += len(workers)
            time.sleep(dice.uniform(0, PAUSE_SECONDS))
            victim = dice.randrange(2)
            if kills < KILLS and may_die(site, workers[victim]):
                target = dice.choice([workers[victim], *servers.descendants(workers[victim])])
                servers.end([target])
                kills += 1
            if workers[victim].poll() is not None:
                workers[victim] = work(site)
    finally:
        end(workers)
    undisturbed = recorded_with_shadows()
    found = ask(site, "SELECT status, rounds_done, weights_sha256, ledger_head FROM simulations_simulation")
    expected = (Status.COMPLETED, 3, undisturbed.weights_sha256, undisturbed.ledger_head)
    assert found == [tuple(map(str, expected[:1])) + expected[1:]] * simulations, f"seed {SEED}"
    heads = list(undisturbed.shadows.values_list("label", "ledger_head"))
    found = ask(site, "SELECT simulation_id, label, ledger_head FROM simulations_shadow")
    assert sorted(found) == sorted((n, *each) for n in range(1, simulations + 1) for each in heads), f"seed {SEED}"
    gaps = "SELECT simulation_id FROM simulations_event GROUP BY simulation_id HAVING count(*) <> max(sequence)"
    assert ask(site, gaps) == []
    somewhere = (
        "SELECT ledger_id FROM incentives_account GROUP BY ledger_id HAVING sum(balance) <> 0 OR "
        "min(CASE WHEN name = 'mint' THEN 0 ELSE balance END) < 0"
    )
    assert ask(site, somewhere) == []
    verified = servers.run_manage("verify_ledger", environment=site)
    assert f"Verified {7 * simulations} ledgers: {7 * 3 * simulations} transactions" in verified.stdout


def recorded_with_shadows() -> Simulation:
    """What an undisturbed run leaves."""
    torch.set_num_threads(1)
    happened = list(simulate(config(**RISKED), data_dir=NOWHERE))
    claim = claimed(queued(**RISKED))
    for event in happened:
        write(claim, event)
    assert Client.objects.filter(simulation=claim.simulation_id, slashed_microtokens__gt=0).count() > 1
    return Simulation.objects.get(pk=claim.simulation_id)


def until(condition) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_stopped_and_woken_worker_writes_nothing_and_ends_its_trainers(site):
    """Three runs are taken over at a time, each with a worker that has events in its hand when it wakes."""
    runs = 3
    site |= {"FEDSITE_LEASE_SECONDS": "2", "FEDSITE_MAX_CONCURRENT": str(runs)}
    queue(site, runs, num_rounds=10_000, evaluate_every=10_000)
    workers = [work(site), work(site)]
    fences: dict[int, int] = {}
    zombies = 0
    try:
        for sleeper in itertools.cycle(workers):
            if zombies >= ZOMBIES:
                break
            until(lambda: all(get_on(site)))
            mine = f"SELECT id, fence FROM simulations_simulation WHERE owner LIKE '%:{sleeper.pid}:%'"
            trainers = servers.descendants(sleeper)
            stop_between_transactions(site, sleeper)
            fences = dict(ask(site, mine))
            until(lambda mine=mine: not ask(site, mine))
            sleeper.send_signal(signal.SIGCONT)
            until(lambda trainers=trainers: not any(map(servers.lives, trainers)))
            for simulation, fence in fences.items():
                assert ask(site, f"SELECT fence FROM simulations_simulation WHERE id = {simulation}") > [(fence,)]
                assert stale_writes(site, simulation) == []
            zombies += len(fences)
    finally:
        end(workers)
    assert servers.run_manage("verify_ledger", environment=site).returncode == 0


def stop_between_transactions(site: dict[str, str], worker: subprocess.Popen) -> None:
    """Within one it would keep SQLite's lock, which is everybody's, for as long as it sleeps."""
    database = sqlite3.connect(site["DATABASE_URL"].removeprefix("sqlite:///"), timeout=60, isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    worker.send_signal(signal.SIGSTOP)
    time.sleep(0.1)
    database.execute("ROLLBACK")
    database.close()


def get_on(site: dict[str, str]) -> list[bool]:
    """Of each simulation: whether it has done a round since it was claimed."""
    newest = "(SELECT max(sequence) FROM simulations_event WHERE simulation_id = s.id AND kind IN ({}))"
    claim, done = newest.format("'starting', 'resumed'"), newest.format("'round'")
    return [bool(ok) for (ok,) in ask(site, f"SELECT coalesce({done} > {claim}, false) FROM simulations_simulation s")]


def stale_writes(site: dict[str, str], simulation: int) -> list[str]:
    """What stands in the log between the newest claim and the first word of its own trainer."""
    events = ask(
        site, f"SELECT kind, message FROM simulations_event WHERE simulation_id = {simulation} ORDER BY sequence"
    )
    claimed = max(place for place, (kind, _) in enumerate(events) if kind in ("starting", "resumed"))
    next_round = int(events[claimed][1].split()[-1]) + 1 if events[claimed][0] == "resumed" else 1
    since = [message for _, message in events[claimed + 1 :]]
    return [] if not since or since[0].startswith(f"Round {next_round} of ") else since[:1]


def test_it_sees_a_stale_write(site):
    """The check above can fail."""
    queue(site, 1)
    code = (
        "from simulations.running import lifecycle, recorder; from simulations.running.events import Log; "
        "c = lifecycle.claim_next(); "
        "recorder.record(c, Log(message='Client 1: still here'))"
    )
    assert servers.run_manage("shell", "-v0", "-c", code, environment=site).returncode == 0
    assert stale_writes(site, 1) == ["Client 1: still here"]
