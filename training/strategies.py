"""The server's side: how updates become the next global model.

A strategy is a function (weights [P], updates in the cohort's order, total_examples of the whole cohort,
state, config) -> (new weights [P], new state). It may read the updates once, one by one, or make a list of
them; between rounds it keeps what it needs in `state`, tensors by name, which travels in the checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from training.clients import Update
from training.config import TrainingConfig

StrategyState = Mapping[str, Tensor]
Strategy = Callable[
    [Tensor, Iterable[Update], int, StrategyState, TrainingConfig],
    tuple[Tensor, StrategyState],
]


def fedavg(
    weights: Tensor,
    updates: Iterable[Update],
    total_examples: int,
    state: StrategyState,
    config: TrainingConfig,
) -> tuple[Tensor, StrategyState]:
    """w + sum over the cohort of (n_i / n) delta_i (McMahan et al. 2017, algorithm 1). Keeps no state.

    Summed in float64 and rounded once: a thousand float32 additions would lose digits, and backends that hand
    over the same updates in other blocks would then disagree.
    """
    total = weights.to(torch.float64, copy=True)
    for update in updates:
        if update.delta is not None:
            total.add_(update.delta, alpha=update.num_examples / total_examples)
    return total.to(torch.float32), state


STRATEGIES: dict[str, Strategy] = {"fedavg": fedavg}
