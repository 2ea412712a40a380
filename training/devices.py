"""Where the tensors of a run live: in the machine's memory, or on a GPU where there is one and it is asked for.

On a CUDA GPU whole rounds are played there, see training.card, unless the configuration asks for another backend than
the fast one. On an Apple GPU, which knows no float64, clients are trained and models evaluated; the sums over many
clients are taken in the machine's memory, as they are where everything is.
"""

from __future__ import annotations

import dataclasses
import os

import torch
from torch import Tensor

from training.config import TrainingConfig
from training.events import TrainingError
from training.federation import Federation

CUBLAS_WORKSPACE = ":4096:8"  # without a fixed one its products may differ from run to run


def chosen(config: TrainingConfig) -> str:
    """What `auto` stands for on this machine, whatever else it is at: cuda where PyTorch can use such a GPU."""
    if config.device != "auto":
        return config.device
    return "cuda" if config.backend != "ray" and torch.cuda.is_available() else "cpu"


def prepared(config: TrainingConfig) -> torch.device:
    """The run's device, with the process set to compute on it in the precision asked for, and alike each time.

    TrainingError where this machine, or this PyTorch, does not have it.
    """
    name = chosen(config)
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError("device: there is no CUDA GPU that this PyTorch can use; cpu is always there")
    if name == "mps" and not torch.backends.mps.is_available():
        raise TrainingError("device: there is no Apple GPU that this PyTorch can use; cpu is always there")
    if config.precision == "tf32" and name != "cuda":
        raise TrainingError(f"precision: tf32 is for CUDA GPUs; this run is on {name}")
    if name == "cuda":
        _prepare_cuda(config.precision)
    return torch.device(name)


def _prepare_cuda(precision: str) -> None:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACE)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # all that is read here was written
    torch.backends.cudnn.benchmark = False
    told = "tf32" if precision == "tf32" else "ieee"
    torch.backends.cuda.matmul.fp32_precision = told
    torch.backends.cudnn.conv.fp32_precision = told  # type: ignore[attr-defined]  # which is tf32 where nobody says otherwise


def share_card(config: TrainingConfig, processes: int) -> None:
    """Takes no more of the GPU's memory than its part, where so many processes train at a time."""
    if processes > 1 and chosen(config) == "cuda" and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(1 / processes)


def has_card(config: TrainingConfig, device: torch.device) -> bool:
    """Whether rounds are played by training.card."""
    plugged = any("/" in choice.kind for choice in (config.model, config.strategy))
    return device.type == "cuda" and config.backend in ("auto", "batched") and not plugged


def out_of_memory(config: TrainingConfig, round_number: int) -> TrainingError:
    free, total = torch.cuda.mem_get_info()
    limit = f"{total / 2**30:.1f} GiB, of which {free / 2**30:.1f} are free now"
    return TrainingError(
        f"fraction_fit: round {round_number}, {config.cohort_size:,} clients with {config.model.kind}, does not fit "
        f"into the GPU's memory ({limit}); a smaller share of the clients, a smaller batch_size or device cpu will do"
    )


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
