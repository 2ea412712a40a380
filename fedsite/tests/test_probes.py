"""What load balancers and Prometheus are told, and who may ask."""

from pathlib import Path

import pytest
from django.db import OperationalError, connection
from django.db.migrations.loader import MigrationLoader

from fedsite import ready
from fedsite.tests import servers

pytestmark = pytest.mark.django_db
SECRETS = "connection to db.internal failed for user fedsite"
TOKEN = "only-for-tests-only-for-tests"


def test_it_is_alive_and_ready(client):
    assert client.get("/healthz").json() == client.get("/readyz").json() == {"status": "ok"}


def test_it_is_alive_but_not_ready_without_its_database_and_tells_no_more(client, monkeypatch, caplog):
    def gone(*arguments):
        raise OperationalError(SECRETS)

    monkeypatch.setattr(connection, "cursor", gone)
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()) == (
        503,
        {"status": "unavailable", "detail": "The database does not answer"},
    )
    assert SECRETS in caplog.text
    assert client.get("/healthz").status_code == 200


def test_it_is_not_ready_before_its_migrations(client, monkeypatch):
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'incentives' AND name LIKE '000%'")
        forgotten = cursor.rowcount
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["detail"]) == (503, f"{forgotten} migrations are missing")


def test_it_reads_no_migration_twice(client, monkeypatch, django_assert_max_num_queries):
    client.get("/readyz")
    monkeypatch.setattr(MigrationLoader, "build_graph", None)
    with django_assert_max_num_queries(5):
        assert client.get("/readyz").status_code == 200


def test_it_is_not_ready_on_a_full_disk(client, settings, monkeypatch):
    monkeypatch.setattr(ready, "FREE_BYTES", 2**60)
    answer = client.get("/readyz")
    assert (answer.status_code, "is full" in answer.json()["detail"]) == (503, True)
    settings.EMBEDDED_WORKER, settings.FEDSITE_CHECKPOINT_DIR = False, Path("/nowhere")
    assert "checkpoints" not in client.get("/readyz").content.decode()  # they are other processes' to write


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no folder here that nobody can write to")
def test_it_is_not_ready_where_checkpoints_cannot_be_written(client, settings):
    settings.FEDSITE_CHECKPOINT_DIR = Path("/proc/checkpoints")
    answer = client.get("/readyz")
    assert (answer.status_code, "/proc" in answer.content.decode()) == (503, False)
    assert answer.json()["detail"] == "The folder of checkpoints cannot be written"


@pytest.mark.database
def test_it_is_not_ready_on_a_database_that_cannot_be_written(client):
    statement = "SET LOCAL transaction_read_only = on" if connection.vendor == "postgresql" else "PRAGMA query_only = 1"
    with connection.cursor() as cursor:
        cursor.execute(statement)
        answer = client.get("/readyz")
        if connection.vendor == "sqlite":
            cursor.execute("PRAGMA query_only = 0")
    assert (answer.status_code, answer.json()["detail"]) == (503, "The database cannot be written")


def test_it_is_ready_without_its_redis_too_and_says_that_it_is_down(client, settings, redis_server):
    settings.REDIS_URL = redis_server
    assert client.get("/readyz").json() == {"status": "ok", "redis": "up"}
    assert b"fedsite_redis_up 1.0" in client.get("/metrics", headers={"host": "localhost"}).content
    settings.REDIS_URL = f"redis://127.0.0.1:{servers.free_port()}/0"
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["redis"]) == (200, "down")
    assert "127.0.0.1" not in answer.content.decode()
    assert b"fedsite_redis_up 0.0" in client.get("/metrics", headers={"host": "localhost"}).content


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({}, 200),
        ({"REMOTE_ADDR": "127.8.8.8", "HTTP_HOST": "127.0.0.1:8000"}, 200),
        ({"REMOTE_ADDR": "::1", "HTTP_HOST": "[::1]:8000"}, 200),
        ({"REMOTE_ADDR": "10.0.0.5"}, 403),
        ({"REMOTE_ADDR": ""}, 403),  # a Unix socket: whoever is behind it
        ({"HTTP_HOST": "fed.example.org"}, 403),  # a proxy that says nothing but whom its visitor asked for
        ({"HTTP_X_FORWARDED_FOR": "203.0.113.9"}, 403),
        ({"HTTP_X_FORWARDED_FOR": "127.0.0.1"}, 403),
        ({"HTTP_X_FORWARDED_PROTO": "https"}, 403),
        ({"HTTP_X_REAL_IP": "127.0.0.1"}, 403),
        ({"HTTP_FORWARDED": "for=127.0.0.1"}, 403),
        ({"HTTP_VIA": "1.1 proxy"}, 403),
    ],
)
def test_in_open_access_metrics_are_for_this_machine(client, settings, sent, status):
    settings.ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]", "fed.example.org"]
    sent = {"REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": "localhost:8000"} | sent
    assert client.get("/metrics", **sent).status_code == status
    settings.FEDSITE_ACCESS = "login"  # a proxy on this machine that adds no header looks like a program on it
    assert client.get("/metrics", **sent).status_code == 403
    settings.FEDSITE_ACCESS, settings.FEDSITE_PROXIES = "open", 1
    assert client.get("/metrics", **sent).status_code == 403


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
