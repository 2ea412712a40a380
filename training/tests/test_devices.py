import dataclasses

import pytest
import torch

from training import devices, federation
from training.config import ConfigError, TrainingConfig
from training.events import TrainingError
from training.loop import run

CONFIG = TrainingConfig.of(dataset="digits", validation_size=100, num_rounds=1)


@pytest.mark.parametrize(("device", "named"), [("cuda", "CUDA"), ("mps", "Apple")])
def test_it_says_that_a_device_is_not_there(digits, device, named, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(TrainingError, match=f"^device: there is no {named} GPU that this PyTorch can use"):
        next(run(dataclasses.replace(CONFIG, device=device), digits))


@pytest.mark.parametrize(
    ("there", "backend", "expected"), [(True, "auto", "cuda"), (True, "ray", "cpu"), (False, "auto", "cpu")]
)
def test_auto_is_decided_by_the_machine_and_the_configuration(there, backend, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert devices.chosen(dataclasses.replace(CONFIG, device="auto", backend=backend)) == expected
    assert devices.chosen(CONFIG) == "cpu"


def test_tf32_is_for_a_gpu(digits):
    with pytest.raises(ConfigError, match="precision: tf32 is for device cuda; this one is cpu"):
        dataclasses.replace(CONFIG, precision="tf32")
    config = dataclasses.replace(CONFIG, precision="tf32", device="auto")
    if not torch.cuda.is_available():
        with pytest.raises(TrainingError, match=r"^precision: tf32 is for CUDA GPUs; this run is on cpu"):
            next(run(config, digits))


def test_lack_of_the_gpus_memory_is_a_sentence_that_names_a_field(digits, monkeypatch):
    def fails(*arguments, **named):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2**30, 8 * 2**30))
    monkeypatch.setattr(federation, "tasks", fails)
    with pytest.raises(
        TrainingError, match=r"^fraction_fit: round 1, 10 clients with mlp, does not fit into the GPU's"
    ):
        list(run(CONFIG, digits))


def test_it_leaves_everything_where_it_is_on_the_cpu(digits):
    federated = federation.gather(CONFIG, digits)
    assert devices.placed(federated, devices.prepared(CONFIG)) is federated


def test_it_moves_examples_and_network_to_another_device(digits):
    """`meta` stands in for a GPU: it has shapes and no numbers."""
    federated = devices.placed(federation.gather(CONFIG, digits), torch.device("meta"))
    data = federated.data
    moved = (federated.validation_x, federated.validation_y, data.train_x, data.train_y, data.test_x, data.test_y)
    assert {tensor.device.type for tensor in (*moved, *federated.network.parameters())} == {"meta"}
    assert federated.untrained.device.type == "cpu"
