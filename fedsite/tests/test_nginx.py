"""The site behind a real nginx, with the configuration that we ship: pages, addresses, and streams that arrive."""

from __future__ import annotations

import contextlib
import re
import socket
import socketserver
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from fedsite.tests import servers
from simulations.tests.frames import parse

Start = Callable[..., servers.Server]
Front = Callable[..., servers.Proxy]
BUSY = {"dataset": "digits", "num_clients": 2, "num_rounds": 5000, "evaluate_every": 5000, "valuation": "none"}
HELD_BACK_SECONDS = 4  # long after what is there would have come, long before the first heartbeat
STREAM = "location ~ /stream/?$ {"


def browser_of(proxy: servers.Proxy) -> httpx.Client:
    trusted = ssl.create_default_context(cafile=str(proxy.certificate))
    return httpx.Client(base_url=proxy.url, verify=trusted, timeout=30)


@pytest.fixture
def waiting(start_server: Start) -> tuple[servers.Server, int]:
    """A site, and a simulation in its queue of which nothing more is to be told: another one runs for long."""
    site = start_server()
    _, number = [httpx.post(f"{site.url}/api/simulations/", json=BUSY).json()["id"] for _ in range(2)]
    return site, number


@pytest.mark.parametrize("path", ["/api/simulations/{}/stream/", "/simulations/{}/stream/"])
def test_frames_pass_at_once_though_nginx_buffers(waiting: tuple[servers.Server, int], nginx: Front, path: str) -> None:
    """A few hundred bytes, then silence: a proxy that fills a buffer first would hold them back."""
    site, number = waiting
    with browser_of(nginx(site)) as client:
        frames = first_frames(client, path.format(number))
        assert frames[0].id == "1"
        assert client.get(f"/api/simulations/{number}/").json()["status"] == "queued"


def first_frames(client: httpx.Client, path: str) -> list:
    with client.stream("GET", path, timeout=HELD_BACK_SECONDS) as response:
        text = ""
        for chunk in response.iter_text():
            text += chunk
            if frames := parse(text):
                return frames
    raise AssertionError(f"the stream ended: {text!r}")


def test_without_our_header_nginx_would_hold_them_back(waiting: tuple[servers.Server, int], nginx: Front) -> None:
    site, number = waiting
    front = nginx(site, **{STREAM: f"{STREAM}\nproxy_ignore_headers X-Accel-Buffering;"})
    with browser_of(front) as client, pytest.raises(httpx.ReadTimeout):
        first_frames(client, f"/api/simulations/{number}/stream/")


def test_a_whole_run_passes_without_gap(server: servers.Server, nginx: Front) -> None:
    with browser_of(nginx(server)) as client:
        fields = {"dataset": "digits", "num_clients": 2, "num_rounds": 5}
        number = client.post("/api/simulations/", json=fields).json()["id"]
        with client.stream("GET", f"/api/simulations/{number}/stream/") as response:
            frames = parse("".join(response.iter_text()))
    assert [int(frame.id) for frame in frames[:-1]] == list(range(1, len(frames)))
    assert frames[-1].event == "close"


@pytest.fixture
def production(start_server: Start, nginx: Front) -> servers.Proxy:
    """As it is run for many, but open: whoever passes nginx may write."""
    return nginx(start_server(options=("--proxy-headers",), DEBUG="0", FEDSITE_ACCESS="open"))


def test_production_serves_pages_forms_and_files_over_tls(production: servers.Proxy) -> None:
    assert httpx.get(production.plain_url).headers["Location"].startswith("https://127.0.0.1")
    with browser_of(production) as client:
        page = client.get("/")
        assert page.status_code == 200
        css = re.search(r'href="(/static/css/app[^"]*\.css)"', page.text)
        assert css is not None
        assert client.get(css[1]).status_code == 200
        assert client.get("/healthz").json() == client.get("/readyz").json() == {"status": "ok"}
        form = BUSY | {"csrfmiddlewaretoken": client.cookies["csrftoken"], "num_rounds": 1, "preset": "default"}
        started = client.post("/simulations/", data=form, headers={"Origin": production.url, "Referer": production.url})
        assert started.status_code == 302, started.text
        cookie = next(cookie for cookie in client.cookies.jar if cookie.name == "csrftoken")
        assert cookie.secure


def test_nobody_reads_metrics_from_outside(production: servers.Proxy) -> None:
    with browser_of(production) as client:
        for headers in ({}, {"X-Forwarded-For": "127.0.0.1"}):
            assert client.get("/metrics", headers=headers).status_code == 404
            assert client.get("/metrics/", headers=headers).status_code == 404
            assert client.get(f"{production.url}//metrics", headers=headers).status_code == 404


class Names(socketserver.BaseRequestHandler):
    """A name server: every name has one address, and no other kind of record."""

    address = "127.0.0.1"

    def handle(self) -> None:
        asked, answer = self.request
        end = asked.index(b"\0", 12) + 5  # of the question: its name, type and class
        is_a = asked[end - 4 : end - 2] == b"\0\1"
        record = b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4" + socket.inet_aton(self.address) if is_a else b""
        head = asked[:2] + b"\x81\x80\0\1" + bytes([0, is_a]) + b"\0\0\0\0"
        answer.sendto(head + asked[12:end] + record, self.client_address)


class Container(BaseHTTPRequestHandler):
    """Says at which address it was reached."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.server_address[0].encode())

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[int]:
    """Its port, while it answers in a thread."""
    threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere 127.0.0.2 is no address of this machine")
def test_a_web_container_that_is_replaced_is_found_at_its_new_address(tmp_path: Path, nginx: Front) -> None:
    """The fixture says that this needs an nginx; its configuration is the one that compose.yaml makes of ours."""
    with contextlib.ExitStack() as running:
        names = running.enter_context(serving(socketserver.ThreadingUDPServer(("127.0.0.1", 0), Names)))
        first = contextlib.ExitStack()
        port = first.enter_context(serving(ThreadingHTTPServer(("127.0.0.1", 0), Container)))
        ((old, new),) = servers.compose_changes().items()
        changed = new.replace("web:8000", f"web:{port}").replace("127.0.0.11", f"127.0.0.1:{names}")
        front = running.enter_context(servers.nginx(tmp_path, port, **{old: changed.replace("valid=5s", "valid=1s")}))
        with browser_of(front) as client:
            assert client.get("/").text == "127.0.0.1"
            first.close()
            running.enter_context(serving(ThreadingHTTPServer(("127.0.0.2", port), Container)))
            Names.address = "127.0.0.2"
            deadline = time.monotonic() + 30
            while (answer := client.get("/")).status_code != 200 and time.monotonic() < deadline:
                time.sleep(0.2)
            assert answer.text == "127.0.0.2"
