"""Servers for tests: daphne, workers, Redis, nginx. Each has its own port and files; none is left."""

from __future__ import annotations

import contextlib
import os
import re
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
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import psutil
import yaml

from fedsite.tests import machine
from fedsite.tests.machine import PROJECT
from fedsite.tests.with_postgres import postgres

PATIENCE_SECONDS = 90  # a loaded machine starts slowly; it is a limit, not an expectation
STOP_SECONDS = 20


class ServerError(AssertionError):
    """A server did not start or did not end as it should; the text holds its log."""


@dataclass
class Server:
    """A site in a process of its own. Its database, checkpoints and log lie in `folder`, which stays."""

    folder: Path
    port: int  # 0 of a worker, which listens nowhere
    process: subprocess.Popen[bytes]
    environment: dict[str, str]
    log_name: str = "server.log"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / self.log_name).read_text(errors="replace")

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
    """A database with every migration in `folder`; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    done = run_manage("migrate", "--verbosity", "0", environment=site_environment(folder))
    if done.returncode:
        raise ServerError(f"migrate failed:\n{done.stdout}{done.stderr}")
    return folder / "db.sqlite3"


def start_site(
    folder: Path,
    database: Path,
    *,
    port: int | None = None,
    options: tuple[str, ...] = (),
    descriptors: int | None = None,
    **settings: str,
) -> Server:
    """daphne with its embedded worker, ready for requests.

    `folder` keeps the site's files: given again after a kill, the site goes on with them. A new one starts
    with a copy of `database`. `settings` are environment variables that differ from a plain development site,
    `options` are daphne's; `descriptors` is how many files it may open.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "db.sqlite3").exists():
        shutil.copyfile(database, folder / "db.sqlite3")
    environment = site_environment(folder) | settings
    port = port or free_port()
    command = [
        *(["bash", "-c", f'ulimit -n {descriptors}; exec "$@"', "--"] if descriptors else []),
        sys.executable,
        "-m",
        "daphne",
        "--bind",
        "127.0.0.1",
        "--port",
        str(port),
        *options,
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


def start_worker(folder: Path, **settings: str) -> Server:
    """`manage.py runworker simulations` on the files of a site, looking already. Its log is `worker-N.log`."""
    name = f"worker-{1 + len(list(folder.glob('worker-*.log')))}"
    alive = folder / f"{name}.alive"
    environment = site_environment(folder) | settings
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "runworker", "--alive-file", str(alive), "simulations"],
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    worker = Server(folder=folder, port=0, process=process, environment=environment, log_name=f"{name}.log")
    try:
        _wait(process, alive.exists, lambda: worker.log)
    except BaseException:
        with contextlib.suppress(ServerError):
            worker.stop()
        raise
    return worker


@contextlib.contextmanager
def several(folder: Path, database: Path, *, workers: int = 1, **settings: str) -> Iterator[Server]:
    """A site as it is run for many: a web process and workers of their own, on PostgreSQL and Redis."""
    folder.mkdir(parents=True, exist_ok=True)
    with postgres() as database_url, redis(folder) as redis_url, contextlib.ExitStack() as running:
        settings |= {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
        done = run_manage("migrate", "--verbosity", "0", environment=site_environment(folder) | settings)
        if done.returncode:
            raise ServerError(f"migrate failed:\n{done.stdout}{done.stderr}")
        site = start_site(folder, database, **settings)
        running.callback(site.stop)
        for _ in range(workers):
            running.callback(start_worker(folder, **settings).stop)
        yield site


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
    process = subprocess.Popen([machine.redis() or "redis-server", *options], stdin=subprocess.DEVNULL)
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


NGINX = """
user root;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{}}
http {{
    access_log off;
    {temporary}
    include {folder}/site.conf;
}}
"""


@dataclass(frozen=True)
class Proxy:
    """An nginx in front of a site, as deploy/nginx.conf says but for ports and paths."""

    plain_url: str
    url: str
    certificate: Path


def write_nginx(folder: Path, site_port: int, **changes: str) -> Proxy:
    """Its files: deploy/nginx.conf with free ports, a certificate of its own, and `changes` of its text."""
    plain, secure = free_port(), free_port()
    replaced = {
        "server 127.0.0.1:8000;": f"server 127.0.0.1:{site_port};",
        "listen 80;": f"listen 127.0.0.1:{plain};",
        "listen 443 ssl": f"listen 127.0.0.1:{secure} ssl",
        "/etc/fedsite/tls": str(folder),
        **changes,
    }
    text = (PROJECT / "deploy" / "nginx.conf").read_text()
    for old, new in replaced.items():
        assert old in text, f"deploy/nginx.conf lacks {old!r}"
        text = text.replace(old, new)
    (folder / "site.conf").write_text(text)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, temporary=temporary))
    write_certificate(folder)
    return Proxy(f"http://127.0.0.1:{plain}", f"https://127.0.0.1:{secure}", folder / "fullchain.pem")


def compose_changes() -> dict[str, str]:
    """What deploy/compose.yaml changes in deploy/nginx.conf before nginx reads it."""
    command = yaml.safe_load((PROJECT / "deploy" / "compose.yaml").read_text())["services"]["nginx"]["command"][2]
    return dict(re.findall(r"s/([^/]*)/([^/]*)/", command.split("/etc/")[0].replace("$$", "$")))


def write_certificate(folder: Path) -> None:
    """One for 127.0.0.1 that nobody else has signed. Its library comes with daphne."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "fedsite tests")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "fullchain.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "privkey.pem").write_bytes(key.private_bytes(*plain))


@contextlib.contextmanager
def nginx(folder: Path, site_port: int, **changes: str) -> Iterator[Proxy]:
    """A real nginx in front of a site, for as long as the context lasts."""
    proxy = write_nginx(folder, site_port, **changes)
    log = folder / "nginx.log"
    process = subprocess.Popen(
        [machine.nginx() or "nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(log)],
        stdin=subprocess.DEVNULL,
    )
    port = int(proxy.plain_url.rsplit(":", 1)[1])
    try:
        _wait(process, lambda: listens(port), lambda: log.read_text() if log.exists() else "")
        yield proxy
    finally:
        process.terminate()
        process.wait()


def listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            return True
    except OSError:
        return False
