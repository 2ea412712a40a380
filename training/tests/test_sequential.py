import dataclasses

import pytest
import torch
from torch.nn import functional as F

from training import backends, networks
from training.clients import Task
from training.config import TrainingConfig
from training.events import TrainingError
from training.generators import torch_generator


def config_for(**fields) -> TrainingConfig:
    return TrainingConfig.of(dataset="digits", validation_size=0, **fields)


def train(data, tasks, config, round_number=1):
    network = networks.build(config.model, data.info, torch_generator(0, "initial_weights"))
    weights = networks.flatten(network)
    before = weights.clone()
    updates = list(backends.choose("auto")(network, weights, tasks, data, config, round_number))
    assert torch.equal(weights, before), "the global weights are not the clients' to change"
    return weights, updates


def task(client: int, first: int, last: int, **behaviour) -> Task:
    mapping = behaviour or {"kind": "honest"}
    return Task(client=client, indices=torch.arange(first, last), behaviour=mapping)


def by_torch_optim(data, weights, task, config, round_number=1):
    """The same local training with PyTorch's own optimiser: (delta, losses of all batches)."""
    network = networks.build(config.model, data.info, torch_generator(5, "initial_weights"))
    networks.load(network, weights)
    optimiser = torch.optim.SGD(
        network.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    generator = torch_generator(config.seed, "batches", round_number, task.client)
    losses = []
    for _ in range(config.local_epochs):
        for batch in torch.randperm(len(task.indices), generator=generator).split(config.batch_size):
            chosen = task.indices[batch]
            optimiser.zero_grad()
            loss = F.cross_entropy(network(data.train_x[chosen]), data.train_y[chosen])
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    return networks.flatten(network) - weights, losses


@pytest.mark.parametrize("model", ["mlp", "cnn"])
@pytest.mark.parametrize(
    "fields", [{}, {"momentum": 0.9}, {"weight_decay": 0.01}, {"momentum": 0.5, "weight_decay": 0.1, "seed": 3}]
)
def test_it_descends_as_torchs_own_sgd(digits, model, fields):
    config = config_for(model=model, local_epochs=2, batch_size=16, **fields)
    tasks = [task(1, 0, 50), task(4, 50, 75)]
    weights, updates = train(digits, tasks, config)
    for each, update in zip(tasks, updates, strict=True):
        delta, losses = by_torch_optim(digits, weights, each, config)
        assert torch.allclose(update.delta, delta, rtol=0, atol=1e-6)
        assert (update.client, update.num_examples) == (each.client, len(each.indices))
        few = min(10, len(losses) // 2)
        assert update.loss_before == pytest.approx(sum(losses[:few]) / few, abs=1e-6)
        assert update.loss_after == pytest.approx(sum(losses[-few:]) / few, abs=1e-6)


def test_it_keeps_the_last_short_batch(digits):
    config = config_for(batch_size=16, model="logistic")
    _, (seventeen,) = train(digits, [task(1, 0, 17)], config)
    assert seventeen.loss_after != seventeen.loss_before
    _, (sixteen,) = train(digits, [task(1, 0, 16)], config)
    assert sixteen.loss_after == sixteen.loss_before


def test_it_draws_other_batches_for_another_round_client_and_seed(digits):
    config = config_for(batch_size=4, model="logistic")

    def delta(client=1, round_number=1, seed=0):
        changed = dataclasses.replace(config, seed=seed)
        return train(digits, [task(client, 0, 30)], changed, round_number)[1][0].delta

    assert torch.equal(delta(), delta())
    assert not any(torch.equal(delta(), other) for other in (delta(client=2), delta(round_number=2), delta(seed=1)))


def test_it_does_not_let_one_client_see_what_another_did(digits):
    config = config_for(momentum=0.9, model="mlp")
    _, alone = train(digits, [task(2, 50, 90)], config)
    _, after_another = train(digits, [task(1, 0, 50), task(2, 50, 90)], config)
    assert torch.equal(alone[0].delta, after_another[1].delta)


def test_it_gets_nothing_from_a_free_rider(digits):
    _, (update,) = train(digits, [task(1, 0, 50, kind="free_rider")], config_for())
    assert (update.num_examples, update.delta, update.loss_before, update.loss_after) == (50, None, None, None)


def test_it_gets_the_opposite_from_a_sign_flipper(digits):
    config = config_for(model="mlp")
    _, (honest,) = train(digits, [task(1, 0, 50)], config)
    _, (flipped,) = train(digits, [task(1, 0, 50, kind="sign_flip", scale=3.0)], config)
    assert torch.equal(flipped.delta, -3.0 * honest.delta)
    assert flipped.loss_after == honest.loss_after


def test_it_trains_a_label_flipper_on_reversed_labels(digits):
    config = config_for(model="mlp")
    _, (flipped,) = train(digits, [task(1, 0, 50, kind="label_flip", fraction=1.0)], config)
    reversed_labels = dataclasses.replace(digits, train_y=9 - digits.train_y)
    _, (same,) = train(reversed_labels, [task(1, 0, 50)], config)
    assert torch.equal(flipped.delta, same.delta)


def test_it_flips_the_same_examples_in_every_round(digits):
    config = config_for(model="mlp", batch_size=60_000)  # one full batch: the round's order of examples is no matter
    flipper = task(1, 0, 50, kind="label_flip", fraction=0.5)
    first, second = (train(digits, [flipper], config, number)[1][0].delta for number in (1, 2))
    assert torch.allclose(first, second, rtol=0, atol=1e-6)
    other = train(digits, [task(2, 0, 50, kind="label_flip", fraction=0.5)], config)[1][0].delta
    assert not torch.allclose(first, other, rtol=0, atol=1e-4)


def test_it_names_client_round_and_cause_of_a_failure(digits):
    broken = dataclasses.replace(digits, train_y=torch.full_like(digits.train_y, 77))
    with pytest.raises(
        TrainingError, match="Round 4: the training of client 3 failed: IndexError: Target 77"
    ) as caught:
        train(broken, [task(3, 0, 5)], config_for(), round_number=4)
    assert isinstance(caught.value.__cause__, IndexError)


def test_it_works_only_when_asked_for_the_next_update(digits):
    network = networks.build("logistic", digits.info, torch_generator(0, "initial_weights"))
    absurd = Task(client=2, indices=torch.tensor([10**9]))
    updates = backends.choose("sequential")(
        network, networks.flatten(network), [task(1, 0, 5), absurd], digits, config_for(), 1
    )
    assert next(updates).client == 1
    with pytest.raises(TrainingError, match="client 2"):
        next(updates)
