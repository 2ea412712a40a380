"""The server's side: how updates become the next global model.

A strategy's `join` is a function (weights [P], updates in the cohort's order, total_examples of the whole cohort,
state, **parameters) -> (new weights [P], new state). It may read the updates once, one by one, or make a list of
them. What absence does to its mean is its own to say: the averaging and the optimising ones take a client that
sent nothing for a zero update at its full weight, the robust ones are over what arrived. Between rounds it keeps
what it needs in `state`, tensors by name, which travels in the checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from kinds import Choice
from training.card.crowd import Crowd
from training.clients import Update
from training.config import TrainingConfig
from training.events import TrainingError
from training.strategies.averaging import fedavg, fedprox
from training.strategies.clipping import centred_clipping
from training.strategies.coordinates import median, trimmed_mean
from training.strategies.krum import multi_krum
from training.strategies.optimising import fedadam, fedavgm
from training.strategies.reading import StrategyState, with_absent_votes
from training.strategies.strategy import Local, Strategy

__all__ = ["Local", "Strategy", "StrategyState", "join", "local", "reads_each"]

FEDAVG = Strategy(fedavg)
FEDAVGM = Strategy(fedavgm)
FEDADAM = Strategy(fedadam)
FEDPROX = Strategy(fedprox, local=lambda *, proximal_mu: Local(proximal_mu=proximal_mu))
TRIMMED_MEAN = Strategy(trimmed_mean)
MEDIAN = Strategy(median)
MULTI_KRUM = Strategy(multi_krum)
CENTRED_CLIPPING = Strategy(centred_clipping)


def join(
    config: TrainingConfig,
    weights: Tensor,
    updates: Iterable[Update] | Crowd,
    total_examples: int,
    state: StrategyState,
) -> tuple[Tensor, StrategyState]:
    """The configuration's strategy over a round's updates. TrainingError where a plug-in gives no such weights."""
    choice = config.strategy
    if config.absent_vote and choice.has("robust"):
        updates = with_absent_votes(updates, weights)
    if "/" not in choice.kind:
        joined: tuple[Tensor, StrategyState] = _of(choice).join(
            weights, updates, total_examples, state, **choice.parameters
        )
        return joined
    assert not isinstance(updates, Crowd), "training.devices lets no plug-in onto a card"
    try:
        found, kept = _of(choice).join(weights.clone(), [*updates], total_examples, state, **choice.parameters)
    except TrainingError:
        raise
    except Exception as error:
        raise TrainingError(f"strategy: {choice.kind} failed: {type(error).__name__}: {error}") from error
    if not isinstance(found, Tensor) or found.shape != weights.shape or found.dtype != torch.float32:
        raise TrainingError(f"strategy: {choice.kind} gives no float32 [{len(weights)}] for the next weights")
    if not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in kept.items()):
        raise TrainingError(f"strategy: {choice.kind} keeps a state that is not tensors by name")
    return found.detach(), kept


def local(config: TrainingConfig) -> Local:
    """What the strategy asks of the clients' own training."""
    ours = _of(config.strategy).local
    return ours(**config.strategy.parameters) if ours else Local()


def reads_each(config: TrainingConfig) -> bool:
    """Whether it looks at updates one by one, not at their weighted mean alone."""
    return not config.strategy.has("mean")


def _of(choice: Choice) -> Strategy:
    code = choice.load()
    return code if isinstance(code, Strategy) else Strategy(code)
