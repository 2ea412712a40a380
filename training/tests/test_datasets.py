import dataclasses
import gzip
import hashlib
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from training import datasets
from training.catalogue import DATASETS
from training.events import TrainingError
from training.labels import digits, files_of
from training.seeds import numpy_generator
from training.tests.listen import silent

ROOT = Path(__file__).parents[2]
SMALL = dataclasses.replace(DATASETS["mnist"], num_train=6, num_test=4)


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    """A folder with a very small MNIST: image i is grey value 10 i, its label i."""
    monkeypatch.setitem(datasets.DATASETS, "mnist", SMALL)
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for part, count in (("train", 6), ("t10k", 4)):
        images = np.repeat(np.arange(count, dtype=np.uint8) * 10, 784)
        header = b"\0\0\x08\x03" + b"".join(size.to_bytes(4, "big") for size in (count, 28, 28))
        (folder / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(
            b"\0\0\x08\x01" + count.to_bytes(4, "big") + bytes(range(count))
        )
    return tmp_path


def test_digits_are_those_of_scikit_learn_in_our_order():
    from sklearn.datasets import load_digits

    theirs, order = load_digits(), numpy_generator(0, "test_set").permutation(1_797)
    images, labels = digits(*files_of("digits", Path("nowhere")))
    assert np.array_equal(images, theirs.images[order][:, None])
    assert np.array_equal(labels, theirs.target[order])
    program = (
        "import sys; from pathlib import Path; from training import datasets; "
        "[*datasets.load('digits', Path('nowhere'))]; print(sys.modules.keys() & {'sklearn', 'scipy'})"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert ended.stdout == "set()\n", ended.stderr


def test_it_reads_what_torchvision_lays_out(mnist):
    data = silent(datasets.load(silent(datasets.find("auto", mnist)), mnist))
    assert (data.name, data.info) == ("mnist", SMALL)
    assert data.train_x.shape == (6, 1, 28, 28)
    assert data.test_x.shape == (4, 1, 28, 28)
    assert (data.train_x.dtype, data.train_y.dtype) == (torch.float32, torch.int64)
    assert data.train_y.tolist() == [0, 1, 2, 3, 4, 5]
    assert data.test_y.tolist() == [0, 1, 2, 3]
    assert torch.allclose(data.train_x[3], torch.tensor((30 / 255 - 0.1307) / 0.3081), atol=1e-6)


def test_it_reads_the_same_from_compressed_files_alone(mnist):
    whole = silent(datasets.load("mnist", mnist))
    for path in (mnist / "MNIST" / "raw").iterdir():
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    again = silent(datasets.load(silent(datasets.find("auto", mnist)), mnist))
    assert torch.equal(again.train_x, whole.train_x)
    assert torch.equal(again.test_y, whole.test_y)


@pytest.mark.parametrize(
    ("file", "damage", "reason"),
    [
        ("train-images-idx3-ubyte", lambda old: old[:-1], "4,720 bytes were expected, 4,719 are there"),
        ("train-images-idx3-ubyte", lambda old: b"", "4,720 bytes were expected, 0 are there"),
        ("t10k-labels-idx1-ubyte", lambda old: b"\1" + old[1:], "its first bytes do not announce 4 values"),
        ("t10k-images-idx3-ubyte", lambda old: old[:4] + b"\7" + old[5:], "do not announce 4 x 28 x 28 values"),
        ("train-labels-idx1-ubyte", lambda old: old[:-1] + b"\x0a", "it has a label 10"),
    ],
)
def test_it_names_a_damaged_file(mnist, file, damage, reason):
    path = mnist / "MNIST" / "raw" / file
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(TrainingError) as caught:
        silent(datasets.load("mnist", mnist))
    assert str(path) in str(caught.value)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    "damage", [lambda old: old[:-9], lambda old: b"not gzip", lambda old: old[:30] + b"!!!!" + old[34:]]
)
def test_it_names_a_damaged_compressed_file(mnist, damage):
    path = mnist / "MNIST" / "raw" / "train-images-idx3-ubyte"
    compressed = path.with_name(path.name + ".gz")
    compressed.write_bytes(damage(gzip.compress(path.read_bytes())))
    path.unlink()
    with pytest.raises(TrainingError, match=r"train-images-idx3-ubyte\.gz"):
        silent(datasets.load("mnist", mnist))


def test_it_takes_digits_by_name_without_looking_for_anything(tmp_path):
    assert silent(datasets.find("digits", tmp_path / "none")) == "digits"
    assert not (tmp_path / "none").exists()


def test_it_splits_digits_the_same_way_each_time(digits):
    images = torch.cat([digits.train_x, digits.test_x]).flatten(1)
    assert (len(digits.train_y), len(digits.test_y)) == (1437, 360)
    assert (digits.info, digits.name) == (DATASETS["digits"], "digits")
    assert torch.bincount(torch.cat([digits.train_y, digits.test_y])).tolist() == [
        178,
        182,
        177,
        183,
        181,
        182,
        181,
        179,
        174,
        180,
    ]
    assert len(images.unique(dim=0)) == 1797
    fingerprint = hashlib.sha256(digits.test_y.numpy().astype(np.uint8).tobytes()).hexdigest()
    assert fingerprint == "7017641801b81a36d198c8f6d4cd782196b32f5e407d64eb401383eeb203c816"


def test_it_normalises_by_the_training_set(digits, real):
    for data in (digits, real):
        assert data.train_x.mean().item() == pytest.approx(0.0, abs=5e-4)
        assert data.train_x.std().item() == pytest.approx(1.0, abs=5e-4)


def test_it_reads_cifar10_through_torchvision(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10

    info = dataclasses.replace(DATASETS["cifar10"], num_train=10, num_test=2)
    monkeypatch.setitem(datasets.DATASETS, "cifar10", info)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    write = partial(_write_pickle, folder)
    rows = np.arange(12 * 3072, dtype=np.int64).reshape(12, 3072) % 251
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    parts = [(rows[i : i + 2].astype(np.uint8), [i % 10, (i + 1) % 10]) for i in range(0, 12, 2)]
    sums = [
        [name, write(name, {"data": data, "labels": labels})] for name, (data, labels) in zip(names, parts, strict=True)
    ]
    meta = {**CIFAR10.meta, "md5": write("batches.meta", {"label_names": ["airplane"]})}
    for name, value in (("train_list", sums[:5]), ("test_list", sums[5:]), ("meta", meta)):
        monkeypatch.setattr(CIFAR10, name, value)

    data = silent(datasets.load("cifar10", tmp_path))
    assert data.train_x.shape == (10, 3, 32, 32)
    assert data.train_x.is_contiguous()
    assert data.train_y.tolist() == list(range(10))
    assert data.test_y.tolist() == [0, 1]
    green = (rows[3, 1024:2048].reshape(32, 32) / 255 - 0.4822) / 0.2435
    assert np.allclose(data.train_x[3, 1].numpy(), green, atol=1e-5)

    (folder / "data_batch_4").write_bytes(b"something else")
    with pytest.raises(TrainingError, match="data_batch_4 is damaged: its checksum is wrong"):
        silent(datasets.load("cifar10", tmp_path))


def _write_pickle(folder, name, content) -> str:
    packed = pickle.dumps(content)
    (folder / name).write_bytes(packed)
    return hashlib.md5(packed).hexdigest()
