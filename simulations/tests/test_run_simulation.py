"""The shell command, as a shell runs it."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from fedsite.tests import servers
from fedsite.tests.machine import PROJECT
from simulations.management.commands.run_simulation import Command, from_file
from simulations.models import Simulation

FIELDS = ("--dataset", "digits", "--num-clients", "3", "--num-rounds", "3")
LONG = ("--dataset", "digits", "--num-clients", "4", "--num-rounds", "80")


@pytest.fixture
def site(tmp_path, migrated_database):
    """The environment of a site without a server."""
    (tmp_path / "db.sqlite3").write_bytes(Path(migrated_database).read_bytes())
    return servers.site_environment(tmp_path)


def shell(site, *arguments) -> subprocess.CompletedProcess[str]:
    return servers.run_manage(*arguments, environment=site)


def run(site, *arguments) -> dict:
    done = shell(site, "run_simulation", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    return json.loads(done.stdout)


def begin(site, *arguments, before=None) -> subprocess.Popen:
    """A run in the background, once its third round is done."""
    process = subprocess.Popen(
        [sys.executable, "manage.py", "run_simulation", "--json", *arguments],
        cwd=PROJECT,
        env=site,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=before,
    )
    for line in process.stderr:
        if line.startswith("Round 3 of 80, loss"):
            return process
    raise AssertionError(f"it ended early: {process.communicate()}")


def same_result(result: dict) -> dict:
    """What equal configurations share."""
    rounds = [{name: value for name, value in row.items() if not name.endswith("_seconds")} for row in result["rounds"]]
    names = ("status", "config_sha256", "weights_sha256", "ledger_head", "clients", "pool_microtokens")
    return {"rounds": rounds} | {name: result[name] for name in names}


def test_it_prints_one_object_with_everything_and_unrecorded_the_same_but_for_its_record(site):
    result = run(site, *FIELDS)
    assert {"id", "status", "config", "config_sha256", "weights_sha256", "ledger_head", "rounds", "clients"} <= set(
        result
    )
    assert (result["id"], result["status"]) == (1, "completed")
    assert set(result["rounds"][0]) == {
        *("round", "loss", "accuracy", "cohort", "cohort_size", "pool_microtokens", "weights_sha256"),
        *("duration_seconds", "train_seconds", "evaluate_seconds", "valuation_seconds"),
    }
    names = {"client", "holder", "num_examples", "behaviour", "contribution", "reward_microtokens"}
    names |= {"stake_microtokens", "slashed_microtokens"}
    assert set(result["clients"][0]) == names
    assert result["pool_microtokens"] == sum(client["reward_microtokens"] for client in result["clients"])
    assert "Verified 1 ledgers: 3 transactions" in shell(site, "verify_ledger").stdout
    unrecorded = run(site, *FIELDS, "--no-record")
    assert (unrecorded["id"], unrecorded["ledger_head"]) == (None, None)
    assert same_result(unrecorded) == same_result(result) | {"ledger_head": None}
    assert set(unrecorded) <= set(result)


def test_it_says_what_each_economy_paid_recorded_or_not(site):
    """Against what each ledger holds; printed below the clients."""
    shadows = [
        {"label": "alike", "reward_rule": "equal", "burn_share": 0.5},
        {"label": "size", "valuation": "data_size"},
    ]
    shadows.append({"label": "endowed", "pool": {"kind": "treasury", "tokens": 9, "rounds": 9}})
    arguments = (*FIELDS, "--set", "behaviours.1.kind=sign_flip", "--set", f"shadows={json.dumps(shadows)}")
    result = run(site, *arguments)
    sums = {each["label"]: each for each in result["economy_sums"]}
    assert list(sums) == result["economies"] == ["paying", "alike", "size", "endowed"]
    assert (sums["paying"]["ledger_head"], sums["size"]["ledger"]) == (result["ledger_head"], "simulation-1-2")
    assert sums["paying"]["paid_microtokens"] == sum(each["reward_microtokens"] for each in result["clients"])
    alike, endowed = sums["alike"], sums["endowed"]
    assert alike["burned_microtokens"] == pytest.approx(alike["pool_microtokens"] / 2, abs=3)
    assert (alike["clients_paid"], alike["treasury_microtokens"]) == (3, 0)
    assert alike["dishonest_microtokens"] == pytest.approx(alike["paid_microtokens"] / 3, abs=3)
    assert endowed["treasury_microtokens"] == 9_000_000 - endowed["paid_microtokens"] == 6_000_000
    unrecorded = run(site, *arguments, "--no-record")["economy_sums"]
    assert unrecorded == [each | {"ledger": None, "ledger_head": None} for each in result["economy_sums"]]
    printed = shell(site, "run_simulation", *arguments, "--no-record")
    lines = [line.split() for line in printed.stdout.splitlines()]
    assert ["Economy", "Paid", "Burned", "Treasury", "Clients", "paid", "To", "dishonest"] in lines
    tokens = [f"{alike[f'{name}_microtokens'] / 1e6:,.3f}" for name in ("paid", "burned", "treasury")]
    assert ["alike", *tokens, "3", "33.3%"] in lines


def test_later_options_win(site, tmp_path):
    file = tmp_path / "fields.json"
    file.write_text(json.dumps({"num_rounds": 2, "lr": 0.2, "behaviours": {"1": {"kind": "free_rider"}}}))
    result = run(
        site,
        "--preset",
        "free_rider",
        "--num-rounds",
        "9",
        "--config",
        str(file),
        "--set",
        "lr=0.3",
        *FIELDS[:4],
        "--set",
        "behaviours.2.kind=sign_flip",
        "--set",
        "behaviours.2.scale=2",
        "--model",
        "logistic",
        "--no-record",
    )
    config = result["config"]
    assert (config["num_rounds"], config["lr"], config["partition"], config["model"]) == (
        2,
        0.3,
        {"kind": "dirichlet", "alpha": 0.5},
        {"kind": "logistic"},
    )
    assert config["behaviours"] == {"1": {"kind": "free_rider"}, "2": {"kind": "sign_flip", "scale": 2.0}}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--num-rounds", "0"), "num_rounds"),
        (("--num-rounds", "many"), "num_rounds"),
        (("--set", "nonsense"), "--set"),
        (("--set", "colour=red"), "colour"),
        (("--preset", "nonsense"), "--preset"),
        (("--config", "/nonexistent.json"), "/nonexistent.json"),
        (("--colour", "red"), "--colour"),
        (("--resume", "1", "--lr", "1"), "--resume"),
        (("--set", "lr=" + "[" * 3_000), "--set: is nested too deeply"),
        (("--lr", "[" * 3_000), "--lr: is nested too deeply"),
        (("--set", "behaviours" + ".a" * 3_000 + "=1"), "is not FIELD=VALUE"),
        (("--set", 'behaviours={"1": {}, "1": {}}'), "'1' is given twice"),
    ],
)
def test_bad_arguments_are_exit_2_and_leave_nothing_behind(db, capsys, arguments, named):
    with pytest.raises(SystemExit) as ended:
        Command().run_from_argv(["manage.py", "run_simulation", "--json", *arguments])
    out, errors = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    assert named in errors
    assert not Simulation.objects.exists()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_a_file_is_read_as_the_api_reads_the_same_bytes(tmp_path, encoding):
    """PowerShell writes UTF-16, and byte order marks; what the locale is matters to neither."""
    (tmp_path / "fields.json").write_text('{"num_rounds": 2}', encoding=encoding)
    assert from_file(str(tmp_path / "fields.json")) == {"num_rounds": 2}


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe\x00", b"\x80", b'{"lr": 1, "lr": 2}', b"[" * 3_000])
def test_a_file_that_cannot_be_used_is_named(tmp_path, content):
    (tmp_path / "fields.json").write_bytes(content)
    for path in (str(tmp_path / "fields.json"), str(tmp_path)):
        with pytest.raises(ValueError, match=f"^{path}"):
            from_file(path)


def test_what_is_not_there_cannot_go_on(site):
    done = shell(site, "run_simulation", "--json", "--resume", "77")
    assert (done.returncode, done.stdout) == (2, "")
    assert "77" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_that_fails_is_exit_1_with_its_reason(site):
    done = shell(site, "run_simulation", *FIELDS, "--lr", "100", "--weight-decay", "1", "--num-rounds", "10")
    assert done.returncode == 1
    assert "not finite" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_data_set_that_cannot_be_had_is_a_plain_failure(site, tmp_path):
    done = shell(
        site | {"FEDSITE_DATA_DIR": str(tmp_path)}, "run_simulation", "--dataset", "mnist", "--num-rounds", "1"
    )
    assert done.returncode == 1
    assert f"MNIST is not in {tmp_path} and could not be downloaded" in done.stdout


def test_automatic_digits_are_said_and_recorded(site, tmp_path):
    done = shell(site | {"FEDSITE_DATA_DIR": str(tmp_path)}, "run_simulation", "--num-rounds", "1", "--json")
    assert json.loads(done.stdout)["config"]["dataset"] == {"kind": "digits"}
    assert "digits" in done.stderr


def test_a_person_sees_progress_and_a_table(site):
    done = shell(site, "run_simulation", *FIELDS, "--set", "behaviours.2.kind=free_rider")
    assert done.returncode == 0
    assert "Round 2 of 3, loss" in done.stderr
    rows = done.stdout.splitlines()
    assert rows[0].split() == ["Client", "Behaviour", "Examples", "Contribution", "Tokens"]
    assert rows[2].split()[:3] == ["2", "free", "rider"]
    assert "Simulation 1 completed after 3 rounds" in done.stdout


def shown(site) -> tuple[str, str]:
    """The status of simulation 1, and its newest event."""
    with closing(sqlite3.connect(site["DATABASE_URL"].removeprefix("sqlite:///"))) as database:
        newest = "SELECT kind FROM simulations_event WHERE simulation_id = 1 ORDER BY sequence DESC LIMIT 1"
        return database.execute(f"SELECT status, ({newest}) FROM simulations_simulation WHERE id = 1").fetchone()


def test_after_nohup_it_does_not_end_with_its_terminal(site):
    process = begin(site, *LONG, before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, json.loads(out)["status"]) == (0, "completed")


def test_it_goes_on_with_a_cancelled_run_as_the_page_does(site):
    code = "from simulations.running import lifecycle as l; from simulations.config import SimulationConfig as C; " + (
        "l.cancel(l.queue(C(dataset='digits', num_clients=3, num_rounds=3), origin='page').pk)"
    )
    assert shell(site, "shell", "-v0", "-c", code).returncode == 0
    assert run(site, "--resume", "1")["status"] == "completed"
    again = shell(site, "run_simulation", "--resume", "1")
    assert (again.returncode, again.stdout) == (2, "")
    assert "--resume: Simulation 1 is completed" in again.stderr


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, migrated_database):
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "db.sqlite3").write_bytes(Path(migrated_database).read_bytes())
    return same_result(run(servers.site_environment(folder), *LONG))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_and_its_like_are_exit_130_and_the_run_can_go_on(site, undisturbed, number):
    process = begin(site, *LONG)
    process.send_signal(number)
    out, errors = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert "Simulation 1 is interrupted; go on with: python manage.py run_simulation --resume 1" in errors
    assert "Traceback" not in errors
    assert shown(site) == ("queued", "interrupted")
    if number != signal.SIGINT:
        return
    assert same_result(run(site, "--resume", "1")) == undisturbed
    assert shell(site, "run_simulation", "--resume", "1").returncode == 2


@pytest.mark.parametrize("lose_checkpoints", [False, True])
def test_a_killed_run_ends_as_if_it_had_not_been_killed(site, tmp_path, undisturbed, lose_checkpoints):
    process = begin(site, *LONG)
    process.kill()
    process.communicate()
    time.sleep(0.5)  # the trainer notices and ends
    if lose_checkpoints:
        for file in (tmp_path / "checkpoints").rglob("*.pt"):
            os.truncate(file, 100)
    assert same_result(run(site, "--resume", "1")) == undisturbed
    left = [path.name for path in (tmp_path / "checkpoints").rglob("round-*")]
    assert left == [f"round-{len(undisturbed['rounds']):06d}.pt"]  # the final weights
    assert f"Verified 1 ledgers: {len(undisturbed['rounds'])} transactions" in shell(site, "verify_ledger").stdout


def test_resuming_a_live_run_follows_it(site, undisturbed):
    process = begin(site, *LONG)
    followed = run(site, "--resume", "1")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert same_result(followed) == same_result(json.loads(out)) == undisturbed
