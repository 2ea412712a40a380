"""A real site with a folder of files that are broken in every way: every page answers, and it has run none of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil

from extensions.tests import files
from fedsite.tests import servers

PAGES = ("/", "/simulations/", "/ledger/", "/api/simulations/", "/api/docs", "/api/openapi.json", "/healthz", "/readyz")
PATIENCE_SECONDS = 5.0  # for a page; a loaded machine is slow


def test_it_answers_and_has_run_none_of_them(start_server: Callable[..., servers.Server], tmp_path: Path) -> None:
    folder, marks = tmp_path / "plugins", tmp_path / "marks"
    files.write_broken(folder, marks)
    (folder / "lab.py").write_text(files.RULE)
    site = start_server(FEDSITE_PLUGINS_DIR=str(folder))
    with httpx.Client(base_url=site.url, timeout=60) as client:
        slowest = 0.0
        for page in PAGES * 2:  # while they are described, by children of the site's
            began = time.monotonic()
            answer = client.get(page, follow_redirects=True)
            slowest = max(slowest, time.monotonic() - began)
            assert answer.status_code == 200, (page, answer.status_code)
        assert slowest < PATIENCE_SECONDS
        told = site.manage("plugins", "--json")  # waits for the same descriptions
        assert told.returncode == 1
        entries = {entry["where"]: entry for entry in json.loads(told.stdout)}
        reasons = {where: reason for where, reason in files.REASONS.items() if where in entries}
        assert {*files.REASONS} - {*reasons} <= {"deletes_itself.py"}, "which is gone once it was looked at"
        assert set(entries) == {*reasons, "lab.py"}
        other = {}
        for where, reason in reasons.items():
            refused = "".join(kind["refused"] or "" for kind in entries[where]["kinds"])
            text = f"{entries[where]['error'] or ''}{refused}"
            if reason not in text:
                other[where] = (reason, text, entries[where]["traceback"])
        assert not other
        assert entries["lab.py"]["kinds"][0]["offered"]
        for page in PAGES:
            assert client.get(page, follow_redirects=True).status_code == 200
    ran = {int(path.suffix[1:]) for path in marks.glob("*.*")}
    assert len(ran) > 20
    assert site.process.pid not in ran
    grandchild = int((marks / "grandchild").read_text())
    assert not psutil.pid_exists(grandchild) or psutil.Process(grandchild).status() == psutil.STATUS_ZOMBIE
    assert "libtorch" not in Path(f"/proc/{site.process.pid}/maps").read_text()
