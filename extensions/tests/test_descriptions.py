"""Good plug-ins are described by children, broken ones are told with their reason, and none harms who asks."""

from __future__ import annotations

import os
import py_compile
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from extensions import descriptions, discovery
from extensions.descriptions import Description, described
from extensions.sources import sha256_of
from extensions.tests import files


def describe_all(folder: Path, cache: Path) -> dict[str, Description]:
    with ThreadPoolExecutor(2) as children:
        found = children.map(lambda candidate: described(candidate, cache), discovery.look(folder))
    return {description.candidate.where: description for description in found}


def test_good_ones_of_each_family_are_described(tmp_path: Path) -> None:
    """One test, as each file costs a process: helpers are no plug-ins and part of their users' source; a valuation's
    cost is known without its code."""
    found = describe_all(files.write_good(tmp_path / "plugins"), tmp_path / "cache")
    assert set(found) == {f"{name}.py" for name in files.GOOD}
    for where, description in found.items():
        assert not description.error, (where, description.error, description.traceback)
        (kind,) = description.kinds
        assert kind.name.startswith(f"{where.removesuffix('.py')}/")
        assert not description.refusals(kind)
        assert len(description.results(kind)) >= 5
        assert description.checks[kind.name]["digest"]
        assert isinstance(kind.code, str), "nobody here has its code"
        assert kind.source_sha256 == description.sha256
        assert description.sha256 == sha256_of({path: text.encode() for path, text in description.source.items()})
    assert set(found["with_helper.py"].source) == {"_helper.py", "with_helper.py"}
    cost = found["good_valuation.py"].kinds[0].cost
    assert cost is not None
    assert [cost(n) for n in (0, 3, 16, 20)] == [10, 40, 170, 330]


def test_the_hash_is_what_sha256sum_finds(tmp_path: Path) -> None:
    (tmp_path / "b.py").write_text("two\n")
    (tmp_path / "a.py").write_text("one\n")
    command = ["sh", "-c", "sha256sum a.py b.py | sha256sum"]
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert sha256_of({"b.py": b"two\n", "a.py": b"one\n"}) == told.split()[0]


def test_one_that_hung_is_not_tried_again_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptions, "SECONDS", 2.0)
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "lab.py").write_text("while True: pass\n")
    (first,) = discovery.look(folder)
    assert "2 seconds" in described(first, tmp_path / "cache").error
    began = time.monotonic()
    assert "2 seconds" in described(first, tmp_path / "cache").error
    assert time.monotonic() - began < 1
    (folder / "lab.py").write_text(files.RULE)
    (second,) = discovery.look(folder)
    assert not described(second, tmp_path / "cache").error


def test_a_changed_helper_is_another_source(tmp_path: Path) -> None:
    folder = files.write_good(tmp_path / "plugins")
    candidate = next(each for each in discovery.look(folder) if each.namespace == "with_helper")
    before = described(candidate, tmp_path / "cache")
    (folder / "_helper.py").write_text("ONE = 2 - 1\n")
    after = described(candidate, tmp_path / "cache")
    assert not after.error
    assert before.sha256 != after.sha256


def test_a_helper_that_comes_later_is_seen(tmp_path: Path) -> None:
    (tmp_path / "lab.py").write_text(files.GOOD["with_helper"])
    (candidate,) = discovery.look(tmp_path)
    assert "_helper" in described(candidate, tmp_path / "cache").error
    (tmp_path / "_helper.py").write_text(files.HELPERS["_helper"])
    assert not described(candidate, tmp_path / "cache").error


def test_what_runs_is_what_is_hashed_not_what_was_compiled_before(tmp_path: Path) -> None:
    """A compiled file of the same time and size would be taken for the source by Python itself."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    path = folder / "lab.py"
    path.write_text(files.RULE.replace('"Alike"', '"first"'))
    os.utime(path, (1_000_000_000, 1_000_000_000))
    py_compile.compile(str(path))
    path.write_text(files.RULE.replace('"Alike"', '"after"'))
    os.utime(path, (1_000_000_000, 1_000_000_000))
    (candidate,) = discovery.look(folder)
    (kind,) = described(candidate, None).kinds
    assert kind.help == "after"


def test_its_process_knows_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "only-the-site-knows")
    (tmp_path / "lab.py").write_text("import os\nraise RuntimeError(sorted(os.environ))\n")
    (candidate,) = discovery.look(tmp_path)
    error = described(candidate, None).error
    assert "PATH" in error
    assert "SECRET_KEY" not in error
    assert "DATABASE_URL" not in error


def test_one_that_deletes_itself_is_told(tmp_path: Path) -> None:
    (tmp_path / "lab.py").write_text(files.BROKEN["deletes_itself"][0])
    (candidate,) = discovery.look(tmp_path)
    assert "changed or removed" in described(candidate, tmp_path / "cache").error
