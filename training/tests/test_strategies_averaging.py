"""FedAvg on numbers worked by hand."""

import torch

from training import strategies
from training.config import TrainingConfig
from training.tests.updates import joined, update


def test_it_weighs_updates_by_examples_and_counts_the_silent():
    updates = [update(1, 1, [4.0, 0.0, -4.0]), update(2, 2, [2.0, 2.0, 2.0]), update(3, 1, None)]
    weights, state = joined("fedavg", updates, weights=torch.ones(3))
    # 1 + (1 x 4 + 2 x 2 + 1 x 0) / 4 = 3; 1 + (0 + 4 + 0) / 4 = 2; 1 + (-4 + 4 + 0) / 4 = 1
    assert weights.tolist() == [3.0, 2.0, 1.0]
    assert state == {}


def test_it_loses_no_digits_to_a_thousand_small_updates():
    # In float32 each of these would vanish beside 1: half a unit in the last place is 2^-24.
    updates = [update(client, 1, [2.0**-15]) for client in range(1, 1025)]
    weights, _ = joined("fedavg", updates, weights=torch.ones(1))
    assert weights.item() == 1.0 + 2.0**-15


def test_only_fedprox_pulls_clients_back():
    assert strategies.local(TrainingConfig.of(strategy="fedprox", proximal_mu=0.3)).proximal_mu == 0.3
    assert strategies.local(TrainingConfig.of(strategy="fedavgm")).proximal_mu == 0.0
