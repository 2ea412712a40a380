"""Where the tensors of a run live: in the machine's memory, or on a GPU where there is one and it is asked for.

Examples and local training are on the device. The global weights, updates, strategies, games and checkpoints stay in
the machine's memory: they are what the events speak of. The project's own tests run on the CPU alone.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from training.events import TrainingError
from training.federation import Federation


def device_of(name: str) -> torch.device:
    """TrainingError where this machine, or this PyTorch, does not have it."""
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError("device: there is no CUDA GPU that this PyTorch can use; cpu is always there")
    if name == "mps" and not torch.backends.mps.is_available():
        raise TrainingError("device: there is no Apple GPU that this PyTorch can use; cpu is always there")
    return torch.device(name)


def placed(federated: Federation, device: torch.device) -> Federation:
    """The same with its examples and its network on the device; on the CPU, itself."""
    if device.type == "cpu":
        return federated

    def there(tensor: Tensor) -> Tensor:
        return tensor.to(device)

    data = federated.data
    return dataclasses.replace(
        federated,
        network=federated.network.to(device),
        validation_x=there(federated.validation_x),
        validation_y=there(federated.validation_y),
        data=dataclasses.replace(
            data,
            train_x=there(data.train_x),
            train_y=there(data.train_y),
            test_x=there(data.test_x),
            test_y=there(data.test_y),
        ),
    )
