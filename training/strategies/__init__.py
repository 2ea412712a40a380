"""The server's side: how updates become the next global model.

A strategy's `join` is a function (weights [P], updates in the cohort's order, total_examples of the whole cohort,
state, **parameters) -> (new weights [P], new state). It may read the updates once, one by one, or make a list of
them. What absence does to its mean is its own to say: the averaging and the optimising ones take a client that
sent nothing for a zero update at its full weight, the robust ones are over what arrived. Between rounds it keeps
what it needs in `state`, tensors by name, which travels in the checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kinds import Choice
from training.card.crowd import Crowd
from training.clients import Update
from training.config import TrainingConfig
from training.events import TrainingError
from training.products import Products
from training.strategies.averaging import fedavg, fedprox, mean_coefficients
from training.strategies.clipping import centred_clipping, clipping_coefficients
from training.strategies.coordinates import median, trimmed_mean
from training.strategies.krum import multi_krum, multi_krum_coefficients
from training.strategies.optimising import fedadam, fedavgm, fedavgm_coefficients
from training.strategies.reading import StrategyState, with_absent_votes
from training.strategies.strategy import Local, Strategy

__all__ = ["Local", "Strategy", "StrategyState", "carried", "coefficients", "join", "local", "reads_each", "weighs"]

FEDAVG = Strategy(fedavg, coefficients=mean_coefficients)
FEDAVGM = Strategy(fedavgm, coefficients=fedavgm_coefficients, carried="velocity")
FEDADAM = Strategy(fedadam)
FEDPROX = Strategy(fedprox, local=lambda *, proximal_mu: Local(proximal_mu=proximal_mu), coefficients=mean_coefficients)
TRIMMED_MEAN = Strategy(trimmed_mean)
MEDIAN = Strategy(median)
MULTI_KRUM = Strategy(multi_krum, coefficients=multi_krum_coefficients)
CENTRED_CLIPPING = Strategy(centred_clipping, coefficients=clipping_coefficients, carried="centre")


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


def weighs(choice: Choice) -> bool:
    """Whether its step is a weighted sum of updates and of what it carries, with weights that it can tell."""
    return _of(choice).coefficients is not None


def carried(choice: Choice, state: StrategyState) -> Tensor | None:
    """Of the state before a round, what may have a part in the step; [P]."""
    return state.get(_of(choice).carried) if weighs(choice) else None


def coefficients(
    choice: Choice,
    members: NDArray[np.bool_],
    sizes: NDArray[np.int64],
    products: Products,
    state: StrategyState,
) -> NDArray[np.float64]:
    """[m, n + 1], of the steps that the strategy would take in a round in which coalitions `members`, bool [m, n], sent
    something: column 0 of what it carries, the others of the updates. `sizes` [m, n], see Strategy.

    TrainingError where a plug-in gives no such numbers; it is asked one coalition at a time.
    """
    code = _of(choice).coefficients
    assert code is not None, "who has no coefficients is asked to join"
    if "/" not in choice.kind:
        first, others = code(members, sizes, products, state, **choice.parameters)
        return np.column_stack([first, others])
    found = np.empty((len(members), members.shape[1] + 1))
    for row, who, size in zip(found, members, sizes, strict=True):
        try:
            first, others = code(who.copy(), size.copy(), products, state, **choice.parameters)
            row[0], row[1:] = float(first), np.asarray(others, np.float64)
        except TrainingError:
            raise
        except Exception as error:
            text = f"{choice.kind} gives no coefficients: {type(error).__name__}: {error}"
            raise TrainingError(f"strategy: {text}") from error
    if not np.isfinite(found).all() or found[:, 1:][~members].any():
        raise TrainingError(f"strategy: {choice.kind} gives coefficients that are not finite, or not of members alone")
    return found


def reads_each(config: TrainingConfig) -> bool:
    """Whether it looks at updates one by one, not at their weighted mean alone."""
    return not config.strategy.has("mean")


def _of(choice: Choice) -> Strategy:
    code = choice.load()
    return code if isinstance(code, Strategy) else Strategy(code)
