"""Fields of strategies: their defaults, and what does not fit the size of a round."""

import pytest

from training.config import STRATEGIES, ConfigError, TrainingConfig


def errors(**fields) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        TrainingConfig(**fields)
    return caught.value.errors


def test_it_has_the_papers_defaults():
    config = TrainingConfig()
    assert (config.server_momentum, config.beta_1, config.beta_2, config.tau) == (0.9, 0.9, 0.99, 0.001)
    assert (config.server_lr, config.num_malicious_clients, config.clipping_norm) == (None, None, None)


@pytest.mark.parametrize(("size", "malicious"), [(1, 0), (4, 0), (5, 1), (9, 1), (10, 2), (15, 3), (1000, 200)])
def test_it_assumes_a_fifth_of_a_round_rounded_down(size, malicious):
    assert TrainingConfig().malicious_among(size) == malicious
    assert TrainingConfig(num_malicious_clients=1).malicious_among(size) == 1


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
    assert TrainingConfig(strategy=strategy, num_clients=clients, num_malicious_clients=malicious)
    told = errors(strategy=strategy, num_clients=clients, num_malicious_clients=malicious + 1)
    assert told == {
        "num_malicious_clients": f"{strategy} can guard against at most {malicious} of {clients} clients in a round, "
        f"not {malicious + 1}"
    }


def test_it_counts_the_clients_of_a_round_and_not_all():
    crowd = {"num_clients": 100, "num_malicious_clients": 10, "strategy": "trimmed_mean"}
    assert TrainingConfig(**crowd)
    assert "at most 4 of 10" in errors(**crowd, fraction_fit=0.1)["num_malicious_clients"]


def test_other_strategies_do_not_ask():
    for strategy in set(STRATEGIES) - {"trimmed_mean", "multi_krum"}:
        assert TrainingConfig(strategy=strategy, num_malicious_clients=10)


@pytest.mark.parametrize("malicious", [None, 0])
def test_krum_needs_three_clients(malicious):
    told = errors(strategy="multi_krum", num_clients=2, num_malicious_clients=malicious)
    assert told == {"strategy": "multi_krum needs rounds of at least 3 clients; this one has 2"}


@pytest.mark.parametrize("size", range(1, 40))
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_usual_number_fits_every_round_that_is_large_enough(strategy, size):
    if strategy != "multi_krum" or size >= 3:
        assert TrainingConfig(strategy=strategy, num_clients=size)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("proximal_mu", value) for value in (-0.1, "1", None)],
        *[("server_lr", value) for value in (0, -1)],
        *[(name, value) for name in ("server_momentum", "beta_1", "beta_2") for value in (-0.1, 1, None)],
        *[(name, value) for name in ("tau", "clipping_norm") for value in (0, -1)],
        *[("num_malicious_clients", value) for value in (-1, 0.5)],
        *[("strategy", value) for value in ("fed_avg", None)],
    ],
)
def test_it_names_a_bad_field(field, value):
    assert list(errors(**{field: value})) == [field]


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ({"kind": "low_effort", "fraction": 1.5}, "client 1: fraction: 1.5 is not from 0 to 1"),
        ({"kind": "dropout", "probability": -0.5}, "client 1: probability: -0.5 is not from 0 to 1"),
        ({"kind": "dropout", "fraction": 0.5}, "client 1: dropout has no 'fraction'"),
        ({"kind": "honest", "fraction": 0.5}, "client 1: honest has no 'fraction'"),
    ],
)
def test_it_names_what_is_wrong_with_a_behaviour(behaviour, words):
    assert errors(behaviours={1: behaviour}) == {"behaviours": words}


def test_it_fills_in_how_much_a_behaviour_does():
    config = TrainingConfig(behaviours={1: {"kind": "low_effort"}, 2: {"kind": "dropout"}})
    assert config.behaviours == {
        1: {"kind": "low_effort", "fraction": 0.2},
        2: {"kind": "dropout", "probability": 0.5},
    }
