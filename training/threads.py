"""Worker threads for tensor work: as many as cores, each with one PyTorch thread of its own.

PyTorch lets go of the interpreter's lock inside an operation, so threads are as fast as processes where operations
are large, at half the memory. Two threads inside one operation are not: on a busy machine they wait for each other.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from queue import SimpleQueue
from typing import TypeVar

import torch
from torch import Tensor

from training import host

Item = TypeVar("Item")
Result = TypeVar("Result")
Tool = TypeVar("Tool")

AHEAD = 1  # results per worker that may wait for whoever reads them: this bounds the memory they take


def workers_for(data: Tensor) -> int:
    """Workers worth having: one per core where PyTorch itself runs one thread, else one; one for a GPU."""
    return host.processors() if data.device.type == "cpu" and torch.get_num_threads() == 1 else 1


def in_order(
    function: Callable[[Item, Tool], Result], items: Iterable[Item], tools: Sequence[Tool]
) -> Iterator[Result]:
    """function(item, tool) of each item, in the items' order, by one thread for each of the tools.

    No two calls use the same tool at once. Calls are made a little ahead of whoever iterates; those that have not
    begun when the iteration is given up are not made. An exception comes where its result would have come.
    """
    free: SimpleQueue[Tool] = SimpleQueue()
    for tool in tools:
        free.put(tool)

    def work(item: Item) -> Result:
        tool = free.get()
        try:
            return function(item, tool)
        finally:
            free.put(tool)

    pool, waiting = _pool(len(tools)), deque[Future[Result]]()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > AHEAD * len(tools):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    """Kept for the life of the process: a new thread costs MKL fresh memory at its first product.

    A thread's products of matrices ignore torch.set_num_threads until it has asked for the number once.
    """
    return ThreadPoolExecutor(workers, "tensors", initializer=torch.get_num_threads)


if hasattr(os, "register_at_fork"):  # a child process has the pool but not its threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
