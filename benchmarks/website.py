"""The whole site on this machine: `python -m benchmarks.website [VIEWERS] [--runs N] [--processes]`.

Starts a site of its own (MNIST from FEDSITE_DATA_DIR): SQLite with the worker inside the server or, with --processes,
PostgreSQL, Redis and a worker of its own. It runs the default configuration, N at once, and prints what a person and a
crowd of viewers would notice. Each viewer must see every event, in order. Latency is from an event's commit to its
arrival; this program shares the machine with what it measures.
"""

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import httpx
import psutil

from fedsite.tests import servers


@dataclass(frozen=True)
class Seen:
    """An event as it came to a viewer."""

    sequence: int
    kind: str
    committed: float  # seconds since the epoch, both
    arrived: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("viewers", type=int, nargs="?", default=50, metavar="VIEWERS")
    parser.add_argument(
        "--runs", type=int, default=1, help="simulations at the same time; viewers are spread over them"
    )
    parser.add_argument("--processes", action="store_true", help="PostgreSQL, Redis and a worker of its own")
    options = parser.parse_args()
    os.environ.update(SECRET_KEY=secrets.token_urlsafe(50), FEDSITE_ENV_FILE=os.devnull)
    with site(options.processes, FEDSITE_MAX_CONCURRENT=str(options.runs)) as server:
        process = psutil.Process(server.process.pid)
        idle = process.memory_info().rss / 2**20
        begin = time.time()
        views = asyncio.run(watched_runs(server.url, options.viewers, options.runs))
        busy = process.memory_info().rss / 2**20
        records = [httpx.get(f"{server.url}/api/simulations/{run + 1}/").json() for run in range(options.runs)]
        cancel = None if options.processes else seconds_to_cancel(server)
    print(f"web process: {idle:.0f} MB idle, {busy:.0f} MB after {options.viewers} viewers")
    tell_of_runs(views, begin, records)
    tell_of_viewers(views, begin)
    if cancel is not None:
        print(f"cancel: no trainer {cancel:.2f} s after the request")


@contextlib.contextmanager
def site(processes: bool, **settings: str) -> Iterator[servers.Server]:
    with tempfile.TemporaryDirectory() as folder:
        database = servers.migrate(Path(folder) / "migrated")
        if processes:
            with servers.several(Path(folder) / "site", database, **settings) as server:
                yield server
            return
        server = servers.start_site(Path(folder) / "site", database, **settings)
        try:
            yield server
        finally:
            server.stop()


def seconds_to_cancel(server: servers.Server) -> float:
    """From the request until the trainer of a running simulation is gone; the worker is inside the server."""
    number = httpx.post(f"{server.url}/api/simulations/", json={"num_rounds": 1000}).json()["id"]
    while not httpx.get(f"{server.url}/api/simulations/{number}/").json()["rounds_done"]:
        time.sleep(0.1)
    begin = time.monotonic()
    httpx.post(f"{server.url}/api/simulations/{number}/cancel/", json={})
    while any(servers.lives(child) for child in servers.descendants(server.process)):
        time.sleep(0.01)
    return time.monotonic() - begin


async def watched_runs(url: str, viewers: int, runs: int) -> list[list[Seen]]:
    """What each viewer saw of the run that it watched to its end."""
    async with httpx.AsyncClient(timeout=300, limits=httpx.Limits(max_connections=None)) as client:
        numbers = [(await client.post(f"{url}/api/simulations/", json={})).json()["id"] for _ in range(runs)]
        addresses = [f"{url}/api/simulations/{numbers[viewer % runs]}/stream/" for viewer in range(viewers)]
        return await asyncio.gather(*(view(client, address) for address in addresses))


async def view(client: httpx.AsyncClient, address: str) -> list[Seen]:
    seen = []
    async with client.stream("GET", address) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                event, arrived = json.loads(line[6:]), time.time()
                committed = datetime.fromisoformat(event["at"]).timestamp()
                seen.append(Seen(event["sequence"], event["kind"], committed, arrived))
    assert [event.sequence for event in seen] == list(range(1, len(seen) + 1)), f"{address}: gap or repeat"
    assert seen[-1].kind == "completed", f"{address}: {seen[-1]}"
    return seen


def tell_of_runs(views: list[list[Seen]], begin: float, records: list[dict]) -> None:
    firsts: dict[str, float] = {}
    for event in views[0]:
        firsts.setdefault(event.kind, event.arrived - begin)
    print(
        f"from POST to the first line {firsts['starting']:.2f} s, to the first round {firsts['round']:.1f} s, ", end=""
    )
    print(f"to the end {firsts['completed']:.1f} s")
    for record in records:
        paid = sum(client["reward_microtokens"] > 0 for client in record["clients"])
        print(f"{record['dataset']}: accuracy {record['accuracy']:.4f}, {paid} of {len(record['clients'])} paid")


def tell_of_viewers(views: list[list[Seen]], begin: float) -> None:
    """Events from before a viewer came do not count as late."""
    joined = begin + 2
    late = [event.arrived - event.committed for seen in views for event in seen if event.committed > joined]
    quantiles = statistics.quantiles(late, n=20)
    print(f"{len(views)} viewers saw all of {sum(map(len, views)):,} events in order: ", end="")
    print(f"median {1000 * quantiles[9]:.0f} ms, 95 % within {1000 * quantiles[18]:.0f} ms, ", end="")
    print(f"most {1000 * max(late):.0f} ms")


if __name__ == "__main__":
    main()
