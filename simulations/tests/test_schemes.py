"""What a row keeps of the release that queued it, what a repeat of it says, and on what it was trained."""

import dataclasses
import json

import pytest
from django.contrib.auth import get_user_model
from django.test import Client as Browser

from simulations.config import SimulationConfig
from simulations.models import Origin, Simulation
from simulations.running import lifecycle, manifest, worker
from simulations.showing import results
from simulations.tests.cast import claimed, config, first_record, happened, queued, recorded

pytestmark = [pytest.mark.django_db, pytest.mark.database]
MEDIAN = {"strategy": "median", "utility_weights": "renormalised"}  # with a free rider, as all of the cast's


def of_the_first_release(**fields) -> Simulation:
    """A row as that release left it waiting."""
    values = first_record(config(**fields))
    simulation = queued(**fields)
    Simulation.objects.filter(pk=simulation.pk).update(config=values, scheme=1)
    return Simulation.objects.get(pk=simulation.pk)


def test_a_row_that_waits_is_trained_under_its_scheme():
    assert queued().scheme == 3
    old = of_the_first_release()
    told = worker.assignment_for(claimed(old))
    assert (told.scheme, told.config["pool"], "game" in told.config) == (1, "improvement", False)
    assert SimulationConfig.from_record(told.config, told.scheme).pool.kind == "improvement_each_round"


def test_run_again_on_the_page_keeps_the_meaning_and_names_what_it_cannot():
    old = of_the_first_release(**MEDIAN)
    assert Browser(headers={"Origin": "http://testserver"}).post(f"/simulations/{old.pk}/again/").status_code == 302
    fresh = Simulation.objects.latest("pk")
    pool = fresh.config["pool"]["kind"]
    assert (fresh.scheme, pool, fresh.config["game"]) == (3, "improvement_each_round", "fedavg")
    warnings = [event.message for event in fresh.events.all() if event.data.get("level") == "warning"]
    assert [warning.split(": ")[1] for warning in warnings] == ["strategy", "valuation"]


def test_a_clone_keeps_the_meaning_and_names_what_it_cannot():
    old, plain = of_the_first_release(**MEDIAN), queued()
    changed = [
        Browser().post(f"/api/simulations/{number}/clone/", "{}", "application/json").json()["changed"]
        for number in (old.pk, plain.pk)
    ]
    assert [sentence.partition(":")[0] for sentence in changed[0]] == ["strategy", "valuation"]
    assert changed[1] == []
    assert Simulation.objects.latest("pk").config == plain.config


def test_the_admin_runs_again_with_the_meaning_too():
    old = of_the_first_release()
    browser = Browser()
    browser.force_login(get_user_model().objects.create_superuser("root"))
    browser.post("/admin/simulations/simulation/", {"action": "run_again", "_selected_action": [old.pk]})
    assert Simulation.objects.latest("pk").config["pool"]["kind"] == "improvement_each_round"


def test_the_page_of_an_old_row_speaks_todays_words():
    old = of_the_first_release(**MEDIAN)
    html = Browser().get(f"/simulations/{old.pk}/").content.decode()
    assert "improvement each round" in html
    assert "Queued by the first release" in html
    assert results.of_simulation(old)["game"] == "fedavg"


def test_the_page_says_to_whose_model_contributions_are():
    note = "to the model of plain federated averaging, not to that of median"
    simulation = recorded()
    assert note not in Browser().get(f"/simulations/{simulation.pk}/").content.decode()
    other = {"strategy": {"kind": "median"}}
    Simulation.objects.filter(pk=simulation.pk).update(config=simulation.config | other)
    assert note not in Browser().get(f"/simulations/{simulation.pk}/").content.decode(), "its game is the server's"
    Simulation.objects.filter(pk=simulation.pk).update(config=simulation.config | other | {"game": "fedavg"})
    assert note in Browser().get(f"/simulations/{simulation.pk}/").content.decode()


def test_each_start_and_each_going_on_leaves_its_manifest():
    resolved = happened()[0]
    simulation = recorded(until=1 + [event.kind for event in happened()].index("round"))
    lifecycle.cancel(simulation.pk)
    claim = claimed(lifecycle.resume(simulation.pk))
    worker.write(claim, resolved)
    assert not warnings_of(simulation)
    worker.write(claim, resolved)  # a trainer that was lost before its first round
    worker.write(claim, dataclasses.replace(resolved, manifest=resolved.manifest | {"processor": "Abacus 9"}))
    kept = results.of_simulation(Simulation.objects.get(pk=simulation.pk))["manifests"]
    assert [(entry["after_round"], entry["processor"]) for entry in kept] == [
        (0, resolved.manifest["processor"]),
        (1, resolved.manifest["processor"]),
        (1, "Abacus 9"),
    ]
    assert "Abacus 9" in warnings_of(simulation)[0]
    html = Browser().get(f"/simulations/{simulation.pk}/").content.decode()
    assert f"Trained with fedsite {manifest.VERSION}, PyTorch" in html
    assert "after round 1: fedsite" in html


def warnings_of(simulation: Simulation) -> list[str]:
    return [
        event.message
        for event in simulation.events.filter(kind="log")
        if event.data.get("level") == "warning" and "may round otherwise" in event.message
    ]


def test_a_run_that_got_worse_says_so_on_its_page_and_in_json_in_a_few_digits():
    simulation = recorded()
    assert results.record(simulation)["warning"] is None
    Simulation.objects.filter(pk=simulation.pk).update(loss=4.2e25)
    sentence = "The model is worse than it began: test loss 2."
    answer = json.loads(Browser().get(f"/api/simulations/{simulation.pk}/").content)
    assert answer["warning"].startswith(sentence)
    assert answer["warning"].endswith("4.20e+25 now")
    html = Browser().get(f"/simulations/{simulation.pk}/").content.decode()
    assert sentence in html
    assert "<dd>4.20e+25</dd>" in html


def test_a_shell_run_keeps_todays_scheme():
    assert lifecycle.queue(config(), origin=Origin.SHELL).scheme == 3
