import torch

from training.clients import Update
from training.config import TrainingConfig
from training.strategies import fedavg


def update(client: int, num_examples: int, delta: list[float] | None) -> Update:
    sent = None if delta is None else torch.tensor(delta)
    return Update(client=client, num_examples=num_examples, delta=sent, loss_before=None, loss_after=None)


def average(weights, updates):
    total = sum(each.num_examples for each in updates)
    return fedavg(torch.tensor(weights), iter(updates), total, {}, TrainingConfig())


def test_it_weighs_updates_by_examples_and_counts_the_silent():
    updates = [update(1, 1, [4.0, 0.0, -4.0]), update(2, 2, [2.0, 2.0, 2.0]), update(3, 1, None)]
    weights, state = average([1.0, 1.0, 1.0], updates)
    # 1 + (1 x 4 + 2 x 2 + 1 x 0) / 4 = 3; 1 + (0 + 4 + 0) / 4 = 2; 1 + (-4 + 4 + 0) / 4 = 1
    assert weights.tolist() == [3.0, 2.0, 1.0]
    assert weights.dtype == torch.float32
    assert state == {}


def test_it_leaves_the_old_weights_alone():
    old = torch.tensor([1.0, 2.0])
    new, _ = fedavg(old, [update(1, 5, [1.0, 1.0])], 5, {}, TrainingConfig())
    assert old.tolist() == [1.0, 2.0]
    assert new.tolist() == [2.0, 3.0]


def test_it_loses_no_digits_to_a_thousand_small_updates():
    # In float32 each of these would vanish beside 1: half a unit in the last place is 2^-24.
    updates = [update(client, 1, [2.0**-15]) for client in range(1, 1025)]
    weights, _ = average([1.0], updates)
    assert weights.item() == 1.0 + 2.0**-15


def test_it_keeps_the_weights_where_nobody_sends_anything():
    weights, _ = average([0.1, 0.2], [update(1, 3, None), update(2, 4, None)])
    assert torch.equal(weights, torch.tensor([0.1, 0.2]))
