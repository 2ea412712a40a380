"""What load balancers and Prometheus are told, and who may ask."""

import pytest
from django.db import OperationalError, connection

from fedsite import views
from fedsite.tests import servers

pytestmark = pytest.mark.django_db
TOKEN = "only-for-tests-only-for-tests"


def test_it_is_alive_and_ready(client):
    assert client.get("/healthz").json() == client.get("/readyz").json() == {"status": "ok"}


def test_it_is_alive_but_not_ready_without_its_data_base(client, monkeypatch):
    def gone(*arguments):
        raise OperationalError("connection refused")

    monkeypatch.setattr(connection, "cursor", gone)
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")
    assert "connection refused" in answer.json()["detail"]
    assert client.get("/healthz").status_code == 200


def test_it_is_not_ready_before_its_migrations(client, monkeypatch):
    monkeypatch.setattr(views, "unapplied", lambda: ["simulations.0002", "simulations.0003"])
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["detail"]) == (503, "2 migrations are missing")


def test_it_is_ready_without_its_redis_too_and_says_that_it_is_down(client, settings, redis_server):
    settings.REDIS_URL = redis_server
    assert client.get("/readyz").json() == {"status": "ok", "redis": "up"}
    assert b"fedsite_redis_up 1.0" in client.get("/metrics").content
    settings.REDIS_URL = f"redis://127.0.0.1:{servers.free_port()}/0"
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["redis"]) == (200, "down")
    assert "Redis does not answer" in answer.json()["detail"]
    assert b"fedsite_redis_up 0.0" in client.get("/metrics").content


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"REMOTE_ADDR": "127.0.0.1"}, 200),
        ({"REMOTE_ADDR": "127.8.8.8"}, 200),
        ({"REMOTE_ADDR": "::1"}, 200),
        ({"REMOTE_ADDR": "10.0.0.5"}, 403),
        ({"REMOTE_ADDR": ""}, 403),  # a Unix socket: whoever is behind it
        ({"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": "203.0.113.9"}, 403),
        ({"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": "127.0.0.1"}, 403),
    ],
)
def test_metrics_are_for_this_machine(client, settings, sent, status):
    settings.FEDSITE_ACCESS = "login"
    assert client.get("/metrics", **sent).status_code == status


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"HTTP_AUTHORIZATION": f"Bearer {TOKEN}", "REMOTE_ADDR": "10.0.0.5"}, 200),
        ({"HTTP_AUTHORIZATION": "Bearer wrong"}, 403),
        ({"HTTP_AUTHORIZATION": "Bearer wröng"}, 403),
        ({"HTTP_AUTHORIZATION": TOKEN}, 403),
        ({}, 403),  # from here too: one rule at a time
    ],
)
def test_with_a_token_metrics_are_for_who_knows_it(client, settings, sent, status):
    settings.FEDSITE_METRICS_TOKEN = TOKEN
    assert client.get("/metrics", **sent).status_code == status
