"""The configuration: defaults, bounds, what fits together, and the hash."""

import dataclasses
import json
from collections import Counter

import pytest

from simulations.config import CHOICES, FIELDS, FIRST_FIELDS, SimulationConfig, renewed
from simulations.presets import PRESETS
from training.config import ConfigError


def errors(**fields) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        SimulationConfig.from_dict(fields)
    return caught.value.errors


def test_it_has_the_documented_defaults():
    config = SimulationConfig.of()
    assert (config.num_clients, config.num_rounds, config.fraction_fit, config.min_available_clients) == (
        10,
        10,
        1.0,
        2,
    )
    assert (config.local_epochs, config.batch_size, config.lr, config.momentum, config.weight_decay) == (
        1,
        32,
        0.05,
        0,
        0,
    )
    chosen = {name: getattr(config, name).to_dict() for name in CHOICES}
    assert chosen == {
        "dataset": {"kind": "auto"},
        "partition": {"kind": "iid"},
        "model": {"kind": "mlp"},
        "sampler": {"kind": "uniform"},
        "strategy": {"kind": "fedavg"},
        "valuation": {"kind": "auto"},
        "pool": {"kind": "improvement", "scaling_factor": 10.0},
        "reward_rule": {"kind": "proportional"},
    }
    assert (config.utility, config.utility_weights) == ("loss", "fixed")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("num_clients", value) for value in (0, -1, 1.5, "10", True, None, 1e300, float("nan"), [1], 1_000_001)],
        *[("lr", value) for value in (0, -0.1, float("inf"), "0.1", False, 1e400)],
        *[("momentum", value) for value in (1, -0.1)],
        *[("fraction_fit", value) for value in (-0.01, 1.01)],
        *[("dataset", value) for value in ("MNIST", "", None, 3)],
        *[("validation_size", value) for value in (-1, 0.5, "all")],
        *[("seed", value) for value in (-1, 2**32)],
        ("no_such_field", 1),
    ],
)
def test_it_names_a_bad_field(field, value):
    assert list(errors(**{field: value})) == [field]


def test_it_names_every_bad_field_at_once():
    assert set(errors(num_clients=0, lr=0, model="gpt", behaviours=[])) == {"num_clients", "lr", "model", "behaviours"}


@pytest.mark.parametrize(
    ("behaviours", "words"),
    [
        ({"0": {"kind": "free_rider"}}, "client number"),
        ({"x": {"kind": "free_rider"}}, "client number"),
        ({"11": {"kind": "free_rider"}}, "client 11 does not exist"),
        ({"1": {"kind": "thief"}}, "thief"),
        ({"1": 7}, "client 1"),
        ({"1": {"kind": "free_rider", "from_round": 0}}, "from_round"),
        ({"1": {"kind": "free_rider", "from_round": 4, "to_round": 3}}, "to_round 3 is before"),
        ({"1": {"kind": "free_rider", "source_sha256": "0"}}, "source_sha256"),
        ({"1": {"kind": "free_rider", "fraction": 1}}, "fraction"),
        ({"1": {"kind": "label_flip", "fraction": 1.1}}, "fraction"),
        ({"1": {"kind": "label_flip", "fraction": "half"}}, "fraction"),
        ({"1": {"kind": "free_rider"}, 1: {"kind": "free_rider"}}, "twice"),
    ],
)
def test_it_says_what_is_wrong_with_a_behaviour(behaviours, words):
    assert words in errors(behaviours=behaviours)["behaviours"]


def test_it_refuses_what_does_not_fit_together():
    assert "validation_size" in errors(validation_size=0)
    assert SimulationConfig.from_dict({"validation_size": 0, "valuation": "none"}).validation_size == 0
    assert "valuation" in errors(num_clients=17, valuation="shapley")
    assert "num_clients" in errors(dataset="digits", num_clients=1295)  # 1,437 less the 143 held out leave 1,294
    assert SimulationConfig.from_dict({"dataset": "digits", "num_clients": 1294}).num_clients == 1294
    assert "partition.labels_per_client" in errors(dataset="digits", partition="pathological", num_clients=700)


@pytest.mark.parametrize(
    ("clients", "share", "fewest", "cohort"),
    [(10, 1.0, 2, 10), (10, 0.5, 2, 5), (10, 0.0, 2, 2), (1, 1.0, 2, 1), (100, 0.1, 20, 20)],
)
def test_it_sizes_the_cohort(clients, share, fewest, cohort):
    config = SimulationConfig.of(num_clients=clients, fraction_fit=share, min_available_clients=fewest)
    assert config.cohort_size == cohort


def test_it_resolves_all_that_is_automatic():
    config = SimulationConfig.of().resolved("mnist")
    assert (config.dataset.kind, config.validation_size, config.valuation.kind) == ("mnist", 1000, "shapley")
    assert SimulationConfig.of().resolved("digits").validation_size == 143
    assert SimulationConfig.of(model="cnn").resolved("mnist").valuation.kind == "leave_one_out"
    assert SimulationConfig.of(num_clients=11).resolved("mnist").valuation.kind == "leave_one_out"
    assert SimulationConfig.of(valuation="equal").resolved("mnist").valuation.kind == "equal"


def test_it_checks_again_when_the_data_set_is_known():
    with pytest.raises(ConfigError, match="num_clients"):
        SimulationConfig.of(num_clients=2000).resolved("digits")


def test_equal_meanings_have_equal_hashes():
    plain = SimulationConfig.from_dict({"lr": 1, "behaviours": {"3": {"kind": "label_flip"}}})
    spelt = SimulationConfig.from_dict(
        {"lr": 1.0, "behaviours": {3: {"kind": "label_flip", "fraction": 1}, "1": {"kind": "honest"}}}
    )
    assert plain == spelt
    assert plain.sha256() == spelt.sha256()


@pytest.mark.parametrize(
    ("fields", "sha256"),
    [
        ({}, "5492ac2d2d2443029d7575f09a191b176781dce927b92e8f8b0ee9f484f743f6"),
        (
            {"strategy": "fedadam", "server_lr": 0.1, "alpha": 0.5, "device": "cpu"},
            "16ce9ebd1b59b2b3fb50cc1cc4e842dc032fe7c26463b64c7d77a3972645db7e",
        ),
        (
            {"partition": "dirichlet", "behaviours": {"2": {"kind": "label_flip"}, "3": {"kind": "dropout"}}},
            "dab0e4ebcd917afb80f70dc0e2c12da506aac429121601ddd6bfc16e2382f1c5",
        ),
        (
            {"pool": "fixed", "pool_tokens": 3.5, "valuation": "loss_improvement", "validation_size": 100},
            "f86b6f605caf377146b95af63e4348bef207af7d1f42a1e1655d418549c60d9a",
        ),
    ],
)
def test_a_hash_is_for_ever(fields, sha256):
    """What a later release adds, and leaves at its default, moves none of them: as the second release printed them."""
    config = dataclasses.replace(SimulationConfig.from_dict(fields | {"game": "fedavg"}), scheme=2).resolved("digits")
    assert config.sha256() == sha256
    assert SimulationConfig.from_record(config.to_dict(), 2).sha256() == sha256


@pytest.mark.parametrize(
    ("fields", "sha256"),
    [
        ({}, "a5c7dc36f829f9ed29abe1fa138d04af44889d78a382cd54a90525cb0130b8b2"),
        (
            {"strategy": "median", "burn_share": 0.1, "budget_tokens": 5},
            "79bd031b7c77dbd6a7452a72234f96f170d7c050727f6c85c31d7d3bfa6f0454",
        ),
        (
            {"shadows": [{"label": "by size", "valuation": "data_size"}], "game": "fedavg"},
            "4d696b2712b343dec2f5a224f987f0b18aa365c281542314e05fdea50fd21273",
        ),
    ],
)
def test_todays_hash_is_for_ever_too(fields, sha256):
    assert SimulationConfig.from_dict(fields).resolved("digits").sha256() == sha256


def test_the_first_schemes_hash_is_for_ever():
    """As the first release printed it."""
    config = SimulationConfig.from_record({}, 1).resolved("digits")
    assert set(config.to_dict()) == set(FIRST_FIELDS)
    assert config.sha256() == "88305371a08dd611a44bece4691cc35d8b65f7737d660f1603cc914d6cba9373"


TODAY = {"scheme": 3, "reward_rule": {"kind": "proportional", "version": 2}}


def test_the_hash_covers_kinds_with_their_own_parameters_alone():
    assert SimulationConfig.of().hashed() == TODAY
    unread = {"alpha": 3.0, "tau": 1.0, "proximal_mu": 1.0}  # as rows of this scheme held them while fields were flat
    assert SimulationConfig.from_record(unread, 2).hashed() == {"scheme": 2}
    adam = SimulationConfig.of(strategy="fedadam", server_lr=0.03, tau=1.0)
    assert adam.hashed() == TODAY | {"strategy": {"kind": "fedadam", "tau": 1.0}}
    fixed = SimulationConfig.of(pool="fixed", pool_tokens=2, partition="pathological")
    assert fixed.hashed() == TODAY | {
        "pool": {"kind": "fixed", "tokens": 2.0},
        "partition": {"kind": "pathological"},
    }
    assert SimulationConfig.of(scaling_factor=3.0).hashed()["pool"] == {"kind": "improvement", "scaling_factor": 3.0}
    flip = SimulationConfig.of(
        behaviours={3: {"kind": "label_flip", "fraction": 1.0}, 4: {"kind": "sign_flip", "scale": 2}}
    )
    assert flip.hashed()["behaviours"] == {"3": {"kind": "label_flip"}, "4": {"kind": "sign_flip", "scale": 2.0}}
    assert SimulationConfig.of(dataset="digits", validation_size=143).hashed() == TODAY | {
        "dataset": {"kind": "digits"},
    }
    assert SimulationConfig.of(device="cuda").hashed() == TODAY | {"device": "cuda"}


def test_a_row_means_the_version_of_a_rule_that_its_scheme_meant():
    """From scheme 3 what rounding leaves goes around, and the hash says so; older rows keep version 1 and hash."""
    for scheme in (1, 2):
        old = SimulationConfig.from_record({"num_rounds": 3}, scheme)
        assert old.reward_rule.description.version == dataclasses.replace(old).reward_rule.description.version == 1
    assert old.hashed() == {"scheme": 2, "num_rounds": 3}
    new = SimulationConfig(scheme=3)
    assert (new.reward_rule.description.version, new.to_dict()["reward_rule"]) == (2, {"kind": "proportional"})
    assert new.hashed() == {"scheme": 3, "reward_rule": {"kind": "proportional", "version": 2}}
    assert SimulationConfig(scheme=3, reward_rule="rank").hashed() == {"scheme": 3, "reward_rule": {"kind": "rank"}}


def test_loss_improvement_is_measured_and_recorded_with_renormalised_weights():
    assert SimulationConfig.of(valuation="loss_improvement").resolved("digits").utility_weights == "renormalised"
    old = SimulationConfig.from_record({"valuation": "loss_improvement"}, 1).resolved("digits")
    assert (old.utility_weights, old.economies[0][1].utility_weights) == ("fixed", "renormalised")


def test_more_tokens_than_a_ledger_holds_are_refused_before_the_start():
    text = errors(pool="fixed", pool_tokens=1_000_000, num_rounds=10_000)["pool_tokens"]
    assert text == "10,000 rounds of 1,000,000 tokens are more than a ledger can hold, 9,007,199,255"
    assert SimulationConfig.from_dict({"pool": "fixed", "pool_tokens": 1_000_000, "num_rounds": 9_000})
    assert SimulationConfig.from_dict(
        {"pool": "fixed", "pool_tokens": 1_000_000, "num_rounds": 10_000, "budget_tokens": 0}
    )
    slow = {"kind": "halving", "tokens": 1_000_000, "rounds": 10_000}
    assert "more than a ledger can hold" in errors(pool=slow, num_rounds=10_000)["pool.tokens"]
    assert SimulationConfig.of(pool={"kind": "halving", "tokens": 1_000_000, "rounds": 5_000}, num_rounds=10_000)
    assert SimulationConfig.from_record({"pool": "fixed", "pool_tokens": 1_000_000, "num_rounds": 10_000}, 1)


def test_a_scheme_is_not_asked_for():
    assert errors(scheme=1) == {"scheme": "there is no such field"}


def test_a_record_of_the_first_scheme_is_repeated_with_its_meaning():
    config, changed = renewed(SimulationConfig.from_record({}, 1).to_dict(), 1)
    assert (config.pool.kind, config.game, config.scheme, changed) == ("improvement_each_round", "fedavg", 3, [])
    silent = {"behaviours": {"1": {"kind": "free_rider"}}, "strategy": "median", "utility_weights": "renormalised"}
    config, changed = renewed(SimulationConfig.from_record(silent, 1).to_dict(), 1)
    assert [sentence.partition(":")[0] for sentence in changed] == ["strategy", "valuation"]
    assert renewed(config.to_dict(), 2) == (config, [])


def test_the_hash_covers_every_field_but_where_it_runs():
    usual = SimulationConfig.of().sha256()
    other = {
        "num_clients": 9,
        "dataset": "digits",
        "behaviours": {"1": {"kind": "free_rider"}},
        "seed": 1,
        "pool": "fixed",
    }
    assert len({usual, *(SimulationConfig.from_dict({name: value}).sha256() for name, value in other.items())}) == 6
    assert SimulationConfig.of(backend="sequential").sha256() == usual
    assert len({usual, SimulationConfig.of(device="cuda").sha256(), SimulationConfig.of(device="mps").sha256()}) == 3
    assert SimulationConfig.of(device="cuda", precision="tf32").sha256() != SimulationConfig.of(device="cuda").sha256()


def test_flat_names_are_shorthand_and_one_that_is_not_read_is_an_error():
    flat = SimulationConfig.from_dict({"strategy": "fedprox", "proximal_mu": 0.3, "pool": "fixed", "pool_tokens": 2})
    nested = {"strategy": {"kind": "fedprox", "proximal_mu": 0.3}, "pool": {"kind": "fixed", "tokens": 2.0}}
    assert flat == SimulationConfig.from_dict(nested)
    assert SimulationConfig.from_dict({"server_lr": None, "strategy": "fedavgm"}).strategy["server_lr"] == 1.0
    assert errors(alpha=3.0) == {"alpha": "iid has no 'alpha'"}
    assert errors(strategy="fedprox", server_lr=1.0) == {"server_lr": "fedprox has no 'server_lr'; it has proximal_mu"}
    assert errors(strategy={"kind": "fedprox", "proximal_mu": 1}, proximal_mu=2) == {
        "proximal_mu": "is given twice, here and in strategy"
    }
    assert errors(alpha=3.0, lr=0).keys() == {"alpha", "lr"}


def test_a_record_of_the_first_version_can_be_sent_again():
    record = SimulationConfig.from_record({"strategy": "fedprox", "seed": 4}, 1).to_dict()
    assert SimulationConfig.from_dict(record).hashed() == TODAY | {"strategy": {"kind": "fedprox"}, "seed": 4}
    with pytest.raises(ConfigError, match=r"^alpha: iid has no 'alpha'; labels_per_client: iid"):
        SimulationConfig.from_dict(record, drops=None)


def test_a_source_hash_is_refused_in_input():
    given = {"kind": "fedavg", "source_sha256": "0" * 64}
    assert list(errors(strategy=given)) == ["strategy.source_sha256"]
    assert list(errors(population=[{"share": 0.5, "kind": "free_rider", "source_sha256": "0"}])) == ["population"]


def test_a_population_is_drawn_by_the_seed_and_resolved_into_behaviours():
    fields = {
        "num_clients": 20,
        "behaviours": {"1": {"kind": "dropout"}},
        "population": [
            {"share": 0.3, "kind": "label_flip", "fraction": 0.5, "from_round": 3},
            {"share": 0.1, "kind": "free_rider"},
        ],
    }
    config = SimulationConfig.from_dict(fields)
    drawn = config.resolved("digits")
    assert drawn.population == ()
    assert Counter(given["kind"] for given in drawn.behaviours.values()) == {
        "dropout": 1,
        "label_flip": 6,
        "free_rider": 2,
    }
    flip = next(given for given in drawn.behaviours.values() if given["kind"] == "label_flip")
    assert flip == {"kind": "label_flip", "fraction": 0.5, "from_round": 3}
    assert drawn.resolved("digits") == drawn == SimulationConfig.from_dict(fields).resolved("digits")
    assert dataclasses.replace(config, seed=1).resolved("digits").behaviours.keys() != drawn.behaviours.keys()
    assert (
        "sum to 1.1"
        in errors(population=[{"share": 0.6, "kind": "free_rider"}, {"share": 0.5, "kind": "dropout"}])["population"]
    )


def test_who_is_named_is_not_drawn_even_where_it_is_honest():
    everybody = {"num_clients": 5, "population": [{"share": 1.0, "kind": "free_rider"}]}
    config = SimulationConfig.from_dict(everybody | {"behaviours": {"2": {"kind": "honest"}, "3": {"kind": "dropout"}}})
    assert {client: given["kind"] for client, given in config.resolved("digits").behaviours.items()} == {
        **{1: "free_rider", 3: "dropout"},
        **{4: "free_rider", 5: "free_rider"},
    }
    assert config.sha256() != SimulationConfig.from_dict(everybody).sha256()
    assert SimulationConfig.from_dict({"behaviours": {"2": {"kind": "honest"}}}) == SimulationConfig.of()


def test_a_behaviour_to_the_last_round_has_no_end():
    flips = {"kind": "label_flip", "from_round": 2}
    usual = SimulationConfig.of(num_rounds=4, behaviours={"3": flips})
    assert SimulationConfig.of(num_rounds=4, behaviours={"3": {**flips, "to_round": 9}}).sha256() == usual.sha256()
    assert SimulationConfig.of(num_rounds=4, behaviours={"3": {**flips, "to_round": 3}}).sha256() != usual.sha256()


def test_the_seed_of_the_split_is_hashed_where_it_is_another():
    assert SimulationConfig.of(seed=3, data_seed=3).hashed() == TODAY | {"seed": 3}
    assert SimulationConfig.of(seed=3, data_seed=4).hashed() == TODAY | {"seed": 3, "data_seed": 4}


def test_a_listed_sampler_bounds_the_cohort():
    config = SimulationConfig.of(num_clients=20, sampler={"kind": "listed", "include": "1, 4-6", "exclude": [5]})
    assert config.sampler["include"] == (1, 4, 5, 6)
    assert config.cohort_size == 3
    assert list(errors(sampler={"kind": "listed", "include": [11]})) == ["sampler.include"]
    assert list(errors(sampler={"kind": "listed", "include": [1], "exclude": [1]})) == ["sampler"]


def test_it_survives_json():
    config = SimulationConfig.from_dict({"behaviours": {"3": {"kind": "sign_flip", "scale": 5}}, "num_rounds": 3})
    assert SimulationConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_configuration(name):
    assert set(PRESETS[name].values) <= {*FIELDS, *SimulationConfig.FLAT}
    SimulationConfig.from_dict(PRESETS[name].values)


def shadowed(*entries, **fields):
    return SimulationConfig.of(shadows=list(entries), **fields)


def test_a_shadow_takes_from_the_paying_economy_what_it_does_not_name():
    config = shadowed(
        {"label": "size", "valuation": "data_size"},
        {"label": "wage", "reward_rule": {"kind": "wage_bonus", "share": 0.3}, "burn_share": 0.5},
        pool={"kind": "fixed", "tokens": 2.0},
        budget_tokens=9,
    ).resolved("digits")
    (_, paying), (label, size), (_, wage) = config.economies
    assert label == "size"
    assert size == dataclasses.replace(paying, valuation=size.valuation)
    assert (wage.reward_rule["share"], wage.burn_share, wage.budget_tokens) == (0.3, 0.5, 9.0)
    assert wage.pool == paying.pool
    assert SimulationConfig.from_record(config.to_dict(), 3).economies == config.economies
    assert SimulationConfig.from_dict(config.to_dict()) == config


def test_equal_shadows_are_equal_however_they_are_said():
    named = shadowed({"label": "x", "valuation": "data_size", "pool": "improvement", "burn_share": 0.0}).resolved(
        "digits"
    )
    assert named.sha256() == shadowed({"label": "x", "valuation": {"kind": "data_size"}}).resolved("digits").sha256()
    assert named.sha256() != shadowed({"label": "x", "valuation": "equal"}).resolved("digits").sha256()
    assert named.sha256() != SimulationConfig.of().resolved("digits").sha256()


def test_economies_are_no_part_of_the_training():
    plain = SimulationConfig.of().resolved("digits").training_sha256()
    other = shadowed({"label": "x", "valuation": "equal"}, game="fedavg", pool="fixed", burn_share=0.1)
    assert other.resolved("digits").training_sha256() == plain
    assert SimulationConfig.of(lr=0.1).resolved("digits").training_sha256() != plain


def test_an_automatic_valuation_follows_the_economys_own_game():
    config = shadowed({"label": "plain", "game": "fedavg"}, strategy="median").resolved("digits")
    kinds = [economy.valuation.kind for _, economy in config.economies]
    assert kinds == ["leave_one_out", "shapley"], "a median of ten is joined once a coalition, so exact ends at eight"
    assert config.to_dict()["shadows"][0]["valuation"]["kind"] == "shapley"
    assert SimulationConfig.of(strategy="median", num_clients=8).resolved("digits").valuation.kind == "shapley"


@pytest.mark.parametrize(
    ("entries", "named"),
    [
        ("all", "expected a list"),
        ([{}], "number 1: expected a label"),
        ([{"label": ""}], "number 1: expected a label"),
        ([{"label": "a" * 61}], "number 1: expected a label"),
        ([{"label": "paying"}], "paying: is how the top-level economy is called"),
        ([{"label": "a"}, {"label": " a "}], "a: is there twice"),
        ([{"label": "a", "lr": 1}], "a: an economy has no 'lr'; it has"),
        ([{"label": "a", "burn_share": 2}], "a: burn_share: 2.0 is not at least 0"),
        ([{"label": "a", "reward_rule": {"kind": "top_k", "k": 0}}], "a: reward_rule.k: 0 is not at least 1"),
        ([{"label": "a", "pool": "none"}], "a: pool: 'none' is not one of"),
        ([{"label": str(number)} for number in range(17)], "17 economies beside the paying one"),
        ([{"label": "a", "shadows": []}], "a: an economy has no 'shadows'"),
    ],
)
def test_what_is_wrong_with_a_shadow_is_named(entries, named):
    assert named in errors(shadows=entries)["shadows"]


def test_a_shadow_that_cannot_be_afforded_is_named():
    assert (
        "a: valuation: exact shapley needs rounds of at most 16 clients; this one has 20"
        in errors(shadows=[{"label": "a", "valuation": "shapley"}], num_clients=20)["shadows"]
    )


def test_a_game_that_compares_all_updates_is_refused_for_a_crowd():
    crowd = {"num_clients": 1001, "strategy": "multi_krum", "valuation": "leave_one_out"}
    assert "compares every two updates" in errors(**crowd)["game"]
    assert SimulationConfig.of(**crowd, game="fedavg")
    assert SimulationConfig.of(**crowd | {"valuation": "data_size"})
    assert SimulationConfig.of(**crowd | {"strategy": "median"})
