"""FedAvgM and FedAdam on numbers worked by hand, and FedAdam beside a second implementation."""

import math

import pytest
import torch

from training.tests.updates import alike, drawn, joined


def test_momentum_goes_on_in_the_direction_of_the_past():
    weights, state = joined("fedavgm", alike([2.0], [4.0]), server_momentum=0.5, server_lr=2.0)
    assert (weights.item(), state["velocity"].item()) == (6.0, 3.0)  # v = 3, w = 0 + 2 x 3
    weights, state = joined(
        "fedavgm", alike([1.0], [-1.0]), weights=weights, state=state, server_momentum=0.5, server_lr=2.0
    )
    assert (weights.item(), state["velocity"].item()) == (9.0, 1.5)  # v = 0.5 x 3 + 0, w = 6 + 2 x 1.5


def test_momentum_of_a_steady_update_tends_to_its_sum():
    weights, state = torch.zeros(1), {}
    for _ in range(100):
        before = weights
        weights, state = joined("fedavgm", alike([1.0]), weights=weights, state=state, server_momentum=0.75)
    assert (weights - before).item() == pytest.approx(1 / (1 - 0.75), rel=1e-4)


FIELDS = {"beta_1": 0.5, "beta_2": 0.75, "tau": 2.0, "server_lr": 10.0}


def test_adam_as_worked_by_hand():
    weights, state = joined("fedadam", alike([4.0, 0.0]), **FIELDS)
    # m = 0.5 x 4 = 2; v = 0.75 x 2^2 + 0.25 x 4^2 = 7; w = 10 x 2 / (sqrt 7 + 2)
    assert state["first_moment"].tolist() == [2.0, 0.0]
    assert state["second_moment"].tolist() == [7.0, 3.0]
    assert weights.tolist() == pytest.approx([20 / (math.sqrt(7) + 2), 0.0])
    weights, state = joined("fedadam", alike([-2.0, 0.0]), weights=weights, state=state, **FIELDS)
    # m = 0.5 x 2 - 0.5 x 2 = 0; v = 0.75 x 7 + 0.25 x 2^2 = 6.25
    assert state["first_moment"].tolist() == [0.0, 0.0]
    assert state["second_moment"].tolist() == [6.25, 2.25]
    assert weights.tolist() == pytest.approx([20 / (math.sqrt(7) + 2), 0.0])


def test_adam_beside_the_sums_written_out():
    """m and v as sums over all rounds instead of step by step."""
    beta_1, beta_2, tau, rate = 0.9, 0.99, 0.001, 0.03
    weights, state, deltas = torch.zeros(50), {}, []
    expected = torch.zeros(50, dtype=torch.float64)
    for number in range(1, 7):
        updates = drawn(3, 50, seed=number, scale=0.1)
        deltas.append(sum(each.num_examples * each.delta.double() for each in updates) / 6)
        first = sum((1 - beta_1) * beta_1 ** (number - s) * deltas[s - 1] for s in range(1, number + 1))
        second = sum((1 - beta_2) * beta_2 ** (number - s) * deltas[s - 1] ** 2 for s in range(1, number + 1))
        expected += rate * first / ((second + beta_2**number * tau**2).sqrt() + tau)
        weights, state = joined("fedadam", updates, weights=weights, state=state)
        assert torch.allclose(weights.double(), expected, rtol=0, atol=1e-7)


def test_adam_without_memory_is_a_step_by_sign():
    """beta 0 and a small tau: w = server_lr delta / |delta|."""
    weights, _ = joined("fedadam", alike([5.0, -0.001]), beta_1=0, beta_2=0, tau=1e-9, server_lr=0.25)
    assert weights.tolist() == pytest.approx([0.25, -0.25], rel=1e-5)
