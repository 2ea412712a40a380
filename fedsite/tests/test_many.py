"""PostgreSQL, Redis, a web process and a worker of its own: many viewers, few connections, nothing lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

import httpx
import psycopg2
import pytest

from fedsite.tests import servers
from simulations.tests.frames import parse

VIEWERS = 50
PATHS = ("/api/simulations/{}/stream/", "/simulations/{}/stream/")  # half of them look at pages
RUN = {"dataset": "digits", "num_clients": 3, "num_rounds": 25, "valuation": "leave_one_out"}
FEW = 10  # connections: of a web process and a worker at work at the same moment; most of the time there is none


def connections(database: str) -> int:
    """To PostgreSQL, held open by anybody but this question."""
    ask = "SELECT count(*) FROM pg_stat_activity WHERE datname IS NOT NULL AND pid <> pg_backend_pid()"
    with contextlib.closing(psycopg2.connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute(ask)
        return int(cursor.fetchone()[0])


async def watch(client: httpx.AsyncClient, address: str, arrived: Callable[[], None]) -> list[int]:
    """Every id that a viewer sees, to the end of the stream."""
    text = ""
    async with client.stream("GET", address) as response:
        assert response.status_code == 200
        async for chunk in response.aiter_text():
            if not text:
                arrived()
            text += chunk
    frames = parse(text)
    assert frames[-1].event == "close"
    return [int(frame.id) for frame in frames[:-1]]


async def crowd(site: servers.Server, number: int) -> tuple[list[list[int]], list[int]]:
    """What each viewer saw, and how many connections there were, again and again while all of them watched."""
    counts, watching = [], 0

    def arrived() -> None:
        nonlocal watching
        watching += 1

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=servers.PATIENCE_SECONDS, limits=limits) as client:
        addresses = [site.url + PATHS[viewer % 2].format(number) for viewer in range(VIEWERS)]
        views = [asyncio.create_task(watch(client, address, arrived)) for address in addresses]
        while not any(view.done() for view in views):
            if watching == VIEWERS:
                counts.append(await asyncio.to_thread(connections, site.environment["DATABASE_URL"]))
            await asyncio.sleep(0.05)
        return await asyncio.gather(*views), counts


@pytest.mark.usefixtures("redis_server")  # one is needed; this test starts its own
def test_connections_do_not_grow_with_viewers(tmp_path: Path, migrated_database: Path) -> None:
    with servers.several(tmp_path, migrated_database) as site:
        number = httpx.post(f"{site.url}/api/simulations/", json=RUN).json()["id"]
        seen, counts = asyncio.run(crowd(site, number))
        last = httpx.get(f"{site.url}/api/simulations/{number}/events/?limit=1000").json()[-1]["sequence"]
    assert len(counts) >= 5, "the run was over before all had come"
    assert max(counts) <= FEW, counts
    assert seen[::2] == [list(range(1, last + 1))] * (VIEWERS // 2)
    assert all(ids == sorted(set(ids)) and ids[-1] == last for ids in seen[1::2])
