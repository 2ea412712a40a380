"""Fields of strategies: their defaults, and what does not fit the size of a round."""

import pytest

import kinds
from training.config import ConfigError, TrainingConfig
from training.strategies.reading import guarded_against

STRATEGIES = tuple(kinds.family("strategy"))


def errors(**fields) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        TrainingConfig.of(**fields)
    return caught.value.errors


def test_it_has_the_papers_defaults():
    def parameters(strategy: str) -> dict:
        return dict(TrainingConfig.of(strategy=strategy).strategy.parameters)

    assert parameters("fedavgm") == {"server_lr": 1.0, "server_momentum": 0.9}
    assert parameters("fedadam") == {"server_lr": 0.03, "beta_1": 0.9, "beta_2": 0.99, "tau": 0.001}
    assert parameters("trimmed_mean") == parameters("multi_krum") == {"num_malicious_clients": None}
    assert parameters("centred_clipping") == {"clipping_norm": None}


@pytest.mark.parametrize(("size", "malicious"), [(1, 0), (4, 0), (5, 1), (9, 1), (10, 2), (15, 3), (1000, 200)])
def test_it_assumes_a_fifth_of_a_round_rounded_down(size, malicious):
    assert guarded_against(None, size, size) == malicious
    assert guarded_against(1, size, size) == 1
    assert guarded_against(1, 0, size) == 0


@pytest.mark.parametrize(
    ("strategy", "clients", "malicious"),
    [
        ("trimmed_mean", 10, 4),
        ("trimmed_mean", 9, 4),
        ("multi_krum", 10, 3),
        ("multi_krum", 9, 3),
        ("multi_krum", 3, 0),
    ],
)
def test_it_names_a_round_too_small_for_so_many(strategy, clients, malicious):
    assert TrainingConfig.of(strategy=strategy, num_clients=clients, num_malicious_clients=malicious)
    told = errors(strategy=strategy, num_clients=clients, num_malicious_clients=malicious + 1)
    assert told == {
        "num_malicious_clients": f"{strategy} can guard against at most {malicious} of {clients} clients in a round, "
        f"not {malicious + 1}"
    }


def test_it_counts_the_clients_of_a_round_and_not_all():
    crowd = {"num_clients": 100, "num_malicious_clients": 10, "strategy": "trimmed_mean"}
    assert TrainingConfig.of(**crowd)
    assert "at most 4 of 10" in errors(**crowd, fraction_fit=0.1)["num_malicious_clients"]


def test_other_strategies_do_not_ask():
    for strategy in set(STRATEGIES) - {"trimmed_mean", "multi_krum"}:
        told = errors(strategy=strategy, num_malicious_clients=10)
        assert told["num_malicious_clients"].startswith(f"{strategy} has no 'num_malicious_clients'")


@pytest.mark.parametrize("malicious", [None, 0])
def test_krum_needs_three_clients(malicious):
    told = errors(strategy="multi_krum", num_clients=2, num_malicious_clients=malicious)
    assert told == {"strategy": "multi_krum needs rounds of at least 3 clients; this one has 2"}


@pytest.mark.parametrize("size", range(1, 40))
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_usual_number_fits_every_round_that_is_large_enough(strategy, size):
    if strategy != "multi_krum" or size >= 3:
        assert TrainingConfig.of(strategy=strategy, num_clients=size)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("fedprox.proximal_mu", value) for value in (-0.1, "1")],
        *[("fedavgm.server_lr", value) for value in (0, -1)],
        *[
            (name, value)
            for name in ("fedavgm.server_momentum", "fedadam.beta_1", "fedadam.beta_2")
            for value in (-0.1, 1)
        ],
        *[(name, value) for name in ("fedadam.tau", "centred_clipping.clipping_norm") for value in (0, -1)],
        *[("multi_krum.num_malicious_clients", value) for value in (-1, 0.5)],
    ],
)
def test_it_names_a_bad_parameter_as_it_was_given(field, value):
    strategy, _, name = field.partition(".")
    assert list(errors(strategy=strategy, **{name: value})) == [name]
    assert list(errors(strategy={"kind": strategy, name: value})) == [f"strategy.{name}"]


@pytest.mark.parametrize("value", ["fed_avg", None, 3, {}, {"kind": None}, {"kind": ["fedavg"]}, {"server_lr": 1.0}])
def test_it_names_a_bad_choice(value):
    assert list(errors(strategy=value)) == ["strategy"]


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ({"kind": "low_effort", "fraction": 1.5}, "client 1: fraction: 1.5 is not at least 0 and at most 1"),
        ({"kind": "dropout", "probability": -0.5}, "client 1: probability: -0.5 is not at least 0 and at most 1"),
        ({"kind": "dropout", "fraction": 0.5}, "client 1: dropout has no 'fraction'; it has probability"),
        ({"kind": "honest", "fraction": 0.5}, "client 1: honest has no 'fraction'"),
    ],
)
def test_it_names_what_is_wrong_with_a_behaviour(behaviour, words):
    assert errors(behaviours={1: behaviour}) == {"behaviours": words}


def test_it_fills_in_how_much_a_behaviour_does():
    config = TrainingConfig.of(behaviours={1: {"kind": "low_effort"}, 2: {"kind": "dropout"}})
    assert config.behaviours == {
        1: {"kind": "low_effort", "fraction": 0.2},
        2: {"kind": "dropout", "probability": 0.5},
    }
