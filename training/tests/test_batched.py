"""The fast backend against the readable one."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from training import federation, networks, threads
from training.backends import batched, choose, convolutional, dense, generic, sequential
from training.catalogue import DATASETS
from training.clients import Task
from training.config import TrainingConfig
from training.events import RoundTrained
from training.loop import run

MODELS = ("logistic", "mlp", "2nn", "cnn")
FIELDS = {
    "plain": {},
    "epochs": {"local_epochs": 3},
    "momentum": {"momentum": 0.9},
    "weight decay": {"weight_decay": 0.1},
    "proximal": {"strategy": "fedprox", "proximal_mu": 0.5},
    "all": {"momentum": 0.9, "weight_decay": 0.1, "strategy": "fedprox", "proximal_mu": 0.5, "local_epochs": 2},
    "one batch": {"batch_size": 60_000},
    "one batch and all": {"batch_size": 60_000, "momentum": 0.9, "weight_decay": 0.1},
}


def config_for(**fields) -> TrainingConfig:
    return TrainingConfig.of(**{"dataset": "digits", "validation_size": 0, "batch_size": 7, "lr": 0.1, **fields})


def in_float64(data):
    return dataclasses.replace(data, train_x=data.train_x.double())


def ragged(*sizes) -> list[Task]:
    """Clients of these sizes, each with examples of its own."""
    places = torch.split(torch.arange(sum(sizes)), sizes)
    return [Task(client=client, indices=indices) for client, indices in enumerate(places, start=1)]


def trained(train, data, tasks, config, network=None, **arguments):
    network = network or networks.build(config.model, data.info, torch.Generator().manual_seed(4))
    network = copy.deepcopy(network).to(data.train_x.dtype)  # the reference leaves what it trained in it
    weights = networks.flatten(network)
    before = weights.clone()
    updates = list(train(network, weights, tasks, data, config, 3, **arguments))
    assert torch.equal(weights, before), "the global weights are not the clients' to change"
    return updates


def furthest(ones, others) -> float:
    """The largest difference of two lists of updates."""
    pairs = list(zip(ones, others, strict=True))
    assert [(one.client, one.num_examples) for one, _ in pairs] == [(o.client, o.num_examples) for _, o in pairs]
    assert all(one.delta.abs().max() > 1e-3 for one in ones), "there must be something to compare"
    deltas = max((one.delta - other.delta).abs().max().item() for one, other in pairs)
    losses = max(abs(one.loss_before - other.loss_before) for one, other in pairs)
    return max(deltas, losses, *(abs(one.loss_after - other.loss_after) for one, other in pairs))


def same_bits(ones, others) -> bool:
    pairs = list(zip(ones, others, strict=True))
    losses = all((one.loss_before, one.loss_after) == (other.loss_before, other.loss_after) for one, other in pairs)
    return losses and all(torch.equal(one.delta, other.delta) for one, other in pairs)


def odd_network() -> nn.Module:
    """Neither dense nor convolutional for the fast paths."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, 10))


@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
@pytest.mark.parametrize("model", MODELS)
def test_it_equals_the_reference_in_float64(digits, model, fields):
    tasks = ragged(20, 7, 1, 33, 21, 6, 14)
    config = config_for(model=model, **fields)
    slow, fast = (trained(train, in_float64(digits), tasks, config) for train in (sequential.train, batched.train))
    assert furthest(slow, fast) < 1e-9


@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
def test_it_equals_the_reference_for_any_other_network(digits, fields):
    data, config = in_float64(digits), config_for(**fields)
    slow, fast = (
        trained(train, data, ragged(20, 7), config, odd_network()) for train in (sequential.train, batched.train)
    )
    assert furthest(slow, fast) < 1e-9


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("batch_size", [7, 60_000])
@pytest.mark.parametrize("model", [*MODELS, "odd"])
def test_it_adds_each_clients_correction_to_its_gradient(digits, model, batch_size, momentum):
    data = in_float64(digits)
    config = config_for(model="mlp" if model == "odd" else model, batch_size=batch_size, momentum=momentum)
    network = odd_network() if model == "odd" else networks.build(model, data.info, torch.Generator().manual_seed(4))
    size = len(networks.flatten(network))
    corrections = torch.randn(2, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    tasks = [
        dataclasses.replace(task, correction=correction)
        for task, correction in zip(ragged(20, 20, 13), (corrections[0], None, corrections[1]), strict=True)
    ]
    slow, fast = (trained(train, data, tasks, config, network) for train in (sequential.train, batched.train))
    assert furthest(slow, fast) < 1e-9
    without = trained(batched.train, data, ragged(20, 20, 13), config, network)
    assert furthest(without[:1], fast[:1]) > 1e-3


@pytest.mark.parametrize("model", MODELS)
def test_it_is_near_the_reference_in_float32(digits, model):
    """A few steps: later ReLUs that switch at another moment magnify what rounding makes different."""
    config = config_for(model=model, batch_size=16)
    slow, fast = (trained(train, digits, ragged(60, 50, 40), config) for train in (sequential.train, batched.train))
    assert furthest(slow, fast) < 5e-6


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_it_learns_as_well_as_the_reference(real, model):
    fields = {"num_clients": 100, "fraction_fit": 0.1, "num_rounds": 5} if model == "mlp" else {"num_rounds": 3}
    data = real if model == "mlp" or real.name == "digits" else fewer(real)
    config = config_for(dataset=data.name, model=model, batch_size=10, **fields)
    ends = [list(run(dataclasses.replace(config, backend=name), data))[-2] for name in ("sequential", "batched")]
    assert all(isinstance(end, RoundTrained) for end in ends)
    # Half a point where it has learned. The convolutional one is stopped in mid-learning, where each of the two in
    # float32 strays as far from its own run in float64, in which they agree (the next test), as from the other.
    near = 0.005 if ends[0].accuracy > 0.9 else 0.03
    assert ends[0].accuracy == pytest.approx(ends[1].accuracy, abs=near)
    assert ends[1].accuracy > 0.5


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_whole_runs_equal_the_reference_in_float64(real, model):
    """In float32 a rounding grows a thousandfold on the way, as ReLUs and maxima switch at another moment."""
    data = in_float64(fewer(real, 500))
    config = config_for(dataset=data.name, model=model, batch_size=10, num_clients=10)
    slow, fast = (averaged(train, data, config, num_rounds=2) for train in (sequential.train, batched.train))
    assert (slow - fast).abs().max() < 1e-9


def averaged(train, data, config, num_rounds):
    """The global weights after rounds of plain averaging over all clients, in the data's precision."""
    network = networks.build(config.model, data.info, torch.Generator().manual_seed(4)).to(data.train_x.dtype)
    weights, size = networks.flatten(network), len(data.train_y) // config.num_clients
    tasks = ragged(*[size] * config.num_clients)
    for round_number in range(1, num_rounds + 1):
        updates = list(train(network, weights, tasks, data, config, round_number))
        weights = weights + torch.stack([update.delta for update in updates]).mean(0)
    return weights


def fewer(data, number=1000):
    """The first images of each part."""
    return dataclasses.replace(
        data,
        train_x=data.train_x[:number],
        train_y=data.train_y[:number],
        test_x=data.test_x[:number],
        test_y=data.test_y[:number],
    )


@pytest.mark.parametrize("model", [*MODELS, "odd"])
def test_it_gives_the_same_bits_with_any_number_of_workers(digits, model):
    config = config_for(model="mlp" if model == "odd" else model, momentum=0.5)
    network = odd_network() if model == "odd" else None
    tasks = ragged(*range(1, 60, 3))
    one, *others = (trained(batched.train, digits, tasks, config, network, workers=many) for many in (1, 2, 4, 4, 1))
    assert all(same_bits(one, other) for other in others)


@pytest.mark.parametrize("model", MODELS)
def test_it_gives_a_run_the_same_hashes_with_any_number_of_workers(digits, model, monkeypatch):
    config = config_for(model=model, num_clients=40, fraction_fit=0.3, num_rounds=2, partition="quantity")

    def hashes(workers):
        monkeypatch.setattr(threads, "workers_for", lambda data: workers)
        rounds = [event for event in run(config, digits) if isinstance(event, RoundTrained)]
        return [(event.weights_sha256, event.loss, event.accuracy) for event in rounds]

    first = hashes(1)
    assert len(first) == 2
    assert [hashes(workers) for workers in (2, 4, 1)] == [first] * 3


@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
@pytest.mark.parametrize("model", MODELS[:3])
def test_it_trains_a_client_alike_whoever_shares_its_stack(digits, model, fields):
    tasks, config = ragged(20, 7, 1, 33, 21, 20, 14), config_for(model=model, **fields)
    for data, near in ((in_float64(digits), 1e-9), (digits, 5e-5)):
        together = trained(batched.train, data, tasks, config)
        alone = [trained(batched.train, data, [task], config)[0] for task in tasks]
        assert furthest(together, alone) < near


@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
@pytest.mark.parametrize("model", [*MODELS, "odd"])
def test_it_does_not_train_the_global_model_in_place(digits, model, fields):
    """Not with one client in a chunk either, where expanding and copying could both be left out unseen."""
    network = odd_network() if model == "odd" else None
    config = config_for(model="mlp" if model == "odd" else model, **fields)
    first = trained(batched.train, digits, ragged(20), config, network, workers=1)
    again = trained(batched.train, digits, [*ragged(20), *ragged(20)], config, network, workers=1)
    assert torch.equal(first[0].delta, again[1].delta)


def test_it_hands_over_updates_that_later_clients_do_not_change(digits):
    config = config_for(num_clients=40)
    network = networks.build("mlp", digits.info, torch.Generator().manual_seed(4))
    updates = batched.train(network, networks.flatten(network), ragged(*[30] * 40), digits, config, 1, workers=1)
    kept = [(update.delta, update.delta.clone()) for update in updates]
    assert all(torch.equal(delta, copy) for delta, copy in kept)


def test_it_lets_silent_clients_stand_where_they_are(digits):
    silent = {"kind": "free_rider"}
    tasks = [
        dataclasses.replace(task, behaviour=silent) if task.client in (1, 4) else task for task in ragged(9, 8, 7, 6)
    ]
    updates = trained(batched.train, digits, tasks, config_for())
    assert [update.client for update in updates] == [1, 2, 3, 4]
    assert [update.delta is None for update in updates] == [True, False, False, True]
    assert same_bits(updates[1:3], trained(batched.train, digits, ragged(9, 8, 7)[1:], config_for()))


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("logistic", dense.Stack),
        ("mlp", dense.Stack),
        ("2nn", dense.Stack),
        ("cnn", convolutional.Client),
        ("odd", generic.Copy),
    ],
)
def test_it_takes_the_fastest_path_there_is(digits, model, path):
    network = odd_network() if model == "odd" else networks.build(model, digits.info, torch.Generator())
    cohort = batched.cohort_of(ragged(9, 9))
    plan = batched.plan_of(network, networks.flatten(network), cohort, digits, config_for())
    assert isinstance(plan.trainer(), path)


@pytest.mark.parametrize(
    ("clients", "most", "sizes"), [(10, 3, [3, 3, 2, 2]), (100, 10, [10] * 10), (23, 10, [8, 8, 7]), (2, 5, [2])]
)
def test_it_deals_the_cohort_evenly(clients, most, sizes):
    """Three stacks of three and one of one would keep one of two workers busy for six clients of ten."""
    chunks = batched.Plan(size=most, trainer=lambda: None).chunks(range(clients))
    assert [len(chunk) for chunk in chunks] == sizes
    assert [client for chunk in chunks for client in chunk] == list(range(clients))


def test_it_is_what_auto_stands_for():
    assert choose("auto") is choose("batched") is batched.train


@pytest.mark.parametrize("examples", [1, 32, 60_000])
@pytest.mark.parametrize("cohort", [1, 3, 10, 100, 10_000])
@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
@pytest.mark.parametrize("model", MODELS[:3])
def test_it_bounds_the_memory_of_a_stack(model, dataset, cohort, examples):
    network = networks.build(model, DATASETS[dataset], torch.Generator())
    layers = dense.dense_layers(network)
    clients = dense.stack_size(layers, cohort, examples)
    assert 1 <= clients <= max(1, -(-cohort // dense.PARTS))
    parameters = len(networks.flatten(network))
    assert clients == 1 or 4 * clients * max(parameters, examples * layers[0].inputs) <= dense.STACK_BYTES


def test_it_streams_a_large_cohort(digits):
    """No more than a few stacks of updates are made ahead of whoever reads them."""
    config = config_for(num_clients=400, model="logistic")
    federated = federation.gather(config, digits)
    made = []

    class Counted(dense.Stack):
        def train(self, jobs):
            made.append(len(jobs))
            return super().train(jobs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense, "Stack", Counted)
        patch.setattr(dense, "STACK_BYTES", 4 * 650 * 5)
        tasks = federation.tasks(federated, range(1, 401), 1)
        updates = batched.train(federated.network, federated.untrained, tasks, digits, config, 1, workers=2)
        next(updates)
        updates.close()
    assert set(made) == {5}
    assert len(made) <= 2 * threads.AHEAD + 1
