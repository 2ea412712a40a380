"""constraints.txt: exact versions of all that the tests ran with, so that a release can be installed as tested.

`python -m fedsite.tests.constraints` prints the file from this environment; with `--check` it names what is installed
in another version than the file says, and ends with 1.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from fedsite.tests.machine import PROJECT

FILE = PROJECT / "constraints.txt"
HEAD = """\
# What this release was tested with, on Linux: PIP_CONSTRAINT=$PWD/constraints.txt make run installs exactly this.
# PyTorch names its CUDA packages exactly, so these are not here. Versions have no local part: 2.14.1 is 2.14.1+cpu too.
# Written by: .venv/bin/python -m fedsite.tests.constraints > constraints.txt
"""
OF_PYTORCH = ("nvidia-", "cuda-", "triton")


def declared(name: str) -> dict[str, Requirement]:
    """What a requirements file asks for, with the files that it includes, by canonical name."""
    found: dict[str, Requirement] = {}
    for line in (PROJECT / name).read_text().splitlines():
        text = line.partition("#")[0].strip()
        if text.startswith("-r "):
            found |= declared(text.removeprefix("-r "))
        elif text:
            requirement = Requirement(text)
            found[canonicalize_name(requirement.name)] = requirement
    return found


def pinned() -> dict[str, str]:
    """The file's versions by canonical name; ValueError for a line that is no exact pin."""
    lines = (line.partition("#")[0].strip() for line in FILE.read_text().splitlines())
    pins = [line.split("==") for line in lines if line]
    return {name: str(Version(version)) for name, version in pins}


def installed() -> dict[str, str]:
    """Versions of what requirements-dev.txt brings into this environment, of dependencies of dependencies too."""
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(need, "") for need in declared("requirements-dev.txt").values()]
    while waiting:
        need, within = waiting.pop()
        if need.marker and not need.marker.evaluate({"extra": within}):
            continue
        name = canonicalize_name(need.name)
        for extra in ("", *need.extras):
            if (name, extra) not in seen and not name.startswith(OF_PYTORCH):
                seen.add((name, extra))
                found[name] = Version(distribution(name).version).public
                waiting += [(Requirement(text), extra) for text in distribution(name).requires or []]
    return found


def differences() -> Iterator[str]:
    pins = pinned()
    for name, version in sorted(installed().items()):
        if pins.get(name) != version:
            yield f"{name} {version} is installed, and constraints.txt has {pins.get(name, 'none')}"


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit("\n".join(differences()) or 0)
    print(HEAD, *(f"{name}=={version}" for name, version in sorted(installed().items())), sep="\n")
