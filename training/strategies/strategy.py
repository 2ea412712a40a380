"""What a strategy consists of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Local:
    """What a strategy asks of every client's own training."""

    proximal_mu: float = 0.0  # mu (w - w_global) in the gradient of every local step (Li et al. 2020, equation 2)


@dataclass(frozen=True)
class Strategy:
    """`join(weights, updates, total_examples, state, **parameters) -> (weights, state)`, see training.strategies;
    `local(**parameters) -> Local`; `coefficients(members, sizes, products, state) -> (a_0, a)` where the step is a
    weighted sum of the updates and of what the strategy carries."""

    join: Callable[..., Any]
    local: Callable[..., Local] | None = None
    coefficients: Callable[..., Any] | None = None
