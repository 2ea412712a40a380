"""What a run takes is told before it starts, in JSON, in the shell; and what is too much is refused with its field."""

import dataclasses
import json

import pytest
from django.core.cache import cache
from django.test import Client as Browser

import kinds
from incentives.models import Account, Transaction, Transfer
from incentives.valuation.evidence import unpack
from kinds import ConfigError
from simulations import durations, estimates, paces
from simulations.durations import PHASES, Pace, Past
from simulations.models import Client, Contribution, Event, Round, Simulation
from simulations.tests.cast import config, queued, recorded, rounds

FIELDS = {"num_clients": 10, "num_rounds": 100, "dataset": "mnist"}


def took(times: float, **fields) -> Past:
    """A run that took so many times as long as the model says."""
    past = config(**FIELDS | fields)
    expected = durations.of_phases(past)
    return Past(config=past, rounds=1000, seconds={phase: times * expected[phase] for phase in PHASES})


def test_a_machine_that_has_run_something_knows_its_pace():
    asked = config(**FIELDS)
    usual = estimates.estimate(asked)
    assert usual.paced_by == 0
    slow = [took(3.0), took(5.0), took(4.0), took(100.0, model="cnn")]
    paced = estimates.estimate(asked, slow)
    assert paced.paced_by == 3  # of the same model
    share = (usual.seconds - durations.seconds(asked, Pace(train=0, evaluate=0, valuation=0))) * 3
    assert paced.seconds == pytest.approx(usual.seconds + share, rel=0.05)
    of_others = Pace.of(slow[:3], config(**FIELDS | {"model": "2nn"}))  # where there is none of its own
    assert of_others.train == pytest.approx(4.0, rel=0.05)


def test_a_tiny_run_tells_little_of_a_long_one():
    tiny = config(num_rounds=3, dataset="digits")
    odd = Past(config=tiny, rounds=3, seconds=dict.fromkeys(PHASES, 0.06))  # a hundred times what was computed
    asked = config(**FIELDS)
    assert estimates.estimate(asked, [odd]).seconds < 1.5 * estimates.estimate(asked).seconds


def test_a_phase_that_no_run_had_is_at_the_models_own_pace():
    silent = dataclasses.replace(took(2.0), seconds={"train": 8.0, "evaluate": 0.0, "valuation": 0.0})
    pace = Pace.of([silent], config(**FIELDS))
    assert (pace.evaluate, pace.valuation) == (1.0, 1.0)
    assert pace.train > 0


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ({}, {"num_rounds": 200}),
        ({}, {"local_epochs": 2}),
        ({}, {"batch_size": 1}),
        ({}, {"model": "cnn"}),
        ({"evaluate_every": 10}, {}),
        ({"behaviours": {"1": {"kind": "free_rider"}}}, {"behaviours": {}}),
        ({"population": [{"share": 0.5, "kind": "low_effort", "fraction": 0.2}]}, {}),
        ({"valuation": "data_size"}, {"valuation": "shapley"}),
        ({"strategy": "fedavg", "valuation": "data_size"}, {"strategy": "median", "valuation": "data_size"}),
        ({"strategy": "fedavg", "num_clients": 8}, {"strategy": "median", "num_clients": 8}),
        ({}, {"shadows": [{"label": "x", "utility": "accuracy"}]}),
        ({"fraction_fit": 0.5}, {"fraction_fit": 1.0}),
    ],
)
def test_more_work_takes_longer(less, more):
    assert estimates.estimate(config(**FIELDS | less)).seconds < estimates.estimate(config(**FIELDS | more)).seconds


@pytest.mark.django_db
@pytest.mark.database
def test_a_run_writes_no_more_rows_than_was_said_and_not_many_fewer():
    simulation = recorded()
    of_ledger = {"ledger": simulation.ledger}
    written = (
        1  # the ledger
        + Simulation.objects.count()
        + Client.objects.count()
        + Round.objects.count()
        + Contribution.objects.count()
        + Event.objects.count()
        + Account.objects.filter(**of_ledger).count()
        + Transaction.objects.filter(**of_ledger).count()
        + Transfer.objects.filter(transaction__ledger=simulation.ledger).count()
    )
    said = estimates.rows(config())
    assert 0.75 * said <= written <= said


def test_it_counts_coalitions_as_they_are_evaluated():
    evaluated = sum(len(unpack(done.evidence).utilities) for done in rounds())
    assert estimates.estimate(config()).coalitions == 3 * 2**4 >= evaluated  # one of the four sends nothing
    assert estimates.estimate(config(valuation="leave_one_out")).coalitions == 3 * 5
    assert estimates.estimate(config(valuation="equal")).coalitions == 0


def test_it_knows_what_can_be_paid_at_most():
    assert estimates.estimate(config(pool="fixed", pool_tokens=3)).tokens == 9.0
    halved = config(pool={"kind": "halving", "tokens": 8, "rounds": 2}, num_rounds=5)
    assert estimates.estimate(halved).tokens == 8 + 8 + 4 + 4 + 2
    decayed = config(pool={"kind": "decay", "tokens": 8, "factor": 0.5}, num_rounds=3)
    assert estimates.estimate(decayed).tokens == 8 + 4 + 2
    assert estimates.estimate(config(pool={"kind": "treasury", "tokens": 8, "rounds": 2})).tokens == 8.0
    paid = sum(done.pool_microtokens for done in rounds()) / 1e6
    assert paid < estimates.estimate(config()).tokens == pytest.approx(23.02585093)
    assert estimates.estimate(config(pool="improvement_each_round")).tokens is None
    assert estimates.estimate(config(valuation="none", validation_size=0)).tokens == 0.0


def refused(**limits) -> dict[str, str]:
    with pytest.raises(ConfigError) as raised:
        estimates.refuse(config(**FIELDS), **{"most_bytes": 10**12} | limits)
    return raised.value.errors


def test_what_is_too_much_is_refused_with_the_figure_and_the_field():
    rows, seconds = estimates.rows(config(**FIELDS)), estimates.estimate(config(**FIELDS)).seconds
    estimates.refuse(config(**FIELDS), most_bytes=10**12, most_rows=rows, most_seconds=round(seconds) + 1)
    assert refused(most_rows=rows // 2) == {
        "num_rounds": f"this run writes about {rows:,} rows, and {rows // 2:,} are allowed (FEDSITE_MAX_ROWS); "
        "some 49 rounds fit"
    }
    assert list(refused(most_rows=20)) == ["num_clients"]
    assert "are allowed (FEDSITE_MAX_SECONDS); some" in refused(most_seconds=int(seconds / 2))["num_rounds"]


@pytest.fixture
def browser():
    cache.clear()
    return Browser(headers={"Origin": "http://testserver"})


def ask(browser: Browser, **fields):
    return browser.post("/api/estimate/", json.dumps(fields), content_type="application/json")


@pytest.mark.django_db
@pytest.mark.database
def test_json_tells_before_a_start_and_starts_nothing(browser, settings):
    answer = ask(browser, **FIELDS).json()
    assert answer == estimates.estimate(config(**FIELDS | {"lr": 0.05, "behaviours": {}})).to_dict() | {"refused": None}
    settings.FEDSITE_MAX_ROWS = 100
    assert list(ask(browser, **FIELDS).json()["refused"]) == ["num_rounds"]
    assert ask(browser, strategy="fedavg", server_lr=3).status_code == 422
    assert Simulation.objects.count() == 0


@pytest.mark.django_db
@pytest.mark.database
def test_the_pace_is_that_of_recent_runs(browser):
    simulation = recorded()
    cache.clear()
    (known,) = paces.past()
    assert known.config.sha256() == simulation.config_sha256
    mean = sum(row.train_seconds for row in simulation.rounds.all()) / 3
    assert known.seconds["train"] == pytest.approx(mean)
    assert ask(browser, **FIELDS).json()["paced_by"] == 1
    Simulation.objects.update(config=simulation.config | {"strategy": {"kind": "lab/gone"}})
    cache.clear()
    assert len(paces.past()) == 1  # a record outlives its plug-in
    Simulation.objects.update(config={"no": "such"})
    cache.clear()
    assert paces.past() == []


@pytest.mark.django_db
@pytest.mark.database
def test_nothing_is_queued_that_would_take_too_long(settings):
    settings.FEDSITE_MAX_SECONDS = 1
    with pytest.raises(ConfigError, match="FEDSITE_MAX_SECONDS"):
        queued()
    assert Simulation.objects.count() == 0


def test_the_catalogue_is_told_in_json(client, db):
    families = {each["family"]: each for each in client.get("/api/catalogue/").json()}
    assert families.keys() == kinds.FAMILIES.keys()
    assert (families["rule"]["field"], families["behaviour"]["field"]) == ("reward_rule", None)
    adam = next(kind for kind in families["strategy"]["kinds"] if kind["kind"] == "fedadam")
    assert adam["parameters"]["server_lr"] == {
        "type": "number",
        "default": 0.03,
        "help": "Step size of the server",
        "above": 0.0,
        "maximum": 100.0,
    }
    assert "Reddi" in adam["source"]
