import hashlib
import struct

import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

import kinds
from training import networks
from training.catalogue import DATASETS


def build(model: str, dataset: str = "mnist", seed: int = 0) -> nn.Sequential:
    return networks.build(model, DATASETS[dataset], torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("model", "dataset", "count"),
    [
        ("mlp", "mnist", 784 * 128 + 128 + 128 * 10 + 10),
        ("2nn", "mnist", 199_210),  # McMahan et al. 2017, section 3
        ("cnn", "mnist", 1_663_370),  # the same
        ("logistic", "mnist", 7_850),
        ("logistic", "digits", 650),
        ("cnn", "cifar10", 32 * 76 + 64 * 801 + 512 * (4096 + 1) + 10 * 513),
        ("cnn", "digits", 32 * 26 + 64 * 801 + 512 * (256 + 1) + 10 * 513),
    ],
)
def test_it_has_the_number_of_parameters_of_its_paper(model, dataset, count):
    assert len(networks.flatten(build(model, dataset))) == count


@pytest.mark.parametrize("model", sorted(kinds.family("model")))
@pytest.mark.parametrize("dataset", ["mnist", "cifar10", "digits"])
def test_it_maps_images_to_logits(model, dataset):
    assert build(model, dataset)(torch.zeros(3, *DATASETS[dataset].shape)).shape == (3, 10)


def test_it_starts_within_one_over_the_root_of_fan_in_as_torch_does():
    ours, default = build("mlp"), nn.Linear(784, 128)
    for mine, theirs in zip(ours[1].parameters(), default.parameters(), strict=True):
        assert mine.abs().max() <= 1 / 28
        assert mine.std().item() == pytest.approx(theirs.std().item(), rel=0.2)


def test_it_draws_initial_weights_from_the_generator_alone():
    before = torch.random.get_rng_state()
    first = networks.flatten(build("cnn"))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(networks.flatten(build("cnn")), first)
    assert not torch.equal(networks.flatten(build("cnn", seed=1)), first)


def test_it_flattens_in_torchs_own_order():
    network = build("cnn", "digits")
    assert torch.equal(networks.flatten(network), parameters_to_vector(network.parameters()).detach())


@pytest.mark.parametrize("model", ["logistic", "cnn"])
def test_it_shares_no_memory_with_the_vector(model):
    network = build(model, "digits")
    flat = networks.flatten(network)
    copy = flat.clone()
    networks.load(network, flat)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    assert torch.equal(flat, copy)
    assert torch.equal(networks.flatten(network), copy + 1.0)


@pytest.mark.parametrize("change", [-1, 1])
def test_it_refuses_a_vector_of_another_length(change):
    network = build("logistic", "digits")
    with pytest.raises(ValueError, match="do not fit a network of 650 parameters"):
        networks.load(network, torch.zeros(650 + change))


def test_it_hashes_little_endian_float32():
    weights = torch.tensor([1.0, -2.5, 3e-9])
    assert networks.weights_sha256(weights) == hashlib.sha256(struct.pack("<3f", 1.0, -2.5, 3e-9)).hexdigest()


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_it_evaluates_in_batches_as_at_once(model):
    network = build(model, "digits")
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(2345, 1, 8, 8, generator=generator), torch.randint(0, 10, (2345,), generator=generator)
    score = networks.evaluate(network, networks.flatten(network), x, y)
    with torch.no_grad():
        logits = network(x)
    assert score.loss == pytest.approx(nn.functional.cross_entropy(logits.double(), y).item(), abs=1e-6)
    assert score.accuracy == (logits.argmax(1) == y).double().mean().item()
