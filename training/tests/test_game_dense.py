"""Which networks take the dense path, and in pieces of which size."""

import pytest
import torch
from torch import nn

from training.catalogue import DATASETS
from training.layers import dense_layers
from training.networks import build
from training.scores import CHUNK_BYTES, MIXED_BYTES, PLAYERS_BYTES, tile_and_chunk

SHARED = nn.Linear(4, 4)


@pytest.mark.parametrize(("model", "widths"), [("logistic", [10]), ("mlp", [128, 10]), ("2nn", [200, 200, 10])])
def test_it_finds_every_layer_in_the_flat_weights(model, widths):
    network = build(model, DATASETS["mnist"], torch.Generator())
    layers = dense_layers(network)
    assert [layer.outputs for layer in layers] == widths
    assert [layer.part.start for layer in layers] == [0, *(layer.part.stop for layer in layers[:-1])]
    assert layers[-1].part.stop == sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    "network",
    [
        build("cnn", DATASETS["digits"], torch.Generator()),
        nn.Linear(4, 2),
        nn.Sequential(),
        nn.Sequential(nn.Flatten()),
        nn.Sequential(nn.Flatten(2), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(4, 2), nn.ReLU()),
        nn.Sequential(nn.Linear(4, 2, bias=False)),
        nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)),
        nn.Sequential(SHARED, nn.ReLU(), SHARED),
    ],
)
def test_it_leaves_any_other_network_to_the_general_path(network):
    assert dense_layers(network) is None


@pytest.mark.parametrize("num_samples", [1, 360, 1000, 50_000])
@pytest.mark.parametrize("num_players", [0, 1, 10, 100, 1000, 10_000])
@pytest.mark.parametrize("model", ["logistic", "mlp", "2nn"])
def test_it_bounds_the_memory_of_every_piece(model, num_players, num_samples):
    layers = dense_layers(build(model, DATASETS["cifar10"], torch.Generator()))
    tile, chunk = tile_and_chunk(num_players, num_samples, layers)
    assert 1 <= tile <= num_samples
    assert 4 * (num_players + 2) * layers[0].outputs * tile <= PLAYERS_BYTES
    assert 4 * chunk * max(layer.outputs for layer in layers) * tile <= CHUNK_BYTES
    assert 4 * chunk * sum(layer.outputs * (layer.inputs + 1) for layer in layers[1:]) <= MIXED_BYTES
