"""The images as tensors in memory, found on disk or downloaded.

On disk a data set lies as torchvision lays it out. The IDX files of MNIST and Fashion-MNIST are read by ourselves
(training.idx): that takes ten lines and names a broken file, and importing torchvision would cost each run two seconds.
So is the file of scikit-learn's digits, whose import costs one.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.catalogue import DATASETS, DatasetInfo
from training.download import DownloadError, Wanted, download
from training.events import Log, TrainingError
from training.idx import on_disk, read_idx
from training.labels import NotHere, digits, files_of

DOWNLOAD_SECONDS = 20.0
INSTEAD = "Training on scikit-learn's small digits in its place: 1,437 images of 8 x 8 pixels"

Arrays = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]  # train x, train y, test x, test y


@dataclass(frozen=True, kw_only=True, eq=False)
class Data:
    """A data set in memory. Images are normalised by mean and standard deviation of the training set."""

    name: str  # a key of DATASETS
    info: DatasetInfo
    train_x: Tensor  # float32 [num_train, C, H, W]
    train_y: Tensor  # int64 [num_train]
    test_x: Tensor  # float32 [num_test, C, H, W]
    test_y: Tensor  # int64 [num_test]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the pixels come from. Mean and deviation are the training set's, per channel, white being 1."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    read: Callable[[DatasetInfo, Path], Arrays]  # pixels [N, C, H, W] and labels [N]
    white: float = 255.0
    wanted: Wanted | None = None  # None for what comes with a package


def find(name: str, data_dir: Path, limit_seconds: float = DOWNLOAD_SECONDS) -> Generator[Log, None, str]:
    """What `auto` stands for here: mnist if it is on disk or can be downloaded, else digits. Other names stay.

    Yields progress, and the warning that digits take the place of MNIST; returns the name.
    """
    if name != "auto":
        return name
    try:
        yield from _provide("mnist", data_dir, limit_seconds)
    except DownloadError as error:
        yield Log(message=f"MNIST is not in {data_dir} and could not be downloaded: {error}", level="warning")
        yield Log(message=INSTEAD, level="warning")
        return "digits"
    return "mnist"


def load(name: str, data_dir: Path, limit_seconds: float = DOWNLOAD_SECONDS) -> Generator[Log, None, Data]:
    """Returns the data set of this name, downloaded if need be; yields progress.

    TrainingError where it cannot be had or is broken.
    """
    info, source = DATASETS[name], SOURCES[name]
    try:
        yield from _provide(name, data_dir, limit_seconds)
    except DownloadError as error:
        raise TrainingError(f"{info.label} is not in {data_dir} and could not be downloaded: {error}") from error
    train_x, train_y, test_x, test_y = source.read(info, data_dir)
    return Data(
        name=name,
        info=info,
        train_x=_normalised(train_x, source),
        train_y=torch.from_numpy(train_y.astype(np.int64)),
        test_x=_normalised(test_x, source),
        test_y=torch.from_numpy(test_y.astype(np.int64)),
    )


def _provide(name: str, data_dir: Path, limit_seconds: float) -> Iterator[Log]:
    wanted = SOURCES[name].wanted
    if wanted is not None and not all(on_disk(data_dir / file) for file in wanted.files):
        for sentence in download(wanted, data_dir, limit_seconds):
            yield Log(message=sentence)


def _normalised(pixels: NDArray[Any], source: Source) -> Tensor:
    images = torch.from_numpy(np.array(pixels, np.float32, order="C"))
    mean = torch.tensor(source.mean).view(-1, 1, 1)
    deviation = torch.tensor(source.deviation).view(-1, 1, 1)
    return images.div_(source.white).sub_(mean).div_(deviation)


def _read_idx_files(folder: str, info: DatasetInfo, data_dir: Path) -> Arrays:
    train_x, train_y = _read_idx_pair(data_dir / folder, "train", info.num_train, info)
    test_x, test_y = _read_idx_pair(data_dir / folder, "t10k", info.num_test, info)
    return train_x, train_y, test_x, test_y


def _read_idx_pair(folder: Path, part: str, count: int, info: DatasetInfo) -> tuple[NDArray[Any], NDArray[Any]]:
    """Images [count, 1, H, W] and labels [count] of one part."""
    images = read_idx(folder / f"{part}-images-idx3-ubyte", (count, *info.shape[1:]))
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte", (count,))
    if labels.max() >= info.num_classes:
        raise TrainingError(f"{folder / part}-labels-idx1-ubyte is damaged: it has a label {labels.max()}")
    return images[:, None], labels


def _read_cifar10(info: DatasetInfo, data_dir: Path) -> Arrays:
    """Through torchvision, whose files are pickles: none is opened before its MD5 is right."""
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    checksums = (*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], CIFAR10.meta["md5"]))
    for name, md5 in checksums:
        path = data_dir / CIFAR10.base_folder / name
        if not check_integrity(path, md5):
            raise TrainingError(f"{path} is damaged: its checksum is wrong")
    train, test = CIFAR10(data_dir, train=True), CIFAR10(data_dir, train=False)
    return (
        train.data.transpose(0, 3, 1, 2),
        np.array(train.targets),
        test.data.transpose(0, 3, 1, 2),
        np.array(test.targets),
    )


def _read_digits(info: DatasetInfo, data_dir: Path) -> Arrays:
    try:
        images, labels = digits(*files_of("digits", data_dir))
    except NotHere as error:
        raise TrainingError(f"{error}: it comes with scikit-learn, which is not installed") from error
    train, test = slice(info.num_train), slice(info.num_train, None)
    return images[train], labels[train], images[test], labels[test]


def _idx_files(class_name: str) -> tuple[str, ...]:
    kinds = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return tuple(f"{class_name}/raw/{kind}-ubyte" for kind in kinds)


_CIFAR10_FILES = tuple(
    f"cifar-10-batches-py/{file}"
    for file in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta")
)

# Means and deviations to four digits, as commonly quoted; those of MNIST and digits are tested against the images.
SOURCES: dict[str, Source] = {
    "mnist": Source(
        mean=(0.1307,),
        deviation=(0.3081,),
        read=partial(_read_idx_files, "MNIST/raw"),
        wanted=Wanted(label="MNIST", class_name="MNIST", files=_idx_files("MNIST")),
    ),
    "fashion_mnist": Source(
        mean=(0.2860,),
        deviation=(0.3530,),
        read=partial(_read_idx_files, "FashionMNIST/raw"),
        wanted=Wanted(label="Fashion-MNIST", class_name="FashionMNIST", files=_idx_files("FashionMNIST")),
    ),
    "cifar10": Source(
        mean=(0.4914, 0.4822, 0.4465),
        deviation=(0.2470, 0.2435, 0.2616),
        read=_read_cifar10,
        wanted=Wanted(label="CIFAR-10", class_name="CIFAR10", files=_CIFAR10_FILES),
    ),
    "digits": Source(mean=(0.3052,), deviation=(0.3761,), read=_read_digits, white=16.0),
}
