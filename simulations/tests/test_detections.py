"""What detectors said, how well it tells, and who lost stake why: from the rows, in JSON, in tables, in the shell."""

import csv
import io
import zipfile
from collections import Counter
from itertools import pairwise

import pytest
from django.contrib.auth.models import User
from django.test import Client as Browser
from sklearn.metrics import roc_auc_score

from incentives.specification import Specification
from simulations import detections, tables
from simulations.config import SimulationConfig
from simulations.models import Client, ShadowClient, Simulation
from simulations.showing import progress, results
from simulations.tests.test_stakes import DETECTORS, happened, recorded

pytestmark = [pytest.mark.django_db, pytest.mark.database]


def api(address: str, status: int = 200, browser: Browser | None = None):
    response = (browser or Browser()).get(f"/api/simulations/{address}")
    assert response.status_code == status, response.content
    return response.json()


def test_who_points_the_other_way_is_told_apart():
    watch = detections.watch(recorded())
    assert [each.number for each in watch.rounds] == [1, 2, 3]
    assert {each.cheats for each in watch.rounds} == {(False, False, True, False)}
    assert watch.cheats == 3
    found = {each.name: each for each in watch.detectors}
    assert list(found) == DETECTORS
    for name, detector in found.items():
        pairs = [pair for row in watch.rounds for pair in row.pairs(name)]
        assert detector.auc == pytest.approx(roc_auc_score([is_so for _, is_so in pairs], [each for each, _ in pairs]))
    assert found["direction"].auc == 1.0
    (threshold,) = found["direction"].thresholds
    assert (threshold.above, threshold.share) == (0.5, 0.25)
    assert (threshold.named, threshold.found, threshold.cheats) == (3, 3, 3)
    assert (threshold.precision, threshold.recall) == (1.0, 1.0)


def test_losses_are_those_of_the_rows_and_say_why():
    simulation = recorded()
    watch = detections.watch(simulation)
    losses = list(watch.losses())
    assert {each.client for each in losses} == {3}
    assert sum(each.microtokens for each in losses) == Client.objects.get(number=3).slashed_microtokens
    assert losses[0].stake == 5_000_000
    for each, later in pairwise(losses):
        assert later.stake == each.stake - each.microtokens
    first = losses[0].reasons[0]
    assert (first.kind, first.microtokens, first.above, first.share) == ("direction", 1_250_000, 0.5, 0.25)
    assert first.score > 0.5
    for each in losses:
        row = watch.rounds[each.round_number - 1]
        by_rule = [reason for reason in each.reasons if reason.kind == "slashing"]
        assert len(by_rule) == int(row.contributions[2] < 0)
        assert each.microtokens == min(each.stake, sum(reason.microtokens for reason in each.reasons))
    shadow = simulation.shadows.get(label="burned")
    burned = Counter()
    for each in detections.watch(simulation, shadow).losses():
        burned[each.client] += each.microtokens
    assert burned == Counter(
        dict(
            ShadowClient.objects.filter(shadow=shadow, slashed_microtokens__gt=0).values_list(
                "number", "slashed_microtokens"
            )
        )
    )
    assert list(detections.watch(simulation, simulation.shadows.get(label="trusted")).losses()) == []


def test_reasons_may_ask_for_more_than_there_is():
    economy = Specification.from_dict(
        SimulationConfig.of(
            dataset="mnist",
            stake=1.0,
            reward_rule="slashing",
            slashing=[
                {"detector": "norm", "above": 0.2, "share": 0.7},
                {"detector": "replay", "above": 0.9, "share": 0.7},
            ],
        ).to_dict()
    )
    said = detections.reasons(economy, {"norm": 0.5, "replay": 0.95}, -0.1, 11, 11)
    assert [(each.kind, each.microtokens) for each in said] == [("norm", 7), ("replay", 7)]
    said = detections.reasons(economy, {"norm": 0.5, "replay": 0.9}, -0.1, 11, 10)
    assert [(each.kind, each.microtokens, each.contribution) for each in said] == [
        ("norm", 7, None),
        ("slashing", 3, -0.1),
    ]


def test_the_truth_is_what_is_configured_round_by_round():
    config = SimulationConfig.of(
        dataset="digits",
        num_clients=6,
        behaviours={
            2: {"kind": "sign_flip", "from_round": 3, "to_round": 4},
            4: {"kind": "sybil_copy", "identities": 2},
            5: {"kind": "collusion", "group": [5, 6]},
        },
    )
    does_cheat = detections.cheating(config)
    assert [does_cheat(2, number) for number in (2, 3, 4, 5)] == [False, True, True, False]
    assert [client for client in range(1, 8) if does_cheat(client, 1)] == [4, 5, 6, 7]


def test_it_takes_few_queries_and_so_many_rounds(django_assert_num_queries, monkeypatch):
    simulation = recorded()
    shadow = simulation.shadows.get(label="burned")
    with django_assert_num_queries(2):
        detections.watch(simulation)
    with django_assert_num_queries(3):
        detections.watch(simulation, shadow)
    for most, rounds in ((8, 2), (7, 1), (1, 1)):
        monkeypatch.setattr(detections, "MOST_PARTS", most)
        assert len(detections.watch(simulation).rounds) == len(detections.watch(simulation, shadow).rounds) == rounds
    monkeypatch.setattr(detections, "MOST_PARTS", 100)
    monkeypatch.setattr(detections, "MOST_ROUNDS", 2)
    assert [each.number for each in detections.watch(simulation).rounds] == [1, 2]


def test_json_says_the_same():
    simulation = recorded()
    told = api(f"{simulation.pk}/detectors/")
    assert (told["economy"], told["rounds_done"]) == ("paying", 3)
    assert [each["detector"] for each in told["detectors"]] == DETECTORS
    direction = told["detectors"][DETECTORS.index("direction")]
    assert direction["thresholds"][0]["recall"] == 1.0
    first = told["rounds"][0]
    assert (first["cohort"], first["cohort_size"], first["cheats"]) == ([1, 2, 3, 4], 4, [False, False, True, False])
    assert first["scores"]["direction"][2] > 0.5
    assert first["auc"]["direction"] == 1.0
    assert {each["client"] for each in told["losses"]} == {3}
    assert told["losses"][0]["reasons"][0]["kind"] == "direction"
    assert api(f"{simulation.pk}/detectors/?economy=burned")["detectors"][0]["detector"] == "norm"
    assert "has no economy nobody" in api(f"{simulation.pk}/detectors/?economy=nobody", 404)["detail"]
    api("999/detectors/", 404)


def test_stakes_are_told_of_each_client():
    simulation = recorded()
    lost = dict(Client.objects.values_list("number", "slashed_microtokens"))
    record = api(f"{simulation.pk}/")
    paying, burned, trusted, _ = api(f"{simulation.pk}/economies/")
    for clients in (record["clients"], paying["clients"]):
        assert {each["client"]: each["slashed_microtokens"] for each in clients} == lost
        assert all(each["stake_microtokens"] == 5_000_000 - each["slashed_microtokens"] for each in clients)
    assert sum(each["slashed_microtokens"] for each in burned["clients"]) > 0
    assert {each["stake_microtokens"] for each in trusted["clients"]} == {0}
    shadow = simulation.shadows.get(label="burned")
    assert [each["stake_microtokens"] for each in results.clients_of(simulation, shadow)] == [
        each["stake_microtokens"] for each in burned["clients"]
    ]


def test_only_who_may_see_the_run_sees_it(settings):
    simulation = recorded()
    settings.FEDSITE_ACCESS = "login"
    api(f"{simulation.pk}/detectors/", 401)
    settings.FEDSITE_OTHERS_MAY_LOOK = False
    ada, eve = (User.objects.create_user(name) for name in ("ada", "eve"))
    Simulation.objects.filter(pk=simulation.pk).update(owned_by=ada)
    for who, status in ((ada, 200), (eve, 404)):
        browser = Browser()
        browser.force_login(who)
        api(f"{simulation.pk}/detectors/", status, browser)


def test_tables_have_stakes_losses_and_scores():
    simulation = recorded()
    archive = zipfile.ZipFile(io.BytesIO(b"".join(tables.zipped(simulation))))
    found = {name: list(csv.DictReader(io.StringIO(archive.read(f"{name}.csv").decode()))) for name in tables.COLUMNS}
    lost = sum(int(row["slashed_microtokens"]) for row in found["payments"] if row["economy"] == "paying")
    assert lost == Client.objects.get(number=3).slashed_microtokens
    assert Counter(row["economy"] for row in found["stakes"]) == {"paying": 4, "burned": 4}
    assert {row["stake_microtokens"] for row in found["stakes"]} == {"5000000"}
    assert len(found["scores"]) == 4 * 3 * 4 * len(DETECTORS)
    watch = detections.watch(simulation)
    third = [
        row["score"]
        for row in found["scores"]
        if (row["economy"], row["detector"], row["client"]) == ("paying", "norm", "3")
    ]
    assert [float(score) for score in third] == [row.scores["norm"][2] for row in watch.rounds]


def test_a_run_that_is_not_recorded_tells_the_same():
    simulation = recorded()
    recorded_, told = results.of_simulation(simulation), results.of_events(happened())
    assert told["clients"] == [
        each | {"contribution": pytest.approx(each["contribution"])} for each in recorded_["clients"]
    ]
    names = ("slashed_microtokens", "treasury_microtokens", "burned_microtokens", "paid_microtokens")
    sums = [[each[name] for name in names] for each in results.economy_sums(simulation)]
    assert [[each[name] for name in names] for each in told["economy_sums"]] == sums
    assert sums[0][0] > 0
    lines = progress.table(told).splitlines()
    assert "Stake lost" in lines[0]
    assert lines[3].endswith(f"{Client.objects.get(number=3).slashed_microtokens / 1e6:.3f}")
    unstaked = [client | {"stake_microtokens": 0, "slashed_microtokens": 0} for client in told["clients"]]
    assert "Stake lost" not in progress.clients_table(unstaked)
