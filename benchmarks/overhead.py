"""What it costs to record, stream and pay a run: `python -m benchmarks.overhead [--turns 3]`.

The default simulation (MNIST from FEDSITE_DATA_DIR, or `data/`), from its start to its end: once as the bare loop, and
once by a site of its own, with checkpoints, the database, the ledger and a viewer of the stream. What the site takes
beyond the loop and the valuation itself is the overhead. Turns alternate, each in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

import httpx

from benchmarks.website import Seen, site, watched_runs
from fedsite.tests import servers
from simulations.config import SimulationConfig


@dataclass(frozen=True)
class Turn:
    """Seconds."""

    bare: float
    recorded: float
    valuation: float  # within the recorded run

    @property
    def overhead(self) -> float:
        return self.recorded / (self.bare + self.valuation) - 1


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__.partition(":")[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)  # in a process of its own
    options = parser.parse_args()
    if options.bare:
        print(json.dumps(bare_seconds()))
        return
    os.environ.update(SECRET_KEY=secrets.token_urlsafe(50), FEDSITE_ENV_FILE=os.devnull)
    with site(False) as server:
        turns = [measured(server) for _ in range(options.turns)]
    for turn in turns:
        print(
            f"bare {turn.bare:.2f} s, recorded {turn.recorded:.2f} s of which valuation {turn.valuation:.2f} s: "
            f"{turn.overhead:+.0%}"
        )
    print(f"median overhead {statistics.median(turn.overhead for turn in turns):+.0%}")


def measured(server: servers.Server) -> Turn:
    alone = subprocess.run(
        [sys.executable, "-m", "benchmarks.overhead", "--bare"], capture_output=True, text=True, check=True
    )
    (seen,) = asyncio.run(watched_runs(server.url, viewers=1, runs=1))
    newest = httpx.get(f"{server.url}/api/simulations/").json()[0]["id"]
    rounds = httpx.get(f"{server.url}/api/simulations/{newest}/").json()["rounds"]
    return Turn(
        bare=json.loads(alone.stdout.splitlines()[-1]),
        recorded=committed(seen, "completed") - committed(seen, "started"),
        valuation=sum(each["valuation_seconds"] for each in rounds),
    )


def committed(seen: list[Seen], kind: str) -> float:
    return next(event.committed for event in seen if event.kind == kind)


def bare_seconds() -> float:
    """From the first event, when the data are dealt, to the last."""
    import torch

    from benchmarks.learning import mnist
    from training import loop

    torch.set_num_threads(1)
    events = loop.run(SimulationConfig.of().resolved("mnist"), mnist())
    next(events)
    begin = time.perf_counter()
    for _ in events:
        pass
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
