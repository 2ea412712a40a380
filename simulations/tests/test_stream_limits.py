"""A process has so many streams and no more, and each ends after some minutes for its viewer to take it up again. What
has happened already is told as fast as it is read."""

import contextlib
import json
import socket
import sqlite3
import threading
import time
from functools import partial

import httpx
import psutil
import pytest

from fedsite.tests import servers
from simulations.models import Event, Simulation
from simulations.showing import feed, stream
from simulations.tests.frames import whole

RUN = {"dataset": "digits", "num_clients": 2, "num_rounds": 5000, "evaluate_every": 5000, "valuation": "none"}


@pytest.fixture
def start_site(start_server, redis_server):
    """As `start_server`. Its workers are elsewhere and none lives: what is queued has a stream and takes no time."""
    return partial(start_server, REDIS_URL=redis_server)


def metric(site, name: str) -> float:
    lines = httpx.get(f"{site.url}/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


@pytest.mark.parametrize("path", ["/api/simulations/{}/stream/", "/simulations/{}/stream/"])
def test_one_too_many_is_told_to_come_back(start_site, path):
    site = start_site(FEDSITE_MAX_STREAMS="2", FEDSITE_MAX_STREAMS_PER_ADDRESS="2")
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


def test_whoever_leaves_gives_his_place_back(start_site, tmp_path):
    """Not only when memory is tidied up: of requests cut off on their way in, some held a place for minutes."""
    (tmp_path / "sitecustomize.py").write_text("import gc\ngc.disable()\n")
    site = start_site(PYTHONPATH=str(tmp_path))
    number = httpx.post(f"{site.url}/api/simulations/", json=RUN).json()["id"]
    request = f"GET /simulations/{number}/stream/ HTTP/1.1\r\nHost: 127.0.0.1:{site.port}\r\n\r\n".encode()
    for place in range(200):
        with socket.create_connection(("127.0.0.1", site.port)) as connection:
            connection.sendall(request)
            time.sleep(place * 0.0001)
    settles(lambda: metric(site, "fedsite_streams_open") == 0, seconds=30)


async def test_after_its_time_it_ends_without_the_closing_frame(monkeypatch):
    monkeypatch.setattr(stream, "LIFETIME_SECONDS", -1)
    place = stream.Slot(address="192.0.2.1", person=None, key="k")
    stream.taken.add(place)
    simulation = Simulation(pk=1, last_sequence=3)
    frames = [text async for text in stream._frames(simulation, 0, stream.JSON, place)]
    assert frames == ["retry: 2000\n\n"]
    assert place not in stream.taken


def test_a_replay_is_as_fast_as_its_reader(start_site):
    """The feed looks every second, and reads 500 events at a time: through it this would take 20 s."""
    site = start_site()
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


async def test_a_feed_outlives_whatever_goes_wrong(monkeypatch):
    """It died of the second error in a row, and left its watchers without a word."""
    simulation, event = Simulation(pk=1, last_sequence=1), Event(sequence=1)
    answers = [RuntimeError(), RuntimeError(), RuntimeError()]

    def read_after(simulation_id, sequence):
        if answers:
            raise answers.pop()
        return simulation, [event][sequence:]

    monkeypatch.setattr(feed, "read_after", read_after)
    monkeypatch.setattr(feed, "LOOK_SECONDS", 0.01)
    watcher = stream.Slot(address="192.0.2.1", person=None, key="k")
    async with feed.watching(1, 0, watcher) as source:
        batch = await source.batch_after(0, 30, watcher)
    assert batch is not None
    assert batch.events == [event]


def settles(condition, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def files_of_database(site) -> int:
    return sum("db.sqlite3" in file.path for file in psutil.Process(site.process.pid).open_files())


def test_viewers_hold_nothing_of_the_database(start_site):
    """Each held three files of SQLite's, and most of them stayed open when they had left."""
    site = start_site()
    number = httpx.post(f"{site.url}/api/simulations/", json=RUN).json()["id"]
    url = f"{site.url}/api/simulations/{number}/stream/"
    with httpx.Client(timeout=60) as client, contextlib.ExitStack() as viewers:
        for viewer in range(30):
            response = viewers.enter_context(client.stream("GET", url))
            text = response.iter_text()
            next(chunk for chunk in text if "id: 1\n" in chunk)
            if viewer == 0:
                with_one = files_of_database(site)
        most = with_one + 3 * 3  # of the threads that read for all, one had read
        settles(lambda: files_of_database(site) <= most)
        for _ in range(10):
            client.get(site.url)
    settles(lambda: files_of_database(site) <= most)
    httpx.post(f"{site.url}/api/simulations/{number}/cancel/", json={})


MAKE = f"""
import json
from importlib import import_module
from django.conf import settings
from django.contrib.auth import HASH_SESSION_KEY, BACKEND_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from people import tokens
from simulations.running import lifecycle
from simulations.config import SimulationConfig
keys = {{}}
def visitor(name, is_staff=True):
    user = User.objects.create_user(name, password="long-enough-9", is_staff=is_staff)
    session = import_module(settings.SESSION_ENGINE).SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.create()
    keys[name] = {{"Cookie": f"sessionid={{session.session_key}}"}}
    return user
for name in ("signed out", "deactivated", "no longer staff", "new password"):
    visitor(name)
stays = visitor("stays", is_staff=False)
_, secret = tokens.create(visitor("revoked"), name="t", scope="read", expires_at=None)
keys["revoked"] = {{"Authorization": f"Bearer {{secret}}"}}
simulation = lifecycle.queue(SimulationConfig.from_dict({RUN!r}), origin="page", owned_by=stays)
print(json.dumps([simulation.pk, keys]))
"""
TAKE_AWAY = """
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from people.models import Token
Token.objects.all().delete()
Session.objects.filter(session_key="{0}").delete()
User.objects.filter(username="deactivated").update(is_active=False)
User.objects.filter(username="no longer staff").update(is_staff=False)
changed = User.objects.get(username="new password")
changed.set_password("another-one-9")
changed.save()
"""


def test_a_stream_ends_when_its_viewer_may_no_longer_look(start_site):
    """It went on for its whole ten minutes."""
    site = start_site(FEDSITE_ACCESS="login", FEDSITE_OTHERS_MAY_LOOK="0")
    number, visitors = json.loads(site.manage("shell", "-v0", "-c", MAKE).stdout)
    ended: dict[str, float] = {}
    statuses = dict.fromkeys(visitors, 0)

    def watch(name: str) -> None:
        path = "/api/simulations/" if name in ("revoked", "stays") else "/simulations/"
        url = f"{site.url}{path}{number}/stream/"
        with (
            contextlib.suppress(httpx.HTTPError),
            httpx.stream("GET", url, headers=visitors[name], timeout=60) as answer,
        ):
            statuses[name] = answer.status_code
            for _ in answer.iter_text():
                pass
            ended[name] = time.monotonic()

    threads = [threading.Thread(target=watch, args=(name,), daemon=True) for name in visitors]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + servers.PATIENCE_SECONDS
    while set(statuses.values()) != {200}:
        assert time.monotonic() < deadline, statuses
        time.sleep(0.05)
    session = visitors["signed out"]["Cookie"].partition("=")[2]
    done = site.manage("shell", "-v0", "-c", TAKE_AWAY.format(session))
    assert done.returncode == 0, done.stderr
    begin = time.monotonic()
    while len(ended) < len(visitors) - 1:
        assert time.monotonic() < begin + 30, ended
        time.sleep(0.05)
    assert set(visitors) - set(ended) == {"stays"}


def test_one_person_has_so_many_streams_whatever_the_addresses(start_site):
    site = start_site(
        FEDSITE_ACCESS="login", FEDSITE_PROXIES="1", FEDSITE_MAX_STREAMS="9", FEDSITE_MAX_STREAMS_PER_PERSON="2"
    )
    number, visitors = json.loads(site.manage("shell", "-v0", "-c", MAKE).stdout)
    url = f"{site.url}/api/simulations/{number}/stream/"

    def from_address(last: int, who: str) -> dict:
        return {"url": url, "headers": visitors[who] | {"X-Forwarded-For": f"192.0.2.{last}"}, "timeout": 60}

    with contextlib.ExitStack() as viewers:
        for last in (1, 2):
            assert viewers.enter_context(httpx.stream("GET", **from_address(last, "stays"))).status_code == 200
        refused = viewers.enter_context(httpx.stream("GET", **from_address(3, "stays")))
        assert (refused.status_code, refused.headers.get("Retry-After")) == (429, "5")
        assert json.loads(refused.read())["detail"].startswith("You have 2 streams open")
        with httpx.stream("GET", **from_address(1, "deactivated")) as others:
            assert others.status_code == 200  # the address has room

    def is_let_in() -> bool:
        with httpx.stream("GET", **from_address(3, "stays")) as again:
            return again.status_code == 200

    settles(is_let_in)  # whoever leaves makes room
