"""The fast backend: worker threads, each with clients in a stack, or with one client after another.

Chunks of clients are cut by shapes and configuration alone, so what is computed does not depend on the number of
workers, nor on where they are: training.backends.cluster has whole chunks worked off on other machines, by the same
plan. See training.backends.dense, .convolutional and .generic for who is trained how.
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
from training.clients import Task, Update, same, work
from training.config import TrainingConfig
from training.datasets import Data
from training.events import TrainingError
from training.thin import Thin


class Trainer(Protocol):
    """A worker's means, for one round; it trains a chunk of clients at a time."""

    def train(self, jobs: Sequence[Job]) -> list[Trained]: ...


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """What decides, of all clients of a round together, how each of them is trained."""

    size: int
    largest: int  # examples of the client that has most
    corrected: bool  # whether the gradient of anybody is


def cohort_of(tasks: Sequence[Task]) -> Cohort:
    return Cohort(
        size=len(tasks),
        largest=max(1, *(len(task.indices) for task in tasks)),
        corrected=any(task.correction is not None for task in tasks),
    )


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


Answer = Update | TrainingError


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
    plan = plan_of(network, weights.to(data.train_x.device), cohort_of(tasks), data, config)
    chunks = plan.chunks(tasks)
    tools = [plan.trainer() for _ in range(min(workers or threads.workers_for(data.train_x), len(chunks)))]

    def answered(chunk: Sequence[Task], trainer: Trainer) -> list[Answer]:
        return answers(chunk, trainer, data, config, round_number)

    for chunk in threads.in_order(answered, chunks, tools):
        yield from updates(chunk)


def updates(answers: Sequence[Answer]) -> Iterator[Update]:
    """These answers; a TrainingError is raised where it stands."""
    for answer in answers:
        if isinstance(answer, TrainingError):
            raise answer
        yield answer


def plan_of(network: nn.Module, weights: Tensor, cohort: Cohort, data: Data, config: TrainingConfig) -> Plan:
    """The plan for all clients of a round; the weights [P] are on the device of the data."""
    rule, batch = rule_of(config), min(config.batch_size, cohort.largest)
    if stacked := dense.start(network, weights, rule, data.train_x):
        one_step = config.local_epochs == 1 and cohort.largest <= config.batch_size
        all_thin = one_step and not cohort.corrected and stacked.is_thin(batch)
        size = dense.stack_size(stacked.layers, cohort.size, batch, all_thin)
        return Plan(size=size, trainer=lambda: dense.Stack(stacked, size, batch))
    if convolved := convolutional.start(network, weights, rule, data.train_x):
        return Plan(size=1, trainer=lambda: convolutional.Client(convolved))
    start = generic.Start(network=network, weights=weights, rule=rule, x=data.train_x)
    return Plan(size=1, trainer=lambda: generic.Copy(start))


def answers(
    tasks: Sequence[Task], trainer: Trainer, data: Data, config: TrainingConfig, round_number: int
) -> list[Answer]:
    """What the clients of a chunk answer; where it fails, up to the one at whom it does, who is named."""
    try:
        return _updates(tasks, trainer, data, config, round_number)
    except Exception as error:
        if len(tasks) == 1:
            return [_failure(tasks[0], round_number, error)]
    one_by_one: list[Answer] = []
    for task in tasks:  # one of them it was; each again, alone
        one_by_one += answers([task], trainer, data, config, round_number)
        if isinstance(one_by_one[-1], TrainingError):
            break
    return one_by_one


def _failure(task: Task, round_number: int, error: Exception) -> TrainingError:
    cause = f"{type(error).__name__}: {error}"
    failure = TrainingError(f"Round {round_number}: the training of client {task.client} failed: {cause}")
    failure.__cause__ = error
    return failure


def _updates(
    tasks: Sequence[Task], trainer: Trainer, data: Data, config: TrainingConfig, round_number: int
) -> list[Answer]:
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
    num_examples = task.num_examples
    if each is None or trained is None:
        return Update(client=task.client, num_examples=num_examples, sent=None, loss_before=None, loss_after=None)
    return Update(
        client=task.client,
        num_examples=num_examples,
        sent=_sent(each, trained),
        loss_before=trained.loss_before,
        loss_after=trained.loss_after,
    )


def _sent(each: Job, trained: Trained) -> Tensor | Thin:
    """What it has found, as its behaviour has it."""
    found = trained.delta
    if isinstance(found, Thin):
        return found if each.work.update is same else each.work.update(found.whole())
    return each.work.update(found).cpu()
