"""A site of version 0.1 is upgraded by `migrate`: its ledgers still verify, are still append-only, and go on, and its
runs end as if there had been no upgrade."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db.migrations.loader import MigrationLoader
from django.db.models import NOT_PROVIDED

import kinds
from fedsite.tests import first_ledger, first_release, servers
from fedsite.tests.machine import PROJECT
from fedsite.tests.with_postgres import postgres

ROBUST = {kind.name for kind in kinds.family("strategy").values() if "robust" in kind.traits}
TAMPER = "from django.db import connection; connection.cursor().execute('UPDATE {}')"
CHANGES = {
    "sqlite": ("incentives_transfer SET amount = 1", "incentives_account SET rowid = id + 5000"),
    "postgresql": ("incentives_transfer SET amount = 1", "incentives_account SET id = id + 5000"),
}
POST = (
    "from incentives import ledger; from incentives.chain import Entry; from incentives.models import Ledger; "
    "ledger.post(Ledger.objects.get(name='manual').pk, key='new', transfers=[Entry('mint', 'client:9', 5, 'reward')])"
)


@pytest.fixture(params=["sqlite", "postgresql"])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a site whose database is as version 0.1 left it."""
    environment = servers.site_environment(tmp_path)
    if request.param == "sqlite":
        yield loaded(environment)
        return
    with postgres() as url:
        yield loaded(environment | {"DATABASE_URL": url})


def loaded(environment: dict[str, str]) -> dict[str, str]:
    first_ledger.migrate_to(environment, first_ledger.FILE)
    command = [sys.executable, "-m", "fedsite.tests.first_ledger", "load", str(first_ledger.FILE)]
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return environment


def test_the_first_ledgers_still_verify_and_go_on(old: dict[str, str]) -> None:
    first_ledger.manage(old, "migrate", "-v0")
    assert first_ledger.manage(old, "verify_ledger") == "Verified 4 ledgers: 9 transactions, 24 transfers\n"
    for change in CHANGES["postgresql" if "DATABASE_URL" in old and "postgres" in old["DATABASE_URL"] else "sqlite"]:
        refused = servers.run_manage("shell", "-v0", "-c", TAMPER.format(change), environment=old)
        assert "append-only" in refused.stderr
    first_ledger.manage(old, "shell", "-v0", "-c", POST)
    assert first_ledger.manage(old, "verify_ledger") == "Verified 4 ledgers: 10 transactions, 25 transfers\n"


def test_a_worker_that_still_runs_may_write_rows_without_what_has_come_since() -> None:
    """A column added to a table of the first release may be left out, or its runs would fail until it is stopped."""
    loader = MigrationLoader(None)
    then = loader.project_state([("incentives", "0002_append_only"), ("simulations", "0003_worker")])
    now = loader.project_state()
    tables = [each for each in then.models if each[0] in ("incentives", "simulations")]
    assert ("simulations", "round") in tables
    for table in tables:
        columns = {field.db_column or name for name, field in then.models[table].fields.items()}
        for name, field in now.models[table].fields.items():
            if (field.db_column or name) not in columns and not field.many_to_many:
                assert field.null or field.db_default is not NOT_PROVIDED, f"{table}: {name}"


@pytest.fixture(scope="module")
def upgraded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of an upgraded site with the runs that the first release left in their middle."""
    environment = servers.site_environment(tmp_path_factory.mktemp("upgraded")) | first_release.SAME_BITS
    first_ledger.migrate_to(environment, first_release.FILE)
    of_first_release(environment, "load", str(first_release.FILE))
    first_ledger.manage(environment, "migrate", "-v0")
    return environment


@pytest.fixture(scope="module")
def ended(upgraded: dict[str, str]) -> dict[str, Any]:
    """Each of these runs as today's code has ended it."""
    return dict(json.loads(of_first_release(upgraded, "go_on")))


def of_first_release(environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "-m", "fedsite.tests.first_release", *arguments]
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", first_release.RUNS)
def test_a_run_of_the_first_release_ends_as_it_would_have_there(ended: dict[str, Any], name: str) -> None:
    """Bit by bit where this machine computes as that one did, which the run shows that trains its rounds again."""
    head = first_release.head_of(first_release.FILE)
    told, end = head["ends"][name], ended[name]
    same_bits = ended["lost_checkpoint"]["status"] == "completed"
    failure = ended["lost_checkpoint"]["failure"]
    assert same_bits or "gave other weights than recorded" in failure, failure  # as on processors of another kind
    if name == "lost_checkpoint" and not same_bits:
        assert "gave other weights than recorded" in end["failure"]
        return
    assert end["status"] == "completed", end["failure"]
    assert (end["scheme"], end["config"], end["config_sha256"]) == (1, told["config"], told["config_sha256"])
    assert [row["loss"] for row in end["rounds"]] == pytest.approx(told["losses"], rel=1e-4)
    assert [row["pool_microtokens"] for row in end["rounds"]] == pytest.approx(told["pools"], rel=0.01, abs=1000)
    if same_bits:
        assert end["weights_sha256"] == told["weights_sha256"]
        assert [client["reward_microtokens"] for client in end["clients"]] == told["rewards"]
        assert end["ledger_head"] == told["ledger_head"]


def test_the_same_command_trains_the_same_weights(upgraded: dict[str, str], ended: dict[str, Any]) -> None:
    """But for robust strategies with absent clients, whose zero votes are no longer counted."""
    if ended["lost_checkpoint"]["status"] != "completed":
        pytest.skip("this machine rounds otherwise than the one on which the first release ran")
    ends = first_release.head_of(first_release.FILE)["ends"]
    today = json.loads(of_first_release(upgraded, "today"))
    changed = {name for name, sha256 in today.items() if sha256 != ends[name]["weights_sha256"]}
    robust = {name for name, config in first_release.RUNS.items() if config.get("strategy") in ROBUST}
    assert changed == robust == {"median", "trimmed_mean", "multi_krum", "centred_clipping", "queued"}


def test_ledgers_that_two_releases_have_written_verify(upgraded: dict[str, str], ended: dict[str, Any]) -> None:
    assert first_ledger.manage(upgraded, "verify_ledger").startswith(f"Verified {len(ended)} ledgers")


def test_runs_of_the_first_release_are_priced_under_every_rule(
    upgraded: dict[str, str], ended: dict[str, Any], tmp_path: Path
) -> None:
    """From what was kept of them: the same pools to the unit, all computed again is equal, all hashes verify."""
    shutil.copyfile(upgraded["DATABASE_URL"].removeprefix("sqlite:///"), tmp_path / "db.sqlite3")
    site = upgraded | {"DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}"}
    priced = json.loads(of_first_release(site, "price"))
    assert priced.keys() == {name for name, end in ended.items() if end["status"] == "completed"}
    for name, run in priced.items():
        assert run["wrong"] == [], name
        assert run["rules"].keys() == kinds.family("rule").keys(), name
        refused = {
            rule: run["rules"].pop(rule) for rule, kind in kinds.family("rule").items() if "products" in kind.traits
        }
        assert all("products of the updates (updates) that no economy of this run" in text for text in refused.values())
        for rule, rows in run["rules"].items():
            assert [pool for pool, _, _ in rows] == run["pools"], (name, rule)
            for sent, (pool, burned, rewards) in zip(run["sent"], rows, strict=True):
                assert sum(rewards) + burned <= pool
                assert all(is_here or reward == 0 for is_here, reward in zip(sent, rewards, strict=True)), (name, rule)
        for sent, (pool, _, rewards) in zip(run["sent"], run["rules"]["equal"], strict=True):
            paid = [reward for is_here, reward in zip(sent, rewards, strict=True) if is_here]
            assert (sum(paid), max(paid) - min(paid) <= 1) == (pool, True), name
        # where everybody is worth the same, winners share
        for pool, _, rewards in run["rules"]["winner_takes_all"] if name != "silence_paid" else ():
            assert max(rewards) == sum(rewards) == pool
    ledgers = len(ended) + sum(len(run["rules"]) for run in priced.values())
    assert first_ledger.manage(site, "verify_ledger").startswith(f"Verified {ledgers} ledgers")
