"""The attack that stays: every address of the site, by every method, with whatever a visitor may send, by everybody
who should not get in. Addresses come from routing, so a new one is attacked from its first day."""

from __future__ import annotations

import http.client
import json
import logging
import re
import ssl
from collections.abc import Callable, Iterator
from urllib.parse import quote, urlsplit

import pytest
from asgiref.sync import async_to_sync
from django.apps import apps
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.http import HttpResponse
from django.test import Client
from django.urls import resolve

from fedsite.tests import servers
from fedsite.tests.addresses import Address, addresses
from incentives import ledger
from people import tokens
from people.models import Gate
from simulations.models import Simulation
from simulations.running import lifecycle
from simulations.tests.cast import config, queued, recorded

OWNER = "owner-of-everything"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
FOR_STRANGERS = {  # and nothing else
    *("healthz", "readyz", "login", "logout", ""),  # the one without a name is the admin's way to `login`
    *("password_reset", "password_reset_done", "password_reset_confirm", "password_reset_complete"),
}
HOSTILE = {
    "Accept": "text/event-stream",
    "Authorization": "Basic b3duZXI6b3duZXI=",
    "Cookie": "sessionid=owner; csrftoken=0000000000000000000000000000000a",
    "Forwarded": "for=127.0.0.1;host=127.0.0.1;proto=https",
    "HX-Request": "true",
    "HX-Current-URL": "http://testserver/accounts/login/",
    "Idempotency-Key": "user:1:once",
    "Last-Event-ID": "1-0",
    "Origin": "http://testserver",
    "Referer": "http://testserver/accounts/login/",
    "Remote-User": OWNER,
    "Script-Name": "/accounts",
    "Path-Info": "/healthz",
    "X-CSRFToken": "0000000000000000000000000000000a",
    "X-Forwarded-For": "127.0.0.1",
    "X-Forwarded-Host": "127.0.0.1",
    "X-Forwarded-Prefix": "/accounts",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-User": OWNER,
    "X-HTTP-Method-Override": "GET",
    "X-Original-URL": "/accounts/login/",
    "X-Original-Method": "GET",
    "X-Real-IP": "127.0.0.1",
    "X-Remote-User": OWNER,
    "X-Requested-With": "XMLHttpRequest",
    "X-Rewrite-URL": "/accounts/login/",
    "X-Script-Name": "/accounts",
}
HOSTILE_FOR_PEOPLE = {
    name: value for name, value in HOSTILE.items() if name not in ("Authorization", "Cookie", "Last-Event-ID")
}
BODY = '{"user_id": 1, "previous_metric": 0.5, "current_metric": 0.4}'


def furnish() -> dict[str, str]:
    """A simulation of the owner's, one that waits, a reward by hand, a token; arguments for every address."""
    owner, _ = User.objects.get_or_create(username=OWNER)
    simulation = recorded()
    Simulation.objects.filter(pk__in=(simulation.pk, queued().pk)).update(owned_by=owner)
    entry = ledger.Entry("mint", "treasury", 5, "pool")
    ledger.post(ledger.open_ledger("manual").pk, key="once", transfers=[entry], description=OWNER)
    token, _ = tokens.create(owner, name=OWNER, scope="read", expires_at=None)
    return {
        "simulation_id": str(simulation.pk),
        "number": "1",
        "name": simulation.ledger.name,
        "sequence": "1",
        "token_id": str(token.pk),
        "uidb64": "MQ",
        "token": "set-password",
        "content_type_id": "1",
        "id": str(owner.pk),
        "object_id": "1",
        "app_label": "simulations",
        "url": "nowhere",
    }


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Each refusal is a line of the log, with what led to it."""
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def site(settings, db) -> list[Address]:
    settings.FEDSITE_ACCESS = "login"
    return addresses(furnish())


def ben(scope: str | None = None, **fields) -> Client:
    """Another person's browser; with a scope his program."""
    user, _ = User.objects.get_or_create(username="ben", defaults=fields)
    if scope is None:
        client = Client()
        client.force_login(user)
        return client
    return Client(
        headers={"authorization": f"Bearer {tokens.create(user, name='lab', scope=scope, expires_at=None)[1]}"}
    )


def rows() -> dict[str, dict[int, tuple]]:
    """What the database holds, by model and key; not who tried how often, nor when something was used last."""
    held = {}
    for model in apps.get_models():
        if model not in (Session, Gate):
            names = [field.attname for field in model._meta.concrete_fields if not field.name.startswith("last_")]
            held[model.__name__] = {row[0]: row[1:] for row in model._default_manager.values_list("pk", *names)}
    return held


def secrets() -> list[bytes]:
    """What nobody but the owner may be shown."""
    simulation = Simulation.objects.order_by("pk").first()
    found = (OWNER, simulation.config_sha256, simulation.weights_sha256, simulation.ledger_head)
    assert all(found)
    return [text.encode() for text in found]


def body_of(response: HttpResponse) -> bytes:
    if not response.streaming:
        return response.content

    async def whole() -> bytes:
        return b"".join([piece async for piece in response.streaming_content])

    return async_to_sync(whole)()


def ask(client: Client, method: str, path: str, headers: dict[str, str]) -> HttpResponse:
    kind = {"content_type": "application/json"} if "/api/" in path else {}
    body = BODY if method in ("POST", "PUT", "PATCH") else ""
    return client.generic(method, path, body, headers=headers, **kind)


def test_the_walk_sees_every_address(site):
    assert len(site) > 90
    assert not [each.path for each in site if re.search(r"[<>(){}\\^$]", each.path)]
    for each in site:
        assert resolve(each.path)
    root = Client()
    root.force_login(User.objects.create_superuser("root"))
    shown = [each for each in site if "stream" not in each.path and root.get(each.path).status_code == 200]
    assert len(shown) > 60, "most addresses name something that is there"
    assert {each.name.split(":")[0] for each in shown} >= {
        "simulations",
        "ledger",
        "api-1",
        "admin",
        "account",
        "login",
    }


@pytest.mark.parametrize("headers", [{}, HOSTILE], ids=["plain", "hostile"])
def test_a_stranger_gets_in_nowhere(site, headers):
    before, hidden, client = rows(), secrets(), Client()
    for each in site:
        for method in METHODS:
            response = ask(client, method, each.path, headers)
            what = f"{method} {each.path}: {response.status_code}"
            assert not any(text in body_of(response) for text in hidden), what
            if each.name not in FOR_STRANGERS:
                assert response.status_code in (302, 400, 401, 403, 404, 405), what
            if response.status_code == 302:
                assert re.match(r"(/accounts/login/|/admin/login/|/accounts/reset/|/$)", response["Location"]), what
    assert rows() == before


@pytest.mark.parametrize("who", ["revoked", "expired", "unknown"])
def test_a_token_that_is_no_longer_good_is_worth_nothing(site, who):
    program = ben("write")
    if who == "revoked":
        User.objects.get(username="ben").tokens.all().delete()
    elif who == "expired":
        User.objects.get(username="ben").tokens.update(expires_at="2020-01-01T00:00Z")
    else:
        program = Client(headers={"authorization": "Bearer fed_unknown"})
    before, hidden = rows(), secrets()
    for each in site:
        for method in ("GET", "POST", "OPTIONS"):
            response = ask(program, method, each.path, {})
            what = f"{method} {each.path}: {response.status_code}"
            assert not any(text in body_of(response) for text in hidden), what
            if each.name.startswith("api-1:") and each.name != "api-1:api-root":
                assert response.status_code == 401, what
            elif each.name not in FOR_STRANGERS:
                assert response.status_code in (302, 401, 403, 404, 405), what
    assert rows() == before


def test_a_program_that_may_read_writes_nowhere(site):
    """Its owner is the owner of everything, so that nothing else keeps it from writing."""
    owner = User.objects.get(username=OWNER)
    owner.is_staff = owner.is_superuser = True
    owner.save()
    secret = tokens.create(owner, name="reader", scope="read", expires_at=None)[1]
    program, before = Client(headers={"authorization": f"Bearer {secret}"}), rows()
    for last in ({}, {"Last-Event-ID": ""}, {"Last-Event-ID": " "}):
        for each in site:
            for method in ("GET", "POST", "DELETE", "OPTIONS") if not last else ("GET",):
                response = ask(program, method, each.path, {"Accept": "text/event-stream", **last})
                response.close()
                if each.name.startswith("api-1:") and method not in ("GET", "HEAD", "OPTIONS"):
                    assert response.status_code == 403, f"{method} {each.path}: {response.status_code}"
    assert rows() == before


@pytest.mark.parametrize("scope", [None, "write"], ids=["browser", "program"])
def test_another_person_sees_nothing_where_others_may_not_look(site, settings, scope):
    settings.FEDSITE_OTHERS_MAY_LOOK = False
    client, hidden = ben(scope), secrets()
    own = lifecycle.queue(config(), origin="page", owned_by=User.objects.get(username="ben"))
    queries = ("", f"?simulation_id={own.pk}", f"?ledger=simulation-{own.pk}", "?user_id=1", "?archived=true")
    for each in site:
        for method in ("GET", "POST"):
            is_list = method == "GET" and ("ledger" in each.path or "/api/" in each.path)
            for query in queries if is_list else queries[:1]:
                response = ask(client, method, each.path + query, HOSTILE_FOR_PEOPLE)
                if each.name == "api-1:compatible_stream":
                    response.close()  # a run of his own
                    continue
                what = f"{method} {each.path}{query}: {response.status_code}"
                assert not any(text in body_of(response) for text in hidden), what
    assert Simulation.objects.filter(owned_by__username=OWNER, archived=False).count() == 2


@pytest.mark.parametrize(
    ("scope", "fields"), [(None, {"is_staff": True}), ("write", {})], ids=["browser of staff without rights", "program"]
)
def test_another_person_changes_nothing_of_the_owners(site, settings, scope, fields):
    """Starting runs of his own he may, and asking for audits: nothing but these is new."""
    client, before = ben(scope, **fields), rows()
    for each in site:
        if each.name not in ("logout", "admin:logout"):
            for method in ("POST", "DELETE"):
                ask(client, method, each.path, HOSTILE_FOR_PEOPLE).close()
    after = rows()
    for model, held in before.items():
        assert {key: row for key, row in after[model].items() if key in held} == held, model
    assert {model for model in before if after[model] != before[model]} <= {
        "Simulation",
        "Audit",
        "Starter",
        "Event",
        "Ledger",
        "Account",
    }
    assert after["Simulation"] != before["Simulation"]
    fresh = Simulation.objects.exclude(pk__in=before["Simulation"])
    assert set(fresh.values_list("owned_by__username", flat=True)) == {"ben"}


# Through daphne, which reads some headers itself

ROOTS = ("/accounts", "/accounts/login", "/admin", "/static", "/healthz", "/metrics", "/api", "accounts", "/", "/\xe9")
SEED = """
import json
from fedsite.tests.test_side_doors import furnish
from fedsite.tests.addresses import addresses
print(json.dumps([(each.path, each.name) for each in addresses(furnish())]))
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory, migrated_database) -> Iterator[tuple[servers.Server, list[Address]]]:
    """A site with something to see that nobody may see, and its addresses."""
    site = servers.start_site(
        tmp_path_factory.mktemp("doors"), migrated_database, options=("-v", "0"), FEDSITE_ACCESS="login"
    )
    try:
        seeded = site.manage("shell", "-v0", "-c", SEED)
        assert seeded.returncode == 0, seeded.stderr
        yield site, [Address(*each) for each in json.loads(seeded.stdout.splitlines()[-1])]
    finally:
        site.stop()


class Visitor:
    """One connection, kept: thousands of requests in seconds."""

    def __init__(self, url: str, certificate: str | None = None) -> None:
        server = urlsplit(url)
        trusted = ssl.create_default_context(cafile=certificate) if certificate else None
        kind: Callable = http.client.HTTPSConnection if trusted else http.client.HTTPConnection
        options = {"context": trusted} if trusted else {}
        self.connection = kind(server.hostname, server.port, timeout=60, **options)

    def ask(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
        self.connection.request(method, quote(path), headers=headers)
        response = self.connection.getresponse()
        return response.status, response.read()


def refused(visitor: Visitor, method: str, path: str, headers: dict[str, str]) -> bool:
    status, body = visitor.ask(method, path, headers)
    return status in (302, 400, 401, 403, 404, 405) and OWNER.encode() not in body


def closed(found: list[Address]) -> list[Address]:
    return [each for each in found if each.name not in FOR_STRANGERS]


@pytest.mark.parametrize("root", ROOTS)
def test_no_root_path_of_a_visitors_opens_anything(running, root):
    site, found = running
    visitor = Visitor(site.url)
    before = root.rstrip("/") if root.startswith("/") else ""
    for each in closed(found):
        if before + each.path not in [there.path for there in found if there.name in FOR_STRANGERS]:
            assert refused(visitor, "GET", before + each.path, {"Daphne-Root-Path": root}), each.path
    visitor.connection.close()


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_no_header_opens_anything(running, method):
    site, found = running
    visitor = Visitor(site.url)
    for root in ({}, {"Daphne-Root-Path": "/accounts"}):
        for each in closed(found):
            assert refused(visitor, method, each.path, HOSTILE | root), (method, each.path)
    visitor.connection.close()


def test_no_spelling_of_an_address_opens_anything(running):
    site, found = running
    visitor = Visitor(site.url)
    for each in closed(found)[::4]:
        for path in (f"/accounts/..{each.path}", f"/healthz/..{each.path}", f"/{each.path}", f"{each.path};/accounts/"):
            assert refused(visitor, "GET", path, {}), path
    visitor.connection.close()


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1:80@evil.example", "localhost/accounts/", ""])
def test_no_host_opens_anything(running, host):
    site, found = running
    visitor = Visitor(site.url)
    for each in closed(found)[::10]:
        assert refused(visitor, "GET", each.path, {"Host": host}), each.path
    visitor.connection.close()


def test_nothing_of_it_opens_behind_nginx(running, nginx):
    site, found = running
    front = nginx(site)
    visitor = Visitor(front.url, str(front.certificate))
    for each in closed(found)[::3]:
        for path in (each.path, f"/accounts{each.path}"):
            assert refused(visitor, "GET", path, HOSTILE | {"Daphne-Root-Path": "/accounts"}), path
    visitor.connection.close()
