"""A recorded run is trained again and compared, by the command as a shell runs it: a process with an event loop."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from fedsite.tests import servers

FIELDS = ("--dataset", "digits", "--num-clients", "3", "--num-rounds", "2")
SHADOWS = 'shadows=[{"label": "by size", "valuation": "data_size"}]'


@pytest.fixture
def site(tmp_path, migrated_database):
    (tmp_path / "db.sqlite3").write_bytes(Path(migrated_database).read_bytes())
    return servers.site_environment(tmp_path)


def test_equal_where_nothing_was_changed_and_the_first_difference_where_something_was(site, tmp_path):
    done = servers.run_manage("run_simulation", *FIELDS, "--set", SHADOWS, environment=site)
    assert done.returncode == 0, done.stderr
    equal = servers.run_manage("audit_simulation", "1", environment=site)
    assert equal.returncode == 0, equal.stderr
    assert equal.stdout == "Equal: 2 rounds trained again, 4 payments of 2 economies\n"
    more = servers.run_manage("reprice", "1", "--label", "later", "--set", "reward_rule=equal", environment=site)
    assert more.returncode == 0, more.stderr
    equal = servers.run_manage("audit_simulation", "1", environment=site)
    assert equal.stdout.endswith("of 2 economies; economies priced later, here 1, are checked by recompute\n")
    execute(tmp_path, "UPDATE simulations_shadowround SET pool_microtokens = 7 WHERE number = 2")
    other = servers.run_manage("audit_simulation", "1", environment=site)
    assert (other.returncode, other.stdout) == (1, "")
    assert other.stderr.splitlines()[-1].startswith("round 2: by size: pool is ")
    execute(tmp_path, "UPDATE simulations_simulation SET archived = 1, finished_at = '2020-01-01 00:00:00'")
    assert servers.run_manage("prune", "--yes", environment=site).returncode == 0
    pruned = servers.run_manage("audit_simulation", "1", environment=site)
    begin = "Equal: 2 rounds trained again, 0 payments of 0 economies; "
    assert pruned.stdout.startswith(begin), "who was paid was let go of"


def test_stakes_scores_and_who_was_sampled_come_out_again(site, tmp_path):
    wanted = {
        "stake": "2",
        "sampler": "by_stake",
        "detectors": '["foolsgold", "replay"]',
        "slashing": '[{"detector": "norm", "above": 0.01, "share": 0.5}]',
    }
    done = servers.run_manage(
        "run_simulation", *FIELDS, *(f"--set={name}={value}" for name, value in wanted.items()), environment=site
    )
    assert done.returncode == 0, done.stderr
    equal = servers.run_manage("audit_simulation", "1", environment=site)
    assert equal.stdout == "Equal: 2 rounds trained again, 2 payments of 1 economies\n", equal.stderr
    execute(tmp_path, "UPDATE simulations_contribution SET slashed_microtokens = 7 WHERE client_id = 2")
    other = servers.run_manage("audit_simulation", "1", environment=site)
    assert other.stderr.splitlines()[-1].startswith("round 1: paying: slashed of client 2 is ")


def execute(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / "db.sqlite3")) as database, database:
        database.execute(statement)
