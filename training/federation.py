"""What stays the same through a run: who holds which examples, the network, and the server's own examples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training import lines, networks, partitions
from training.clients import HONEST, Task
from training.config import TrainingConfig
from training.datasets import Data
from training.events import ClientShare, Started
from training.generators import torch_generator
from training.networks import Score
from training.partitions import Holdings


@dataclass(frozen=True, kw_only=True, eq=False)
class Federation:
    config: TrainingConfig
    data: Data
    holdings: Holdings
    network: nn.Module  # the shape; whose weights are in it at a moment means nothing
    untrained: Tensor  # float32 [P], the global weights of round 0
    validation_x: Tensor  # [validation_size, C, H, W]
    validation_y: Tensor  # [validation_size]

    @cached_property
    def num_examples(self) -> NDArray[np.int64]:
        """[num_clients] that each client holds."""
        return np.array([len(held) for held in self.holdings.clients], np.int64)


def gather(config: TrainingConfig, data: Data) -> Federation:
    """Deals the data and draws the initial weights. ValueError where the configuration is not resolved to this data."""
    if config.dataset.kind != data.name:
        raise ValueError(f"dataset: the configuration is for {config.dataset.kind}, the data is {data.name}")
    holdings = partitions.deal(config, data.train_y.numpy())
    network = networks.build(config.model, data.info, torch_generator(config.seed, "initial_weights"))
    held_out = torch.from_numpy(holdings.validation)
    return Federation(
        config=config,
        data=data,
        holdings=holdings,
        network=network,
        untrained=networks.flatten(network),
        validation_x=data.train_x[held_out],
        validation_y=data.train_y[held_out],
    )


def tasks(federation: Federation, cohort: Iterable[int]) -> list[Task]:
    clients, behaviours = federation.holdings.clients, federation.config.behaviours
    return [
        Task(
            client=client,
            indices=torch.from_numpy(clients[client - 1]),
            behaviour=behaviours.get(client, HONEST),
        )
        for client in cohort
    ]


def test_score(federation: Federation, weights: Tensor) -> Score:
    return networks.evaluate(federation.network, weights, federation.data.test_x, federation.data.test_y)


def validation_loss(federation: Federation, weights: Tensor) -> float | None:
    if not len(federation.validation_y):
        return None
    return networks.evaluate(federation.network, weights, federation.validation_x, federation.validation_y).loss


def started(federation: Federation) -> Started:
    config, data, untrained = federation.config, federation.data, federation.untrained
    score = test_score(federation, untrained)
    return Started(
        message=lines.started(config, data, len(untrained)),
        dataset=data.name,
        num_parameters=len(untrained),
        num_validation=len(federation.validation_y),
        num_test=len(data.test_y),
        weights_sha256=networks.weights_sha256(untrained),
        loss=score.loss,
        accuracy=score.accuracy,
        clients=tuple(_share(federation, client) for client in range(1, config.num_clients + 1)),
    )


def _share(federation: Federation, client: int) -> ClientShare:
    labels = federation.data.train_y.numpy()[federation.holdings.clients[client - 1]]
    counts = np.bincount(labels, minlength=federation.data.info.num_classes)
    behaviour = federation.config.behaviours.get(client, HONEST)["kind"]
    return ClientShare(
        client=client, num_examples=len(labels), label_counts=tuple(counts.tolist()), behaviour=behaviour
    )
