"""PyTorch's generators, seeded as `training.seeds` says."""

from __future__ import annotations

import torch

from training.seeds import Purpose, seed_for


def torch_generator(seed: int, purpose: Purpose, round_number: int = 0, client: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed_for(seed, purpose, round_number, client))
