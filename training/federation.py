"""What stays the same through a run: who holds which examples, the network, and the server's own examples."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training import behaviours, clients, lines, networks, partitions
from training.clients import HONEST, Behaviour, Task
from training.config import TrainingConfig
from training.datasets import Data
from training.events import ClientShare, Started, TrainingError
from training.generators import torch_generator
from training.networks import Score
from training.partitions import Holdings, Indices


@dataclass(frozen=True, kw_only=True, eq=False)
class Federation:
    config: TrainingConfig
    data: Data
    holdings: Holdings
    network: nn.Module  # the shape; whose weights are in it at a moment means nothing
    untrained: Tensor  # float32 [P], the global weights of round 0
    validation_x: Tensor  # [validation_size, C, H, W]
    validation_y: Tensor  # [validation_size]
    # Of clients whose inputs are not the true ones: where these are, behind the training set that was dealt.
    altered: Mapping[int, Indices] = field(default_factory=dict)

    @cached_property
    def num_examples(self) -> NDArray[np.int64]:
        """[num_identities] that each client holds under this number."""
        return np.array([len(held) for held in self.holdings.clients], np.int64)

    @cached_property
    def behaviours(self) -> dict[int, Behaviour]:
        """Of the clients that have one, whenever it is in force. TrainingError where a plug-in's code gives none."""
        return loaded_behaviours(self.config)

    @cached_property
    def given(self) -> dict[int, Mapping[str, Any]]:
        """The configured behaviour of each number that has one, of further identities that of their holder."""
        named = self.config.behaviours
        return {**named, **{identity: named[holder] for identity, holder in self.config.holders.items()}}

    @property
    def num_dealt(self) -> int:
        """Examples that all clients hold together."""
        own = sum(len(held) for held in self.holdings.clients[: self.config.num_clients])
        undivided = self.holdings.undivided.items()
        return own + sum(len(held) - len(self.holdings.clients[client - 1]) for client, held in undivided)


def gather(config: TrainingConfig, data: Data) -> Federation:
    """Deals the data and draws the initial weights. ValueError where the configuration is not resolved to this data."""
    if config.dataset.kind != data.name:
        raise ValueError(f"dataset: the configuration is for {config.dataset.kind}, the data is {data.name}")
    holdings = partitions.deal(config, data.train_y.numpy())
    network = networks.build(config.model, data.info, torch_generator(config.seed, "initial_weights"))
    held_out = torch.from_numpy(holdings.validation)
    data, altered = with_altered(config, data, holdings)
    return Federation(
        config=config,
        data=data,
        holdings=holdings,
        network=network,
        untrained=networks.flatten(network),
        validation_x=data.train_x[held_out],
        validation_y=data.train_y[held_out],
        altered=altered,
    )


def loaded_behaviours(config: TrainingConfig) -> dict[int, Behaviour]:
    alike: dict[str, Behaviour] = {}
    found = {}
    for client, given in config.behaviours.items():
        key = repr(given)
        found[client] = alike[key] = alike.get(key) or clients.loaded(given)
    return found


def with_altered(config: TrainingConfig, data: Data, holdings: Holdings) -> tuple[Data, dict[int, Indices]]:
    """The data with the inputs of those who train on other than the true ones behind them, and where each one's are:
    so no backend need know of them, and they are made once."""
    new_x, new_y, altered, end = [data.train_x], [data.train_y], dict[int, Indices](), len(data.train_y)
    for client, behaviour in loaded_behaviours(config).items():
        if behaviour.features is None:
            continue
        held = torch.from_numpy(holdings.clients[client - 1])
        true = data.train_x[held]
        try:
            x = behaviour.features(true, clients.steady_generator(config, client))
            if not isinstance(x, Tensor) or (x.shape, x.dtype) != (true.shape, true.dtype):
                raise TypeError(f"it gives no {true.dtype} {list(true.shape)}")
        except Exception as error:
            text = f"behaviours: the inputs of client {client} cannot be made: {type(error).__name__}: {error}"
            raise TrainingError(text) from error
        new_x.append(x)
        new_y.append(data.train_y[held])
        altered[client] = np.arange(end, end + len(held))
        end += len(held)
    if not altered:
        return data, altered
    return dataclasses.replace(data, train_x=torch.cat(new_x), train_y=torch.cat(new_y)), altered


def tasks(federation: Federation, cohort: Sequence[int], round_number: int) -> list[Task]:
    """What each of the cohort is asked in a round."""
    odd = odd_tasks(federation, cohort, round_number)
    holdings = federation.holdings.clients
    return [
        odd.get(place) or Task(client=client, indices=torch.from_numpy(holdings[client - 1]))
        for place, client in enumerate(cohort)
    ]


def odd_tasks(federation: Federation, cohort: Sequence[int], round_number: int) -> dict[int, Task]:
    """Of those that have a behaviour, by place in the cohort."""
    given, found, first = federation.given, dict[int, Task](), dict[Hashable, int]()
    for place, client in enumerate(cohort) if given else ():
        if client in given:
            found[place] = task = _odd_task(federation, client, given[client], round_number)
            alike = behaviours.one_update(given[client], task.holder or client, round_number)
            if alike is not None and first.setdefault(alike, client) != client:
                found[place] = dataclasses.replace(task, copies=first[alike])
    return found


def _odd_task(federation: Federation, client: int, given: Mapping[str, Any], round_number: int) -> Task:
    holder = federation.config.holders.get(client)
    indices = torch.from_numpy(federation.holdings.clients[client - 1])
    if not behaviours.acts(given, round_number):
        if holder is not None:
            indices = indices[:0]
        elif client in federation.holdings.undivided:
            indices = torch.from_numpy(federation.holdings.undivided[client])
        return Task(client=client, indices=indices, behaviour=given, holder=holder)
    behaviour, held, reported = federation.behaviours[holder or client], len(indices), None
    if client in federation.altered:
        indices = torch.from_numpy(federation.altered[client])
    if behaviour.data is not None:
        try:
            indices = indices[behaviour.data(held, clients.steady_generator(federation.config, client))]
            if not len(indices):
                raise ValueError("it trains on nothing")
        except Exception as error:
            cause = f"{type(error).__name__}: {error}"
            raise TrainingError(f"behaviours: the examples of client {client} cannot be chosen: {cause}") from error
    if behaviour.reported != 1.0:
        reported = max(1, round(behaviour.reported * held))
    return Task(client=client, indices=indices, behaviour=given, holder=holder, held=held, reported=reported)


def num_reported(federation: Federation, round_number: int) -> NDArray[np.int64]:
    """[num_identities], examples that each client says it holds."""
    reported, given = federation.num_examples, federation.given
    changing = [client for client, each in federation.behaviours.items() if each.reported != 1.0]
    changing += [*federation.holdings.undivided, *federation.config.holders]
    if changing:
        reported = reported.copy()
    for client in changing:
        reported[client - 1] = _odd_task(federation, client, given[client], round_number).num_examples
    return reported


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
        message=lines.started(config, data, len(untrained), federation.num_dealt),
        dataset=data.name,
        num_parameters=len(untrained),
        num_validation=len(federation.validation_y),
        num_test=len(data.test_y),
        weights_sha256=networks.weights_sha256(untrained),
        loss=score.loss,
        accuracy=score.accuracy,
        clients=tuple(_share(federation, client) for client in range(1, config.num_identities + 1)),
    )


def _share(federation: Federation, client: int) -> ClientShare:
    labels = federation.data.train_y.numpy()[federation.holdings.clients[client - 1]]
    counts = np.bincount(labels, minlength=federation.data.info.num_classes)
    return ClientShare(
        client=client,
        num_examples=len(labels),
        label_counts=tuple(counts.tolist()),
        behaviour=federation.given.get(client, HONEST)["kind"],
        holder=federation.config.holders.get(client, client),
    )
