"""The site behind a real nginx, with the configuration that we ship: pages, addresses, and streams that arrive."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable

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
