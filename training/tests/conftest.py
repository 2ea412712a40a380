"""A small cast: scikit-learn's digits, and MNIST where it is on this machine."""

import os
from pathlib import Path

import pytest
import torch

from training import datasets
from training.datasets import Data
from training.tests.listen import silent

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits() -> Data:
    return silent(datasets.load("digits", Path("nowhere")))


@pytest.fixture(scope="session")
def real(digits: Data) -> Data:
    """MNIST from FEDSITE_DATA_DIR, or digits where it is not there: the same tests run on either."""
    folder = Path(os.environ.get("FEDSITE_DATA_DIR", "data"))
    wanted = datasets.SOURCES["mnist"].wanted
    if all(datasets.on_disk(folder / file) for file in wanted.files):
        return silent(datasets.load("mnist", folder))
    return digits
