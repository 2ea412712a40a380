"""Trainers have the plug-ins that a run was queued with, from the same source, or refuse the run in a sentence."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kinds
from extensions import importing
from extensions.discovery import look
from extensions.loading import Unavailable, plug_in
from extensions.sources import needed
from extensions.tests import files
from incentives.economy import Payment


@pytest.fixture(autouse=True)
def unplugged() -> Iterator[None]:
    yield
    kinds.plug(())
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, importing.Folder)]


def hashes(folder: Path) -> dict[str, str]:
    return {kind.name: kind.source_sha256 for candidate in look(folder) for kind in importing.load(candidate).kinds}


def record(folder: Path, **choices: str) -> dict[str, Any]:
    found = hashes(folder)
    return {name: {"kind": kind, "source_sha256": found[kind]} for name, kind in choices.items()}


def test_it_finds_what_a_record_names_wherever_it_stands() -> None:
    given = {
        "strategy": {"kind": "a/b", "source_sha256": "1"},
        "pool": {"kind": "fixed", "tokens": 1.0},
        "behaviours": {"3": {"kind": "c/d", "source_sha256": "2"}},
        "population": [{"share": 0.5, "kind": "e/f"}],
    }
    assert sorted(needed(given)) == [("a/b", "1"), ("c/d", "2"), ("e/f", "")]


def test_a_plug_in_has_its_code_there(tmp_path: Path) -> None:
    (tmp_path / "lab.py").write_text((files.EXAMPLES / "rule.py").read_text())
    plug_in(record(tmp_path, reward_rule="lab/wage"), tmp_path)
    choice = kinds.checked("rule", {"kind": "lab/wage", "share": 0.5}, "reward_rule")
    from extensions.contract.rule import facts

    paid = choice.load()(facts((1.0, 0.0)), 100, {}, **choice.parameters)
    assert isinstance(paid, Payment)
    assert list(paid.shares) == [75, 25]


def test_each_has_its_helpers_and_its_own_hash(tmp_path: Path) -> None:
    """What one imports is not part of another's source, whichever was loaded first."""
    files.write_good(tmp_path, "with_helper", "os")
    (tmp_path / "also.py").write_text(files.GOOD["with_helper"] + "# also\n")
    alone = {name: hashes(tmp_path)[f"{name}/rule"] for name in ("with_helper", "os", "also")}
    given = record(tmp_path, a="with_helper/rule", b="os/rule", c="also/rule")
    plug_in(given, tmp_path)
    assert {name: kinds.find("rule", f"{name}/rule").source_sha256 for name in alone} == alone
    assert len(set(alone.values())) == 3


def test_nothing_is_shadowed(tmp_path: Path) -> None:
    (tmp_path / "os.py").write_text(files.RULE)
    (tmp_path / "kinds.py").write_text(files.RULE)
    plug_in(record(tmp_path, a="os/rule", b="kinds/rule"), tmp_path)
    assert sys.modules["os"] is os
    assert sys.modules["kinds"] is kinds
    assert str(tmp_path) not in sys.path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "lab.py").write_text(files.RULE + "# changed\n"), "has another source than when"),
        (lambda folder: (folder / "lab.py").unlink(), "there is no lab.py"),
        (lambda folder: (folder / "lab.py").write_text("1 / 0\n"), "line 1: ZeroDivisionError"),
        (lambda folder: (folder / "lab.py").write_text("import sys; sys.exit()\n"), "SystemExit"),
        (
            lambda folder: (folder / "lab.py").write_text(files.RULE.replace('"rule", help', '"other", help')),
            "not in its",
        ),
        (lambda folder: (folder / "lab.py").write_text("#" * 300_000), "bytes"),
    ],
)
def test_another_source_is_refused_in_a_sentence(tmp_path: Path, change: Any, words: str) -> None:
    (tmp_path / "lab.py").write_text(files.RULE)
    given = record(tmp_path, reward_rule="lab/rule")
    change(tmp_path)
    with pytest.raises(Unavailable, match=words):
        plug_in(given, tmp_path)


def test_a_changed_helper_is_another_source(tmp_path: Path) -> None:
    files.write_good(tmp_path, "with_helper", "os")
    given = record(tmp_path, reward_rule="with_helper/rule")
    (tmp_path / "_helper.py").write_text("ONE = 2 - 1\n")
    with pytest.raises(Unavailable, match="another source"):
        plug_in(given, tmp_path)


def test_a_record_without_a_hash_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lab.py").write_text(files.RULE)
    with pytest.raises(Unavailable, match="none then"):
        plug_in({"reward_rule": {"kind": "lab/rule"}}, tmp_path)
