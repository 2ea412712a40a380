"""The networks by name, and their weights as one flat vector.

Weights are float32 [P] in the order of `network.parameters()`, the order of
torch.nn.utils.parameters_to_vector. Unlike there, nothing here shares memory: what is flattened is a copy,
and what is loaded is copied.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import kinds
from kinds import Choice
from training import threads
from training.catalogue import DatasetInfo
from training.forward import Logits, logits_of

# Activations above 32 MB are fresh memory maps each time: a cnn takes 4.4 s for 10,000 images in batches of 200,
# and 8.2 s in batches of 1,000.
EVALUATION_BATCH_DENSE = 1000
EVALUATION_BATCH_CONVOLUTIONAL = 200
AT_ONCE = 10  # times as many on a GPU


def build(model: str | Choice, info: DatasetInfo, generator: torch.Generator) -> nn.Module:
    """The network of this kind for the data set's shape and classes; maps [B, C, H, W] to logits [B, classes].

    Built-in ones start as torch.nn does, weights and biases uniform within 1/sqrt(fan_in), drawn from `generator`
    alone; plugged-in ones as they themselves draw, from a global generator that is set from it for the time being.
    """
    choice = kinds.checked("model", model, "model")
    with torch.random.fork_rng(devices=[]):  # constructing a layer draws from the global generator
        if "/" in choice.kind:
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        network: nn.Module = choice.load()(info, **choice.parameters)
    if "/" in choice.kind:
        return network
    for layer in network.children():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            _initialise(layer, generator)
    return network


def mlp(info: DatasetInfo) -> nn.Sequential:
    return _dense(info, 128)


def two_nn(info: DatasetInfo) -> nn.Sequential:
    """The 2NN of McMahan et al. 2017, section 3: 199,210 parameters on MNIST."""
    return _dense(info, 200, 200)


def logistic(info: DatasetInfo) -> nn.Sequential:
    return _dense(info)


def cnn(info: DatasetInfo) -> nn.Sequential:
    """The CNN of McMahan et al. 2017, section 3: 1,663,370 parameters on MNIST."""
    channels, height, width = info.shape
    return nn.Sequential(
        nn.Conv2d(channels, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * (height // 4) * (width // 4), 512),
        nn.ReLU(),
        nn.Linear(512, info.num_classes),
    )


def _dense(info: DatasetInfo, *hidden: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten()]
    width = math.prod(info.shape)
    for units in hidden:
        layers += [nn.Linear(width, units), nn.ReLU()]
        width = units
    return nn.Sequential(*layers, nn.Linear(width, info.num_classes))


def _initialise(layer: nn.Linear | nn.Conv2d, generator: torch.Generator) -> None:
    bound = 1.0 / math.sqrt(layer.weight[0].numel())
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-bound, bound, generator=generator)


def views(flat: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Views of flat [P], each in the shape of its parameter."""
    parts = torch.split(flat, [parameter.numel() for parameter in parameters])
    return [part.view_as(parameter) for part, parameter in zip(parts, parameters, strict=True)]


def flatten(network: nn.Module) -> Tensor:
    """A copy of the weights, [P]."""
    return torch.cat([parameter.detach().reshape(-1) for parameter in network.parameters()])


def load(network: nn.Module, weights: Tensor) -> None:
    """Copies weights [P] into the network; ValueError where P is not the network's."""
    parameters = list(network.parameters())
    sizes = [parameter.numel() for parameter in parameters]
    if weights.shape != (sum(sizes),):
        raise ValueError(f"weights of shape {tuple(weights.shape)} do not fit a network of {sum(sizes)} parameters")
    with torch.no_grad():
        for parameter, values in zip(parameters, torch.split(weights, sizes), strict=True):
            parameter.copy_(values.view_as(parameter))


def weights_sha256(weights: Tensor) -> str:
    """Of the weights as little-endian float32."""
    return hashlib.sha256(weights.detach().cpu().contiguous().numpy().astype("<f4", copy=False).data).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Score:
    """How well a network does on a set of examples."""

    loss: float  # mean cross-entropy
    accuracy: float  # share of the examples


def evaluate(network: nn.Module, weights: Tensor, x: Tensor, y: Tensor, *, workers: int | None = None) -> Score:
    """Scores the network at weights [P] on x [N, C, H, W], y [N], N at least 1. The network gives the shape.

    Batches are of a fixed size and summed in their order, so the score does not depend on the number of workers.
    """
    weights, size = weights.to(x.device), _evaluation_batch(network)
    if x.device.type == "cuda":
        loss, right = sums(network, weights, x, y).tolist()
        return Score(loss=loss / len(y), accuracy=right / len(y))
    batches = list(zip(torch.split(x, size), torch.split(y, size), strict=True))
    workers = min(workers or threads.workers_for(x), len(batches))

    def scored(batch: tuple[Tensor, Tensor], logits: Logits) -> tuple[float, int]:
        with torch.inference_mode():
            found, labels = logits(weights, batch[0]), batch[1]
            loss = F.cross_entropy(found, labels, reduction="sum").item()
            return loss, int((found.argmax(1) == labels).sum())

    losses, correct = zip(*threads.in_order(scored, batches, [logits_of(network) for _ in range(workers)]), strict=True)
    return Score(loss=sum(losses) / len(y), accuracy=sum(correct) / len(y))


def sums(network: nn.Module, weights: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """float64 [2]: the sum of the losses and how many are right, as `evaluate` has them, left on the device of x."""
    logits, size = logits_of(network), _evaluation_batch(network)
    size *= AT_ONCE if x.device.type != "cpu" else 1
    with torch.inference_mode():
        total = torch.zeros(2, dtype=torch.float64, device=x.device)
        for images, labels in zip(torch.split(x, size), torch.split(y, size), strict=True):
            found = logits(weights, images)
            losses = F.cross_entropy(found, labels, reduction="none")
            right = found.argmax(1) == labels
            total += torch.stack([losses.sum(dtype=torch.float64), right.sum(dtype=torch.float64)])
        return total


def _evaluation_batch(network: nn.Module) -> int:
    convolutional = any(isinstance(layer, nn.Conv2d) for layer in network.modules())
    return EVALUATION_BATCH_CONVOLUTIONAL if convolutional else EVALUATION_BATCH_DENSE
