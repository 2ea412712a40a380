"""The way to a Ray cluster: RAY_ADDRESS, or a Ray of our own on this machine, which ends with us.

Ray is an extra. It is loaded here, after its environment is set, and nowhere unless this backend runs.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from training import host
from training.events import TrainingError

CONNECT_SECONDS = 10.0
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}


def connect() -> None:
    """TrainingError where that cannot be."""
    if find_spec("ray") is None:
        raise TrainingError("backend: ray is not installed here: pip install -r requirements-ray.txt")
    address = os.environ.get("RAY_ADDRESS", "").strip()
    if not address:
        os.environ |= for_us_alone() | os.environ
    import ray

    local: dict[str, Any] = {} if address else {"num_cpus": host.processors(), "include_dashboard": False}
    try:
        knock(address)
        with tempfile.TemporaryDirectory() as folder:
            environment = {"working_dir": copy_of_our_code(Path(folder))}
            ray.init(address or "local", runtime_env=environment, ignore_reinit_error=True, **QUIET, **local)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise TrainingError(f"backend: no Ray at {address or 'this machine'}: {reason}") from error


def knock(address: str) -> None:
    """OSError where nobody listens at host:port; Ray itself would go on trying for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()


def for_us_alone() -> dict[str, str]:
    """Ray listens on all addresses of the machine, and runs what anybody tells it who has the token."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    return {"RAY_USAGE_STATS_ENABLED": "0", **token}


def copy_of_our_code(folder: Path) -> str:
    """The packages `training` and `kinds` alone, which Ray takes to every node: none can have another version."""
    project = Path(__file__).resolve().parents[2]
    for package in ("training", "kinds"):
        shutil.copytree(project / package, folder / package, ignore=shutil.ignore_patterns("tests", "__pycache__"))
    return str(folder)
