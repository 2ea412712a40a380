"""Who may come in, and what strangers and wrong addresses are shown."""

import json
from datetime import timedelta

import pytest
from django.core.cache import caches
from django.test import Client
from django.utils import timezone

from people import tokens
from people.models import Token
from simulations.models import Simulation
from simulations.tests.cast import queued

pytestmark = pytest.mark.django_db


def test_a_wrong_address_is_the_sites_own_page_in_debug_too(client, settings):
    settings.DEBUG = True
    for address in ("/nonsense/", "/simulations/999999/"):
        response = client.get(address)
        assert response.status_code == 404
        assert b"urlpatterns" not in response.content.lower()
        assert b"Start" in response.content
    assert client.get("/api/simulations/999999/").json() == {"detail": "There is no simulation 999999"}


def test_a_stranger_is_led_to_the_sign_in_page(client, settings):
    settings.FEDSITE_ACCESS = "login"
    assert client.get("/ledger/").headers["Location"] == "/accounts/login/?next=/ledger/"
    assert client.get("/accounts/login/").status_code == 200
    fragment = client.get("/ledger/state/", headers={"HX-Request": "true"})
    assert (fragment.status_code, fragment.headers["HX-Redirect"]) == (401, "/accounts/login/")


def test_one_signs_in_and_out(client, settings, django_user_model):
    settings.FEDSITE_ACCESS = "login"
    django_user_model.objects.create_user("ada", password="long-enough-9")
    wrong = client.post("/accounts/login/", {"username": "ada", "password": "wrong"})
    assert wrong.status_code == 200
    right = client.post("/accounts/login/?next=/ledger/", {"username": "ada", "password": "long-enough-9"})
    assert right.headers["Location"] == "/ledger/"
    assert client.get("/ledger/").status_code == 200
    client.post("/accounts/logout/")
    assert client.get("/ledger/").status_code == 302


def test_load_balancers_are_answered_whoever_asks(client, settings):
    settings.FEDSITE_ACCESS = "login"
    assert client.get("/healthz").json() == client.get("/readyz").json() == {"status": "ok"}
    assert client.get("/healthz", headers={"host": "10.0.0.7:8000"}).status_code == 200


def test_load_balancers_are_answered_over_plain_http(client, settings):
    settings.SECURE_SSL_REDIRECT = True
    assert client.get("/ledger/")["Location"] == "https://testserver/ledger/"
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
    assert "max-age" not in client.get("/healthz").headers.get("Strict-Transport-Security", "")


# Programs, with a token

URL = "/api/simulations/"
BOTH = pytest.mark.parametrize("access", ["open", "login"])


AS_EVENT_SOURCE = {"Accept": "text/event-stream"}


def token(scope: str = "write", *, staff: bool = False, **fields) -> str:
    from django.contrib.auth.models import User

    owner, _ = User.objects.get_or_create(username="ada", defaults={"is_staff": staff})
    return tokens.create(owner, **{"name": "lab", "scope": scope, "expires_at": None} | fields)[1]


def ask(method: str, path: str, secret: str, values: dict | None = None, **headers: str):
    """As a program does: no cookie, no CSRF token."""
    program = Client(enforce_csrf_checks=True)
    body = None if method == "GET" else json.dumps(values or {})
    return program.generic(
        method,
        path,
        body or "",
        content_type="application/json",
        headers={"authorization": f"Bearer {secret}", **headers},
    )


@BOTH
def test_a_program_reads_and_writes_with_a_token_of_its_owner(settings, access):
    settings.FEDSITE_ACCESS = access
    secret = token()
    made = ask("POST", URL, secret, {"num_rounds": 2})
    assert (made.status_code, made.json()["owner"]) == (201, "ada")
    number = made.json()["id"]
    assert Simulation.objects.get(pk=number).owned_by.username == "ada"
    assert ask("GET", f"{URL}{number}/", secret).json()["status"] == "queued"
    assert ask("POST", f"{URL}{number}/cancel/", secret).json()["status"] == "cancelled"
    assert ask("GET", "/api/incentives/accounts/", secret).status_code == 200


@BOTH
@pytest.mark.parametrize("wrong", ["", "fed_unknown", "expired", "revoked", "é"])
def test_a_wrong_token_is_401_in_either_access(settings, access, wrong):
    settings.FEDSITE_ACCESS = access
    if wrong == "expired":
        wrong = token(expires_at=timezone.now() - timedelta(seconds=1))
    if wrong == "revoked":
        wrong = token()
        Token.objects.all().delete()
    for method in ("GET", "POST"):
        answer = ask(method, URL, wrong)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
        assert answer.json()["detail"].startswith("The token is")
    assert not Simulation.objects.exists()


@BOTH
def test_a_token_that_may_read_does_not_write(settings, access):
    settings.FEDSITE_ACCESS = access
    number, secret = queued().pk, token("read")
    assert ask("GET", URL, secret).status_code == 200
    reward = {"user_id": 1, "previous_metric": 0.5, "current_metric": 0.4}
    writes = [
        ("POST", URL),
        ("POST", f"{URL}{number}/cancel/"),
        ("POST", f"{URL}{number}/archive/"),
        ("POST", "/api/incentives/reward"),
        ("GET", f"{URL}stream?num_rounds=1"),
    ]
    for method, path in writes:
        answer = ask(method, path, secret, reward if "reward" in path else {}, **AS_EVENT_SOURCE)
        assert (answer.status_code, "may read only" in answer.json()["detail"]) == (403, True)
    for last in ("", " ", "0"):  # a browser's first request, and what is none
        answer = ask("GET", f"{URL}stream?num_rounds=1", secret, **AS_EVENT_SOURCE, **{"Last-Event-ID": last})
        assert answer.status_code in (204, 403)
    assert Simulation.objects.get().status == "queued"
    assert ask("GET", f"{URL}stream", secret, **{"Last-Event-ID": "99-9"}).status_code == 204


def test_a_token_opens_the_api_alone(settings):
    settings.FEDSITE_ACCESS = "login"
    secret = token(staff=True)
    assert ask("GET", "/ledger/", secret).status_code == 302
    assert ask("GET", "/admin/", secret).status_code == 302
    assert ask("GET", "/account/", secret).status_code == 302


def test_a_token_comes_before_a_session(client, settings, django_user_model):
    settings.FEDSITE_ACCESS = "login"
    client.force_login(django_user_model.objects.create_user("ben"))
    answer = client.post(URL, "{}", content_type="application/json", headers={"authorization": f"bearer {token()}"})
    assert answer.json()["owner"] == "ada"
    assert client.get(URL, headers={"authorization": "Bearer wrong"}).status_code == 401


def test_strangers_are_told_how_to_come_in(client, settings):
    settings.FEDSITE_ACCESS = "login"
    answer = client.get(URL)
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="fedsite"')
    assert client.get("/api/docs").headers["Location"].startswith("/accounts/login/")
    assert client.get("/accounts/reset/").status_code == 200
    html = client.get("/accounts/login/").content.decode()
    assert "hx-get" not in html  # what a stranger's page fetches would lead to this page again, for ever


# How often


@pytest.fixture
def few(settings):
    settings.FEDSITE_REQUESTS_PER_MINUTE = 3
    caches["shared"].clear()
    yield
    caches["shared"].clear()


@pytest.mark.usefixtures("few")
def test_too_many_requests_are_429(client, monkeypatch):
    from people.tests.cast import Clock

    Clock(monkeypatch)
    first, second = token(), token()
    assert [ask("GET", URL, first).status_code for _ in range(5)] == [200, 200, 200, 429, 429]
    refused = ask("POST", URL, first)
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert "More than 3 requests in a minute" in refused.json()["detail"]
    assert ask("GET", URL, second).status_code == 200
    assert [client.get(URL).status_code for _ in range(4)] == [200, 200, 200, 429]
    assert client.get(URL, REMOTE_ADDR="10.0.0.9").status_code == 200
    assert client.get("/simulations/").status_code == 200
    assert ask("GET", URL, "wrong").status_code == 429


@pytest.mark.usefixtures("few")
def test_a_signed_in_person_is_counted_wherever_they_sit(settings, client, django_user_model, monkeypatch):
    from people.tests.cast import Clock

    Clock(monkeypatch)
    settings.FEDSITE_ACCESS = "login"
    client.force_login(django_user_model.objects.create_user("ada"))
    answers = [client.get(URL, REMOTE_ADDR=f"10.0.0.{n}").status_code for n in range(4)]
    assert answers == [200, 200, 200, 429]
