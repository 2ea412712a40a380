"""Who takes part in a round. A sampler is a function (facts, rng, **parameters) -> ascending client numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.config import TrainingConfig
from training.events import TrainingError
from training.seeds import numpy_generator


@dataclass(frozen=True, kw_only=True)
class SamplerFacts:
    """What is known before a round; everything in the order of `clients`. What has no source yet is empty."""

    round_number: int
    cohort_size: int  # how many are wanted
    clients: NDArray[np.int64]  # all of the run, ascending
    num_examples: NDArray[np.int64]  # that each says it holds
    losses: tuple[float | None, ...] = ()
    balances: tuple[int, ...] = ()
    stakes: tuple[int, ...] = ()
    reputation: tuple[float, ...] = ()


def sample(
    config: TrainingConfig, num_examples: NDArray[np.int64], round_number: int, **known: tuple[float, ...]
) -> tuple[int, ...]:
    """The cohort of a round, by the configuration's sampler; drawn from (seed, round) alone. `known`: facts whose
    source is not the training, by their names, in the order of all clients. TrainingError where nobody is left."""
    facts = SamplerFacts(
        round_number=round_number,
        cohort_size=config.cohort_size,
        clients=np.arange(1, len(num_examples) + 1),
        num_examples=num_examples,
        **known,  # type: ignore[arg-type]
    )
    rng = numpy_generator(config.seed, "sample", round_number)
    cohort = config.sampler.load()(facts, rng, **config.sampler.parameters)
    return tuple(int(client) for client in cohort)


def uniform(facts: SamplerFacts, rng: np.random.Generator) -> NDArray[np.int64]:
    """Without replacement; every set of them is equally likely (McMahan et al. 2017, algorithm 1)."""
    drawn = rng.choice(len(facts.clients), facts.cohort_size, replace=False)
    return facts.clients[np.sort(drawn)]


def by_size(facts: SamplerFacts, rng: np.random.Generator) -> NDArray[np.int64]:
    """Without replacement, each draw in proportion to the examples of those that are left, by exponential keys
    (Efraimidis & Spirakis 2006)."""
    return _weighted(facts, rng, facts.num_examples)


def by_balance(facts: SamplerFacts, rng: np.random.Generator, *, floor: float) -> NDArray[np.int64]:
    """As `by_size`, by the tokens that each has earned, and `floor` tokens more for everyone."""
    return _weighted(facts, rng, np.asarray(facts.balances, np.float64) / 1e6 + floor)


def by_stake(facts: SamplerFacts, rng: np.random.Generator, *, minimum: float) -> NDArray[np.int64]:
    """As `by_size`, by the tokens that each has at stake; who has less than `minimum`, or nothing, is excluded."""
    stakes = np.asarray(facts.stakes, np.float64) / 1e6
    return _weighted(facts, rng, np.where(stakes >= minimum, stakes, 0.0))


def by_reputation(facts: SamplerFacts, rng: np.random.Generator, *, power: float, minimum: float) -> NDArray[np.int64]:
    """As `by_size`, by reputation^power; who has less than `minimum`, or none, is excluded."""
    reputation = np.asarray(facts.reputation, np.float64)
    return _weighted(facts, rng, np.where((reputation >= minimum) & (reputation > 0), reputation**power, 0.0))


def _weighted(facts: SamplerFacts, rng: np.random.Generator, weights: NDArray[Any]) -> NDArray[np.int64]:
    """Without replacement, each draw in proportion to the weights of those that are left. Who has none is never drawn:
    the cohort is smaller where fewer are left, and nobody's absence moves another's draw."""
    draws = rng.exponential(size=len(facts.clients))
    keys = np.divide(draws, weights, out=np.full(len(draws), np.inf), where=weights > 0)
    size = min(facts.cohort_size, int((weights > 0).sum()))
    if not size:
        raise TrainingError(f"Round {facts.round_number}: the sampler excludes everybody, so nobody can be sampled")
    first = np.argpartition(keys, size - 1)[:size]
    return facts.clients[np.sort(first)]


def round_robin(facts: SamplerFacts, rng: np.random.Generator) -> NDArray[np.int64]:
    """In turn: each round goes on where the one before ended, and begins again after the last client."""
    start = (facts.round_number - 1) * facts.cohort_size
    places = (start + np.arange(facts.cohort_size)) % len(facts.clients)
    return facts.clients[np.sort(places)]


def listed(
    facts: SamplerFacts, rng: np.random.Generator, *, include: tuple[int, ...], exclude: tuple[int, ...]
) -> NDArray[np.int64]:
    """Uniformly, without replacement, among those included (all, where none is named) and not excluded; all of them
    where they are fewer than wanted."""
    allowed = np.setdiff1d(np.asarray(include, np.int64) if include else facts.clients, np.asarray(exclude, np.int64))
    return np.sort(rng.choice(allowed, min(facts.cohort_size, len(allowed)), replace=False))
