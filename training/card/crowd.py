"""What a round's clients sent, on a card: not one by one, but all of it together."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Crowd:
    """Updates as strategies read them; see training.strategies.reading."""

    mean: Tensor  # float64 [P], weighted by the examples
    deltas: Tensor | None  # float32 [n, P] in the cohort's order; None where nobody looks at each of them
    arrived: tuple[bool, ...] = ()  # whose row is an update that was sent; as long as `deltas`
