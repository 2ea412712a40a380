"""What only a CUDA GPU can show; without one these are skipped. `python -m pytest training/tests/test_on_gpu.py`."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from training import devices
from training.card.card import Card
from training.card.draws import Draws
from training.config import TrainingConfig
from training.events import RoundTrained, TrainingError
from training.loop import run
from training.shuffles import of_clients
from training.tests.test_batched import FIELDS, MODELS, in_float64, odd_network
from training.tests.test_card import BEHAVIOURS, config_for, gathered
from training.tests.test_games import a_round, all_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")

NEAR = 5e-6  # a weight after one round of a few steps: the difference of two float32 machines
EVERYBODY = (1, 2, 3, 4, 5, 6, 7)


@pytest.fixture
def on_gpu():
    """The process set as a run sets it, and back again."""
    devices.prepared(TrainingConfig.of(device="cuda"))
    yield torch.device("cuda")
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
@pytest.mark.parametrize("model", [*MODELS, "odd"])
def test_a_round_is_that_of_the_cpu(digits, on_gpu, model, fields):
    config = config_for(**{"model": "mlp" if model == "odd" else model, "behaviours": BEHAVIOURS, **fields})
    network = odd_network if model == "odd" else lambda: None
    for data, near in ((in_float64(digits), 1e-9), (digits, NEAR if "momentum" not in fields else 5 * NEAR)):
        federated = gathered(config, data, network=network())
        there = devices.placed(gathered(config, data, network=network()), on_gpu)
        card, labels = Card(there, federated.data.train_y), federated.data.train_y
        for whole in (True, False):
            cpu = Card(federated, labels).play(EVERYBODY, federated.untrained, {}, 1, whole=whole, test=True)
            for _ in range(3):  # call by call, recorded, replayed
                gpu = card.play(EVERYBODY, federated.untrained, {}, 1, whole=whole, test=True)
                assert (gpu.weights - cpu.weights).abs().max() < near
                assert gpu.score.accuracy == pytest.approx(cpu.score.accuracy, abs=0.01)
                for one, two in zip(gpu.reports, cpu.reports, strict=True):
                    assert one.update_norm == pytest.approx(two.update_norm, rel=1e-4)
                    assert one.loss_after == (two.loss_after and pytest.approx(two.loss_after, rel=1e-3))
                if whole:
                    assert (gpu.deltas.cpu() - cpu.deltas).abs().max() < 10 * near


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam", "trimmed_mean", "multi_krum", "centred_clipping"])
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_two_runs_end_with_equal_hashes(digits, model, strategy):
    config = TrainingConfig.of(
        dataset="digits",
        model=model,
        strategy=strategy,
        num_clients=12,
        num_rounds=4,
        batch_size=10,
        device="cuda",
        validation_size=100,
        partition="quantity",
    )
    config = dataclasses.replace(config, scheme=3)

    def worth(trained, games):
        found = [games.of(game, "loss", "fixed") for game in ("server", "fedavg")]
        return [game(np.ones((1, len(game.players)), np.bool_)).tolist() for game in found]

    def hashes():
        events = run(config, digits, value=worth)
        return [(event.weights_sha256, event.loss, event.valued) for event in events if isinstance(event, RoundTrained)]

    first = hashes()
    assert hashes() == first
    cpu = list(run(dataclasses.replace(config, device="cpu"), digits))[-2]
    assert cpu.accuracy == pytest.approx(list(run(config, digits))[-2].accuracy, abs=0.03)


@pytest.mark.parametrize("utility_weights", ["fixed", "renormalised"])
@pytest.mark.parametrize("strategy", ["fedavgm", "multi_krum", "centred_clipping", "median", "fedadam"])
def test_a_game_there_is_the_game_here_and_a_coalition_has_the_same_bits_alone(on_gpu, strategy, utility_weights):
    def game(device):
        here = a_round(strategy)
        network = copy.deepcopy(here.network).to(device)
        deltas, x, y = (tensor.to(device) for tensor in (here.deltas, here.x, here.y))
        return dataclasses.replace(here, network=network, deltas=deltas, x=x, y=y).of("server", "loss", utility_weights)

    together = game(on_gpu)(all_of(6))
    np.testing.assert_allclose(together, game("cpu")(all_of(6)), rtol=1e-5)
    apart = game(on_gpu)
    for number in (63, 0, 5, 40):
        assert apart(all_of(6)[[number]])[0] == together[number]


def test_a_recorded_round_has_the_bits_of_one_done_call_by_call(digits, on_gpu):
    for model in (*MODELS, "odd"):
        network = odd_network() if model == "odd" else None
        federated = devices.placed(
            gathered(config_for(model="mlp" if model == "odd" else model), digits, network=network), on_gpu
        )
        card = Card(federated, digits.train_y)
        weights = [card.play(EVERYBODY, federated.untrained, {}, 1, whole=True, test=True).weights for _ in range(3)]
        assert any(card.graphs.known.values())
        assert torch.equal(weights[0], weights[1])
        assert torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(("size", "epochs"), [(1, 1), (2, 3), (5, 1), (10, 7), (60, 2), (228, 1), (229, 1)])
def test_it_draws_the_orders_of_the_cpu(on_gpu, size, epochs):
    draws, clients = Draws(on_gpu), np.arange(1, 1_000_000, 1777)
    assert draws.places is not None
    for seed in (0, 7, 2**32 - 1):
        assert np.array_equal(draws(seed, 12, clients, size, epochs), of_clients(seed, 12, clients, size, epochs))


def test_products_keep_all_digits_unless_tf32_is_asked_for(on_gpu):
    a = torch.randn(512, 512, generator=torch.Generator().manual_seed(0))
    exact = a.double() @ a.double()

    def apart():
        there = a.to(on_gpu)
        return ((there @ there).cpu().double() - exact).norm() / exact.norm()

    assert apart() < 1e-6
    devices.prepared(TrainingConfig.of(device="cuda", precision="tf32"))
    assert 1e-5 < apart() < 1e-2
    devices.prepared(TrainingConfig.of(device="cuda"))
    assert apart() < 1e-6


def test_too_little_memory_is_a_sentence_that_names_the_field(digits):
    config = TrainingConfig.of(
        dataset="digits", model="cnn", num_clients=300, batch_size=4, device="cuda", num_rounds=1, validation_size=0
    )
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.004)
    try:
        with pytest.raises(TrainingError, match=r"^fraction_fit: round 1, 300 clients with cnn, does not fit into the"):
            list(run(config, digits))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
