"""Under which path the site lies: its operator says so, and then all of it does; a visitor's word counts for naught."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from fedsite.tests import servers

ROOT = "/lab/fed"
MADE = """
from django.contrib.auth.models import User
from people import tokens
from simulations.tests.cast import recorded
recorded()
user = User.objects.create_superuser("ada", "ada@example.org", "long-enough-9")
print(tokens.create(user, name="lab", scope="write", expires_at=None)[1])
"""


@pytest.fixture(scope="module")
def below(tmp_path_factory, migrated_database) -> Iterator[tuple[servers.Server, str]]:
    """A site under a path of its own, in login access, with a finished simulation and a token."""
    settings = {"FEDSITE_ROOT_PATH": ROOT, "FEDSITE_ACCESS": "login", "FEDSITE_PROXIES": "1"}
    site = servers.start_site(tmp_path_factory.mktemp("below"), migrated_database, **settings)
    made = site.manage("shell", "-v0", "-c", MADE)
    assert made.returncode == 0, made.stderr
    yield site, made.stdout.split()[-1]
    site.stop()


@contextmanager
def signed_in(url: str, **options) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=30, **options) as client:
        page = client.get(f"{ROOT}/accounts/login/")
        form = {"username": "ada", "password": "long-enough-9", "next": f"{ROOT}/ledger/"}
        form["csrfmiddlewaretoken"] = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.text)[1]
        answer = client.post(f"{ROOT}/accounts/login/", data=form, headers={"Referer": f"{url}{ROOT}/"})
        assert answer.headers["Location"] == f"{ROOT}/ledger/", answer.text
        yield client


def addresses(html: str) -> set[str]:
    """Everything that a page leads to or fetches on its own site, without queries."""
    found = re.findall(r'(?:href|src|action|formaction|hx-get|hx-post|sse-connect|data-sign-in)="(/[^"?#]*)', html)
    return set(found)


def test_every_address_of_every_page_is_below_it(below):
    site, _ = below
    with signed_in(site.url) as client:
        seen, left = set(), {f"{ROOT}/"}
        while left - seen:
            address = (left - seen).pop()
            seen.add(address)
            answer = client.get(address)
            assert address.startswith(f"{ROOT}/"), address
            assert answer.status_code in (200, 405), address  # what a button posts to
            is_page = answer.headers["content-type"].startswith("text/html")
            if is_page and "/admin/" not in address:
                left |= addresses(answer.text)
        names = " ".join(seen)
        for part in ("static/css/app.css", "api/docs", "admin/", "simulations/1/clients/", "ledger/transactions/"):
            assert f"{ROOT}/{part}" in names
        assert {cookie.path for cookie in client.cookies.jar} == {ROOT}
        assert all(address.startswith(ROOT) for address in addresses(client.get(f"{ROOT}/admin/").text))
        document = client.get(f"{ROOT}/api/openapi.json").json()
        assert all(path.startswith(f"{ROOT}/api/") for path in document["paths"])


def test_so_are_redirects_and_what_programs_are_told(below):
    site, token = below
    with httpx.Client(base_url=site.url, headers={"Authorization": f"Bearer {token}"}, timeout=30) as program:
        made = program.post(f"{ROOT}/api/simulations/", json={"dataset": "digits", "num_rounds": 1, "num_clients": 2})
        number = made.json()["id"]
        assert made.headers["Location"] == f"{ROOT}/api/simulations/{number}/"
        with program.stream("GET", f"{ROOT}/api/simulations/1/stream/") as stream:
            assert "event: close" in "".join(stream.iter_text())
        program.post(f"{ROOT}/api/simulations/{number}/cancel/")
        link = program.get(f"{ROOT}/api/simulations/1/events/?limit=1").headers["Link"]
        assert f"{site.url}{ROOT}/api/simulations/1/events/?" in link
    with httpx.Client(base_url=site.url) as stranger:
        asked = stranger.get(f"{ROOT}/simulations/")
        assert asked.headers["Location"] == f"{ROOT}/accounts/login/?next={ROOT}/simulations/"
        assert stranger.get(f"{ROOT}/simulations").headers["Location"] == f"{ROOT}/simulations/"
        assert stranger.get(ROOT).headers["Location"].startswith(f"{ROOT}/accounts/login/")
        admin = stranger.get(f"{ROOT}/admin/", follow_redirects=True)
    assert (admin.status_code, admin.url.path) == (200, f"{ROOT}/accounts/login/")


def test_a_proxy_may_take_it_away_and_balancers_need_not_know_it(below):
    site, token = below
    for path in ("/healthz", "/readyz", f"{ROOT}/healthz", f"{ROOT}/readyz"):
        assert httpx.get(f"{site.url}{path}").status_code == 200
    assert (
        httpx.get(f"{site.url}/simulations/").headers["Location"] == f"{ROOT}/accounts/login/?next={ROOT}/simulations/"
    )
    headers = {"Authorization": f"Bearer {token}"}
    assert httpx.get(f"{site.url}/api/simulations/1/", headers=headers).status_code == 200
    assert httpx.get(f"{site.url}{ROOT}x/simulations/", headers=headers).status_code == 404


def test_nginx_serves_it_under_a_path(below, nginx: Callable[..., servers.Proxy]):
    site, _ = below
    front = nginx(site, **{"location / {": f"location {ROOT}/ {{"})
    trusted = ssl.create_default_context(cafile=str(front.certificate))
    with signed_in(front.url, verify=trusted) as client:
        page = client.get(f"{ROOT}/simulations/1/").text
        assert client.get(re.search(r'href="([^"]*app[^"]*\.css)"', page)[1]).status_code == 200
        assert client.get(f"{ROOT}/metrics").status_code == 404
        assert client.get("/simulations/1/").status_code == 404


def test_the_cast_has_a_page_for_every_kind_of_address(below):
    """Or the walk above would prove nothing."""
    assert addresses('<a href="/x?y"><form action="/z" hx-get="/w">') == {"/x", "/z", "/w"}
