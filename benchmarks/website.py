"""The whole site on this machine: `python -m benchmarks.website [VIEWERS]`.

Starts a site of its own (SQLite, worker inside the server, MNIST from FEDSITE_DATA_DIR), runs the default
configuration, and prints what a person and a crowd of viewers would notice. Latency is from commit to arrival.
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import httpx
import psutil

from fedsite.tests import servers


def main(viewers: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        database = servers.migrate(Path(folder) / "migrated")
        server = servers.start_site(Path(folder) / "site", database)
        try:
            idle = psutil.Process(server.process.pid).memory_info().rss / 2**20
            print(f"idle server: {idle:.0f} MB")
            latencies, firsts = asyncio.run(watched_run(server.url, viewers))
            record = httpx.get(f"{server.url}/api/simulations/1/").json()
        finally:
            server.stop()
    print(
        f"from POST to the first line {firsts['starting']:.2f} s, to the first round {firsts['round']:.1f} s, ", end=""
    )
    print(f"to the end {firsts['completed']:.1f} s")
    print(f"{record['dataset']}: accuracy {record['accuracy']:.4f}, ", end="")
    print(f"{sum(client['reward_microtokens'] > 0 for client in record['clients'])} of {len(record['clients'])} paid")
    quantiles = statistics.quantiles(latencies, n=20)
    print(f"{viewers} viewers, {len(latencies):,} events seen: median {1000 * quantiles[9]:.0f} ms, ", end="")
    print(f"95 % within {1000 * quantiles[18]:.0f} ms, most {1000 * max(latencies):.0f} ms")


async def watched_run(url: str, viewers: int) -> tuple[list[float], dict[str, float]]:
    """Latencies in seconds over all viewers; seconds from the POST to the first event of each kind."""
    async with httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=None)) as client:
        begin = time.time()
        number = (await client.post(f"{url}/api/simulations/", json={})).json()["id"]
        address = f"{url}/api/simulations/{number}/stream/"
        seen = await asyncio.gather(*(view(client, address) for _ in range(viewers)))
    firsts: dict[str, float] = {}
    for kind, _, arrival in seen[0]:
        firsts.setdefault(kind, arrival - begin)
    joined = begin + 2  # until then viewers catch up with what was there before them
    return [arrival - at for events in seen for _, at, arrival in events if at > joined], firsts


async def view(client: httpx.AsyncClient, address: str) -> list[tuple[str, float, float]]:
    """Kind, commit and arrival of every event."""
    events = []
    async with client.stream("GET", address) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                event, arrival = json.loads(line[6:]), time.time()
                events.append((event["kind"], datetime.fromisoformat(event["at"]).timestamp(), arrival))
    return events


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
