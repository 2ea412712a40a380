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
    `local(**parameters) -> Local`.

    `coefficients(members, sizes, products, state, **parameters) -> (a_0, a)` where the step is a_0 times what the
    strategy carries, the tensor `carried` of its state before the round, and the sum of a_i times update i. `members`,
    bool [n], are who sent something; `sizes`, int64 [n], the examples of all that are there, sending or not, and 0 of
    others; `products` those of the updates, see training.products; `a` is float64 [n]. Nothing may depend on who is no
    member but for its size. Built-in ones take many coalitions at a time, all arrays with a leading axis.
    """

    join: Callable[..., Any]
    local: Callable[..., Local] | None = None
    coefficients: Callable[..., Any] | None = None
    carried: str = "carried"
