"""Updates that are kept as thin matrices, against what they stand for."""

import dataclasses

import pytest
import torch

from training import networks, strategies, thin
from training.backends import batched, sequential
from training.clients import Update
from training.layers import dense_layers
from training.strategies.reading import THIN_TOGETHER, weighted_mean
from training.tests.test_batched import config_for, furthest, in_float64, ragged, same_bits, trained
from training.tests.updates import update

MLP = {"model": "2nn", "batch_size": 60_000}  # one batch; of three examples or fewer it is thin


def layers_of(digits, model="2nn"):
    return dense_layers(networks.build(model, digits.info, torch.Generator()))


def drawn(digits, clients: int, examples: int) -> list[thin.Thin]:
    layers, generator = layers_of(digits), torch.Generator().manual_seed(7)
    inputs = [torch.randn(clients, examples, layer.inputs, generator=generator) for layer in layers]
    errors = [torch.randn(clients, examples, layer.outputs, generator=generator) for layer in layers]
    return list(thin.of_many(layers, inputs, errors))


def sent(client: int, num_examples: int, found: thin.Thin) -> Update:
    return Update(client=client, num_examples=num_examples, sent=found, loss_before=0.0, loss_after=0.0)


def test_it_stands_for_the_gradient_of_a_dense_network(digits):
    """Against PyTorch's own autograd, by the reference."""
    slow, fast = (
        trained(train, in_float64(digits), ragged(1, 2, 3, 3, 1), config_for(**MLP))
        for train in (sequential.train, batched.train)
    )
    assert all(isinstance(each.sent, thin.Thin) for each in fast)
    assert furthest(slow, fast) < 1e-9
    assert [each.norm for each in fast] == pytest.approx([each.norm for each in slow], rel=1e-12)


def test_its_memory_is_its_own(digits):
    """A worker's room is used again by the next clients."""
    plan = ragged(*[2] * 60)
    one_by_one = [trained(batched.train, digits, [task], config_for(**MLP))[0] for task in plan]
    together = trained(batched.train, digits, plan, config_for(**MLP))
    assert furthest(one_by_one, together) < 1e-5


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_number_of_workers_does_not_show(digits, workers):
    first, again = (
        trained(batched.train, digits, ragged(*[1, 3, 2] * 70), config_for(**MLP), workers=count)
        for count in (1, workers)
    )
    assert same_bits(first, again)
    weights = torch.zeros(len(first[0].delta))
    assert torch.equal(weighted_mean(first, weights, 420), weighted_mean(again, weights, 420))


@pytest.mark.parametrize(
    ("fields", "thin_ones"),
    [
        ({}, 2),
        ({"local_epochs": 2}, 0),
        ({"weight_decay": 0.1}, 0),
        ({"momentum": 0.9}, 2),
        ({"strategy": "fedprox", "proximal_mu": 0.1}, 0),
        ({"batch_size": 2}, 1),
    ],
)
def test_who_takes_one_small_step_sends_thin_matrices(digits, fields, thin_ones):
    updates = trained(batched.train, digits, ragged(2, 3, 40), config_for(**MLP | fields))
    assert sum(isinstance(each.sent, thin.Thin) for each in updates) == thin_ones


def test_behaviours_and_corrections_change_what_is_sent(digits):
    liar, corrected = ragged(2, 3)
    liar = dataclasses.replace(liar, behaviour={"kind": "sign_flip", "scale": 5.0})
    size = sum(layer.parameters for layer in layers_of(digits))
    corrected = dataclasses.replace(corrected, correction=torch.randn(size, dtype=torch.float64))
    slow, fast = (
        trained(train, in_float64(digits), [liar, corrected], config_for(**MLP))
        for train in (sequential.train, batched.train)
    )
    assert furthest(slow, fast) < 1e-9


def test_it_knows_its_norm(digits):
    for each in drawn(digits, clients=5, examples=3):
        assert each.norm == pytest.approx(float(torch.linalg.vector_norm(each.whole(), dtype=torch.float64)), rel=1e-5)


def test_an_overflow_of_its_products_is_none_of_its_norm(digits):
    """The square of a large update may be infinite in float32 where the update is not."""
    (found,) = drawn(digits, clients=1, examples=1)
    huge = dataclasses.replace(found, errors=[each * 1e17 for each in found.errors], norm=float("inf"))
    assert sent(1, 1, huge).norm == pytest.approx(found.norm * 1e17, rel=1e-5)


@pytest.mark.parametrize("clients", [1, THIN_TOGETHER - 1, THIN_TOGETHER, 2 * THIN_TOGETHER + 3])
def test_the_server_adds_them_up_as_if_they_were_whole(digits, clients):
    found = drawn(digits, clients, examples=2)
    size = len(found[0].whole())
    updates = [sent(client, client, each) for client, each in enumerate(found, start=1)]
    updates[0:0] = [update(98, 7, torch.randn(size).tolist()), update(99, 5, None)]
    total = sum(each.num_examples for each in updates)
    mean = sum(each.num_examples / total * each.delta.double() for each in updates if each.delta is not None)
    assert torch.allclose(weighted_mean(updates, torch.zeros(size), total), mean, atol=1e-6)


@pytest.mark.parametrize("strategy", ["fedavgm", "fedadam", "trimmed_mean", "median", "multi_krum", "centred_clipping"])
def test_a_strategy_need_not_know(digits, strategy):
    found = [sent(client, 2, each) for client, each in enumerate(drawn(digits, 9, 2), start=1)]
    whole = [dataclasses.replace(each, sent=each.delta) for each in found]
    weights = torch.zeros(len(found[0].delta))
    config = config_for(strategy=strategy)
    one, other = (strategies.join(config, weights, updates, 18, {})[0] for updates in (found, whole))
    assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "examples", "worth_it"), [("2nn", 3, True), ("2nn", 4, False), ("logistic", 1, False)]
)
def test_it_is_worth_it_where_it_is_much_smaller(digits, model, examples, worth_it):
    assert thin.is_worth_it(layers_of(digits, model), examples) is worth_it
