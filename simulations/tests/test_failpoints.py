"""Wherever the process dies, the run ends as if it had not: the same weights, the same ledger head, paid once."""

import ast
import json
import os
import shutil
import subprocess
import sys

import pytest

from fedsite.tests import servers
from fedsite.tests.machine import PROJECT
from simulations.tests.cast import FIELDS, recorded
from training import failpoints

# One run dies at each place of a row, one after the other; the count says which time. A trainer that dies is replaced
# within the same command, and its successor dies at the same count, so that it must be reached after a round: it comes
# last, with few rounds left.
ROWS = {
    4: ("queued:1", "claimed:1", "trainer_running:1", "round_written:2", "event_told:14"),
    7: ("event_heard:12", "lines_written:3", "round_committed:2", "checkpoint_written:2"),
    5: ("contributions_written:2", "reward_posted:2", "checkpoint_renamed:2"),
    2: ("completion_heard:1", "completion_written:1", "completed:1"),
}  # by the rounds of the run
IN_TRAINER = ("event_told:14", "checkpoint_written:2", "checkpoint_renamed:2")


def simulate(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return servers.run_manage("run_simulation", "--json", *arguments, environment=environment)


@pytest.mark.django_db
@pytest.mark.parametrize(("num_rounds", "places"), ROWS.items())
def test_it_ends_as_if_it_had_not_died_there(tmp_path, migrated_database, num_rounds, places):
    shutil.copyfile(migrated_database, tmp_path / "db.sqlite3")
    environment = servers.site_environment(tmp_path)
    arguments = [f"--set={key}={json.dumps(value)}" for key, value in (FIELDS | {"num_rounds": num_rounds}).items()]
    for place in places:
        done = simulate(environment | {"FAILPOINT": place}, *arguments)
        assert done.returncode == (0 if place in IN_TRAINER else 137), (place, done.stderr)
        arguments = ["--resume", "1"]
    told = servers.run_manage(
        "shell",
        "-v0",
        "-c",
        "from simulations.showing.results import *; import json; "
        "print(json.dumps(of_simulation(Simulation.objects.get()), default=str))",
        environment=environment,
    )
    result, undisturbed = json.loads(told.stdout), recorded(num_rounds=num_rounds)
    assert result["status"] == "completed"
    assert (result["weights_sha256"], result["ledger_head"]) == (undisturbed.weights_sha256, undisturbed.ledger_head)
    assert [row["round"] for row in result["rounds"]] == [*range(1, num_rounds + 1)]
    verified = servers.run_manage("verify_ledger", environment=environment)
    assert f"Verified 1 ledgers: {num_rounds} transactions" in verified.stdout


def test_a_trainer_that_always_dies_fails_the_run_in_plain_words(tmp_path, migrated_database):
    shutil.copyfile(migrated_database, tmp_path / "db.sqlite3")
    environment = servers.site_environment(tmp_path) | {"FAILPOINT": "trainer_started:1"}
    done = simulate(environment, "--dataset", "digits", "--num-rounds", "1")
    assert done.returncode == 1
    assert "3 times" in json.loads(done.stdout)["failure"]
    assert "Traceback" not in done.stderr


def test_it_tries_every_place_there_is():
    tried = {place.partition(":")[0] for places in ROWS.values() for place in places}
    assert tried | {"trainer_started"} == failpoints.NAMES == reached()


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
