"""What is imported is declared, what is declared is used, and constraints.txt pins all of it exactly."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name
from packaging.version import Version

from fedsite.tests import constraints
from fedsite.tests.machine import PROJECT
from fedsite.tests.test_layers import ROOMS, STDLIB, dotted, imported_names

OURS = {*ROOMS, "conftest"}
# What nobody imports: Django finds the one by the address of the database; of the other a file is read.
BY_NAME = {"psycopg2-binary", "scikit-learn"}
DISTRIBUTIONS = packages_distributions() | {"flwr": ["flwr"]}  # benchmarks do without it


def imports(root: Path = PROJECT, *, tests: bool = False, room: str = "") -> dict[str, str]:
    """Foreign packages, each with a file that imports it: of the site itself, of one room, or of tests."""
    found = {}
    for path in sorted([*root.glob("*.py"), *(path for each in ROOMS for path in (root / each).rglob("*.py"))]):
        inner = path.relative_to(root)
        is_test = "tests" in inner.parts or inner.name in ("conftest.py", "testing.py")  # the last for others' tests
        if is_test == tests and (inner.parts[0] == "benchmarks") == (room == "benchmarks"):
            for _, name in imported_names(path.read_text(), dotted(inner)):
                found[name.split(".")[0]] = str(inner)
    return {name: path for name, path in found.items() if name and name not in OURS | STDLIB}


def undeclared(found: dict[str, str], *files: str) -> list[str]:
    declared = {name for file in files for name in constraints.declared(file)}
    return [
        f"{path} imports {name}, which {' and '.join(files)} do not name"
        for name, path in found.items()
        if not declared & {canonicalize_name(each) for each in DISTRIBUTIONS.get(name, [name])}
    ]


def test_what_is_imported_is_declared() -> None:
    """Not brought along by something else, which may stop to."""
    assert undeclared(imports(), "requirements.txt", "requirements-ray.txt") == []
    assert undeclared(imports(tests=True), "requirements-dev.txt") == []
    assert undeclared(imports(room="benchmarks"), "requirements-bench.txt") == []


def test_it_sees_what_is_not_declared(tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "new.py").write_text("def f():\n    import certifi.core\n")
    (told,) = undeclared(imports(tmp_path), "requirements.txt")
    assert told == "training/new.py imports certifi, which requirements.txt do not name"


def test_what_is_declared_is_used() -> None:
    """By an import, or by its name in the settings."""
    settings = (PROJECT / "fedsite" / "settings.py").read_text()
    used = {name for name in DISTRIBUTIONS if f'"{name}' in settings} | imports().keys()
    of = {canonicalize_name(each) for name in used for each in DISTRIBUTIONS.get(name, [name])}
    assert constraints.declared("requirements.txt").keys() - of == BY_NAME


def test_every_range_has_two_ends() -> None:
    for file in ("requirements-dev.txt", "requirements-bench.txt"):
        for name, need in constraints.declared(file).items():
            operators = {each.operator for each in need.specifier}
            assert operators in ({">=", "<"}, {"=="}), f"{file}: {name}"


def test_constraints_are_exact_and_within_what_is_asked_for() -> None:
    pins = constraints.pinned()
    for name, need in constraints.declared("requirements-dev.txt").items():
        assert need.specifier.contains(pins[name]), name
    assert [name for name, version in pins.items() if Version(version).local] == []
    assert [name for name in pins if name.startswith(constraints.OF_PYTORCH)] == []
    assert list(pins) == sorted(pins)


# make


@pytest.mark.parametrize(
    ("system", "machine", "refused"),
    [("Darwin", "x86_64", True), ("Darwin", "arm64", False), ("Linux", "x86_64", False)],
)
def test_make_says_where_pytorch_has_no_builds(tmp_path: Path, system: str, machine: str, refused: bool) -> None:
    shutil.copy(PROJECT / "Makefile", tmp_path)
    told = f"import platform; platform.system = lambda: {system!r}; platform.machine = lambda: {machine!r}"
    (tmp_path / "sitecustomize.py").write_text(told)
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\ncase "$*" in *venv*) mkdir -p .venv;; *) PYTHONPATH={tmp_path} {sys.executable} "$@";; esac'
    )
    python.chmod(0o755)
    done = subprocess.run(
        ["make", "venv", f"PYTHON={python}"],
        cwd=tmp_path,
        env=os.environ | {"MAKEFLAGS": ""},
        capture_output=True,
        text=True,
    )
    assert ("PyTorch has had no builds for macOS on Intel" in done.stderr) is refused
    assert (done.returncode != 0) is refused, done.stderr
    assert (tmp_path / ".venv").exists() is not refused
