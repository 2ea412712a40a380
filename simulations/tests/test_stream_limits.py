"""A process has so many streams and no more, and each ends after some minutes for its viewer to take it up again. What
has happened already is told as fast as it is read."""

import sqlite3
import time

import httpx
import pytest

from fedsite.tests import servers
from simulations.models import Simulation
from simulations.showing import stream
from simulations.tests.frames import whole

RUN = {"dataset": "digits", "num_clients": 2, "num_rounds": 5000, "evaluate_every": 5000, "valuation": "none"}


def metric(site, name: str) -> float:
    lines = httpx.get(f"{site.url}/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


@pytest.mark.parametrize("path", ["/api/simulations/{}/stream/", "/simulations/{}/stream/"])
def test_one_too_many_is_told_to_come_back(start_server, path):
    site = start_server(FEDSITE_MAX_STREAMS="2")
    number = httpx.post(f"{site.url}/api/simulations/", json=RUN).json()["id"]
    url = site.url + path.format(number)
    with httpx.stream("GET", url) as first:
        with httpx.stream("GET", url) as second:
            answer = httpx.get(url)
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
            assert "has 2 streams open" in answer.json()["detail"]
            assert metric(site, "fedsite_streams_open") == 2
            assert metric(site, "fedsite_streams_refused_total") == 1
            next(second.iter_text())
        deadline = time.monotonic() + servers.PATIENCE_SECONDS
        while metric(site, "fedsite_streams_open") > 1:  # whoever leaves makes room
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with httpx.stream("GET", url) as third:
            assert (first.status_code, third.status_code) == (200, 200)
    httpx.post(f"{site.url}/api/simulations/{number}/cancel/", json={})


async def test_after_its_time_it_ends_without_the_closing_frame(monkeypatch):
    monkeypatch.setattr(stream, "LIFETIME_SECONDS", -1)
    place = stream.Place()
    stream.taken.add(place)
    simulation = Simulation(pk=1, last_sequence=3)
    frames = [text async for text in stream._frames(simulation, 0, stream.JSON, place)]
    assert frames == ["retry: 2000\n\n"]
    assert place not in stream.taken


def test_a_replay_is_as_fast_as_its_reader(start_server):
    """The feed looks every second, and reads 500 events at a time: through it this would take 20 s."""
    site = start_server()
    number = httpx.post(f"{site.url}/api/simulations/", json=RUN).json()["id"]
    httpx.post(f"{site.url}/api/simulations/{number}/cancel/", json={})
    with sqlite3.connect(site.folder / "db.sqlite3") as database:
        (last,) = database.execute("SELECT last_sequence FROM simulations_simulation").fetchone()
        database.executemany(
            "INSERT INTO simulations_event (simulation_id, sequence, kind, at, message, data) "
            "VALUES (?, ?, 'log', '2026-01-01 00:00:00', 'so', '{}')",
            [(number, sequence) for sequence in range(last + 1, last + 10_001)],
        )
        database.execute("UPDATE simulations_simulation SET last_sequence = ?", [last + 10_000])
    database.close()
    began = time.monotonic()
    frames = whole(f"{site.url}/api/simulations/{number}/stream/")
    assert [int(frame.id) for frame in frames[:-1]] == list(range(1, last + 10_001))
    assert frames[-1].event == "close"
    assert time.monotonic() - began < 10
