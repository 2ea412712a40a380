"""Work that is done again and again, recorded once as a CUDA graph and then started by a single call.

A step of a small network is a dozen operations of a few microseconds each: to start them one by one from Python takes
longer than they do. Work may read and write memory that stays where it is, and nothing else may change from one time to
the next: no shapes, no numbers from Python.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch

MOST = 128  # graphs that are kept; what is beyond them is done call by call


class Graphs:
    """On a device without graphs, and where recording fails, the work is simply done."""

    def __init__(self, device: torch.device) -> None:
        self.recording = device.type == "cuda"
        self.known: dict[Hashable, torch.cuda.CUDAGraph | None] = {}  # None: done once, or not to be recorded
        self.failed: set[Hashable] = set()
        self.pool = torch.cuda.graph_pool_handle() if self.recording else None

    def run(self, key: Hashable, work: Callable[[], None]) -> None:
        """The first time the work is done call by call, which also lets libraries make ready; then it is recorded."""
        graph = self.known.get(key)
        if graph is not None:
            graph.replay()
        elif not self.recording or key in self.failed or len(self.known) >= MOST:
            work()
        elif key not in self.known:
            work()
            self.known[key] = None
        else:
            self._record(key, work)

    def _record(self, key: Hashable, work: Callable[[], None]) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self.pool):
                work()
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError:  # something in it has to wait for the GPU, as in a network that looks at its own numbers
            self.failed.add(key)
            work()
            return
        self.known[key] = graph
        graph.replay()

    def forget(self) -> None:
        """After memory has moved."""
        self.known.clear()
