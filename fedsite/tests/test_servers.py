"""The servers that other tests rely on start, tell errors, go on after a kill and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fedsite.tests import machine, servers

if TYPE_CHECKING:
    from fedsite.tests.browsers import Browser

Start = Callable[..., servers.Server]


def test_it_serves_and_stops(start_server: Start) -> None:
    site = start_server()
    with urllib.request.urlopen(f"{site.url}/healthz") as response:
        assert response.status == 200
    site.stop()
    assert not servers.answers(f"{site.url}/healthz")


def test_it_goes_on_with_the_same_files_after_a_kill(start_server: Start) -> None:
    first = start_server()
    made = first.manage(
        "shell", "-c", "from django.contrib.auth.models import User; User.objects.create(username='ann')"
    )
    assert made.returncode == 0, made.stderr
    first.kill()
    assert first.process.returncode == -signal.SIGKILL
    second = start_server(first.folder, port=first.port)
    assert second.url == first.url
    told = second.manage(
        "shell", "-v", "0", "-c", "from django.contrib.auth.models import User; print(User.objects.get())"
    )
    assert told.stdout.split() == ["ann"], told.stderr


def test_it_shows_the_log_of_a_server_that_does_not_start(tmp_path: Path, migrated_database: Path) -> None:
    with pytest.raises(servers.ServerError, match="FEDSITE_MAX_CONCURRENT='many': expected a whole number"):
        servers.start_site(tmp_path / "site", migrated_database, FEDSITE_MAX_CONCURRENT="many")


ORPHANED = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("up", flush=True)
time.sleep(600)
"""


def test_it_names_a_process_that_outlives_its_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "server.log").write_text("what it said")
    process = subprocess.Popen([sys.executable, "-c", ORPHANED], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    with process.stdout:
        process.stdout.readline()
    server = servers.Server(folder=tmp_path, port=1, process=process, environment={})
    monkeypatch.setattr(servers, "STOP_SECONDS", 0.5)
    with pytest.raises(servers.ServerError, match=r"1 processes outlived the server after kill -9.\nwhat it said"):
        server.kill()


def test_it_starts_a_redis(redis_server: str) -> None:
    assert servers.pongs(int(redis_server.rsplit(":", 1)[1].split("/")[0]))


def test_it_opens_a_page(browser: Browser, server: servers.Server) -> None:
    browser.get(f"{server.url}/healthz")
    assert "ok" in browser.page_source


def test_it_has_no_way_out() -> None:
    with pytest.raises(urllib.error.URLError, match="refused"):
        urllib.request.urlopen("http://example.org/", timeout=10)


def test_it_reads_no_settings_of_the_developer() -> None:
    from django.conf import settings

    assert os.environ["FEDSITE_ENV_FILE"] == os.devnull
    assert settings.SECRET_KEY.startswith("only-for-tests")
    assert not settings.FEDSITE_CHECKPOINT_DIR.is_relative_to(machine.PROJECT)


@pytest.mark.parametrize(
    "files", [[f"{name}" for name in machine.MNIST_FILES], [f"{name}.gz" for name in machine.MNIST_FILES]]
)
def test_it_finds_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: list[str]) -> None:
    monkeypatch.setenv("FEDSITE_DATA_DIR", str(tmp_path))
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in files:
        assert "mnist" in machine.missing()
        (raw / name).touch()
    assert "mnist" not in machine.missing()


def test_it_demands_what_is_required(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDSITE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("FEDSITE_TEST_REQUIRE", "")
    assert machine.problems() == []
    monkeypatch.setenv("FEDSITE_TEST_REQUIRE", "mnist, chromium,cake")
    unknown, mnist, chromium = machine.problems()
    assert "'cake'" in unknown
    assert f"MNIST is not in {tmp_path}" in mnist
    assert "no Chromium" in chromium


def test_it_fails_a_run_that_lacks_what_is_required(tmp_path: Path) -> None:
    environment = os.environ | {"FEDSITE_DATA_DIR": str(tmp_path), "FEDSITE_TEST_REQUIRE": "mnist"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "fedsite/tests/test_servers.py"],
        cwd=machine.PROJECT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "FEDSITE_TEST_REQUIRE names mnist" in done.stderr


def test_it_says_how_many_browser_tests_it_left_out(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "fedsite/tests/test_servers.py"],
        cwd=machine.PROJECT,
        env=os.environ | {"PATH": str(tmp_path), "FEDSITE_TEST_REQUIRE": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "test_it_opens_a_page" not in done.stdout
    assert "1 browser tests were left out" in done.stdout


def test_it_says_what_it_did_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDSITE_DATA_DIR", str(tmp_path))
    assert "Tested without: MNIST (digits instead)" in machine.sentence()
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    for name in machine.MNIST_FILES:
        (tmp_path / "MNIST" / "raw" / name).touch()
    assert "with MNIST, PostgreSQL" in machine.sentence()
