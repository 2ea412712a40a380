"""What runs on a Ray cluster: an actor that has the training set and the network, and trains blocks of clients.

See training.backends.cluster for who gives it its orders.
"""

from __future__ import annotations

import dataclasses
import hashlib
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
import torch
from numpy.typing import NDArray
from ray import ObjectRef
from ray.util import register_serializer
from torch import Tensor, nn
from torch.nn import functional as F

from training.backends import batched
from training.backends.batched import Answer, Cohort
from training.clients import Task
from training.config import TrainingConfig
from training.datasets import Data
from training.events import TrainingError


@dataclass(frozen=True, kw_only=True, eq=False)
class Order:
    """What all clients of a round have in common."""

    round_number: int
    config: TrainingConfig
    weights: Tensor  # [P]
    cohort: Cohort


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Of a machine. Machines of one kind train a client to the same bits."""

    pytorch: str  # version
    rounding: str  # hash of some sums


def kind() -> Kind:
    generator = torch.Generator().manual_seed(0)
    images, kernels, matrix = (
        torch.randn(shape, generator=generator) for shape in ((8, 8, 14, 14), (16, 8, 5, 5), (14 * 14, 200))
    )
    sums = (images.flatten(2) @ matrix, F.conv2d(images, kernels, padding=2), torch.log_softmax(images.flatten(1), 1))
    digest = hashlib.sha256(b"".join(each.numpy().tobytes() for each in sums))
    return Kind(pytorch=torch.__version__, rounding=digest.hexdigest())


def send_tensors_as_arrays() -> None:
    """Of all messages of this process. PyTorch would send the whole memory that a view is of, and copy it thrice."""
    register_serializer(Tensor, serializer=Tensor.numpy, deserializer=torch.tensor)


def without_images(data: Data) -> Data:
    return dataclasses.replace(
        data, train_x=data.train_x[:0], train_y=data.train_y[:0], test_x=data.test_x[:0], test_y=data.test_y[:0]
    )


class Actor:
    """Trains on one processor, as a worker thread of training.backends.batched does."""

    def __init__(self, network: nn.Module, frame: Data, images: tuple[NDArray[Any], NDArray[Any]]) -> None:
        """The data are `frame` with the training set's x and y, which all actors of a node read in one memory."""
        torch.set_num_threads(1)
        send_tensors_as_arrays()
        train_x, train_y = map(torch.from_numpy, images)
        self.network, self.data = network, dataclasses.replace(frame, train_x=train_x, train_y=train_y)
        self.heard: ObjectRef[Order] | None = None

    def kind(self) -> Kind:
        return kind()

    def train(self, orders: Sequence[ObjectRef[Order]], block: Sequence[Sequence[Task]]) -> list[Answer]:
        """What the clients of a block answer, up to the first that fails. The one order is fetched once a round."""
        if self.heard != orders[0]:
            self._hear(*orders)
        order, answers = self.order, list[Answer]()
        for chunk in block:
            answers += batched.answers(chunk, self.trainer, self.data, order.config, order.round_number)
            if isinstance(answers[-1], TrainingError):
                return [*answers[:-1], _with_traceback(answers[-1])]
        return answers

    def _hear(self, order: ObjectRef[Order]) -> None:
        self.order: Order = ray.get(order)
        plan = batched.plan_of(self.network, self.order.weights, self.order.cohort, self.data, self.order.config)
        self.trainer = plan.trainer()
        self.heard = order


def _with_traceback(error: TrainingError) -> TrainingError:
    """A cause is lost on the way; in words it arrives."""
    error.add_note("".join(traceback.format_exception(error.__cause__)))
    return error
