"""The utilities of coalitions against one model at a time: average the weights, load them, evaluate."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from training import game as game_module
from training import scores
from training.config import DatasetInfo
from training.game import CoalitionGame
from training.networks import build

INFO = DatasetInfo(label="small", shape=(1, 8, 8), num_classes=5, num_train=0, num_test=0)
MODELS = ("mlp", "2nn", "logistic", "cnn")


def a_game(model="mlp", n=4, samples=37, *, network=None, extra_examples=0, **changes):
    """Random weights, deltas large enough to matter, clients of unequal size."""
    generator = torch.Generator().manual_seed(7)
    network = network or build(model, INFO, generator)
    weights = parameters_to_vector(network.parameters()).detach().clone()
    num_examples = [10 + 7 * i for i in range(n)]
    values = {
        "deltas": 0.05 * torch.randn(n, len(weights), generator=generator),
        "num_examples": num_examples,
        "total_examples": sum(num_examples) + extra_examples,
        "x": torch.randn(samples, *INFO.shape, generator=generator),
        "y": torch.randint(INFO.num_classes, (samples,), generator=generator),
        "players": tuple(range(1, n + 1)),
        "utility": "loss",
        "utility_weights": "fixed",
    }
    return CoalitionGame(network, weights, **(values | changes))


def naive(game, coalitions):
    """The definition, one coalition after another."""
    return np.array([naive_utility(game, np.flatnonzero(row)) for row in coalitions])


def naive_utility(game, members):
    examples = (
        sum(game.num_examples[i] for i in members) if game.utility_weights == "renormalised" else game.total_examples
    )
    weights = game.weights.clone()
    for i in members:
        weights += game.num_examples[i] / examples * game.deltas[i]
    return evaluated(game, weights)


def evaluated(game, weights):
    network = type(game.network)(*game.network)
    before = parameters_to_vector(network.parameters()).detach().clone()
    with torch.no_grad():
        vector_to_parameters(weights.clone(), network.parameters())
        logits = network(game.x)
        vector_to_parameters(before, network.parameters())
    if game.utility == "accuracy":
        return (logits.argmax(1) == game.y).double().mean().item()
    return -F.cross_entropy(logits, game.y).item()


def all_of(n):
    return np.array(list(itertools.product([False, True], repeat=n)))


def leaving_one_out(n):
    return np.vstack([np.ones((1, n), dtype=bool), ~np.eye(n, dtype=bool)])


@pytest.mark.parametrize("utility_weights", ["fixed", "renormalised"])
@pytest.mark.parametrize("utility", ["loss", "accuracy"])
@pytest.mark.parametrize("model", MODELS)
def test_it_equals_one_model_at_a_time(model, utility, utility_weights):
    game = a_game(model, extra_examples=50, utility=utility, utility_weights=utility_weights)
    expected = naive(game, all_of(4))
    assert np.ptp(expected) > 0.005, "the coalitions must differ for the comparison to say something"
    np.testing.assert_allclose(game(all_of(4)), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("utility_weights", ["fixed", "renormalised"])
@pytest.mark.parametrize("model", MODELS[:3])
def test_it_equals_one_model_at_a_time_with_many_players(model, utility_weights):
    n = 70
    sizes = np.random.default_rng(3).random((15, n)) < np.linspace(0.01, 0.99, 15)[:, None]
    single = np.eye(n, dtype=bool)[:8]
    game = a_game(model, n, utility_weights=utility_weights)
    for coalitions in (
        leaving_one_out(n),
        single,
        np.vstack([leaving_one_out(n), np.zeros((1, n), dtype=bool), sizes, single]),
    ):
        np.testing.assert_allclose(game(coalitions), naive(game, coalitions), atol=1e-6, rtol=0)


def test_it_does_not_take_small_sums_as_differences_of_large_ones():
    """Most coalitions hold nearly everyone, so they are written as differences; client 1's own model must not be."""
    game = a_game("logistic", 200, utility_weights="renormalised")
    alone = np.eye(200, dtype=bool)[:1]
    together = game(np.vstack([alone, leaving_one_out(200)]))
    assert together[0] == pytest.approx(naive(game, alone)[0], abs=1e-6)


@pytest.mark.parametrize("model", MODELS[:3])
@pytest.mark.parametrize("n", [4, 40])
def test_it_adds_up_over_tiles_and_chunks(model, n, monkeypatch):
    monkeypatch.setattr(scores, "MAX_TILE", 8)
    monkeypatch.setattr(scores, "CHUNK_BYTES", 4 * 128 * 8 * 3)
    monkeypatch.setattr(game_module, "BATCH", 8)
    game = a_game(model, n)
    coalitions = leaving_one_out(n) if n == 40 else all_of(n)
    np.testing.assert_allclose(game(coalitions), naive(game, coalitions), atol=1e-6, rtol=0)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("n", [5, 40])
def test_it_gives_the_same_bits_with_any_number_of_workers(model, n):
    coalitions = all_of(n) if n == 5 else leaving_one_out(n)[: 8 if model == "cnn" else None]
    samples = 20 if model == "cnn" else 600
    one, *others = (a_game(model, n, samples, workers=workers)(coalitions) for workers in (1, 2, 4, 1))
    for other in others:
        assert other.tobytes() == one.tobytes()


@pytest.mark.parametrize("model", MODELS)
def test_it_values_the_empty_coalition_as_the_model_before_the_round(model):
    game = a_game(model)
    assert game(np.zeros((1, 4), dtype=bool))[0] == pytest.approx(evaluated(game, game.weights), abs=1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_it_values_everybody_as_the_federated_average(model):
    game = a_game(model)
    shares = torch.tensor(game.num_examples) / game.total_examples
    average = (shares[:, None] * (game.weights + game.deltas)).sum(0)
    for utility_weights in ("fixed", "renormalised"):
        game = a_game(model, utility_weights=utility_weights)
        assert game(np.ones((1, 4), dtype=bool))[0] == pytest.approx(evaluated(game, average), abs=1e-6)


def test_it_gives_numbers_worked_by_hand():
    """Two classes, one input of 1, weights 0: logits 0, 0, loss log 2. Client 1 moves the first logit by 2, client 2 by
    -1; they hold 1 and 3 of 8 examples."""
    deltas = torch.tensor([[2.0, 0.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0]])
    network = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))

    def play(utility, utility_weights):
        game = CoalitionGame(
            network,
            torch.zeros(4),
            deltas,
            [1, 3],
            8,
            torch.ones(1, 1),
            torch.tensor([0]),
            players=(1, 2),
            utility=utility,
            utility_weights=utility_weights,
        )
        return game(np.array([[0, 0], [1, 0], [0, 1], [1, 1]], dtype=bool))

    moves = {"fixed": [0, 2 / 8, -3 / 8, -1 / 8], "renormalised": [0, 2, -1, -1 / 4]}
    for utility_weights, logits in moves.items():
        losses = [-math.log1p(math.exp(-logit)) for logit in logits]
        np.testing.assert_allclose(play("loss", utility_weights), losses, atol=1e-7)
        assert play("accuracy", utility_weights).tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("model", MODELS)
def test_it_gives_exactly_nothing_for_a_zero_update_under_fixed_weights(model):
    for utility_weights in ("fixed", "renormalised"):
        game = a_game(model, utility_weights=utility_weights)
        game.deltas[2] = 0
        coalitions = all_of(4)
        without = coalitions[~coalitions[:, 2]]
        with_it = without | (np.arange(4) == 2)
        marginals = np.subtract(*np.split(game(np.vstack([with_it, without])), 2))
        assert (utility_weights == "fixed") == (marginals.tolist() == [0.0] * 8)


@pytest.mark.parametrize(("utility_weights", "distinct"), [("fixed", 8), ("renormalised", 16)])
def test_it_evaluates_a_model_once(utility_weights, distinct, monkeypatch):
    """A zero update makes no other model under fixed weights, and a coalition may be asked for twice."""
    rows = []
    score = scores.SCORES["loss"]
    monkeypatch.setitem(scores.SCORES, "loss", lambda logits, y: rows.append(len(logits)) or score(logits, y))
    game = a_game(utility_weights=utility_weights)
    game.deltas[1] = 0
    game(np.vstack([all_of(4), all_of(4)]))
    assert sum(rows) == distinct


def test_it_evaluates_as_the_server_would_without_dropout():
    def network(between):
        generator = torch.Generator().manual_seed(1)
        linear = build("logistic", INFO, generator)[1]
        return nn.Sequential(nn.Flatten(), linear, between, nn.Linear(5, 5))

    torch.manual_seed(0)
    dropping, plain = network(nn.Dropout(0.5)), network(nn.Identity())
    plain.load_state_dict(dropping.state_dict())
    coalitions = all_of(4)
    assert a_game(network=dropping)(coalitions).tolist() == a_game(network=plain)(coalitions).tolist()
    assert dropping.training


def test_it_gives_equal_coalitions_equal_bits():
    game = a_game()
    coalitions = all_of(4)
    twice = game(np.vstack([coalitions, coalitions[::-1]]))
    assert twice[:16].tobytes() == twice[16:][::-1].tobytes()


@pytest.mark.parametrize("model", MODELS)
def test_it_plays_without_players(model):
    game = a_game(model, 0, extra_examples=9)
    assert game(np.zeros((3, 0), dtype=bool)) == pytest.approx([evaluated(game, game.weights)] * 3, abs=1e-6)
    assert game(np.zeros((0, 0), dtype=bool)).shape == (0,)


@pytest.mark.parametrize("model", MODELS)
def test_it_leaves_network_weights_and_deltas_alone(model):
    game = a_game(model)
    with torch.no_grad():
        for parameter in game.network.parameters():
            parameter.add_(1.0)  # the network's own numbers must play no part
    kept = [t.clone() for t in (game.weights, game.deltas, game.x, *game.network.parameters())]
    np.testing.assert_allclose(game(all_of(4)), naive(game, all_of(4)), atol=1e-6, rtol=0)
    for before, after in zip(kept, (game.weights, game.deltas, game.x, *game.network.parameters()), strict=True):
        assert torch.equal(before, after)


def test_it_shows_what_is_not_finite():
    game = a_game()
    game.deltas[1] = math.nan
    utilities = game(all_of(4))
    assert np.isnan(utilities[-1])


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"utility": "profit"}, "utility: 'profit'"),
        ({"utility_weights": "equal"}, "utility_weights: 'equal'"),
        ({"deltas": torch.zeros(3, 7)}, "deltas: expected"),
        ({"num_examples": [1, 2, 3]}, "num_examples: expected 4"),
        ({"num_examples": [1, 2, 3, 0]}, "num_examples: expected 4"),
        ({"total_examples": 5}, "total_examples: 5"),
        ({"y": torch.zeros(0, dtype=torch.long), "x": torch.zeros(0, 1, 8, 8)}, "x, y"),
        ({"y": torch.zeros(3, dtype=torch.long)}, "x, y"),
    ],
)
def test_it_names_what_does_not_fit(changes, named):
    with pytest.raises(ValueError, match=named):
        a_game(**changes)


@pytest.mark.parametrize("coalitions", [np.zeros((2, 3), dtype=bool), np.zeros(4, dtype=bool), np.zeros((2, 4))])
def test_it_refuses_coalitions_of_another_shape(coalitions):
    with pytest.raises(ValueError, match=r"coalitions: expected bool \[m, 4\]"):
        a_game()(coalitions)
