import dataclasses

import pytest
import torch

from training import devices, federation
from training.config import TrainingConfig
from training.events import TrainingError
from training.loop import run

CONFIG = TrainingConfig(dataset="digits", validation_size=100, num_rounds=1)


@pytest.mark.parametrize(("device", "named"), [("cuda", "CUDA"), ("mps", "Apple")])
def test_it_says_that_a_device_is_not_there(digits, device, named, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(TrainingError, match=f"^device: there is no {named} GPU that this PyTorch can use"):
        next(run(dataclasses.replace(CONFIG, device=device), digits))


def test_it_leaves_everything_where_it_is_on_the_cpu(digits):
    federated = federation.gather(CONFIG, digits)
    assert devices.placed(federated, devices.device_of("cpu")) is federated


def test_it_moves_examples_and_network_to_another_device(digits):
    """`meta` stands in for a GPU: it has shapes and no numbers."""
    federated = devices.placed(federation.gather(CONFIG, digits), torch.device("meta"))
    data = federated.data
    moved = (federated.validation_x, federated.validation_y, data.train_x, data.train_y, data.test_x, data.test_y)
    assert {tensor.device.type for tensor in (*moved, *federated.network.parameters())} == {"meta"}
    assert federated.untrained.device.type == "cpu"
