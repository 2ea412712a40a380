"""Settings come from the environment first, then from a .env file; a wrong one stops the start in plain words."""

from __future__ import annotations

import base64
import os
import runpy
import secrets
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedsite.tests import servers
from fedsite.tests.machine import PROJECT
from training import host

NAMES = (
    *("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "DEBUG", "ALLOWED_HOSTS", "CORS_ALLOWED_ORIGINS"),
    *("FEDSITE_DATA_DIR", "FEDSITE_CHECKPOINT_DIR", "FEDSITE_PLUGINS_DIR", "FEDSITE_PLUGINS", "FEDSITE_ACCESS"),
    *("FEDSITE_MAX_CONCURRENT", "FEDSITE_MAX_QUEUED", "FEDSITE_MAX_STREAMS", "FEDSITE_METRICS_TOKEN", "FEDSITE_LOG"),
    *("FEDSITE_MAX_PER_USER", "FEDSITE_MAX_PER_ADDRESS", "FEDSITE_OTHERS_MAY_LOOK"),
    *("FEDSITE_LEASE_SECONDS", "FEDSITE_ROOT_PATH"),
    *("FEDSITE_REQUESTS_PER_MINUTE", "FEDSITE_HTTPS", "FEDSITE_HSTS_SECONDS", "FEDSITE_PROXIES"),
    *("CSRF_TRUSTED_ORIGINS", "EMAIL_URL", "EMAIL_FROM"),
)

PRODUCTION = {
    "DEBUG": "0",
    "SECRET_KEY": "Zk3vP9qLx7TnB2wYc8RmJ5sHd1fGa6uEo4iKtN0QbVWyXzMhUj",
    "ALLOWED_HOSTS": "fed.example.org",
}


@pytest.fixture
def bare() -> Iterator[None]:
    """An environment that says nothing but the secret key; restored afterwards, whatever a .env file adds."""
    before = dict(os.environ)
    for name in NAMES:
        os.environ.pop(name, None)
    os.environ["SECRET_KEY"] = PRODUCTION["SECRET_KEY"]
    yield
    os.environ.clear()
    os.environ.update(before)


def settings(**environment: str) -> dict[str, Any]:
    """The settings that an environment gives."""
    os.environ.update(environment)
    return runpy.run_path(str(PROJECT / "fedsite" / "settings.py"))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("DEBUG", "perhaps", "0 or 1"),
        ("SECRET_KEY", "", "a long random text"),
        ("DATABASE_URL", "nonsense", "postgresql://"),
        ("DATABASE_URL", "sqlserverr://host/name", "postgresql://"),
        ("DATABASE_URL", "sqlite:///a?b", "%3F in the place of ?"),
        ("DATABASE_URL", "sqlite:///a#b", "%23 in the place of #"),
        ("DATABASE_URL", "postgresql://ann:pw@db.example.org/fedsite#b", "%23 in the place of #"),
        ("DATABASE_URL", "sqlite://a", "sqlite:///name"),
        ("DATABASE_URL", "sqlite:///", "sqlite:///name"),
        ("DATABASE_URL", "sqlite:///fedsite", "a file"),
        ("DATABASE_URL", "sqlite:///a%00b", "a file"),
        ("REDIS_URL", "localhost:6379", "redis://"),
        ("CORS_ALLOWED_ORIGINS", "localhost:3000", "http://localhost:3000"),
        ("CORS_ALLOWED_ORIGINS", "http://localhost:3000/", "http://localhost:3000"),
        ("FEDSITE_ACCESS", "closed", "open or login"),
        ("FEDSITE_MAX_MEMORY", "lots", "8GB"),
        ("FEDSITE_MAX_MEMORY", "8 apples", "8GB"),
        ("FEDSITE_MAX_MEMORY", "512MB", "at least 1GB"),
        ("FEDSITE_MAX_SECONDS", "-1", "a whole number from 0"),
        ("FEDSITE_DATA_DIR", str(PROJECT / "manage.py"), "a folder"),
        ("FEDSITE_CHECKPOINT_DIR", str(PROJECT / "manage.py"), "a folder"),
        ("FEDSITE_MAX_CONCURRENT", "0", "a whole number from 1"),
        ("FEDSITE_MAX_CONCURRENT", "two", "a whole number from 1"),
        ("FEDSITE_MAX_CONCURRENT", "1.5", "a whole number from 1"),
        ("FEDSITE_MAX_PER_USER", "0", "a whole number from 1"),
        ("FEDSITE_MAX_PER_ADDRESS", "0", "a whole number from 1"),
        ("FEDSITE_OTHERS_MAY_LOOK", "staff", "0 or 1"),
        ("FEDSITE_REQUESTS_PER_MINUTE", "-1", "a whole number from 0"),
        ("FEDSITE_HTTPS", "https", "0 or 1"),
        ("FEDSITE_HSTS_SECONDS", "a year", "a whole number from 0"),
        ("FEDSITE_PROXIES", "nginx", "a whole number from 0 to 9"),
        ("CSRF_TRUSTED_ORIGINS", "fed.example.org", "origins like http://"),
        ("EMAIL_URL", "mail.example.org", "smtp+tls://"),
        ("EMAIL_URL", "imap://mail.example.org", "smtp+tls://"),
        ("EMAIL_URL", "smtp://mail.example.org:99999", "smtp+tls://"),
        ("EMAIL_FROM", "fedsite", "an address like"),
        ("FEDSITE_MAX_QUEUED", "-1", "a whole number from 1"),
        ("FEDSITE_MAX_STREAMS", "0", "a whole number from 1"),
        ("FEDSITE_METRICS_TOKEN", "short", "at least 16 characters"),
        ("FEDSITE_LOG", "xml", "line or json"),
        ("FEDSITE_MAX_QUEUED", "1" * 30, "a whole number from 1"),
        ("FEDSITE_LEASE_SECONDS", "1", "a whole number from 2"),
        *(("FEDSITE_ROOT_PATH", wrong, "a path like /fed") for wrong in ("fed", "//fed", "/a/../b", "/a b", "/fed?x")),
    ],
)
@pytest.mark.usefixtures("bare")
def test_it_names_a_wrong_setting(name: str, value: str, expected: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        settings(**{name: value})
    text = str(stopped.value)
    assert text.startswith(f"{name}={value!r}: expected ")
    assert expected in text


@pytest.mark.parametrize(
    "weak", ["x", "x" * 99, "a-long-random-text", "changeme" * 9, "django-insecure-" + PRODUCTION["SECRET_KEY"]]
)
@pytest.mark.usefixtures("bare")
def test_it_refuses_a_key_that_can_be_guessed_and_does_not_repeat_it(weak: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        settings(SECRET_KEY=weak)
    assert str(stopped.value).startswith("SECRET_KEY (")
    assert "expected a random text of at least 32" in str(stopped.value)
    assert weak == "x" or weak not in str(stopped.value)


@pytest.mark.parametrize("size", [16, 24, 32, 48])
@pytest.mark.usefixtures("bare")
def test_it_takes_keys_as_they_are_made(size: int) -> None:
    for key in (secrets.token_hex(size), secrets.token_urlsafe(size * 2), base64.b64encode(os.urandom(48)).decode()):
        assert settings(SECRET_KEY=key)["SECRET_KEY"] == key


@pytest.mark.parametrize(
    ("given", "taken"),
    [("8GB", 8 * 10**9), ("8gb", 8 * 10**9), ("2 TB", 2 * 10**12), ("1000000000", 10**9), ("1500MB", 1_500_000_000)],
)
@pytest.mark.usefixtures("bare")
def test_it_reads_sizes(given: str, taken: int) -> None:
    assert settings(FEDSITE_MAX_MEMORY=given)["FEDSITE_MAX_MEMORY"] == taken


@pytest.mark.usefixtures("bare")
def test_it_lets_a_run_take_three_quarters_of_the_machine() -> None:
    assert settings()["FEDSITE_MAX_MEMORY"] == host.memory_bytes() * 3 // 4


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("", str(PROJECT / "db.sqlite3")),
        ("sqlite:///site.sqlite3", str(PROJECT / "site.sqlite3")),
        ("sqlite:///data/a%3Fb%23c%20d+e%25.sqlite3", str(PROJECT / "data" / "a?b#c d+e%.sqlite3")),
        ("sqlite:////srv/fedsite/db.sqlite3", "/srv/fedsite/db.sqlite3"),
        ("sqlite:///:memory:", ":memory:"),
    ],
)
@pytest.mark.usefixtures("bare")
def test_a_file_of_sqlite_is_the_same_from_every_folder(
    url: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert settings(DATABASE_URL=url)["DATABASES"]["default"]["NAME"] == name


@pytest.mark.usefixtures("bare")
def test_it_has_safe_defaults() -> None:
    given = settings()
    assert given["DEBUG"] is False
    assert given["FEDSITE_ACCESS"] == "login"
    assert given["ALLOWED_HOSTS"] == ["localhost", "127.0.0.1", "[::1]"]
    assert given["CORS_ALLOWED_ORIGINS"] == []
    assert (given["FEDSITE_DATA_DIR"], given["FEDSITE_CHECKPOINT_DIR"]) == (
        PROJECT / "data",
        PROJECT / "checkpoints",
    )
    assert (given["FEDSITE_MAX_CONCURRENT"], given["FEDSITE_MAX_QUEUED"]) == (1, 100)
    assert given["SESSION_COOKIE_SECURE"] is given["CSRF_COOKIE_SECURE"] is given["SECURE_SSL_REDIRECT"] is True
    assert given["SECURE_HSTS_SECONDS"] == 30 * 24 * 3600
    assert "SECURE_PROXY_SSL_HEADER" not in given
    assert (given["FEDSITE_MAX_PER_USER"], given["FEDSITE_REQUESTS_PER_MINUTE"]) == (20, 600)
    assert given["FEDSITE_OTHERS_MAY_LOOK"] is True


@pytest.mark.usefixtures("bare")
def test_it_is_open_to_a_developer() -> None:
    given = settings(DEBUG="1", SECRET_KEY="x")
    assert given["FEDSITE_ACCESS"] == "open"
    assert given["CORS_ALLOWED_ORIGINS"] == ["http://localhost:3000"]
    assert given["SESSION_COOKIE_SECURE"] is given["SECURE_SSL_REDIRECT"] is False
    assert given["SECURE_HSTS_SECONDS"] == 0
    assert settings(FEDSITE_ACCESS="login")["FEDSITE_ACCESS"] == "login"


@pytest.mark.usefixtures("bare")
def test_it_keeps_sqlite_durable_and_its_triggers_whole() -> None:
    database = settings()["DATABASES"]["default"]
    assert database["NAME"] == str(PROJECT / "db.sqlite3")
    assert database["OPTIONS"]["transaction_mode"] == "IMMEDIATE"
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "recursive_triggers=ON", "foreign_keys=ON"):
        assert f"PRAGMA {pragma}" in database["OPTIONS"]["init_command"]
    assert database["CONN_MAX_AGE"] is None


@pytest.mark.usefixtures("bare")
def test_it_holds_no_connection_to_postgresql_open() -> None:
    database = settings(DATABASE_URL="postgresql://ann:pw@db.example.org/fedsite")["DATABASES"]["default"]
    assert database["ENGINE"] == "django.db.backends.postgresql"
    assert (database["HOST"], database["NAME"], database["CONN_MAX_AGE"]) == ("db.example.org", "fedsite", 0)


@pytest.mark.usefixtures("bare")
def test_it_runs_the_worker_inside_without_redis_only() -> None:
    assert settings()["EMBEDDED_WORKER"] is True
    given = settings(REDIS_URL="redis://localhost:6379/0")
    assert given["EMBEDDED_WORKER"] is False
    assert given["CHANNEL_LAYERS"]["default"]["CONFIG"]["hosts"] == [
        {"address": "redis://localhost:6379/0", "socket_timeout": None}
    ]


@pytest.mark.usefixtures("bare")
def test_it_reads_the_environment_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "dotenv"
    file.write_text("FEDSITE_MAX_QUEUED=7\nFEDSITE_MAX_CONCURRENT=3\n")
    given = settings(FEDSITE_ENV_FILE=str(file), FEDSITE_MAX_CONCURRENT="2")
    assert (given["FEDSITE_MAX_QUEUED"], given["FEDSITE_MAX_CONCURRENT"]) == (7, 2)


@pytest.mark.usefixtures("bare")
def test_it_believes_proxies_that_are_ours() -> None:
    assert settings(FEDSITE_PROXIES="1")["SECURE_PROXY_SSL_HEADER"] == ("HTTP_X_FORWARDED_PROTO", "https")


@pytest.mark.usefixtures("bare")
def test_it_shares_counters_through_redis_and_needs_it_for_nothing_else() -> None:
    assert settings()["CACHES"]["shared"]["BACKEND"].endswith("LocMemCache")
    caches = settings(REDIS_URL="redis://localhost:6379/0")["CACHES"]
    assert caches["shared"]["BACKEND"].endswith("RedisCache")
    assert caches["default"]["BACKEND"].endswith("LocMemCache")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("", ("console", "localhost", 25, "", "", False, False)),
        ("smtp://mail.example.org", ("smtp", "mail.example.org", 25, "", "", False, False)),
        ("smtp+tls://ann:p%40ss@mail.example.org", ("smtp", "mail.example.org", 587, "ann", "p@ss", True, False)),
        ("smtps://ann:pw@mail.example.org:1465", ("smtp", "mail.example.org", 1465, "ann", "pw", False, True)),
    ],
)
@pytest.mark.usefixtures("bare")
def test_it_reads_where_mail_goes(url: str, expected: tuple[Any, ...]) -> None:
    given = settings(EMAIL_URL=url)
    names = ("HOST", "PORT", "HOST_USER", "HOST_PASSWORD", "USE_TLS", "USE_SSL")
    assert given["EMAIL_BACKEND"].split(".")[-2] == expected[0]
    assert tuple(given[f"EMAIL_{name}"] for name in names) == expected[1:]


@pytest.mark.parametrize("more", [{}, {"FEDSITE_PROXIES": "1", "REDIS_URL": "redis://127.0.0.1:9/0"}])
def test_it_is_fit_for_production(more: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        cwd=PROJECT,
        env=os.environ | PRODUCTION | more,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_says_so_without_a_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=PROJECT,
        env=os.environ | {"FEDSITE_ACCESS": "closed"},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert done.stderr.strip() == "FEDSITE_ACCESS='closed': expected open or login"


def test_it_asks_for_missing_migrations_without_a_traceback(tmp_path: Path) -> None:
    empty = tmp_path / "empty.sqlite3"
    empty.touch()
    with pytest.raises(servers.ServerError, match=r"lacks \d+ migrations") as stopped:
        servers.start_site(tmp_path / "site", empty)
    assert "make run" in str(stopped.value)
    assert "Traceback" not in str(stopped.value)


@pytest.mark.usefixtures("bare")
def test_it_refuses_an_sqlite_that_lacks_returning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.34.1")
    with pytest.raises(SystemExit, match=r"SQLite is 3\.34\.1 here, and 3\.35 or newer is needed"):
        settings()
    assert settings(DATABASE_URL="postgresql://localhost/fedsite")


def test_it_needs_no_new_migration() -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "makemigrations", "--check", "--dry-run"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
