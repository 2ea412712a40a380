"""Whoever keeps the server waiting waits himself: slow heads and bodies, floods of connections, viewers who do not
read. The others do not notice."""

from __future__ import annotations

import collections
import contextlib
import socket
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import psutil
import pytest
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from fedsite import connections
from fedsite.tests import servers
from fedsite.tests.machine import PROJECT

Start = Callable[..., servers.Server]
RUN = {"dataset": "digits", "num_clients": 2, "num_rounds": 5000, "evaluate_every": 5000, "valuation": "none"}
PLACES = 500
HALF = b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "


@contextlib.contextmanager
def half_sent(site: servers.Server, number: int, head: bytes = HALF) -> Iterator[list[socket.socket]]:
    """So many connections that have begun a request and do not go on with it."""
    opened = []
    try:
        for _ in range(number):
            opened.append(socket.create_connection(("127.0.0.1", site.port), timeout=10))
            opened[-1].sendall(head)
        yield opened
    finally:
        for connection in opened:
            connection.close()


def until_it_ends(connection: socket.socket, drop: bytes, seconds: float) -> tuple[bytes, float]:
    """What comes while a byte is sent every now and then, and after how long the other side has closed."""
    begin, answer = time.monotonic(), b""
    connection.settimeout(0.2)
    while time.monotonic() < begin + seconds:
        with contextlib.suppress(TimeoutError):
            try:
                part = connection.recv(4096)
            except ConnectionResetError:
                part = b""
            if not part:
                return answer, time.monotonic() - begin
            answer += part
        with contextlib.suppress(OSError):
            connection.sendall(drop)
    raise AssertionError(f"still open after {seconds} s: {answer!r}")


def test_a_head_that_drips_is_not_waited_for(server: servers.Server) -> None:
    """daphne's own limit, an idle minute, begins anew with each byte."""
    with half_sent(server, 1) as (connection,):
        answer, seconds = until_it_ends(connection, b"x", 60)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert connections.HEAD_SECONDS - 1 < seconds < connections.HEAD_SECONDS + connections.LINGER_SECONDS + 20


@pytest.mark.parametrize("length", [b"Content-Length: 400000000", b"Transfer-Encoding: chunked"])
def test_a_huge_body_is_not_read(server: servers.Server, length: bytes) -> None:
    head = b"POST /api/simulations/ HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n" + length
    part = b"10000\r\n" + b" " * 65536 + b"\r\n"
    with half_sent(server, 1, head + b"\r\n\r\n") as (connection,):
        answer, _ = until_it_ends(connection, part, 60)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'{"detail": "A body may have at most 2,097,152 bytes"}' in answer


def test_a_viewer_who_reads_slowly_has_it_all_and_costs_no_memory(start_server: Start) -> None:
    """A replay of 40 MB, of which nothing is read for a while."""
    site = start_server()
    number = httpx.post(f"{site.url}/api/simulations/", json=RUN).json()["id"]
    httpx.post(f"{site.url}/api/simulations/{number}/cancel/", json={})
    with contextlib.closing(sqlite3.connect(site.folder / "db.sqlite3")) as database, database:
        (last,) = database.execute("SELECT last_sequence FROM simulations_simulation").fetchone()
        database.executemany(
            "INSERT INTO simulations_event (simulation_id, sequence, kind, at, message, data) "
            "VALUES (?, ?, 'log', '2026-01-01 00:00:00', ?, '{}')",
            [(number, sequence, "x" * 10_000) for sequence in range(last + 1, last + 4_001)],
        )
        database.execute("UPDATE simulations_simulation SET last_sequence = ?", [last + 4_000])
    process = psutil.Process(site.process.pid)
    with httpx.stream("GET", f"{site.url}/api/simulations/{number}/stream/", timeout=60) as answer:
        before = process.memory_info().rss
        time.sleep(3)
        grown = process.memory_info().rss - before
        text = "".join(answer.iter_text())
    assert text.count("event: log") >= 4_000
    assert text.endswith("event: close\ndata: closed\n\n")
    assert grown < 30_000_000


async def test_who_does_not_read_at_all_is_let_go(
    monkeypatch: pytest.MonkeyPatch, connect: Callable[..., connections.Channel]
) -> None:
    monkeypatch.setattr(connections, "UNREAD_SECONDS", 0.01)
    channel = connect()
    await channel.read_on()
    assert not channel.transport.disconnecting
    channel.pauseProducing()
    await channel.read_on()
    assert channel.transport.disconnecting


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def connect(clock: Clock) -> Callable[..., connections.Channel]:
    """`connect(host="192.0.2.1")`: a connection to our factory, on the test's clock."""
    factory = connections.Factory(server=None)
    factory.reactor = clock
    factory.most = 10

    def make(host: str = "192.0.2.1") -> connections.Channel:
        kind = IPv6Address if ":" in host else IPv4Address
        channel = factory.buildProtocol(kind("TCP", host, 4711))
        channel.makeConnection(StringTransport(peerAddress=kind("TCP", host, 4711)))
        return channel

    make.factory = factory  # type: ignore[attr-defined]
    return make


def test_a_connection_that_says_nothing_is_let_go(clock: Clock, connect: Callable[..., connections.Channel]) -> None:
    silent = connect()
    clock.advance(connections.HEAD_SECONDS + 0.1)
    assert silent.transport.value().startswith(b"HTTP/1.1 408 ")
    clock.advance(connections.LINGER_SECONDS + 0.1)
    assert silent.transport.disconnecting


def test_the_oldest_of_the_address_that_has_most_makes_room(
    clock: Clock, connect: Callable[..., connections.Channel]
) -> None:
    other = connect("198.51.100.7")
    greedy = [connect() for _ in range(40)]
    clock.advance(connections.SOON_SECONDS)
    assert [channel.transport.disconnecting for channel in greedy] == [True] * 31 + [False] * 9
    of_one_customer = [connect(f"2001:db8::{place:x}") for place in range(1, 40)]
    clock.advance(connections.SOON_SECONDS)
    assert [channel.transport.disconnecting for channel in of_one_customer].count(False) == 5
    assert not other.transport.disconnecting


@pytest.mark.parametrize(
    ("descriptors", "admitted"), [(512, 512 - 128 - connections.OTHERS), (1024, PLACES), (4096, PLACES)]
)
def test_as_many_streams_are_admitted_as_there_are_descriptors(descriptors: int, admitted: int) -> None:
    program = (
        "import resource, django; django.setup();"
        "from fedsite.connections import guard; guard();"
        "from django.conf import settings;"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], settings.FEDSITE_MAX_STREAMS)"
    )
    shell = f'ulimit -Sn 256; ulimit -Hn {descriptors}; exec "$@"'
    done = subprocess.run(
        ["bash", "-c", shell, "--", sys.executable, "-c", program],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [str(descriptors), str(admitted)], done.stderr
    told = f"This process may open {descriptors} files: it admits {admitted} streams" in done.stderr
    assert told == (admitted < PLACES)


def test_one_address_does_not_shut_out_another(start_server: Start) -> None:
    """600 viewers and 1,500 half-sent heads from one address, on a server that may open 1,024 files."""
    connections.raised_limit()  # this process holds the other ends
    site = start_server(descriptors=1024)
    number = httpx.post(f"{site.url}/api/simulations/", json=RUN).json()["id"]
    stream = f"GET /api/simulations/{number}/stream/ HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    neighbour = httpx.HTTPTransport(local_address="127.0.0.2")
    with half_sent(site, 600, stream) as viewers, httpx.Client(transport=neighbour, base_url=site.url) as other:
        told = collections.Counter(status_of(viewer) for viewer in viewers)
        assert told == {b"200": PLACES // 4, b"429": 600 - PLACES // 4}
        over = threading.Event()
        flood = threading.Thread(target=keep_flooding, args=(site, over))
        flood.start()
        try:
            seconds = [timed(other, path) for _ in range(7) for path in ("/", "/simulations/", "/ledger/", "/healthz")]
            with httpx.stream("GET", f"{site.url}/api/simulations/{number}/stream/") as refused:
                assert refused.status_code == 429
                assert refused.headers["Retry-After"]
            with other.stream("GET", f"/api/simulations/{number}/stream/") as admitted:
                assert admitted.status_code == 200
            files = psutil.Process(site.process.pid).num_fds()
        finally:
            over.set()
            flood.join()
    assert statistics.median(seconds) < 1, seconds
    assert files < 1024 - 100
    httpx.post(f"{site.url}/api/simulations/{number}/cancel/", json={})


def status_of(connection: socket.socket) -> bytes:
    connection.settimeout(servers.PATIENCE_SECONDS)
    return connection.recv(4096).split(b" ", 2)[1]


def keep_flooding(site: servers.Server, over: threading.Event) -> None:
    while not over.is_set():
        with contextlib.suppress(OSError), half_sent(site, 1500):
            over.wait(1)


def timed(client: httpx.Client, path: str) -> float:
    begin = time.monotonic()
    assert client.get(path, timeout=30).status_code == 200
    return time.monotonic() - begin
