"""Known holes in what is installed: `python -m fedsite.tests.audit`, a part of `make check`.

pip-audit asks PyPI's advisories. Not to have reached them is no finding, and no clean bill either: it is said, and is a
failure only where FEDSITE_TEST_REQUIRE names `advisories`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

KNOWN_HOLE = "Django==5.2.0"  # a list that does not know of its holes is not the list
CLEAN, FOUND = 0, 1  # exit status


def report(*options: str) -> list[dict[str, Any]] | None:
    """Each package with its holes, as pip-audit tells it; None where it could not ask."""
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off", *options]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    try:
        return list(json.loads(done.stdout)["dependencies"])
    except (ValueError, KeyError):
        return None


def reaches_advisories() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "requirements.txt"
        file.write_text(KNOWN_HOLE)
        told = report("--requirement", str(file), "--no-deps", "--disable-pip")
    return any(package.get("vulns") for package in told or [])


def verdict(told: list[dict[str, Any]] | None) -> tuple[int, str]:
    """Exit status and a sentence; None is what was told where nothing could be asked."""
    if told is None:
        required = "advisories" in os.environ.get("FEDSITE_TEST_REQUIRE", "").split(",")
        return FOUND if required else CLEAN, "Not audited: the list of known holes could not be reached."
    holes = [_line(package, hole) for package in told for hole in package.get("vulns", [])]
    if holes:
        return FOUND, "\n".join(["Known holes:", *holes])
    unknown = [package["name"] for package in told if "skip_reason" in package]
    text = f"Audited {len(told) - len(unknown)} packages: no known hole."
    return CLEAN, f"{text} Not on the list: {', '.join(unknown)}." if unknown else text


def _line(package: dict[str, Any], hole: dict[str, Any]) -> str:
    mended = ", ".join(hole["fix_versions"]) or "none yet"
    return f"{package['name']} {package['version']}: {hole['id']}, mended in {mended}"


def main() -> int:
    status, text = verdict(report("--local") if reaches_advisories() else None)
    print(text)
    return status


if __name__ == "__main__":
    sys.exit(main())
