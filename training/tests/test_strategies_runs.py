"""Strategies in whole runs: what they keep travels in checkpoints, and FedProx reaches the clients' steps."""

import dataclasses

import pytest
import torch
from torch.nn import functional as F

import kinds
from training import backends, checkpoints, networks
from training.clients import Task
from training.config import TrainingConfig
from training.events import RoundTrained
from training.generators import torch_generator
from training.loop import run
from training.tests.timeless import timeless

STRATEGIES = tuple(kinds.family("strategy"))


def config_for(strategy: str, **fields) -> TrainingConfig:
    return TrainingConfig.of(
        dataset="digits",
        model="logistic",
        strategy=strategy,
        num_clients=6,
        num_rounds=4,
        validation_size=0,
        behaviours={2: {"kind": "dropout"}, 5: {"kind": "low_effort"}},
        **fields,
    )


def trained(config, digits, **arguments) -> list[RoundTrained]:
    events = run(config, digits, config_sha256="this", **arguments)
    return [event for event in events if isinstance(event, RoundTrained)]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_it_ends_as_if_it_had_never_stopped(strategy, digits, tmp_path):
    config, folder = config_for(strategy), tmp_path / "stopped"
    whole = trained(config, digits, checkpoints=tmp_path / "whole")
    events = run(config, digits, checkpoints=folder, config_sha256="this")
    second = next(event for event in events if getattr(event, "round_number", None) == 2)
    events.close()
    state = checkpoints.load(folder, 2, second.checkpoint_sha256)
    assert timeless(trained(config, digits, checkpoints=folder, resume=state)) == timeless(whole[2:])


@pytest.mark.parametrize(
    ("strategy", "kept"),
    [
        ("fedavg", set()),
        ("fedavgm", {"velocity"}),
        ("fedadam", {"first_moment", "second_moment"}),
        ("centred_clipping", {"centre"}),
    ],
)
def test_what_it_keeps_lies_in_the_checkpoint(strategy, kept, digits, tmp_path):
    last = trained(config_for(strategy), digits, checkpoints=tmp_path)[-1]
    state = checkpoints.load(tmp_path, 4, last.checkpoint_sha256)
    assert set(state.strategy_state) == kept
    assert all(tensor.dtype == torch.float32 for tensor in state.strategy_state.values())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_it_learns(strategy, digits):
    faster = {"server_lr": 0.1} if strategy == "fedadam" else {}  # four rounds are few for steps of 0.03
    last = trained(config_for(strategy, lr=0.1, **faster), digits)[-1]
    assert last.accuracy > 0.85


@pytest.mark.parametrize("strategy", ["fedavg", "median", "multi_krum", "centred_clipping"])
def test_updates_are_still_whole_when_the_last_has_come(strategy, digits, tmp_path):
    """In a large cohort nobody copies them for the strategy, and a backend may be tempted to reuse their memory."""
    weights = []
    for backend in ("sequential", "auto"):
        config = dataclasses.replace(
            config_for(strategy, backend=backend), model="mlp", num_clients=24, num_rounds=1, lr=0.1
        )
        (only,) = trained(config, digits, checkpoints=tmp_path / backend)
        weights.append(checkpoints.load(tmp_path / backend, 1, only.checkpoint_sha256).weights)
    assert torch.allclose(*weights, rtol=0, atol=1e-6)


def test_a_run_of_fedprox_without_pull_is_fedavgs(digits):
    fedavg, none, some = (
        [each.weights_sha256 for each in trained(config, digits)]
        for config in (config_for("fedavg"), *(config_for("fedprox", proximal_mu=mu) for mu in (0.0, 0.1)))
    )
    assert none == fedavg
    assert some != fedavg


def test_a_stronger_pull_makes_smaller_updates(digits):
    norms = []
    for mu in (0.0, 1.0, 10.0):
        config = dataclasses.replace(config_for("fedprox", proximal_mu=mu, local_epochs=5), num_rounds=1)
        norms.append(trained(config, digits)[0].reports[0].update_norm)
    assert norms[0] > 1.2 * norms[1] > 2 * norms[2], norms


def by_autograd(digits, weights, task, config, round_number=1):
    """The proximal objective and a linear correction as parts of the loss, minimised by torch.optim."""
    network = networks.build(config.model, digits.info, torch_generator(5, "initial_weights"))
    networks.load(network, weights)
    optimiser = torch.optim.SGD(
        network.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    generator = torch_generator(config.seed, "batches", round_number, task.client)
    for batch in torch.randperm(len(task.indices), generator=generator).split(config.batch_size):
        chosen = task.indices[batch]
        flat = torch.cat([parameter.reshape(-1) for parameter in network.parameters()])
        loss = F.cross_entropy(network(digits.train_x[chosen]), digits.train_y[chosen])
        loss = loss + config.strategy["proximal_mu"] / 2 * (flat - weights).square().sum()
        if task.correction is not None:
            loss = loss + torch.dot(task.correction, flat)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return networks.flatten(network) - weights


@pytest.mark.parametrize("model", ["mlp", "cnn"])
@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("fields", [{}, {"momentum": 0.9, "weight_decay": 0.1}])
def test_a_local_step_descends_the_proximal_and_corrected_objective(digits, model, corrected, fields):
    config = TrainingConfig.of(
        dataset="digits", validation_size=0, model=model, strategy="fedprox", proximal_mu=0.5, batch_size=16, **fields
    )
    network = networks.build(model, digits.info, torch_generator(0, "initial_weights"))
    weights = networks.flatten(network)
    correction = 0.1 * torch.randn(len(weights), generator=torch_generator(1, "behaviour")) if corrected else None
    task = Task(client=3, indices=torch.arange(70), correction=correction)
    (update,) = backends.choose("sequential")(network, weights, [task], digits, config, 1)
    assert torch.allclose(update.delta, by_autograd(digits, weights, task, config), rtol=0, atol=2e-6)
