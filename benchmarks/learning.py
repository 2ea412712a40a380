"""Runs of the federated loop for benchmarks in which the accuracy is the result. No valuation, no validation set."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from training import datasets, loop
from training.config import TrainingConfig
from training.datasets import Data
from training.events import RoundTrained


def mnist() -> Data:
    """MNIST from FEDSITE_DATA_DIR, or `data/`; downloaded if need be. TrainingError where it cannot be had."""
    loading = datasets.load("mnist", Path(os.environ.get("FEDSITE_DATA_DIR", "data")))
    while True:
        try:
            print(next(loading).message)
        except StopIteration as loaded:
            return loaded.value


def rounds(config: TrainingConfig, data: Data) -> Iterator[RoundTrained]:
    """The rounds as they come. To stop the run, stop asking."""
    return (event for event in loop.run(config, data) if isinstance(event, RoundTrained))
