"""Updates made up for tests of strategies."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from training import strategies
from training.clients import Update
from training.config import TrainingConfig


def update(client: int, num_examples: int, delta: Sequence[float] | None) -> Update:
    sent = None if delta is None else torch.tensor(delta)
    return Update(client=client, num_examples=num_examples, sent=sent, loss_before=None, loss_after=None)


def alike(*deltas: Sequence[float] | None) -> list[Update]:
    """Of clients with one example each."""
    return [update(client, 1, delta) for client, delta in enumerate(deltas, 1)]


def drawn(
    count: int,
    size: int,
    *,
    seed: int = 0,
    scale: float = 1.0,
    around: Tensor | float = 0.0,
    num_examples: Sequence[int] | None = None,
) -> list[Update]:
    """Normal updates; client i has i examples unless told."""
    deltas = around + scale * torch.randn(count, size, generator=torch.Generator().manual_seed(seed))
    examples = num_examples or range(1, count + 1)
    return [
        update(client, n, deltas[client - 1].tolist()) for client, n in zip(range(1, count + 1), examples, strict=True)
    ]


def joined(
    strategy: str,
    updates: Sequence[Update],
    *,
    weights: Tensor | None = None,
    state: Mapping[str, Tensor] | None = None,
    **fields: float,
) -> tuple[Tensor, Mapping[str, Tensor]]:
    """(new weights, new state) under the usual configuration but for the fields; the old weights are 0 unless given."""
    sizes = [len(each.delta) for each in updates if each.delta is not None]
    weights = torch.zeros(sizes[0]) if weights is None else weights
    total = sum(each.num_examples for each in updates)
    config = TrainingConfig.of(strategy=strategy, num_clients=max(10, len(updates)), **fields)
    return strategies.join(config, weights, iter(updates), total, state or {})
