"""deploy/ is what nginx, systemd and the settings expect, as far as can be told without a Docker engine."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from daphne.cli import CommandLineInterface
from django.core.management import load_command_class

from fedsite.tests import machine, servers
from fedsite.tests.machine import PROJECT
from fedsite.tests.test_settings import NAMES

DEPLOY = PROJECT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
UNITS = sorted(DEPLOY.glob("*.service"))
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
KNOWN = {*NAMES, "FEDSITE_ENV_FILE"}


def instructions() -> list[tuple[str, str]]:
    """What the Dockerfile says: (FROM, python:3.12-slim), ..."""
    joined = DOCKERFILE.replace("\\\n", " ")
    lines = [line for line in joined.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


def check_program(command: list[str]) -> None:
    """A command line of ours that its own parser accepts."""
    program, *rest = command
    assert Path(program).name == "python"
    if rest[:2] == ["-m", "daphne"]:
        options = CommandLineInterface().parser.parse_args(rest[2:])
        assert options.application == "fedsite.asgi:application"
        assert options.proxy_headers
        return
    assert rest[0] == "manage.py"
    app = {"migrate": "django.core", "runworker": "simulations"}[rest[1]]
    load_command_class(app, rest[1]).create_parser("manage.py", rest[1]).parse_args(rest[2:])


def test_compose_has_all_that_the_site_consists_of() -> None:
    assert set(SERVICES) == {"migrate", "web", "worker", "nginx", "postgres", "redis"}
    assert [name for name, service in SERVICES.items() if "healthcheck" not in service] == ["migrate"]
    assert SERVICES["nginx"]["ports"] == ["80:80", "443:443"]
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["nginx"]


@pytest.mark.parametrize("name", ["web", "worker", "migrate"])
def test_compose_sets_what_the_settings_know(name: str) -> None:
    environment = SERVICES[name]["environment"]
    assert set(environment) <= KNOWN
    assert {"SECRET_KEY", "ALLOWED_HOSTS", "DATABASE_URL", "REDIS_URL"} <= set(environment)
    assert "DEBUG" not in environment
    assert "@postgres/" in environment["DATABASE_URL"]
    assert environment["REDIS_URL"].startswith("redis://redis:")


def test_compose_names_volumes_and_services_that_are_there() -> None:
    for name, service in SERVICES.items():
        assert set(service.get("depends_on", {})) <= set(SERVICES), name
        for other, needs in service.get("depends_on", {}).items():
            healthy = needs["condition"] == "service_healthy"
            assert healthy == ("healthcheck" in SERVICES[other]), (name, other)
        for volume in service.get("volumes", []):
            source, target = volume.split(":")[:2]
            assert target.startswith("/")
            assert source in COMPOSE["volumes"] or source == "./tls" or (DEPLOY / source).exists(), (name, volume)
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert set(COMPOSE["volumes"]) <= used


@pytest.mark.parametrize("name", ["worker", "migrate"])
def test_compose_runs_commands_that_parse(name: str) -> None:
    check_program(SERVICES[name]["command"])


def test_compose_puts_nginx_before_the_web_service() -> None:
    ((old, new),) = servers.compose_changes().items()
    assert (DEPLOY / "nginx.conf").read_text().count(old) == 1
    assert new.startswith(f"set $site web:{SERVICES['web']['expose'][0]}; resolver 127.0.0.11 ")
    assert f'"--port", "{SERVICES["web"]["expose"][0]}"' in DOCKERFILE


def test_the_workers_health_check_sees_a_file_that_is_no_longer_touched(tmp_path: Path) -> None:
    shell = SERVICES["worker"]["healthcheck"]["test"][3].replace("$$", "$").replace("/tmp/alive", str(tmp_path / "a"))
    if sys.platform == "darwin":
        shell = shell.replace("stat -c %Y", "stat -f %m")

    def check() -> int:
        return subprocess.run(["sh", "-c", shell], capture_output=True).returncode

    assert check() != 0
    (tmp_path / "a").touch()
    assert check() == 0
    subprocess.run(["touch", "-t", "202001010000", str(tmp_path / "a")], check=True)
    assert check() != 0


def test_the_image_is_built_from_files_that_are_there() -> None:
    words = [name for name, _ in instructions()]
    assert words[0] == "FROM"
    assert set(words) <= {"FROM", "ENV", "WORKDIR", "COPY", "RUN", "VOLUME", "USER", "EXPOSE", "CMD"}
    for name, rest in instructions():
        if name == "COPY":
            assert (PROJECT / rest.split()[0]).exists(), rest
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    needed = (
        "requirements.txt",
        "manage.py",
        "templates",
        "static",
        "training",
        "incentives",
        "simulations",
        "fedsite",
    )
    assert not set(needed) & set(ignored)
    assert {".env", ".git", "db.sqlite3*"} <= set(ignored)


def test_the_image_has_pytorch_for_cpus_and_runs_as_nobody_special() -> None:
    runs = [rest for name, rest in instructions() if name == "RUN"]
    cpu = next(run for run in runs if "torch" in run)
    assert cpu.index("--index-url https://download.pytorch.org/whl/cpu") < cpu.index("-r requirements.txt")
    assert any("manage.py collectstatic" in run for run in runs)
    words = [name for name, _ in instructions()]
    user = next(rest for name, rest in instructions() if name == "USER")
    assert user == "fedsite"
    assert words.index("USER") < words.index("CMD")
    assert any(f"useradd --system --no-create-home --uid 10001 {user}" in run for run in runs)
    check_program(yaml.safe_load(next(rest for name, rest in instructions() if name == "CMD")))
    for _, rest in instructions():
        for name in re.findall(r"\b([A-Z_]+)=/var", rest):
            assert name in KNOWN


def unit(path: Path) -> ConfigParser:
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(path)
    return parser


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_run_commands_that_parse(path: Path) -> None:
    service = unit(path)["Service"]
    check_program(shlex.split(service["ExecStart"].replace("%i", "8000")))
    assert service["Environment"].partition("=")[0] in KNOWN
    assert service["User"] != "root"
    assert service["Restart"] == "always"
    assert int(service["TimeoutStopSec"]) > 10  # what a worker takes at most


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_finds_nothing_wrong_with_units(path: Path, tmp_path: Path) -> None:
    text = path.read_text().replace("/opt/fedsite/.venv/bin/python", sys.executable)
    (tmp_path / path.name.replace("@", "@8000")).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / path.name.replace("@", "@8000"))],
        capture_output=True,
        text=True,
    )
    ours = [line for line in done.stderr.splitlines() if path.name.split("@")[0] in line]
    assert (done.returncode, ours) == (0, [])


def test_nginx_finds_nothing_wrong_with_its_configuration(nginx: object, tmp_path: Path) -> None:
    """The fixture says that this needs an nginx."""
    servers.write_nginx(tmp_path, 8000)
    program, conf = machine.nginx(), str(tmp_path / "nginx.conf")
    assert program is not None
    done = subprocess.run([program, "-t", "-p", str(tmp_path), "-c", conf], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr.replace(str(tmp_path), "")
