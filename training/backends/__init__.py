"""Who runs the local training of a cohort. What is computed does not depend on it, beyond rounding.

A backend is a function (network, weights [P], tasks, data, config, round_number) -> iterator of one Update
per task, in the order of the tasks. It may work ahead and hand over several at once; whoever iterates may
stop at any time. The network is scratch space. PyTorch must run with one thread (torch.set_num_threads(1),
set once by whoever owns the process): the result of a sum may depend on the number of threads, and two on
small operations wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor, nn

from training.backends import batched, connection, sequential
from training.clients import Task, Update
from training.config import TrainingConfig
from training.datasets import Data

Backend = Callable[[nn.Module, Tensor, Sequence[Task], Data, TrainingConfig, int], Iterator[Update]]

BACKENDS: dict[str, Backend] = {"sequential": sequential.train, "batched": batched.train}


def choose(name: str) -> Backend:
    """The backend of this name for one run; `auto` is the fastest that fits on any machine."""
    return _on_ray() if name == "ray" else BACKENDS["batched" if name == "auto" else name]


def _on_ray() -> Backend:
    connection.connect()
    from training.backends.cluster import Cluster

    return Cluster().train
