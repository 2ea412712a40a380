"""Runs with plug-ins: queued with a source, trained and paid by it alone, and it is on the page of their payments."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.test import Client as Browser

import kinds
from extensions import catalogue
from extensions.contract import FAMILIES
from extensions.models import Source
from extensions.tests import files
from fedsite.tests import servers
from simulations import plugins
from simulations.models import Event, Origin, Simulation, Status
from simulations.running import lifecycle
from simulations.tests.cast import config, queued

ALL = {
    "dataset": "digits",
    "num_clients": 4,
    "num_rounds": 5,
    "lr": 0.1,
    "model": {"kind": "my_model/normalised", "hidden": 24},
    "strategy": {"kind": "my_strategy/capped", "norm": 2.0},
    "behaviours": {"2": {"kind": "my_behaviour/sparse", "kept": 0.3}},
    "valuation": {"kind": "my_valuation/orders", "num_orders": 4},
    "pool": {"kind": "my_pool/streak", "tokens": 2.0},
    "reward_rule": {"kind": "my_rule/wage", "share": 0.25},
    "detectors": [{"kind": "my_detector/as_before", "near": 0.001}],
}


def write_examples(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for family in FAMILIES:
        (folder / f"my_{family}.py").write_text((files.EXAMPLES / f"{family}.py").read_text())
    return folder


def started(client: httpx.Client, fields: dict[str, Any] = ALL) -> int:
    """Of a configuration with a plug-in of each family, or another, once all of its plug-ins are described."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        answer = client.post("/api/simulations/", json=fields)
        if answer.status_code == 201:
            return int(answer.json()["id"])
        time.sleep(1)
    raise AssertionError(answer.text)


def ended(client: httpx.Client, number: int) -> dict[str, Any]:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        found: dict[str, Any] = client.get(f"/api/simulations/{number}/").json()
        if found["status"] not in ("queued", "running"):
            assert found["status"] == "completed", found["failure"]
            return found
        time.sleep(0.5)
    raise AssertionError(found["status"])


def test_good_ones_of_each_family_run_pay_and_are_shown(
    start_server: Callable[..., servers.Server], tmp_path: Path
) -> None:
    """The whole of it on a real site, once undisturbed, and once with a server that is killed after two rounds: what
    pool and rule keep between rounds survives."""
    folder = write_examples(tmp_path / "plugins")
    site = start_server(FEDSITE_PLUGINS_DIR=str(folder))
    with httpx.Client(base_url=site.url, timeout=60) as client:
        first = ended(client, started(client))
        assert {row["pool_microtokens"] for row in first["rounds"]} > {2_000_000}, "the pool remembers its streak"
        assert first["config"]["reward_rule"]["source_sha256"]
        payment = client.get(f"/ledger/transactions/simulation-{first['id']}/1/").text
        assert "Source of my_rule/" in payment
        assert "A wage for everyone who takes part" in payment
        page = client.get(f"/simulations/{first['id']}/").text
        for family in FAMILIES:
            assert f"Source of the plug-in my_{family}/" in page
        assert "Castro et al. 2009" in page
        assert "libtorch" not in Path(f"/proc/{site.process.pid}/maps").read_text()
    site.stop()
    second_site = start_server(FEDSITE_PLUGINS_DIR=str(folder), FAILPOINT="round_committed:2")
    with httpx.Client(base_url=second_site.url, timeout=60) as client:
        number = started(client)
        second_site.process.wait(120)
    again = start_server(second_site.folder, port=second_site.port, FEDSITE_PLUGINS_DIR=str(folder))
    with httpx.Client(base_url=again.url, timeout=60) as client:
        second = ended(client, number)
    names = ("config_sha256", "weights_sha256", "ledger_head")
    assert {name: second[name] for name in names} == {name: first[name] for name in names}
    assert again.manage("verify_ledger").returncode == 0


pytest_db = pytest.mark.django_db


@pytest_db
@pytest.mark.database
def test_a_run_is_queued_with_todays_source_which_is_kept(plugged: Callable[..., Path]) -> None:
    plugged(lab=files.RULE)
    simulation = queued(reward_rule="lab/rule")
    sha256 = simulation.config["reward_rule"]["source_sha256"]
    assert Source.objects.get(pk=sha256).files == {"lab.py": files.RULE}
    queued(reward_rule="lab/rule")
    assert Source.objects.count() == 1
    assert "source_sha256" not in json.dumps(queued().config)


@pytest_db
def test_a_source_in_the_input_is_refused(plugged: Callable[..., Path], client: Browser) -> None:
    plugged(lab=files.RULE, liar=(files.EXAMPLES / "behaviour.py").read_text())
    for given in (
        {"reward_rule": {"kind": "lab/rule", "source_sha256": "0" * 64}},
        {"behaviours": {"1": {"kind": "liar/sparse", "source_sha256": "0" * 64}}},
    ):
        answer = client.post("/api/simulations/", json.dumps(given), content_type="application/json")
        assert answer.status_code == 422
        assert "source_sha256" in answer.content.decode()


@pytest_db
def test_equal_sources_are_equal_configurations_and_others_are_not(plugged: Callable[..., Path]) -> None:
    plugged(lab=files.RULE)
    given = config(reward_rule="lab/rule")
    one = plugins.with_todays_sources(given).sha256()
    assert one == plugins.with_todays_sources(given).sha256()
    plugged(lab=files.RULE + "# another\n")
    assert one != plugins.with_todays_sources(given).sha256()


@pytest_db
def test_run_again_takes_todays_source_and_says_so(plugged: Callable[..., Path]) -> None:
    plugged(lab=files.RULE)
    first = queued(reward_rule="lab/rule")
    same, changed = lifecycle.run_again(first, origin=Origin.API)
    assert changed == []
    plugged(lab=files.RULE + "# another\n")
    other, changed = lifecycle.run_again(first, origin=Origin.API)
    then, now = (each.config["reward_rule"]["source_sha256"] for each in (first, other))
    assert changed == [f"lab/rule has another source: {then[:12]} then, {now[:12]} now"]
    assert Event.objects.filter(simulation=other, message__contains="has another source").exists()
    assert same.config == first.config


@pytest_db
def test_run_again_without_the_plug_in_names_it(plugged: Callable[..., Path]) -> None:
    folder = plugged(lab=files.RULE)
    first = queued(reward_rule="lab/rule")
    (folder / "lab.py").unlink()
    plugged()
    with pytest.raises(ValueError, match="reward_rule: 'lab/rule' is not one of"):
        lifecycle.run_again(first, origin=Origin.API)


@pytest_db
@pytest.mark.database
def test_resume_with_another_source_is_refused_and_nothing_changes(
    plugged: Callable[..., Path], client: Browser
) -> None:
    folder = plugged(lab=files.RULE)
    first = queued(reward_rule="lab/rule")
    lifecycle.cancel(first.pk)
    plugged(lab=files.RULE + "# another\n")
    answer = client.post(f"/api/simulations/{first.pk}/resume/", content_type="application/json")
    assert answer.status_code == 409
    assert "another source" in answer.json()["detail"]
    assert Simulation.objects.get(pk=first.pk).status == Status.CANCELLED
    (folder / "lab.py").write_text(files.RULE)  # and nobody has looked
    assert client.post(f"/api/simulations/{first.pk}/resume/", content_type="application/json").status_code == 200


@pytest_db
def test_a_start_takes_the_source_of_that_moment_or_says_that_it_is_not_known_yet(
    plugged: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = plugged(lab=files.RULE)
    first = queued(reward_rule="lab/rule")
    for number in range(4):  # faster than the catalogue looks
        text = f"{files.RULE}# {number}\n"
        (folder / "lab.py").write_text(text)
        other = queued(reward_rule="lab/rule")
        assert Source.objects.get(pk=other.config["reward_rule"]["source_sha256"]).files == {"lab.py": text}
    go_on, described = threading.Event(), catalogue.described
    monkeypatch.setattr(catalogue, "described", lambda *given: go_on.wait(60) and described(*given))
    monkeypatch.setattr(plugins, "PATIENCE", 0.1)
    (folder / "lab.py").write_text(files.RULE)
    with pytest.raises(kinds.ConfigError, match="lab/rule has just changed and is still being looked at; try again"):
        queued(reward_rule="lab/rule")
    assert plugins.lacking(first.config) == ["the plug-in lab/rule has just changed and is being looked at"]
    go_on.set()
    monkeypatch.undo()
    assert queued(reward_rule="lab/rule").config == first.config
    assert plugins.lacking(first.config) == []


@pytest_db
@pytest.mark.database
def test_a_worker_claims_only_what_it_has_and_others_pass(plugged: Callable[..., Path], client: Browser) -> None:
    folder = plugged(lab=files.RULE)
    waiting = [queued(reward_rule="lab/rule") for _ in range(lifecycle.LOOKED_AT + 5)]
    behind = queued()
    (folder / "lab.py").unlink()
    plugged()
    claim = lifecycle.claim_next()
    assert claim is not None
    assert claim.simulation_id == behind.pk
    assert lifecycle.claim_next() is None
    assert "the plug-in lab/rule is not here" in client.get(f"/simulations/{waiting[0].pk}/").content.decode()
    assert "the plug-in lab/rule is not here" in client.get(f"/simulations/{waiting[0].pk}/place/").content.decode()
    sentences = ["the plug-in lab/rule is not here"]
    assert client.get(f"/api/simulations/{waiting[0].pk}/").json()["lacking"] == sentences
    listed = {each["id"]: each["lacking"] for each in client.get("/api/simulations/").json()}
    assert (listed[waiting[0].pk], listed[behind.pk]) == (sentences, [])
    plugged(lab=files.RULE)
    claim = lifecycle.claim_next()
    assert claim is not None
    assert claim.simulation_id == waiting[0].pk
    assert client.get(f"/api/simulations/{waiting[1].pk}/").json()["lacking"] == []


FALLS = """
import os, sys
from extensions import Behaviour, Kind, Payment

IS_TRAINER = sys.argv[0].endswith("trainer.py")  # its description sees nothing of it

def rule(facts, pool, state):
    if IS_TRAINER:
        os._exit(7)
    return Payment(shares=[0] * len(facts.clients))

def behaviour():
    def update(delta):
        if IS_TRAINER:
            os.abort()
        return delta
    return Behaviour(update=update)

KINDS = (
    Kind(family="rule", name="rule", help="Falls", code=rule),
    Kind(family="behaviour", name="behaviour", help="Falls", code=behaviour),
)
"""


def test_who_ends_the_trainer_is_named_and_is_not_tried_again(
    start_server: Callable[..., servers.Server], tmp_path: Path
) -> None:
    """It was said that the worker was lost, three times."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    (folder / "lab.py").write_text(FALLS)
    site = start_server(FEDSITE_PLUGINS_DIR=str(folder))
    run = {"dataset": "digits", "num_clients": 2, "num_rounds": 2}
    with httpx.Client(base_url=site.url, timeout=60) as client:
        given = ({"reward_rule": "lab/rule"}, {"behaviours": {"1": {"kind": "lab/behaviour"}}})
        pages = [f"/api/simulations/{started(client, run | each)}/" for each in given]
        end = time.monotonic() + 120
        while any(client.get(page).json()["status"] in ("queued", "running") for page in pages):
            assert time.monotonic() < end
            time.sleep(0.5)
        assert [client.get(page).json()["failure"] for page in pages] == [
            "The trainer ended without a word (exit status 7, inside the plug-in lab/rule)",
            "The trainer ended without a word (signal SIGABRT, inside the plug-in lab/behaviour)",
        ]


@pytest_db
def test_one_that_was_switched_off_ends_what_it_began_and_begins_nothing(plugged: Callable[..., Path]) -> None:
    from extensions.models import Plugin

    plugged(lab=files.RULE)
    first = queued(reward_rule="lab/rule")
    Plugin.objects.create(pk="lab/rule", is_enabled=False)
    catalogue.current.settle()
    with pytest.raises(ValueError, match="'lab/rule' is not one of"):
        queued(reward_rule="lab/rule")
    claim = lifecycle.claim_next()
    assert claim is not None
    assert claim.simulation_id == first.pk
