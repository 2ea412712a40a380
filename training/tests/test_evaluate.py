"""Scores by the fast paths against PyTorch's own."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import kinds
from training import networks
from training.catalogue import DATASETS
from training.forward import logits_of
from training.layers import convolutional_layers, dense_layers

SHARED = nn.Conv2d(1, 1, 3, padding=1)


def images(shape, count, dtype=torch.float32):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(count, *shape, generator=generator, dtype=dtype)
    return x, torch.randint(10, (count,), generator=generator)


@pytest.mark.parametrize("dataset", ["mnist", "cifar10", "digits"])
@pytest.mark.parametrize("model", sorted(kinds.family("model")))
def test_it_gives_pytorchs_logits(model, dataset):
    info = DATASETS[dataset]
    network = networks.build(model, info, torch.Generator().manual_seed(1)).double()
    weights = networks.flatten(network)
    x, _ = images(info.shape, 5, torch.float64)
    with torch.no_grad():
        expected = network(x)
    networks.load(network, torch.zeros_like(weights))  # its own numbers must play no part
    assert (logits_of(network)(weights, x) - expected).abs().max() < 1e-12


@pytest.mark.parametrize("padding", [0, 1, 3])
@pytest.mark.parametrize("channels", [1, 3, 4, 6])
def test_it_gives_pytorchs_logits_for_other_convolutions(channels, padding):
    """Odd sizes, whose last row no maximum sees, and any number of channels."""
    network = nn.Sequential(
        nn.Conv2d(channels, 5, 3, padding=padding),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(5, 7, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.LazyLinear(11),
        nn.ReLU(),
        nn.Linear(11, 10),
    ).double()
    x, _ = images((channels, 15, 13), 4, torch.float64)
    with torch.no_grad():
        expected = network(x)
    network = nn.Sequential(*(layer if layer is not network[7] else plain(layer) for layer in network))
    assert convolutional_layers(network) is not None
    assert (logits_of(network)(networks.flatten(network), x) - expected).abs().max() < 1e-12


def plain(lazy: nn.Linear) -> nn.Linear:
    linear = nn.Linear(lazy.in_features, lazy.out_features).double()
    linear.load_state_dict(lazy.state_dict())
    return linear


def pooled(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16, 10))


@pytest.mark.parametrize(
    "network",
    [
        pooled(nn.Conv2d(1, 1, 3, padding=1), nn.ReLU()),
        pooled(nn.Conv2d(1, 1, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2)),
        pooled(nn.Conv2d(1, 1, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)),
        pooled(nn.Conv2d(1, 1, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3)),
        pooled(nn.Conv2d(1, 1, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)),
        pooled(nn.Conv2d(1, 1, 3, padding=1, bias=False), nn.ReLU(), nn.MaxPool2d(2)),
        pooled(nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"), nn.ReLU(), nn.MaxPool2d(2)),
        pooled(nn.Conv2d(1, 1, 3, padding="same"), nn.ReLU(), nn.MaxPool2d(2)),
        pooled(nn.Conv2d(1, 1, (3, 1), padding=(1, 0)), nn.ReLU(), nn.MaxPool2d(2)),
        pooled(nn.Conv2d(1, 1, 3, padding=1, stride=2), nn.ReLU(), nn.MaxPool2d(2)),
        pooled(nn.Conv2d(1, 1, 3, padding=1, dilation=2), nn.ReLU(), nn.MaxPool2d(2)),
        pooled(SHARED, nn.ReLU(), nn.MaxPool2d(2), SHARED, nn.ReLU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Conv2d(1, 1, 3),
    ],
)
def test_it_leaves_any_other_network_to_pytorch(network):
    assert convolutional_layers(network) is None
    assert dense_layers(network) is None


@pytest.mark.parametrize("model", sorted(kinds.family("model")))
def test_it_gives_the_same_bits_with_any_number_of_workers(model):
    info = DATASETS["digits"]
    network = networks.build(model, info, torch.Generator().manual_seed(1))
    x, y = images(info.shape, 2345)
    scores = [networks.evaluate(network, networks.flatten(network), x, y, workers=workers) for workers in (1, 2, 4, 1)]
    assert scores == scores[:1] * 4


def test_it_scores_a_network_of_another_kind_without_dropout():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))
    x, y = images((1, 8, 8), 30)
    score = networks.evaluate(network, networks.flatten(network), x, y)
    with torch.no_grad():
        assert score.loss == pytest.approx(F.cross_entropy(network[2](x.flatten(1)), y).item(), abs=1e-6)
    assert network.training


def test_it_leaves_network_and_weights_alone():
    network = networks.build("cnn", DATASETS["digits"], torch.Generator().manual_seed(1))
    weights, before = networks.flatten(network) + 1.0, networks.flatten(network)
    copy = weights.clone()
    networks.evaluate(network, weights, *images((1, 8, 8), 20))
    assert torch.equal(networks.flatten(network), before)
    assert torch.equal(weights, copy)


def test_it_finds_the_parts_of_the_flat_weights():
    convolutions, dense = convolutional_layers(networks.build("cnn", DATASETS["mnist"], torch.Generator()))
    assert [dataclasses.astuple(each) for each in convolutions] == [(1, 32, 5, 2, 0), (32, 64, 5, 2, 832)]
    assert [(each.start, each.part.stop) for each in dense] == [(52_096, 1_658_240), (1_658_240, 1_663_370)]
