import dataclasses
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from training import checkpoints, federation, networks
from training.catalogue import DATASETS
from training.config import TrainingConfig
from training.datasets import Data
from training.events import Completed, Log, RoundTrained, Started, TrainingError
from training.loop import run
from training.samplers import sample
from training.tests.timeless import timeless


def config_for(**fields) -> TrainingConfig:
    small = {"dataset": "digits", "validation_size": 137, "num_clients": 4, "num_rounds": 2, "model": "mlp", "lr": 0.1}
    return TrainingConfig.of(**{**small, **fields})


def rounds_of(events) -> list[RoundTrained]:
    return [event for event in events if isinstance(event, RoundTrained)]


def messages(events) -> list[str]:
    return [event.message for event in events if isinstance(event, Log)]


def plain(games):
    """The round's game of plain federated averaging."""
    return games.of("fedavg", "loss", "fixed")


def final_weights(config, data, folder: Path, **arguments) -> torch.Tensor:
    """The global weights that the last checkpoint of a run holds."""
    last = rounds_of(run(config, data, checkpoints=folder, **arguments))[-1]
    return checkpoints.load(folder, last.round_number, last.checkpoint_sha256).weights


def descended(weights: np.ndarray, x: np.ndarray, y: np.ndarray, lr: float) -> np.ndarray:
    """One step of gradient descent of logistic regression on the mean loss of x [n, d], y [n], in float64.

    The gradient of the mean cross-entropy is (softmax - one-hot)^T x / n for the matrix, its mean for the bias.
    """
    matrix, bias = weights[:-10].reshape(10, -1), weights[-10:]
    logits = x @ matrix.T + bias
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    errors = (odds / odds.sum(axis=1, keepdims=True) - np.eye(10)[y]) / len(y)
    return weights - lr * np.concatenate([(errors.T @ x).ravel(), errors.sum(axis=0)])


@pytest.mark.parametrize("partition", ["iid", "quantity", "dirichlet"])
def test_it_equals_gradient_descent_where_everyone_takes_one_full_batch(digits, tmp_path, partition):
    config = config_for(
        validation_size=0, num_clients=3, num_rounds=3, model="logistic", batch_size=60_000, lr=0.5, partition=partition
    )
    expected = federation.gather(config, digits).untrained.double().numpy()
    x, y = digits.train_x.flatten(1).double().numpy(), digits.train_y.numpy()
    for _ in range(config.num_rounds):
        expected = descended(expected, x, y, config.lr)
    assert np.allclose(final_weights(config, digits, tmp_path).numpy(), expected, rtol=0, atol=1e-6)


def test_it_tells_events_in_order(digits):
    events = list(run(config_for(), digits))
    assert [event.kind for event in events] == [
        "started",
        *["log"] * 6,
        "trained",
        *["log"] * 6,
        "trained",
        "completed",
    ]
    assert messages(events)[0] == "Round 1 of 2: cohort of 4 clients"
    assert messages(events)[1].startswith("Client 1: loss 2.")
    assert messages(events)[5].endswith("on 360 test images")
    last = rounds_of(events)[-1]
    assert f"loss {last.loss:.4f}, accuracy {last.accuracy:.4f}" in messages(events)[-1]
    assert events[-1] == Completed(message="Completed 2 rounds", weights_sha256=last.weights_sha256)


def test_it_starts_with_the_untrained_model_and_who_holds_what(digits):
    config = config_for(behaviours={2: {"kind": "free_rider"}}, partition="dirichlet")
    started = next(run(config, digits))
    federated = federation.gather(config, digits)
    assert started == federation.started(federated)
    assert isinstance(started, Started)
    assert (started.num_parameters, started.num_validation, started.num_test) == (9610, 137, 360)
    assert started.message == (
        "Training mlp (9,610 parameters) on digits: 1,300 images with 4 clients, 137 held out by the server"
    )
    assert started.weights_sha256 == networks.weights_sha256(federated.untrained)
    assert [share.behaviour for share in started.clients] == ["honest", "free_rider", "honest", "honest"]
    assert [share.client for share in started.clients] == [1, 2, 3, 4]
    held = np.bincount(digits.train_y.numpy()) - np.bincount(federated.validation_y.numpy(), minlength=10)
    assert np.array_equal(np.sum([share.label_counts for share in started.clients], axis=0), held)
    assert [share.num_examples for share in started.clients] == [sum(share.label_counts) for share in started.clients]


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_it_runs_the_same_twice(digits, tmp_path, model):
    config = config_for(
        model=model, momentum=0.5, fraction_fit=0.5, partition="dirichlet", behaviours={2: {"kind": "label_flip"}}
    )
    first = timeless(run(config, digits, checkpoints=tmp_path / "a"))
    torch.rand(7), np.random.rand(7), random.random()
    assert timeless(run(config, digits, checkpoints=tmp_path / "b")) == first


def test_it_neither_moves_nor_reads_the_global_generators(digits):
    before = (torch.random.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist())
    list(run(config_for(num_rounds=1), digits))
    assert (torch.random.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()) == before


def test_it_differs_by_the_seed(digits):
    hashes = {
        tuple(event.weights_sha256 for event in rounds_of(run(config_for(seed=seed), digits))) for seed in range(3)
    }
    assert len(hashes) == 3


def test_it_samples_cohorts_of_the_configured_size_evenly():
    config = TrainingConfig.of(num_clients=20, fraction_fit=0.25)
    sizes = np.ones(config.num_clients, np.int64)
    cohorts = [sample(config, sizes, round_number) for round_number in range(1, 401)]
    assert {len(set(cohort)) for cohort in cohorts} == {5}
    assert all(list(cohort) == sorted(cohort) for cohort in cohorts)
    counts = np.bincount(np.concatenate(cohorts), minlength=21)
    assert counts[0] == 0
    assert counts[1:].min() > 60  # 100 expected, standard deviation 8.7
    assert counts[1:].max() < 140


def test_it_trains_whom_the_sampler_names(digits):
    events = rounds_of(run(config_for(), digits, sample=lambda sizes, number: (number, 4)))
    assert [event.cohort for event in events] == [(1, 4), (2, 4)]
    assert [report.client for report in events[1].reports] == [2, 4]


@pytest.mark.parametrize("cohort", [(), (2, 1), (1, 1), (0, 1), (4, 5)])
def test_it_refuses_a_cohort_that_is_none(digits, cohort):
    with pytest.raises(ValueError, match=r"Round 1: .* are not ascending numbers of clients"):
        list(run(config_for(), digits, sample=lambda sizes, number: cohort))


def test_it_carries_the_validation_loss_from_round_to_round(digits):
    config = config_for(num_rounds=3)
    federated = federation.gather(config, digits)
    events = rounds_of(run(config, digits))
    assert events[0].previous_validation_loss == federation.validation_loss(federated, federated.untrained)
    assert [event.previous_validation_loss for event in events[1:]] == [event.validation_loss for event in events[:-1]]
    assert events[2].validation_loss < events[0].previous_validation_loss
    without = rounds_of(run(config_for(validation_size=0), digits))
    assert {(event.previous_validation_loss, event.validation_loss) for event in without} == {(None, None)}


def test_it_evaluates_every_k_rounds_and_the_last(digits):
    events = list(run(config_for(num_rounds=5, evaluate_every=2), digits))
    assert [event.loss is None for event in rounds_of(events)] == [True, False, True, False, False]
    assert [event.accuracy is None for event in rounds_of(events)] == [True, False, True, False, False]
    assert sum(message.startswith("Evaluated") for message in messages(events)) == 3


def test_it_warns_of_clients_that_sent_nothing(digits):
    events = list(run(config_for(num_rounds=1, behaviours={3: {"kind": "free_rider"}}), digits))
    assert [event.message for event in events if getattr(event, "level", "") == "warning"] == [
        "Client 3 sent no update"
    ]
    silent = rounds_of(events)[0].reports[2]
    assert (silent.loss_before, silent.loss_after, silent.update_norm) == (None, None, 0.0)


def test_it_counts_a_silent_client_at_its_full_weight(digits, tmp_path):
    """With one of two equal clients silent, the model moves half as far as the other one went."""
    config = config_for(validation_size=137, num_clients=2, num_rounds=1, behaviours={2: {"kind": "free_rider"}})
    start = federation.gather(config, digits).untrained
    moved = final_weights(config, digits, tmp_path) - start
    (event,) = rounds_of(run(config, digits))
    assert torch.linalg.vector_norm(moved).item() == pytest.approx(event.reports[0].update_norm / 2, rel=1e-5)


def test_it_says_no_more_for_a_large_cohort(digits):
    silent = {client: {"kind": "free_rider"} for client in (5, 17)}
    events = list(run(config_for(num_clients=26, num_rounds=1, behaviours=silent), digits))
    assert messages(events)[0] == "Round 1 of 1: cohort of 26 clients"
    assert messages(events)[1].startswith("24 clients trained on 1,200 examples: median loss 2.")
    assert messages(events)[2] == "2 clients sent no update"
    assert len(messages(events)) == 4


def test_it_gets_the_same_model_whether_updates_are_kept_or_streamed(digits):
    config = config_for(num_clients=13, behaviours={4: {"kind": "free_rider"}, 6: {"kind": "sign_flip"}})
    streamed = rounds_of(run(config, digits))
    kept = rounds_of(run(config, digits, value=lambda *_: None))
    assert timeless(kept) == timeless(streamed)


@pytest.mark.parametrize("num_clients", [4, 13])
def test_it_offers_each_rounds_game(digits, num_clients):
    config = config_for(num_clients=num_clients, behaviours={2: {"kind": "free_rider"}, 3: {"kind": "sign_flip"}})
    config = dataclasses.replace(config, scheme=2)
    games = []

    def value(trained, of_round):
        game = of_round.of("fedavg", "loss", "fixed")
        games.append(game)
        empty, everyone = game(np.array([[False] * len(game.players), [True] * len(game.players)]))
        return float(empty), float(everyone)

    for event in rounds_of(run(config, digits, value=value)):
        empty, everyone = event.valued
        assert -empty == pytest.approx(event.previous_validation_loss, abs=1e-5)
        assert -everyone == pytest.approx(event.validation_loss, abs=1e-5)
    assert [game.players for game in games] == [tuple(c for c in range(1, num_clients + 1) if c != 2)] * 2
    assert {game.total_examples for game in games} == {1300}
    examples = {report.client: report.num_examples for report in event.reports}
    assert [examples[player] for player in games[0].players] == list(games[0].num_examples)
    norms = {report.client: report.update_norm for report in event.reports}
    for player, delta in zip(games[1].players, games[1].deltas, strict=True):
        assert torch.linalg.vector_norm(delta).item() == pytest.approx(norms[player], rel=1e-6)


@pytest.mark.parametrize(("scheme", "players"), [(1, (1, 2, 3, 4)), (2, (1, 3, 4))])
def test_who_sends_nothing_plays_no_game_but_in_the_first_scheme(digits, scheme, players):
    config = config_for(num_rounds=1, behaviours={2: {"kind": "free_rider"}})
    config = dataclasses.replace(config, scheme=scheme)
    (event,) = rounds_of(
        run(
            config,
            digits,
            value=lambda _, games: games.of("fedavg", "loss", "renormalised").players,
        )
    )
    assert event.valued == players


def test_it_offers_a_game_without_players_where_nobody_sent_anything(digits):
    config = config_for(num_rounds=1, behaviours={client: {"kind": "free_rider"} for client in range(1, 5)})
    (event,) = rounds_of(
        run(config, digits, value=lambda _, games: plain(games)(np.zeros((1, 0), dtype=bool)).tolist())
    )
    assert event.valued == [pytest.approx(-event.validation_loss, abs=1e-5)]
    assert event.validation_loss == event.previous_validation_loss


def test_it_names_the_round_whose_game_has_no_finite_number(digits):
    def diverged(trained, game):
        raise FloatingPointError("no finite loss")

    with pytest.raises(TrainingError, match=r"^Round 1: no finite loss; a smaller lr or proximal_mu may help$"):
        list(run(config_for(strategy="fedprox"), digits, value=diverged))


def test_it_warns_where_the_model_got_worse(digits):
    reversed_all = {client: {"kind": "sign_flip", "scale": 20.0} for client in range(1, 5)}
    *_, warning, end = run(config_for(behaviours=reversed_all), digits)
    assert isinstance(end, Completed)
    assert (warning.level, warning.message[:44]) == ("warning", "The model is worse than it began: test loss ")
    assert "worse" not in messages(run(config_for(), digits))[-1]


def test_it_passes_on_an_exception_of_the_valuation(digits):
    def broken(trained, game):
        raise ZeroDivisionError("no number")

    with pytest.raises(ZeroDivisionError, match="no number"):
        list(run(config_for(), digits, value=broken))


def test_it_keeps_no_update_for_a_value_that_asks_no_utility(digits):
    """A thousand updates of the cnn are 6.6 GB. Who takes part is told all the same."""
    config = config_for(num_clients=12, behaviours={3: {"kind": "free_rider"}})
    looking = rounds_of(
        run(config, digits, value=lambda _, games: (plain(games).players, [*plain(games).num_examples]))
    )
    games = []
    event = rounds_of(run(config, digits, value=lambda _, of_round: games.append(plain(of_round)), looks=False))[0]
    assert (games[0].players, [*games[0].num_examples]) == looking[0].valued
    assert 3 not in games[0].players
    assert event.weights_sha256 == looking[0].weights_sha256
    with pytest.raises(ValueError, match="not kept"):
        games[0](np.ones((1, 11), dtype=bool))


def test_it_needs_held_out_examples_for_a_valuation(digits):
    with pytest.raises(ValueError, match="validation_size"):
        next(run(config_for(validation_size=0), digits, value=lambda *_: None))


@pytest.mark.parametrize("config", [TrainingConfig.of(), config_for(dataset="mnist")])
def test_it_needs_a_configuration_that_is_resolved_to_the_data(digits, config):
    with pytest.raises(ValueError, match=r"^dataset: "):
        next(run(config, digits))


def test_it_stops_where_an_update_is_not_finite(digits):
    with pytest.raises(TrainingError, match=r"^Round 1: the update of client 1 is not finite; a smaller lr may help$"):
        list(run(config_for(lr=100.0, momentum=0.99, weight_decay=1.0, local_epochs=20), digits))


def test_it_stops_where_the_global_model_is_not_finite(digits):
    """Weight decay of 1 at lr 100 multiplies weights by -99 a step: after 18 they are finite, but not their losses."""
    config = config_for(model="logistic", lr=100.0, weight_decay=1.0, batch_size=60_000, local_epochs=18)
    with pytest.raises(TrainingError, match=r"^Round 1: the global model is not finite; a smaller lr may help$"):
        list(run(config, digits))


def test_it_names_a_client_that_failed(digits):
    labels = digits.train_y.clone()
    labels[federation.gather(config_for(), digits).holdings.clients[2][0]] = 10
    broken = dataclasses.replace(digits, train_y=labels)
    events, seen = run(config_for(), broken), []
    with pytest.raises(TrainingError, match="Round 1: the training of client 3 failed: IndexError"):
        seen.extend(events)
    assert messages(seen)[-1].startswith("Client 2: ")


def test_it_works_no_further_than_it_is_asked(digits):
    """Lines come as clients finish: whoever stops after one line has paid for one client."""
    labels = digits.train_y.clone()
    labels[federation.gather(config_for(), digits).holdings.clients[1][0]] = 10  # client 2 would fail
    events = run(config_for(), dataclasses.replace(digits, train_y=labels))
    assert [next(events).kind for _ in range(3)] == ["started", "log", "log"]
    events.close()


def test_it_imports_neither_a_framework_nor_what_it_does_not_need():
    """torch.optim would import torch._dynamo at its first step, for 1.2 s and 200 MB; torchvision costs 2 s."""
    program = """
import sys, torch
from training.config import DatasetInfo, TrainingConfig
from training.datasets import Data
from training.loop import run
x, y = torch.eye(64).view(64, 1, 8, 8), torch.arange(64) % 10
info = DatasetInfo(label="tiny", shape=(1, 8, 8), num_classes=10, num_train=64, num_test=64)
data = Data(name="digits", info=info, train_x=x, train_y=y, test_x=x, test_y=y)
config = TrainingConfig.of(dataset="digits", validation_size=10, num_rounds=1, momentum=0.5)
assert list(run(config, data, value=lambda *_: None))[-1].kind == "completed"
unwanted = {"django", "incentives", "simulations", "fedsite", "torchvision", "sklearn", "torch._dynamo"}
print("loaded:", *(unwanted & set(sys.modules)))
"""
    root = Path(__file__).parents[2]
    ended = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("loaded:\n", "")


def test_it_follows_a_round_worked_out_by_hand(tmp_path):
    """Four examples of one pixel and two classes: the gradient is that of a sigmoid, written out."""
    info = dataclasses.replace(DATASETS["digits"], shape=(1, 1, 1), num_classes=2, num_train=4, num_test=1)
    x = torch.tensor([1.0, 1.0, 1.0, 2.0]).view(4, 1, 1, 1)
    data = Data(
        name="digits",
        info=info,
        train_x=x,
        train_y=torch.tensor([0, 0, 0, 1]),
        test_x=torch.ones(1, 1, 1, 1),
        test_y=torch.tensor([0]),
    )
    config = TrainingConfig.of(
        dataset="digits", validation_size=0, model="logistic", num_clients=2, num_rounds=1, lr=0.1, batch_size=4
    )
    start = federation.gather(config, data).untrained.double()
    w, b = start[:2], start[2:]
    gradient = torch.zeros(4, dtype=torch.float64)
    for pixel, label in ((1.0, 0), (1.0, 0), (1.0, 0), (2.0, 1)):
        first = 1 / (1 + torch.exp((w[1] - w[0]) * pixel + b[1] - b[0]))  # probability of class 0
        error = first - (1.0 if label == 0 else 0.0)
        gradient += torch.tensor([error * pixel, -error * pixel, error, -error]) / 4
    assert torch.allclose(final_weights(config, data, tmp_path).double(), start - 0.1 * gradient, rtol=0, atol=1e-7)
