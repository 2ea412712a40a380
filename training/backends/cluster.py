"""The fast backend on a Ray cluster, for those who outgrow one machine; the result is the local one, bit by bit.

Each actor has a processor, and works off whole chunks of training.backends.batched by the plan for all clients of
the round. The training set is placed once per run and node, the global weights once per round, and updates come back
a block of chunks at a time.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import fields

import ray
from torch import Tensor, nn

from training.backends import batched
from training.backends.actor import Actor, Order, send_tensors_as_arrays, without_images
from training.backends.crew import Block, Crew
from training.clients import Task, Update
from training.config import TrainingConfig
from training.datasets import Data

BLOCK_BYTES = 16 << 20  # of updates: large for a message, yet many of them fit into a node's memory
PARTS = 4  # blocks for each actor, where there are chunks enough, so that the last ones end at about the same time


class Cluster:
    """The backend of one run; see training.backends.connection for the way to Ray."""

    def __init__(self) -> None:
        send_tensors_as_arrays()
        self.placed: tuple[nn.Module, Data] | None = None

    def train(
        self,
        network: nn.Module,
        weights: Tensor,
        tasks: Sequence[Task],
        data: Data,
        config: TrainingConfig,
        round_number: int,
    ) -> Iterator[Update]:
        """Trains each client from the global weights [P]; see training.backends."""
        cohort, places = batched.cohort_of(tasks), processors()
        order = Order(round_number=round_number, config=own_fields(config), weights=weights, cohort=cohort)
        chunks = batched.plan_of(network, weights, cohort, data, config).chunks(tasks)
        blocks = deal(chunks, weights.nbytes, places)
        for answers in self._crew(network, data).in_order(order, blocks, places):
            yield from batched.updates(answers)

    def _crew(self, network: nn.Module, data: Data) -> Crew:
        """Stays the same through a run."""
        if self.placed != (network, data):
            self.crew, self.placed = crew_for(network, data), (network, data)
        return self.crew


def own_fields(config: TrainingConfig) -> TrainingConfig:
    """Without those that a subclass adds: the nodes of a cluster have none but the package `training`."""
    return TrainingConfig(**{field.name: getattr(config, field.name) for field in fields(TrainingConfig)})


def deal(chunks: Sequence[Sequence[Task]], update_bytes: int, places: int) -> list[Block]:
    """Neighbouring chunks in blocks as equal as can be: few, but a few for each actor, and none too large."""
    all_bytes = update_bytes * sum(map(len, chunks))
    count = min(len(chunks), max(PARTS * places, -(-all_bytes // BLOCK_BYTES)))
    ends = [len(chunks) * part // count for part in range(count + 1)]
    return [chunks[start:end] for start, end in itertools.pairwise(ends)]


def crew_for(network: nn.Module, data: Data) -> Crew:
    """Arrays are not copied when they are read: the actors of a node share the images in its object store."""
    images = ray.put((data.train_x.numpy(), data.train_y.numpy()))
    frame, actor = without_images(data), ray.remote(num_cpus=1)(Actor)
    return Crew(lambda: actor.remote(network, frame, images))


def processors() -> int:
    """Of the whole cluster as it is now, other people's work included."""
    return max(1, int(ray.cluster_resources().get("CPU", 0)))  # type: ignore[no-untyped-call]
