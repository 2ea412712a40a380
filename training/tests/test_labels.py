"""The labels that are read without PyTorch are those that runs train on, whatever happens to what is kept of them."""

import dataclasses
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from training import labels
from training.catalogue import DATASETS
from training.events import TrainingError
from training.labels import NotHere, train_labels

NOWHERE = Path("/nonexistent")


@pytest.fixture
def cifar10(tmp_path, monkeypatch) -> Path:
    """Ten labels in the five files of CIFAR-10."""
    monkeypatch.setitem(labels.DATASETS, "cifar10", dataclasses.replace(DATASETS["cifar10"], num_train=10))
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for number in range(5):
        batch = {"data": np.zeros((2, 3072), np.uint8), "labels": [number, 9 - number]}
        (folder / f"data_batch_{number + 1}").write_bytes(pickle.dumps(batch, protocol=2))
    return folder


def test_they_are_the_labels_that_runs_have(digits, real, tmp_path):
    assert np.array_equal(train_labels("digits", NOWHERE, tmp_path), digits.train_y.numpy())
    if real.name == "mnist":
        found = train_labels("mnist", Path(os.environ["FEDSITE_DATA_DIR"]), tmp_path)
        assert np.array_equal(found, real.train_y.numpy())


def test_they_are_kept_and_read_again_where_that_is_damaged(tmp_path):
    found = train_labels("digits", NOWHERE, tmp_path)
    (kept,) = (tmp_path / "labels").iterdir()
    np.save(kept, found[::-1])
    assert np.array_equal(train_labels("digits", NOWHERE, tmp_path), found[::-1])  # it is what is looked at first
    for damaged in (b"", kept.read_bytes()[:-9], pickle.dumps([1])):
        kept.write_bytes(damaged)
        assert np.array_equal(train_labels("digits", NOWHERE, tmp_path), found)
        assert np.array_equal(np.load(kept), found)


def test_they_need_no_folder_to_be_kept_in(tmp_path):
    (tmp_path / "file").touch()
    assert len(train_labels("digits", NOWHERE, tmp_path / "file")) == 1437


def test_other_files_have_other_labels(cifar10, tmp_path):
    assert train_labels("cifar10", tmp_path, tmp_path).tolist() == [0, 9, 1, 8, 2, 7, 3, 6, 4, 5]
    batch = {"data": np.zeros((2, 3072), np.uint8), "labels": [5, 5]}
    (cifar10 / "data_batch_1").write_bytes(pickle.dumps(batch))
    assert train_labels("cifar10", tmp_path, tmp_path).tolist() == [5, 5, 1, 8, 2, 7, 3, 6, 4, 5]
    assert len(list((tmp_path / "labels").iterdir())) == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"something else", "data_batch_3 is damaged"),
        (pickle.dumps({"data": []}), "data_batch_3 is damaged"),
        (pickle.dumps([1]), "data_batch_3 is damaged"),
        (pickle.dumps({"labels": [1, 2, 3]}), "11 labels are there, and 10 are expected"),
        (pickle.dumps({"labels": [1, 10]}), "is damaged"),
        (pickle.dumps({"labels": OrderedDict}), "it names collections.OrderedDict"),
    ],
)
def test_a_damaged_file_of_cifar10_is_said_and_calls_nothing(cifar10, tmp_path, content, reason):
    (cifar10 / "data_batch_3").write_bytes(content)
    with pytest.raises(TrainingError, match=reason):
        train_labels("cifar10", tmp_path, tmp_path)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_what_is_not_there_is_said(name, tmp_path):
    with pytest.raises(NotHere, match="is not on this machine yet"):
        train_labels(name, tmp_path, tmp_path)
