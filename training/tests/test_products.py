"""Inner products of updates, made where they are asked for."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from training import networks, products
from training.events import TrainingError
from training.networks import build
from training.products import Products
from training.tests.test_game import INFO


def test_numbers_worked_by_hand():
    deltas = torch.tensor([[1.0, 2.0], [0.0, 0.0], [3.0, -1.0]])
    found = Products(deltas, np.array([True, False, True]), {"step": lambda: torch.tensor([2.0, 1.0])})
    assert found.updates.tolist() == [[5, 0, 1], [0, 0, 0], [1, 0, 10]]
    assert found.squared_norms.tolist() == [5, 0, 10]
    assert found.along("step").tolist() == [4, 0, 5]
    assert found.between("step", "step") == 5
    with pytest.raises(KeyError):
        found.along("gradient")


def test_they_are_float64_of_float32_numbers():
    """(2^12 + 2^-12)^2 = 2^24 + 2 + 2^-24 has 49 digits."""
    number = 2.0**12 + 2.0**-11
    found = Products(torch.tensor([[number]]), np.array([True]), {})
    assert found.updates[0, 0] == found.squared_norms[0] == number**2
    assert found.updates[0, 0] != float(np.float32(number**2))


def test_nothing_is_made_before_it_is_asked_for_and_once():
    made = []

    def step():
        made.append("step")
        return torch.ones(2)

    found = Products(torch.ones(3, 2), np.ones(3, np.bool_), {"step": step})
    assert made == []
    found.along("step")
    found.along("step")
    found.between("step", "step")
    assert made == ["step"]


def test_a_matrix_of_more_than_a_thousand_is_refused(monkeypatch):
    monkeypatch.setattr(products, "MOST_UPDATES", 3)
    few = Products(torch.ones(5, 2), np.array([True] * 3 + [False] * 2), {})
    assert few.updates.sum() == 18
    many = Products(torch.ones(5, 2), np.ones(5, np.bool_), {})
    assert many.squared_norms.tolist() == [2.0] * 5
    with pytest.raises(TrainingError, match="products of 5 updates with each other; at most 3 are made"):
        _ = many.updates


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_the_gradient_is_the_losss_by_differences(model):
    generator = torch.Generator().manual_seed(0)
    network = build(model, INFO, generator)
    x, y = torch.randn(230, *INFO.shape, generator=generator), torch.randint(5, (230,), generator=generator)
    weights = networks.flatten(network)
    found = products.gradient(network, weights, x, y)
    direction = torch.randn(len(weights), generator=generator)
    direction /= torch.linalg.vector_norm(direction)
    network.double()

    def loss(step):
        networks.load(network, weights.double() + step * direction)
        return F.cross_entropy(network(x.double()), y).item()

    assert float(found @ direction) == pytest.approx((loss(1e-5) - loss(-1e-5)) / 2e-5, rel=1e-3, abs=1e-6)
