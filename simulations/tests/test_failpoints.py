"""Wherever the process dies, the run ends as if it had not: the same weights, the same ledger head, paid once."""

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from fedsite.tests import servers
from fedsite.tests.machine import PROJECT
from simulations.tests.cast import FIELDS, recorded
from training import failpoints

# The count says which time: somewhere in the middle of the run. A trainer that dies is replaced, and its successor
# dies at the same count, so that it must be reached after a round.
PLACES = {
    "event_told": 14,
    "checkpoint_written": 2,
    "checkpoint_renamed": 2,
    "queued": 1,
    "claimed": 1,
    "trainer_running": 1,
    "event_heard": 12,
    "lines_written": 3,
    "contributions_written": 2,
    "reward_posted": 2,
    "round_written": 2,
    "round_committed": 2,
    "completion_heard": 1,
    "completion_written": 1,
    "completed": 1,
}
IN_TRAINER = ("event_told", "checkpoint_written", "checkpoint_renamed")


def simulate(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return servers.run_manage("run_simulation", "--json", *arguments, environment=environment)


def disturbed(folder: Path, database: Path, name: str) -> tuple[list[int], dict, str]:
    """The exit statuses, the result, and what verify_ledger says, of a run that dies at a place and is resumed."""
    folder.mkdir()
    shutil.copyfile(database, folder / "db.sqlite3")
    environment = servers.site_environment(folder)
    fields = [f"--set={key}={json.dumps(value)}" for key, value in FIELDS.items()]
    done = [simulate(environment | {"FAILPOINT": f"{name}:{PLACES[name]}"}, *fields)]
    told = servers.run_manage(
        "shell",
        "-v0",
        "-c",
        "from simulations.showing.results import *; import json; "
        "print(json.dumps(of_simulation(Simulation.objects.get()), default=str))",
        environment=environment,
    )
    if json.loads(told.stdout)["status"] != "completed":
        done.append(simulate(environment, "--resume", "1"))
        told = done[-1]
    assert told.returncode == 0, told.stderr
    verified = servers.run_manage("verify_ledger", environment=environment)
    return [process.returncode for process in done], json.loads(told.stdout), verified.stdout


@pytest.fixture(scope="module")
def runs(tmp_path_factory, migrated_database) -> Iterator[dict[str, Future]]:
    """All of them, as many at a time as there are processors."""
    folder = tmp_path_factory.mktemp("failpoints")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {name: pool.submit(disturbed, folder / name, migrated_database, name) for name in PLACES}


@pytest.mark.django_db
@pytest.mark.parametrize("name", PLACES)
def test_it_ends_as_if_it_had_not_died_there(runs, name):
    statuses, result, verified = runs[name].result()
    expected = {"completed": [137], **{key: [0] for key in IN_TRAINER}}.get(name, [137, 0])
    assert statuses == expected
    undisturbed = recorded()
    assert result["status"] == "completed"
    assert (result["weights_sha256"], result["ledger_head"]) == (
        undisturbed.weights_sha256,
        undisturbed.ledger_head,
    )
    assert [row["round"] for row in result["rounds"]] == [1, 2, 3]
    assert "Verified 1 ledgers: 3 transactions" in verified


def test_a_trainer_that_always_dies_fails_the_run_in_plain_words(tmp_path, migrated_database):
    shutil.copyfile(migrated_database, tmp_path / "db.sqlite3")
    environment = servers.site_environment(tmp_path) | {"FAILPOINT": "trainer_started:1"}
    done = simulate(environment, "--dataset", "digits", "--num-rounds", "1")
    assert done.returncode == 1
    assert "3 times" in json.loads(done.stdout)["failure"]
    assert "Traceback" not in done.stderr


def test_it_tries_every_place_there_is():
    assert set(PLACES) | {"trainer_started"} == failpoints.NAMES == reached()


def reached() -> set[str]:
    """The names that the code reaches."""
    calls = (
        node
        for room in ("training", "simulations")
        for path in (PROJECT / room).rglob("*.py")
        if "tests" not in path.parts
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "failpoints.reach"
    )
    return {part.value for call in calls for part in ast.walk(call.args[0]) if isinstance(part, ast.Constant)}


@pytest.mark.parametrize("text", ["nowhere:1", "claimed", "claimed:0", "claimed:-1", "claimed:x"])
def test_a_wrong_failpoint_is_an_error_that_names_it(text):
    with pytest.raises(ValueError, match=f"FAILPOINT='{text}'"):
        failpoints.armed(text)


def test_it_counts_and_ends_with_the_status_of_a_kill():
    program = "from training import failpoints as f; f.reach('claimed'); print(1, flush=True); f.reach('claimed')"
    done = subprocess.run(
        [sys.executable, "-c", program + "; print(2)"],
        cwd=PROJECT,
        env=os.environ | {"FAILPOINT": "claimed:2"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (failpoints.STATUS, "1\n")
