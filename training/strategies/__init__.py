"""The server's side: how updates become the next global model.

A strategy is a function (weights [P], updates in the cohort's order, total_examples of the whole cohort,
state, config) -> (new weights [P], new state). It may read the updates once, one by one, or make a list of
them. What absence does to its mean is its own to say: the averaging and the optimising ones take a client that
sent nothing for a zero update at its full weight, the robust ones are over what arrived. Between rounds it keeps
what it needs in `state`, tensors by name, which travels in the checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor

from training.card.crowd import Crowd
from training.clients import Update
from training.config import TrainingConfig
from training.strategies.averaging import fedavg, fedprox, proximal_mu
from training.strategies.clipping import centred_clipping
from training.strategies.coordinates import median, trimmed_mean
from training.strategies.krum import multi_krum
from training.strategies.optimising import fedadam, fedavgm
from training.strategies.reading import StrategyState

__all__ = ["AVERAGING", "STRATEGIES", "Strategy", "StrategyState", "proximal_mu"]

Strategy = Callable[
    [Tensor, Iterable[Update] | Crowd, int, StrategyState, TrainingConfig],
    tuple[Tensor, StrategyState],
]

STRATEGIES: dict[str, Strategy] = {
    "fedavg": fedavg,
    "fedavgm": fedavgm,
    "fedadam": fedadam,
    "fedprox": fedprox,
    "trimmed_mean": trimmed_mean,
    "median": median,
    "multi_krum": multi_krum,
    "centred_clipping": centred_clipping,
}
AVERAGING = frozenset({"fedavg", "fedavgm", "fedadam", "fedprox"})  # they read of updates their weighted mean alone
