"""Runs in which few play fair, from their rows: who is paid, what is verified, and what pages and files say."""

import csv
import io
import json
import subprocess
import sys
import zipfile
from functools import cache

import pytest
import torch
from django.test import Client as Browser

from fedsite.tests.machine import PROJECT
from incentives.memo import encode
from simulations import records, tables
from simulations.config import SimulationConfig
from simulations.models import Contribution, Simulation
from simulations.running import worker
from simulations.running.engine import simulate
from simulations.running.events import Event
from simulations.showing import typed
from simulations.tests.cast import NOWHERE, claimed, config, queued
from simulations.tests.test_economies import command
from simulations.tests.test_verify_ledger import verify

pytestmark = [pytest.mark.django_db, pytest.mark.database]

EQUAL = {"label": "equal", "reward_rule": "equal", "pool": {"kind": "fixed", "tokens": 6.0}}
FEW = {
    "num_clients": 6,
    "behaviours": {
        "2": {"kind": "replay"},
        "3": {"kind": "over_report", "factor": 3.0},
        "4": {"kind": "free_rider"},
        "5": {"kind": "less_data", "fraction": 0.5},
    },
    "shadows": [EQUAL],
}


@cache
def trained(name: str) -> tuple[Event, ...]:
    torch.set_num_threads(1)
    return tuple(simulate(config(**globals()[name]), data_dir=NOWHERE))


@pytest.fixture(autouse=True, scope="module")
def first() -> None:
    """Before any transaction begins, of which PostgreSQL ends the idle ones."""
    trained("FEW")
    trained("SYBILS")


def recorded(name: str = "FEW") -> Simulation:
    events, claim = trained(name), claimed(queued(**globals()[name]))
    for event in events:
        worker.write(claim, event)
    return Simulation.objects.get(pk=claim.simulation_id)


def evidence(simulation: Simulation, number: int) -> dict:
    return Browser().get(f"/api/simulations/{simulation.pk}/rounds/{number}/evidence/").json()


def test_who_sends_a_zero_update_without_training_is_there_and_paid_where_all_are_alike():
    """In round 1 there is no step to replay."""
    simulation = recorded()
    told = evidence(simulation, 1)
    assert told["facts"]["sent"] == [True, True, True, False, True, True]
    assert told["facts"]["losses_before"][1] is None
    assert told["facts"]["update_norms"][1] == 0.0
    equal = next(each for each in told["economies"] if each["label"] == "equal")
    assert equal["shares"] == [1_200_000, 1_200_000, 1_200_000, 0, 1_200_000, 1_200_000]


def test_reported_and_true_sizes_and_effort_are_facts():
    facts = evidence(recorded(), 2)["facts"]
    reported, true, effort = (facts[name] for name in ("num_examples", "true_examples", "effort"))
    assert [round(one / other) for one, other in zip(reported, true, strict=True)] == [1, 1, 3, 1, 1, 1]
    assert [each / size for each, size in zip(effort, true, strict=True)] == pytest.approx(
        [1, 0, 1, 0, 0.5, 1], abs=0.01
    )


def test_its_payments_are_verified_recomputed_and_derived_by_a_stranger(tmp_path):
    simulation = recorded()
    assert verify()[0] == 0
    assert command("recompute", simulation.pk)[0] == 0
    for number in (1, 2):
        told = evidence(simulation, number)
        (tmp_path / "evidence.json").write_text(json.dumps(told))
        script = [sys.executable, "-I", str(PROJECT / "docs/verify_payment.py"), str(tmp_path / "evidence.json")]
        done = subprocess.run(script, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "is so: shares of paying by proportional" in done.stdout


def test_that_an_update_was_not_trained_is_in_the_hash_and_in_the_files():
    simulation = recorded()
    row = simulation.rounds.get(number=2)
    parts = records.parts_of(simulation, [2])[2]
    facts = records.facts_of(simulation, row, parts)
    assert facts.sent == (True, True, True, False, True, True)
    assert b"s4:sent" in encode(facts.to_dict())
    content = b"".join(tables.zipped(simulation))
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        rows = list(csv.DictReader(io.TextIOWrapper(file.open("updates.csv"))))
    assert [row["client"] for row in rows if row["round"] == "2" and row["untrained"] == "True"] == ["2"]
    Contribution.objects.filter(untrained=True, round__number=2).update(untrained=False)
    assert verify()[0] == 1


def test_the_page_of_a_payment_says_that_it_did_not_train():
    simulation = recorded()
    page = Browser().get(f"/ledger/transactions/simulation-{simulation.pk}/2/?client=2").content.decode()
    assert "sent an update without training" in page


SYBILS = {
    "num_clients": 5,
    "behaviours": {
        "2": {"kind": "sybil_copy", "identities": 2},
        "3": {"kind": "sybil_split", "identities": 2, "from_round": 2},
        "4": {"kind": "collusion", "group": [4, 5]},
    },
    "shadows": [EQUAL],
}


def test_identities_are_clients_with_a_holder_in_rows_json_and_files():
    simulation = recorded("SYBILS")
    assert list(simulation.clients.exclude(holder=None).values_list("number", "holder")) == [(6, 2), (7, 3)]
    told = Browser().get(f"/api/simulations/{simulation.pk}/").json()
    assert [(row["client"], row["holder"]) for row in told["clients"]][4:] == [(5, 5), (6, 2), (7, 3)]
    assert [row["behaviour"] for row in told["clients"]][4:] == ["collusion", "sybil_copy", "sybil_split"]
    for economy in Browser().get(f"/api/simulations/{simulation.pk}/economies/").json():
        assert [(row["client"], row["holder"]) for row in economy["clients"]][5:] == [(6, 2), (7, 3)]
    content = b"".join(tables.zipped(simulation))
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        rows = list(csv.DictReader(io.TextIOWrapper(file.open("clients.csv"))))
        held = list(csv.DictReader(io.TextIOWrapper(file.open("updates.csv"))))
    assert [(row["client"], row["holder"]) for row in rows][4:] == [("5", "5"), ("6", "2"), ("7", "3")]
    whole, part, nothing, other = (
        next(int(row["true_examples"]) for row in held if (row["round"], row["client"]) == each)
        for each in (("1", "3"), ("2", "3"), ("1", "7"), ("2", "7"))
    )
    assert (whole, nothing) == (part + other, 0)


def test_identities_are_verified_recomputed_and_derived_by_a_stranger(tmp_path):
    simulation = recorded("SYBILS")
    assert verify()[0] == 0
    assert command("recompute", simulation.pk)[0] == 0
    told = evidence(simulation, 1)
    assert told["facts"]["holders"] == [1, 2, 3, 4, 5, 2, 3]
    assert told["facts"]["true_examples"][6] == 0
    (tmp_path / "evidence.json").write_text(json.dumps(told))
    script = [sys.executable, "-I", str(PROJECT / "docs/verify_payment.py"), str(tmp_path / "evidence.json")]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    simulation.clients.filter(number=7).update(holder=1)
    code, said = verify()
    assert (code, "round 1" in said or "client 7" in said) == (1, True)


def test_what_one_types_of_groups_and_identities_is_read_and_written():
    text = "2, 5-6: collusion group=2,5-6\n3: sybil_split identities=4 from_round=3\n9: alie z=1.5"
    read = SimulationConfig.from_dict({"behaviours": typed.parse_behaviours(text)})
    assert typed.as_text(read.to_dict()["behaviours"]) == text
    one = typed.parse_behaviours("5: collusion group=2,6\n3: sybil_split identities=4 from_round=3\n9: alie z=1.5")
    assert SimulationConfig.from_dict({"behaviours": one}) == read
    assert SimulationConfig.from_record(read.to_dict(), 3).sha256() == read.sha256()


def test_pages_know_identities_by_their_holder():
    simulation = recorded("SYBILS")
    page = Browser().get(f"/simulations/{simulation.pk}/clients/7/").content.decode()
    assert "sybil split, identity of client 3" in page
    assert "What does its holder get in all?" in page
    holder = Browser().get(f"/simulations/{simulation.pk}/clients/3/").content.decode()
    assert f'/simulations/{simulation.pk}/clients/7/">7</a>' in holder
    last = Browser().get(f"/simulations/{simulation.pk}/clients/5/").content.decode()
    assert f'rel="next" href="/simulations/{simulation.pk}/clients/6/"' in last
    everyone = Browser().get(f"/simulations/{simulation.pk}/clients/").content.decode()
    assert "sybil copy, identity of client 2" in everyone
    whole = Browser().get(f"/simulations/{simulation.pk}/").content.decode()
    assert "5 clients under 7 identities" in whole


def test_a_holders_stake_is_divided_over_its_identities():
    staked = config(**SYBILS, stake=10.0)
    _, paying = staked.economies[0]
    assert staked.members(is_paying=True).stakes(paying) == {
        **dict.fromkeys((1, 4, 5), 10_000_000),
        **dict.fromkeys((2, 3, 6, 7), 5_000_000),
    }
