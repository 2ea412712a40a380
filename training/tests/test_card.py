"""The engine for a GPU, doing its arithmetic on the CPU, against the readable backend."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from training import checkpoints, clients, devices, federation, networks
from training.backends import sequential
from training.card.card import Card
from training.card.sheet import laid_out
from training.config import TrainingConfig
from training.events import Log, RoundTrained, TrainingError
from training.loop import run
from training.partitions import Holdings
from training.strategies.averaging import fedavg
from training.tests.crowd import MANY
from training.tests.test_batched import FIELDS, MODELS, in_float64, odd_network

SIZES = (20, 7, 1, 33, 21, 6, 14)
BEHAVIOURS = {
    1: {"kind": "sign_flip", "scale": 2.0},
    3: {"kind": "free_rider"},
    4: {"kind": "low_effort", "fraction": 0.5},
    5: {"kind": "label_flip", "fraction": 1.0},
    7: {"kind": "dropout", "probability": 0.5},
}


def config_for(**fields) -> TrainingConfig:
    fields = {"dataset": "digits", "validation_size": 100, "batch_size": 7, "lr": 0.1, "num_clients": 7, **fields}
    return TrainingConfig.of(**fields)


def gathered(config, data, sizes=SIZES, network=None) -> federation.Federation:
    """Clients of these sizes."""
    data = dataclasses.replace(data, test_x=data.test_x.to(data.train_x.dtype))
    federated = federation.gather(config, data)
    network = (network or federated.network).to(data.train_x.dtype)
    cuts = np.cumsum(sizes)[:-1]
    holdings = Holdings(validation=federated.holdings.validation, clients=tuple(np.split(np.arange(sum(sizes)), cuts)))
    return dataclasses.replace(federated, network=network, untrained=networks.flatten(network), holdings=holdings)


def played(federated, cohort, *, rounds=1, whole=False, most=None):
    card, weights, state = Card(federated, federated.data.train_y), federated.untrained, {}
    card.most = most or card.most
    for number in range(1, rounds + 1):
        result = card.play(cohort, weights, state, number, whole=whole, test=True)
        weights, state = result.weights, result.strategy_state
    return result


def by_one(federated, cohort, round_number=1):
    tasks = federation.tasks(federated, cohort, round_number)
    return list(
        sequential.train(federated.network, federated.untrained, tasks, federated.data, federated.config, round_number)
    )


def mean(updates, weights):
    total = sum(update.num_examples for update in updates)
    return weights + sum(update.num_examples / total * update.delta for update in updates if update.delta is not None)


def agrees(federated, result, updates, near):
    assert (result.weights - mean(updates, federated.untrained)).abs().max() < near
    tasks = federation.tasks(federated, [update.client for update in updates], 1)
    for report, task, update in zip(result.reports, tasks, updates, strict=True):
        effort = 0 if update.delta is None else clients.effort(task, federated.config, 1)
        assert report.effort == effort
        assert (report.client, report.num_examples) == (update.client, update.num_examples)
        assert report.update_norm == pytest.approx(update.norm, rel=1e3 * near, abs=near)
        for told in ("loss_before", "loss_after"):
            expected = getattr(update, told)
            found = getattr(report, told)
            assert found is None if expected is None else found == pytest.approx(expected, abs=100 * near)
    test = networks.evaluate(federated.network, result.weights, federated.data.test_x, federated.data.test_y)
    assert result.score.accuracy == test.accuracy
    assert result.score.loss == pytest.approx(test.loss, rel=1e-5)
    validation = networks.evaluate(federated.network, result.weights, federated.validation_x, federated.validation_y)
    assert result.validation_loss == pytest.approx(validation.loss, rel=1e-5)


@pytest.mark.parametrize("most", [None, 3], ids=["at once", "in chunks"])
@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
@pytest.mark.parametrize("model", [*MODELS, "odd"])
def test_it_equals_the_reference_in_float64(digits, model, fields, most):
    config = config_for(**{"model": "mlp" if model == "odd" else model, **fields})
    network = odd_network() if model == "odd" else None
    federated, cohort = gathered(config, in_float64(digits), network=network), (1, 2, 3, 4, 5, 6, 7)
    result = played(federated, cohort, most=most, whole=True)
    updates = by_one(federated, cohort)
    agrees(federated, result, updates, 1e-9)
    assert (result.deltas - torch.stack([update.delta for update in updates])).abs().max() < 1e-9


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_it_plays_behaviours_and_short_batches_as_the_reference(digits, model):
    federated = gathered(config_for(model=model, behaviours=BEHAVIOURS, local_epochs=2), in_float64(digits))
    cohort = (1, 2, 3, 4, 5, 7)
    updates = by_one(federated, cohort)
    assert [update.delta is None for update in updates][2], "somebody is silent"
    agrees(federated, played(federated, cohort, most=4), updates, 1e-9)


@pytest.mark.parametrize("behaviours", [{}, {2: {"kind": "free_rider"}}], ids=["all", "one silent"])
@pytest.mark.parametrize("model", MODELS[:3])
def test_one_step_of_everybody_needs_nobodys_weights(digits, model, behaviours):
    config = config_for(model=model, batch_size=40, behaviours=behaviours)
    federated, cohort = gathered(config, in_float64(digits)), (1, 2, 3, 4, 5, 6, 7)
    card = Card(federated, federated.data.train_y)
    result = card.play(cohort, federated.untrained, {}, 1, whole=False, test=True)
    assert card.buffers is None
    agrees(federated, result, by_one(federated, cohort), 1e-9)


def test_a_wrong_label_names_its_client(digits):
    labels = digits.train_y.clone()
    labels[sum(SIZES[:3]) + 2] = 10
    federated = gathered(config_for(), dataclasses.replace(digits, train_y=labels))
    with pytest.raises(TrainingError, match=r"Round 1: the training of client 4 failed: IndexError: Target 10 is out"):
        played(federated, (1, 2, 4, 5))


@pytest.fixture
def on_card(monkeypatch):
    monkeypatch.setattr(devices, "has_card", lambda config, device: config.backend == "auto")


STRATEGIES = {
    "fedavg": {},
    "fedavgm": {},
    "fedadam": {},
    "trimmed_mean": {},
    "median": {},
    "multi_krum": {},
    "centred_clipping": {},
}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_on_it_tells_what_a_run_of_the_reference_tells(digits, on_card, strategy):
    """Log lines with it, as losses and norms are told in two digits; a robust mean of few clients may pick another."""
    behaviours = {3: {"kind": "free_rider"}, 5: {"kind": "low_effort", "from_round": 2}}
    config = config_for(num_clients=12, num_rounds=3, strategy=strategy, behaviours=behaviours)
    here, there = (
        list(run(dataclasses.replace(config, backend=backend, scheme=3), digits, value=worth_alone))
        for backend in ("auto", "sequential")
    )
    assert [type(event) for event in here] == [type(event) for event in there]
    rounds = [(one, two) for one, two in zip(here, there, strict=True) if isinstance(one, RoundTrained)]
    assert len(rounds) == 3
    for one, two in rounds:
        assert one.cohort == two.cohort
        assert [report.effort for report in one.reports] == [report.effort for report in two.reports]
        assert one.loss == pytest.approx(two.loss, rel=1e-3)
        assert one.validation_loss == pytest.approx(two.validation_loss, rel=1e-3)
        np.testing.assert_allclose(one.valued, two.valued, rtol=1e-3)
    assert [one for one in here[:5] if isinstance(one, Log)] == [two for two in there[:5] if isinstance(two, Log)]


def test_a_run_on_it_asks_only_those_what_they_do_who_are_not_honest(digits, on_card, monkeypatch):
    """Thousands of honest clients would cost more than their training does."""
    asked = []

    def told(task, round_number):
        asked.append(task.client)
        return behaviour_of(task, round_number)

    behaviour_of = clients.behaviour_of
    monkeypatch.setattr(clients, "behaviour_of", told)
    monkeypatch.setattr(federation, "tasks", None)
    config = config_for(num_clients=12, num_rounds=2, behaviours={5: {"kind": "low_effort", "fraction": 0.2}})
    rounds = [event for event in run(config, digits) if isinstance(event, RoundTrained)]
    assert set(asked) == {5}
    for event in rounds:
        efforts = {report.client: report.effort for report in event.reports}
        held = {report.client: report.num_examples for report in event.reports}
        assert {client for client in efforts if efforts[client] != held[client]} == {5}
        assert 0 < efforts[5] < held[5]


@pytest.mark.parametrize("strategy", ["fedavg", "median"])
def test_a_run_on_it_makes_up_what_a_run_of_the_reference_makes_up(digits, on_card, strategy):
    config = dataclasses.replace(MANY, strategy=strategy, scheme=3)

    def rounds(backend):
        events = run(dataclasses.replace(config, backend=backend), digits, value=lambda trained, games: games.deltas)
        return [event for event in events if isinstance(event, RoundTrained)]

    for one, two in zip(rounds("auto"), rounds("sequential"), strict=True):
        assert (one.valued.cpu() - two.valued).abs().max() < 1e-3
        for here, there in zip(one.reports, two.reports, strict=True):
            told = dataclasses.replace(there, loss_before=here.loss_before, loss_after=here.loss_after)
            assert dataclasses.replace(here, update_norm=told.update_norm) == told
            assert here.update_norm == pytest.approx(there.update_norm, rel=1e-3)
            assert (here.loss_before is None) is (there.loss_before is None)
        assert one.validation_loss == pytest.approx(two.validation_loss, rel=1e-3)


def worth_alone(trained, games):
    """Of each client, to plain averaging and to the strategy in use."""
    return [*(games.of(game, "loss", "fixed")(np.eye(11, dtype=np.bool_)) for game in ("fedavg", "server"))]


def test_two_runs_on_it_end_with_the_same_hashes_and_so_does_one_that_went_on(digits, on_card, tmp_path):
    config = config_for(num_clients=40, fraction_fit=0.3, num_rounds=4, partition="quantity", strategy="fedadam")

    def rounds(**arguments):
        events = run(config, digits, checkpoints=tmp_path, **arguments)
        return [(event.weights_sha256, event.checkpoint_sha256) for event in events if isinstance(event, RoundTrained)]

    first = rounds()
    assert rounds() == first
    state = checkpoints.load(tmp_path, 3, first[2][1])
    assert rounds(resume=state, replay_until=3) == first[3:]


def test_nothing_of_a_round_leaves_the_device_or_its_precision(digits):
    """On `meta`, which has shapes and no numbers: a tensor of the processor's would be told, and so would be float64
    but in sums over clients and examples."""
    seen: dict[str, set[str]] = {}

    class Told(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            each = [leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, torch.Tensor) and leaf.dim()]
            there = [tensor for tensor in each if tensor.device.type == "meta"]
            assert not there or len(there) == len(each) or "copy" in str(function), function
            for tensor in there:
                seen.setdefault(str(tensor.dtype), set()).add(str(function))
            return out

    for model in (*MODELS, "odd"):
        for fields in ({}, {"batch_size": 60, "momentum": 0.5}, {"batch_size": 60}):
            network = odd_network() if model == "odd" else None
            config = config_for(model="mlp" if model == "odd" else model, **fields)
            federated = gathered(config, digits, network=network)
            there = devices.placed(federated, torch.device("meta"))
            card = Card(there, digits.train_y)
            sheet = laid_out(card.holdings, (1, 2, 5), config, 1, card.batch, card.most)
            weights = federated.untrained.to("meta")
            with Told():
                for whole in (False, True):
                    train = card._in_one_step if card._is_thin(sheet, whole) else card._trained
                    crowd, norms, losses = train(sheet, weights, whole)
                    joined, _ = fedavg(weights, crowd, 42, {})
                    card._scores(joined, True)
            assert (joined.dtype, norms.dtype, losses.dtype) == (torch.float32, torch.float64, torch.float32)
    allowed = (
        "sum",
        "add",
        "mul",
        "div",
        "zero",
        "new_",
        "empty",
        "stack",
        "cat",
        "vector_norm",
        "square",
        "pow",
        "sqrt",
        "clamp",
        "slice",
        "select",
        "view",
        "_to_copy",
        "copy_",
        "index",
        "unflatten",
        "expand",
        "as_strided",
        "alias",
        "unsqueeze",
        "permute",
        "split",
        "detach",
    )
    products = {each for each in seen["torch.float64"] if not any(name in each for name in allowed)}
    assert not products
