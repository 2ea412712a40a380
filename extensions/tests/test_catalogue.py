"""The catalogue of one process: files that come, change, clash, are switched off and go are seen without a restart."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable
from io import StringIO
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.test import Client as Browser

import kinds
from extensions import catalogue, descriptions
from extensions.contract import FAMILIES
from extensions.descriptions import Description
from extensions.discovery import Candidate
from extensions.models import Plugin
from extensions.tests import files
from kinds import checked

pytestmark = pytest.mark.django_db
LIST = "/admin/extensions/plugin/"


def seen(name: str, family: str = "rule", *, within: float = 15.0) -> bool:
    """Whether a reader of the catalogue comes to see it, without anybody's calling for a look."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        if name in kinds.family(family):
            return True
        time.sleep(0.1)
    return False


def gone(name: str, *, within: float = 15.0) -> bool:
    end = time.monotonic() + within
    while time.monotonic() < end:
        if name not in kinds.family("rule"):
            return True
        time.sleep(0.1)
    return False


def test_files_that_come_change_and_go_are_seen(plugged: Callable[..., Path]) -> None:
    folder = plugged()
    assert not any("/" in name for name in kinds.family("rule"))
    (folder / "lab.py").write_text(files.RULE)
    assert seen("lab/rule")
    before = kinds.find("rule", "lab/rule")
    assert before.help == "Alike"
    (folder / "lab.py").write_text(files.RULE.replace('"Alike"', '"Changed"').replace('name="rule"', 'name="other"'))
    assert seen("lab/other")
    after = kinds.find("rule", "lab/other")
    assert (after.help, after.source_sha256 != before.source_sha256) == ("Changed", True)
    assert "lab/rule" not in kinds.family("rule")
    (folder / "lab.py").write_text("broken(")
    assert gone("lab/other")
    (entry,) = catalogue.current.entries()
    assert "SyntaxError" in entry.error
    (folder / "lab.py").unlink()
    catalogue.current.settle()
    assert catalogue.current.entries() == []


def test_what_has_changed_offers_what_it_had_until_it_is_described(
    plugged: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is saved often, and a description that takes long, take no kind away."""
    folder = plugged(lab=files.RULE)
    before = kinds.find("rule", "lab/rule")
    is_slow, go_on, described = threading.Event(), threading.Event(), catalogue.described

    def slowly(candidate: Candidate, cache: Path) -> Description:
        is_slow.set()
        go_on.wait(60)
        return described(candidate, cache)

    monkeypatch.setattr(catalogue, "described", slowly)
    (folder / "lab.py").write_text(files.RULE + "# another\n")
    assert not catalogue.current.settle(0.1, {"lab"})
    assert is_slow.wait(60)
    assert kinds.find("rule", "lab/rule").source_sha256 == before.source_sha256
    (folder / "lab.py").write_text(files.RULE + "# and another\n")
    assert catalogue.current.settle(0.0, {"another"})
    assert [entry.is_waiting for entry in catalogue.current.entries()] == [True]
    assert "lab/rule" in kinds.family("rule")
    go_on.set()
    assert catalogue.current.settle(60.0, {"lab"}), "also where it would pause"
    assert kinds.find("rule", "lab/rule").source_sha256 != before.source_sha256
    (entry,) = catalogue.current.entries()
    assert (entry.is_waiting, entry.source) == (False, {"lab.py": files.RULE + "# and another\n"})


def test_a_choice_of_it_is_checked_by_its_own_bounds(plugged: Callable[..., Path]) -> None:
    plugged(lab=(files.EXAMPLES / "rule.py").read_text())
    choice = checked("rule", {"kind": "lab/wage", "share": 0.5}, "reward_rule")
    assert choice.to_dict() == {"kind": "lab/wage", "share": 0.5}
    with pytest.raises(kinds.ConfigError, match=r"reward_rule.share: 5.0 is not at least 0 and at most 1"):
        checked("rule", {"kind": "lab/wage", "share": 5}, "reward_rule")
    with pytest.raises(ModuleNotFoundError):
        choice.load()  # here nobody can


def test_looking_costs_next_to_nothing(plugged: Callable[..., Path]) -> None:
    plugged(lab=files.RULE)
    began = time.perf_counter()
    for _ in range(10_000):
        kinds.family("rule")
    assert time.perf_counter() - began < 1.0


def test_a_page_does_not_wait_long_for_what_hangs(
    plugged: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = plugged(lab=files.RULE)
    monkeypatch.setattr(descriptions, "SECONDS", catalogue.PATIENCE + 2)
    (folder / "slow.py").write_text("while True: pass\n")
    time.sleep(catalogue.LOOK_SECONDS)
    began = time.monotonic()
    assert "lab/rule" in kinds.family("rule")
    assert time.monotonic() - began < catalogue.PATIENCE + 1
    waiting = {entry.where: entry.is_waiting for entry in catalogue.current.entries()}
    assert waiting == {"lab.py": False, "slow.py": True}
    catalogue.current.settle()


async def test_an_event_loop_never_waits(plugged: Callable[..., Path], settings: Any) -> None:
    settings.FEDSITE_PLUGINS_DIR.mkdir()
    (settings.FEDSITE_PLUGINS_DIR / "slow.py").write_text("import time; time.sleep(3)\n")
    await asyncio.sleep(catalogue.LOOK_SECONDS)
    began = time.monotonic()
    kinds.family("rule")
    assert time.monotonic() - began < 0.5


def distribution(folder: Path, namespace: str, text: str) -> None:
    """Installs fedsite-lab 1.0 there, with one entry point."""
    info = folder / "fedsite_lab-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "fedsite_lab").mkdir()
    (folder / "fedsite_lab" / "__init__.py").write_text("")
    (folder / "fedsite_lab" / "wages.py").write_text(text)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fedsite-lab\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[fedsite.plugins]\n{namespace} = fedsite_lab.wages\n")
    (info / "RECORD").write_text("fedsite_lab/__init__.py,,\nfedsite_lab/wages.py,,\n")


def test_installed_distributions_are_plug_ins_where_they_are_named(
    plugged: Callable[..., Path], settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(tmp_path / "site", "wages", files.RULE)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    plugged()
    assert catalogue.current.entries() == []
    settings.FEDSITE_PLUGINS = ["fedsite-lab", "fedsite-nothing", "pytest"]
    plugged()
    one, nothing, without = catalogue.current.entries()
    assert (one.where, one.error) == ("wages (fedsite-lab 1.0)", "")
    assert set(one.source) == {"fedsite_lab/__init__.py", "fedsite_lab/wages.py"}
    assert "wages/rule" in kinds.family("rule")
    assert nothing.error == "no such distribution is installed"
    assert without.error == "it has no entry point in the group fedsite.plugins"


def test_two_of_one_id_are_both_refused_by_name(
    plugged: Callable[..., Path], settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(tmp_path / "site", "lab", files.RULE)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    settings.FEDSITE_PLUGINS = ["fedsite-lab"]
    plugged(lab=files.RULE)
    errors = {entry.error for entry in catalogue.current.entries()}
    assert errors == {"there are two of lab/rule: in lab.py and in lab (fedsite-lab 1.0)"}
    assert "lab/rule" not in kinds.family("rule")


def test_built_in_kinds_keep_their_places(plugged: Callable[..., Path]) -> None:
    before = dict(kinds.family("rule"))
    plugged(proportional=files.GOOD["fedavg"], os=files.RULE)
    after = kinds.family("rule")
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"proportional/proportional", "os/rule"}
    assert os.path.join("a", "b") == "a/b"


@pytest.fixture
def root() -> Browser:
    browser = Browser()
    browser.force_login(User.objects.create_superuser("root"))
    return browser


def test_the_admin_lists_and_switches(plugged: Callable[..., Path], root: Browser) -> None:
    plugged(lab=files.RULE, broken="1 / 0\n")
    page = root.get(LIST).content.decode()
    assert "lab/rule" in page
    assert "ZeroDivisionError: division by zero" in page
    form = {"form-TOTAL_FORMS": 1, "form-INITIAL_FORMS": 1, "form-0-id": "lab/rule", "_save": "Save"}
    assert root.post(LIST, form).status_code == 302
    assert not Plugin.objects.get(pk="lab/rule").is_enabled
    assert "lab/rule" not in kinds.family("rule")
    assert "switched off" in root.get(LIST).content.decode()
    root.post(LIST, {**form, "form-0-is_enabled": "on"})
    assert "lab/rule" in kinds.family("rule")
    text = root.get(f"{LIST}lab_2Frule/change/").content.decode()
    assert "largest_remainder" in text
    assert "whole_shares" in text


def test_a_switch_that_another_process_set_is_seen(plugged: Callable[..., Path]) -> None:
    plugged(lab=files.RULE)
    Plugin.objects.create(pk="lab/rule", is_enabled=False)
    assert gone("lab/rule")


def test_the_admins_list_is_for_those_who_may(plugged: Callable[..., Path]) -> None:
    plugged(lab=files.RULE)
    user = User.objects.create_user("staff", is_staff=True)
    browser = Browser()
    browser.force_login(user)
    assert browser.get(LIST).status_code == 403
    user.user_permissions.set(Permission.objects.filter(codename="view_plugin"))
    answer = browser.get(LIST)
    assert answer.status_code == 200
    assert b"form-0-is_enabled" not in answer.content


def output(command: str, *arguments: str) -> str:
    out = StringIO()
    call_command(command, *arguments, stdout=out)
    return out.getvalue()


def test_commands_tell_what_is_there(plugged: Callable[..., Path]) -> None:
    plugged()
    assert output("plugins") == "There are no plug-ins.\n"
    plugged(lab=files.RULE)
    assert "lab/rule  rule, version 1, offered" in output("plugins")
    (entry,) = json.loads(output("plugins", "--json"))
    assert entry["where"] == "lab.py"
    assert entry["kinds"][0]["kind"] == "lab/rule"
    assert {check["status"] for check in entry["kinds"][0]["checks"]} <= {"holds", "does not hold"}
    plugged(broken="1 / 0\n")
    with pytest.raises(CommandError, match="1 of 2 plug-ins is broken"):
        output("plugins")


def test_check_plugins_runs_the_whole_contract(plugged: Callable[..., Path]) -> None:
    by_hash = files.FIRST.format("hash('a') % (pool + 1)")
    too_much = files.FIRST.format("int(pool * parameters['x'])")
    parameters = '{"x": number(0.5, "x", minimum=0.0, maximum=2.0)}'
    plugged(lab=files.RULE, narrow=files.rule(too_much, parameters=parameters), by_hash=files.rule(by_hash))
    text = output("check_plugins", "lab/rule")
    assert "holds          fresh_process: gives the same in another process" in text
    assert text.endswith("1 keeps its contract.\n")
    out = StringIO()
    with pytest.raises(CommandError, match="2 of 3 do not keep their contract"):
        call_command("check_plugins", stdout=out)
    assert "refused        ends: keeps all that at the ends of its parameters: with {'x': 2.0}" in out.getvalue()
    assert "refused        fresh_process" in out.getvalue()
    with pytest.raises(CommandError, match="There is no plug-in nobody"):
        output("check_plugins", "nobody")


def test_new_plugin_writes_what_keeps_its_contract(plugged: Callable[..., Path]) -> None:
    folder = plugged()
    for family in FAMILIES:
        output("new_plugin", family, f"lab_{family}/mine")
    assert {path.stem for path in folder.glob("*.py")} == {f"lab_{family}" for family in FAMILIES}
    catalogue.current.settle()
    assert [entry.error for entry in catalogue.current.entries()] == [""] * len(FAMILIES)
    for family in FAMILIES:
        assert f"lab_{family}/mine" in kinds.family(family)
    with pytest.raises(CommandError, match="is there already"):
        output("new_plugin", "rule", "lab_rule")
    with pytest.raises(CommandError, match="is no name"):
        output("new_plugin", "rule", "../lab")


def test_a_file_that_writes_itself_is_described_ever_more_rarely(
    plugged: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, now, calls = plugged(), [1000.0], []

    def described(candidate: Candidate, cache: Path) -> Description:
        calls.append(now[0])
        return Description(candidate=candidate, files=("lab.py",))

    monkeypatch.setattr(catalogue, "described", described)
    monkeypatch.setattr(catalogue, "time", SimpleNamespace(monotonic=lambda: now[0]))
    mine = catalogue.Catalogue()
    for number in range(120):  # a minute of two changes a second
        now[0] += 0.5
        (folder / "lab.py").write_text(f"# {'x' * number}\n")
        mine.look()
        mine.look()  # not twice in a second
    assert [round(after - before) for before, after in pairwise(calls)] == [1, 1, 1, 2, 4, 8, 16]


def test_a_page_waits_once_for_what_takes_long(plugged: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, over, waits = plugged(), threading.Event(), []

    def described(candidate: Candidate, cache: Path) -> Description:
        over.wait(30)
        return Description(candidate=candidate)

    monkeypatch.setattr(catalogue, "described", described)
    monkeypatch.setattr(catalogue, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(catalogue, "wait", lambda futures, timeout: waits.append((len(futures), timeout)))
    (folder / "lab.py").write_text(files.RULE)
    mine = catalogue.Catalogue()
    for _ in range(5):
        mine.look()
    assert waits == [(1, catalogue.PATIENCE)]
    mine.settle(60.0)
    assert waits[1:] == [(1, 60.0)]  # a command waits for all of them
    over.set()
