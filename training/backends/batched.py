"""The fast backend: worker threads, each with clients in a stack, or with one client after another.

Chunks of clients are cut by shapes and configuration alone, so what is computed does not depend on the number of
workers. See training.backends.dense, .convolutional and .generic for who is trained how.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from training import threads
from training.backends import convolutional, dense, generic
from training.backends.descent import Job, Trained, job, refuse_unknown, rule_of
from training.clients import Task, Update, work
from training.config import TrainingConfig
from training.datasets import Data
from training.events import TrainingError


class Trainer(Protocol):
    """A worker's means, for one round; it trains a chunk of clients at a time."""

    def train(self, jobs: Sequence[Job]) -> list[Trained]: ...


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a round is worked off."""

    size: int  # clients in a chunk, at most
    trainer: Callable[[], Trainer]  # a new one for each worker

    def chunks(self, tasks: Sequence[Task]) -> list[Sequence[Task]]:
        """As few as there can be, as equal as they can be, the larger ones first: no worker waits long for another."""
        number = -(-len(tasks) // self.size)
        small, larger = divmod(len(tasks), number)
        ends = [place * small + min(place, larger) for place in range(number + 1)]
        return [tasks[first:end] for first, end in itertools.pairwise(ends)]


def train(
    network: nn.Module,
    weights: Tensor,
    tasks: Sequence[Task],
    data: Data,
    config: TrainingConfig,
    round_number: int,
    workers: int | None = None,
) -> Iterator[Update]:
    """Trains each client from the global weights [P], on the device of the data; see training.backends.

    `workers` is a number of threads, by default one per core. Memory for updates: those of a few chunks.
    """
    plan = _plan(network, weights.to(data.train_x.device), tasks, data, config)
    chunks = plan.chunks(tasks)
    tools = [plan.trainer() for _ in range(min(workers or threads.workers_for(data.train_x), len(chunks)))]

    def answers(chunk: Sequence[Task], trainer: Trainer) -> list[Update | TrainingError]:
        return _answers(chunk, trainer, data, config, round_number)

    for chunk in threads.in_order(answers, chunks, tools):
        for answer in chunk:
            if isinstance(answer, TrainingError):
                raise answer
            yield answer


def _plan(network: nn.Module, weights: Tensor, tasks: Sequence[Task], data: Data, config: TrainingConfig) -> Plan:
    rule, largest = rule_of(config), max(len(task.indices) for task in tasks)
    batch = min(config.batch_size, largest)
    steps = config.local_epochs * len(data.train_y) / config.num_clients / config.batch_size
    if stacked := dense.start(network, weights, rule, data.train_x, steps):
        size = dense.stack_size(stacked.layers, len(tasks), batch)
        return Plan(size=size, trainer=lambda: dense.Stack(stacked, size, batch))
    if convolved := convolutional.start(network, weights, rule, data.train_x):
        return Plan(size=1, trainer=lambda: convolutional.Client(convolved))
    start = generic.Start(network=network, weights=weights, rule=rule, x=data.train_x)
    return Plan(size=1, trainer=lambda: generic.Copy(start))


def _answers(
    tasks: Sequence[Task], trainer: Trainer, data: Data, config: TrainingConfig, round_number: int
) -> list[Update | TrainingError]:
    """What these clients answer; where it fails, up to the one at whom it does, who is named."""
    try:
        return _updates(tasks, trainer, data, config, round_number)
    except Exception as error:
        if len(tasks) == 1:
            return [_failure(tasks[0], round_number, error)]
    answers: list[Update | TrainingError] = []
    for task in tasks:  # one of them it was; each again, alone
        answers += _answers([task], trainer, data, config, round_number)
        if isinstance(answers[-1], TrainingError):
            break
    return answers


def _failure(task: Task, round_number: int, error: Exception) -> TrainingError:
    cause = f"{type(error).__name__}: {error}"
    failure = TrainingError(f"Round {round_number}: the training of client {task.client} failed: {cause}")
    failure.__cause__ = error
    return failure


def _updates(
    tasks: Sequence[Task], trainer: Trainer, data: Data, config: TrainingConfig, round_number: int
) -> list[Update | TrainingError]:
    jobs = [_job(task, data, config, round_number) for task in tasks]
    if working := [each for each in jobs if each is not None]:
        refuse_unknown(torch.cat([each.labels for each in working]), data.info.num_classes)
    trained = iter(trainer.train(working) if working else ())
    return [
        _update(task, each, None if each is None else next(trained)) for task, each in zip(tasks, jobs, strict=True)
    ]


def _job(task: Task, data: Data, config: TrainingConfig, round_number: int) -> Job | None:
    todo = work(task, data, config, round_number)
    return None if todo is None else job(task, todo, data.train_x.device)


def _update(task: Task, each: Job | None, trained: Trained | None) -> Update:
    num_examples = len(task.indices)
    if each is None or trained is None:
        return Update(client=task.client, num_examples=num_examples, delta=None, loss_before=None, loss_after=None)
    return Update(
        client=task.client, num_examples=num_examples, delta=each.work.update(trained.delta).cpu(),
        loss_before=trained.loss_before, loss_after=trained.loss_after,
    )  # fmt: skip
