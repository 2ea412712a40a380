"""What six shadows add to a run: `python -m benchmarks.economies [--turns 5] [--set num_clients=10]`.

The default simulation (MNIST from FEDSITE_DATA_DIR or `data/`, mlp, ten clients, ten rounds, exact Shapley values), as
`manage.py run_simulation` in a process and a database of its own, without and with six economies beside the paying one.
The two take turns; processor seconds are those of the command and its trainer.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import secrets
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsite.tests import servers

SHADOWS: tuple[dict[str, Any], ...] = (
    {"label": "by size", "valuation": "data_size"},
    {"label": "equal", "reward_rule": "equal"},
    {"label": "leave one out", "valuation": "leave_one_out"},
    {"label": "winner takes all", "reward_rule": "winner_takes_all"},
    {"label": "Tullock", "reward_rule": "tullock"},
    {"label": "wage and bonus", "reward_rule": {"kind": "wage_bonus", "share": 0.3}, "burn_share": 0.1},
)


@dataclass(frozen=True)
class Turn:
    """A whole run of the command."""

    seconds: float
    processor_seconds: float
    of_rounds: float  # training, evaluation and valuation, as the record says
    head: str


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.economies", description=__doc__.partition(":")[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="of the configuration")
    options = parser.parse_args()
    os.environ.update(SECRET_KEY=secrets.token_urlsafe(50), FEDSITE_ENV_FILE=os.devnull)
    fields = [f"--set={each}" for each in options.set]
    with tempfile.TemporaryDirectory() as folder:
        database = servers.migrate(Path(folder) / "empty")
        alone, beside = [], []
        for turn in range(options.turns):
            alone.append(measured(Path(folder) / f"alone-{turn}", database, fields))
            six = [*fields, f"--set=shadows={json.dumps(SHADOWS)}"]
            beside.append(measured(Path(folder) / f"beside-{turn}", database, six))
            print(f"alone {alone[-1].seconds:.2f} s, with six shadows {beside[-1].seconds:.2f} s", flush=True)
    assert {turn.head for turn in alone + beside} == {alone[0].head}, "shadows have moved the paying ledger"
    print(f"{'median of ' + str(options.turns):<34}{'alone':>10}{'six':>10}{'more':>10}")
    for name, of in (
        ("whole command, s", lambda turn: turn.seconds),
        ("processor, s", lambda turn: turn.processor_seconds),
        ("rounds as recorded, s", lambda turn: turn.of_rounds),
    ):
        one, six_more = map(of, alone), map(of, beside)
        pairs = [(a, b) for a, b in zip(one, six_more, strict=True)]
        before, after = (statistics.median(side) for side in zip(*pairs, strict=True))
        more = statistics.median(b / a for a, b in pairs) - 1
        print(f"{name:<34}{before:>10.2f}{after:>10.2f}{more:>+10.1%}")


def measured(folder: Path, database: Path, options: list[str]) -> Turn:
    folder.mkdir()
    shutil.copyfile(database, folder / "db.sqlite3")
    spent, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = servers.run_manage("run_simulation", "--json", *options, environment=servers.site_environment(folder))
    seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(done.stderr)
    result = json.loads(done.stdout)
    return Turn(
        seconds=seconds,
        processor_seconds=after.ru_utime + after.ru_stime - spent.ru_utime - spent.ru_stime,
        of_rounds=result["duration_seconds"],
        head=result["ledger_head"],
    )


if __name__ == "__main__":
    main()
