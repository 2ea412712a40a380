"""Who takes part in a round. A sampler is a function (facts, rng, **parameters) -> ascending client numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.config import TrainingConfig
from training.seeds import numpy_generator


@dataclass(frozen=True, kw_only=True)
class SamplerFacts:
    """What is known before a round; everything in the order of `clients`. What has no source yet is empty."""

    round_number: int
    cohort_size: int  # how many are wanted
    clients: NDArray[np.int64]  # all of the run, ascending
    num_examples: NDArray[np.int64]  # that each holds
    losses: tuple[float | None, ...] = ()
    balances: tuple[int, ...] = ()
    stakes: tuple[int, ...] = ()
    reputation: tuple[float, ...] = ()


def sample(config: TrainingConfig, num_examples: NDArray[np.int64], round_number: int) -> tuple[int, ...]:
    """The cohort of a round, by the configuration's sampler; drawn from (seed, round) alone."""
    facts = SamplerFacts(
        round_number=round_number,
        cohort_size=config.cohort_size,
        clients=np.arange(1, config.num_clients + 1),
        num_examples=num_examples,
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
    keys = rng.exponential(size=len(facts.clients)) / facts.num_examples
    first = np.argpartition(keys, facts.cohort_size - 1)[: facts.cohort_size]
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
