"""The form that starts a simulation: text to values, presets with and without JavaScript, errors at the field."""

import json

import pytest
from django.http import QueryDict

import kinds
from simulations.config import FIELDS, SimulationConfig
from simulations.presets import PRESETS
from simulations.showing.forms import (
    StartForm,
    behaviour_catalogue,
    detector_catalogue,
    preset_texts,
    texts_of,
    threshold_catalogue,
)
from simulations.showing.typed import as_text, parse_behaviours, parse_population
from training.config import ConfigError


def sent(**fields: str) -> StartForm:
    data = QueryDict(mutable=True)
    data.update({"preset": "default", "filled": "default"} | preset_texts("default") | fields)
    return StartForm(data)


def test_it_has_every_field_once():
    form = StartForm()
    names = [field.name for field in form.first] + [field.name for _, fields in form.groups for field in fields]
    assert sorted(names) == sorted(FIELDS)


def test_it_starts_with_the_usual_configuration():
    assert StartForm().config() == SimulationConfig.of()


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_applies_without_javascript(preset):
    assert sent(preset=preset).config() == SimulationConfig.of(**PRESETS[preset].values)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_filled_in_preset_is_the_same(preset):
    texts = {name: text.replace("\n", "\r\n") for name, text in preset_texts(preset).items()}
    assert sent(**texts, preset=preset, filled=preset).config() == SimulationConfig.of(**PRESETS[preset].values)


def test_what_was_entered_by_hand_wins_over_the_preset():
    config = sent(preset="specialists", num_rounds="3").config()
    assert (config.num_rounds, config.partition.kind) == (3, "pathological")


def test_a_filled_in_field_may_be_put_back_to_the_usual():
    texts = preset_texts("specialists") | {"num_rounds": "10"}
    assert sent(**texts, preset="specialists", filled="specialists").config().num_rounds == 10


def test_a_changed_preset_leaves_nothing_of_the_one_before():
    config = sent(**preset_texts("free_rider"), preset="uneven", filled="free_rider").config()
    assert config == SimulationConfig.of(**PRESETS["uneven"].values)


def test_the_browser_gets_what_each_preset_changes():
    for preset in StartForm().presets:
        texts = preset_texts("default") | json.loads(preset["texts"])
        assert texts == preset_texts(preset["name"])


def test_parameters_are_read_of_the_chosen_kind_alone():
    texts = {"strategy": "fedprox", "strategy.fedprox.proximal_mu": "0.3", "strategy.fedadam.tau": "much"}
    assert sent(**texts).config() == SimulationConfig.of(strategy="fedprox", proximal_mu=0.3)
    wrong = sent(
        **texts | {"strategy.fedprox.proximal_mu": "-1", "partition": "quantity", "partition.quantity.alpha": ""}
    )
    assert wrong.config() is None
    assert wrong.errors.keys() == {"strategy.fedprox.proximal_mu", "partition.quantity.alpha"}
    field = next(each for group, fields in wrong.groups for each in fields if each.name == "strategy")
    (chosen,) = [kind for kind in field.of_kinds if kind.is_chosen]
    assert chosen.fields[0].error == wrong.errors["strategy.fedprox.proximal_mu"]


def test_a_flat_name_that_the_chosen_kind_does_not_have_is_an_error():
    assert StartForm(QueryDict("strategy=fedprox&proximal_mu=0.3")).config().strategy["proximal_mu"] == 0.3
    form = sent(alpha="0.5")
    assert form.config() is None
    assert form.elsewhere == {"alpha": "iid has no 'alpha'"}


def test_a_population_is_read_line_by_line():
    text = "20% label flip fraction=0.5\r\n0.1 free_rider from_round=3\n"
    entries = [
        {"share": 0.2, "kind": "label_flip", "fraction": 0.5},
        {"share": 0.1, "kind": "free_rider", "from_round": 3},
    ]
    config = sent(population=text).config()
    assert config == SimulationConfig.of(population=entries)
    assert sent(**texts_of(config.to_dict())).config() == config
    form = sent(population="free_rider")
    assert form.config() is None
    assert form.errors == {"population": "line 1: expected a share and a behaviour, as in 20% free_rider"}


def test_missing_fields_are_the_usual_ones():
    assert StartForm(QueryDict("num_rounds=3")).config() == SimulationConfig.of(num_rounds=3)


@pytest.mark.parametrize(
    ("field", "text", "error"),
    [
        ("num_clients", "", "a number is missing"),
        ("num_clients", "ten", "'ten' is not a number"),
        ("lr", "0,1", "'0,1' is not a number"),
        ("preset", "no such", "there is no preset 'no such'"),
        ("behaviours", "free_rider", "line 1: expected a client, a colon and a behaviour, as in 3: free_rider"),
        ("behaviours", "3: free_rider\n\n03: label_flip", "line 3: client 3 is named twice"),
        ("behaviours", "0: free_rider", "line 1: '0' is not a client number or a stretch of them, as in 4-6"),
        ("behaviours", "1-3: free_rider\n2: label_flip", "line 2: client 2 is named twice"),
        ("population", "1..2% free_rider", "line 1: '1..2' is not a number"),
    ],
)
def test_it_says_at_the_field_what_is_no_value(field, text, error):
    form = sent(**{field: text})
    assert form.config() is None
    assert form.errors == {field: error}


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("num_clients", "0", 0),
        ("num_clients", "2.5", 2.5),
        ("num_clients", "9" * 5000, float("inf")),
        ("lr", "nan", float("nan")),
        ("lr", "0", 0),
        ("model", "<script>", "<script>"),
        ("behaviours", "11: free_rider", {11: {"kind": "free_rider"}}),
        ("behaviours", "3: label_flip fraction=2", {3: {"kind": "label_flip", "fraction": 2}}),
        ("behaviours", "3: label_flip fraction=much", {3: {"kind": "label_flip", "fraction": "much"}}),
    ],
)
def test_it_leaves_all_other_errors_to_the_configuration(field, text, value):
    form = sent(**{field: text})
    assert form.config() is None
    with pytest.raises(ConfigError) as raised:
        SimulationConfig.from_dict({field: value})
    assert form.errors.keys() == raised.value.errors.keys() == {field}
    assert form.errors[field].replace("'0'", "0") == raised.value.errors[field]
    assert form.field(field).value == text  # what was entered is still there


def test_it_names_every_wrong_field_at_once():
    form = sent(num_clients="0", lr="x", behaviours="?")
    assert form.config() is None
    assert set(form.errors) == {"num_clients", "lr", "behaviours"}
    assert form.is_open
    only_first = sent(num_clients="0")
    only_first.config()
    assert not only_first.is_open


def test_large_whole_numbers_stay_exact():
    assert sent(seed=str(2**32 - 1)).config().seed == 2**32 - 1


def test_it_reads_behaviours_line_by_line():
    text = "3: free_rider\r\n  5 : label flip  fraction=0.5\n\n7:sign_flip scale = 2\n"
    assert parse_behaviours(text) == {
        "3": {"kind": "free_rider"},
        "5": {"kind": "label_flip", "fraction": 0.5},
        "7": {"kind": "sign_flip", "scale": 2},
    }


def test_every_kind_of_behaviour_can_be_chosen_in_a_row():
    kinds_of_rows = {kind["name"]: [field["name"] for field in kind["fields"]] for kind in behaviour_catalogue()}
    assert kinds_of_rows == {
        kind.name: [*kind.parameters, "from_round", "to_round"]
        for kind in kinds.family("behaviour").values()
        if kind.name != "honest"
    }


def test_rows_know_every_detector_and_what_costs_stake():
    known = kinds.family("detector")
    assert {kind["name"]: [field["name"] for field in kind["fields"]] for kind in detector_catalogue()} == {
        name: list(kind.parameters) for name, kind in known.items()
    }
    for kind in threshold_catalogue():
        own = [f"detector.{name}" for name in known[kind["name"]].parameters]
        assert [field["name"] for field in kind["fields"]] == ["above", "share", *own]
    assert [field["label"] for field in threshold_catalogue()[0]["fields"]] == ["Score above", "Share lost"]


def test_clients_that_do_the_same_are_one_line():
    behaviours = {client: {"kind": "label_flip", "fraction": 0.5} for client in (2, 4, 5, 6)} | {
        3: {"kind": "sign_flip", "from_round": 2}
    }
    values = SimulationConfig.of(behaviours=behaviours).to_dict()
    assert as_text(values["behaviours"]) == "2, 4-6: label_flip fraction=0.5\n3: sign_flip from_round=2"
    assert SimulationConfig.of(behaviours=parse_behaviours(as_text(values["behaviours"]))).to_dict() == values


def test_a_short_text_cannot_name_millions():
    form = sent(behaviours="\n".join(f"{100_000 * i + 1}-{100_000 * (i + 1)}: free_rider" for i in range(10)))
    assert form.config() is None
    assert form.errors["behaviours"].startswith("line 2: more than 100,000 clients are named")


def test_a_share_keeps_its_last_digit_as_percent():
    for share in (0.07, 1 / 3, 0.29, 1e-05, 1.0):
        values = SimulationConfig.of(population=[{"share": share, "kind": "free_rider"}]).to_dict()
        assert parse_population(as_text(values["population"])) == [{"share": share, "kind": "free_rider"}]


def test_the_fields_beside_the_button_open_nothing():
    form = sent(**{"partition": "dirichlet", "partition.dirichlet.alpha": "0"})
    assert form.config() is None
    assert not form.is_open


def test_behaviours_survive_the_way_through_text():
    behaviours = SimulationConfig.of(
        behaviours={3: {"kind": "free_rider"}, 5: {"kind": "label_flip", "fraction": 0.3}}
    ).behaviours
    assert SimulationConfig.of(behaviours=parse_behaviours(as_text(behaviours))).behaviours == behaviours
