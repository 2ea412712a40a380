"""The labels of a training set, read without PyTorch and scikit-learn, so that a split is known before a start."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.catalogue import DATASETS
from training.events import TrainingError
from training.idx import content, on_disk, read_idx
from training.seeds import numpy_generator

IDX = {"mnist": "MNIST/raw", "fashion_mnist": "FashionMNIST/raw"}
IDX_LABELS = "train-labels-idx1-ubyte"
# What the pickled batches of CIFAR-10 are made of, by the names of old and new NumPy. Nothing else is called.
OF_BATCHES = {
    *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
    *(("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")),
}


class NotHere(Exception):
    """The files are not on this machine."""


def train_labels(name: str, data_dir: Path, kept_dir: Path) -> NDArray[np.int64]:
    """The labels [num_train] of a key of DATASETS, in the order in which runs have them.

    They are kept in `kept_dir` under the hash of the files that they came from, where that can be written. NotHere, or
    TrainingError for files that are damaged.
    """
    files = files_of(name, data_dir)
    digest = hashlib.sha256()
    try:
        for file in files:
            digest.update(file.read_bytes())
    except OSError as error:
        raise TrainingError(f"{file} cannot be read: {error.strerror}") from error
    kept = kept_dir / "labels" / f"{name}-{digest.hexdigest()}.npy"
    expected = (DATASETS[name].num_train,)
    with contextlib.suppress(EOFError, OSError, ValueError):  # not kept yet, or cut short: then they are read again
        labels = np.load(kept, allow_pickle=False)
        if labels.shape == expected and labels.dtype == np.int64:
            return np.asarray(labels, np.int64)
    found = _read(name, files).astype(np.int64)
    if found.shape != expected or found.min() < 0 or found.max() >= DATASETS[name].num_classes:
        raise TrainingError(f"{files[0]} is damaged: {len(found):,} labels are there, and {expected[0]:,} are expected")
    with contextlib.suppress(OSError):  # a disk that is full or read-only costs a second look
        _keep(found, kept)
    return found


def files_of(name: str, data_dir: Path) -> list[Path]:
    """Those that hold the labels of a training set. NotHere."""
    if name == "digits":
        found = find_spec("sklearn")
        folders = found.submodule_search_locations if found else None
        wanted = [Path(folder) / "datasets" / "data" / "digits.csv" for folder in folders or ()]
    elif name == "cifar10":
        wanted = [data_dir / "cifar-10-batches-py" / f"data_batch_{number}" for number in range(1, 6)]
    else:
        wanted = [data_dir / IDX[name] / IDX_LABELS]
    files = [file for file in map(on_disk, wanted) if file is not None]
    if not files or len(files) < len(wanted):
        raise NotHere(f"{DATASETS[name].label} is not on this machine yet")
    return files


def _read(name: str, files: list[Path]) -> NDArray[Any]:
    info = DATASETS[name]
    if name in IDX:
        return read_idx(files[0].with_name(IDX_LABELS), (info.num_train,))
    if name == "cifar10":
        return np.concatenate([_of_batch(file) for file in files])
    return digits(files[0])[1][: info.num_train]


def digits(file: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Pixels [N, 1, 8, 8] and labels [N] of scikit-learn's file, in one order whatever a run's seed: its own goes by
    writer. TrainingError for one that is damaged."""
    try:
        table = np.loadtxt(io.BytesIO(content(file)), delimiter=",")
        pixels, labels = table[:, :-1].reshape(-1, 1, 8, 8), table[:, -1].astype(np.int64)
    except (ValueError, IndexError) as error:
        raise TrainingError(f"{file} is damaged: {error}") from error
    order = numpy_generator(0, "test_set").permutation(len(labels))
    return pixels[order], labels[order]


def _of_batch(file: Path) -> NDArray[Any]:
    try:
        return np.asarray(_Batch(io.BytesIO(content(file))).load()["labels"])
    except (pickle.UnpicklingError, AttributeError, EOFError, ImportError, LookupError, TypeError, ValueError) as error:
        raise TrainingError(f"{file} is damaged: {error}") from error


class _Batch(pickle.Unpickler):
    """A file of CIFAR-10, which nobody has checked: it may build arrays, and call nothing."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, encoding="latin1")

    def find_class(self, module_name: str, global_name: str) -> Any:
        if (module_name, global_name) not in OF_BATCHES:
            raise pickle.UnpicklingError(f"it names {module_name}.{global_name}")
        return super().find_class(module_name, global_name)


def _keep(labels: NDArray[np.int64], place: Path) -> None:
    """Whole or not at all."""
    place.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=place.parent)
    try:
        with open(descriptor, "wb") as file:
            np.save(file, labels, allow_pickle=False)
        os.replace(temporary, place)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise
