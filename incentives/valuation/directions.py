"""Values that follow from inner products of the round's updates, without asking what any coalition is worth: see
incentives.products. Cost: no coalition. The signature is that of incentives.economy; nothing is drawn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from incentives.economy import State, ValuationFacts, Values
from incentives.products import cosines, cosines_with

from .games import Game

LEAST_REPUTATION = 1e-3


def first_order(game: Game, facts: ValuationFacts, state: State, rng: np.random.Generator) -> Values:
    """By how much the gradient says that a player's part of the step lowers the validation loss: -p_i <gradient of the
    loss before the round, update_i>, p_i being its share of the cohort's examples (Wang et al. 2024, "Data Shapley in
    one training run", section 4). It is the Shapley value, under fixed weights, of the loss in its first-order Taylor
    expansion, whatever the utility and the strategy."""
    total = max(1, facts.total_examples or int(facts.num_examples.sum()))
    values = -facts.num_examples / total * facts.products["gradient"][_places(facts)]
    return Values(values.astype(np.float64), state=state)


def cosine(game: Game, facts: ValuationFacts, state: State, rng: np.random.Generator) -> Values:
    """The cosine of a player's update with the step that the server made of the round, -1 to 1; 0 where one of them is
    0."""
    return Values(cosines_with(facts.products, "step")[_places(facts)], state=state)


def cgsv(game: Game, facts: ValuationFacts, state: State, rng: np.random.Generator, *, decay: float) -> Values:
    """Cosine gradient Shapley value (Xu et al. 2021, sections 3.2 and 4): the cosine of a player's update with the sum
    of all, each of length 1 and weighted by reputation; 0 of an update that is 0.

    A reputation r begins as the player's share of the examples, and becomes max(0.001, decay r + (1 - decay) value),
    then over the sum of the round's. It is kept by client; who is not in a round keeps it, and of those who are it
    is taken over their sum. The paper's rewards while training, parts of the model, are not given.
    """
    n = len(facts.players)
    if n == 0:
        return Values(np.zeros(0), state=state)
    places = _places(facts)
    alike = cosines(facts.products["updates"][np.ix_(places, places)])
    kept = dict(state.get("reputation", {}))
    shares = facts.num_examples / max(1, int(facts.num_examples.sum()))
    reputations = _over_sum(
        np.array([kept.get(str(client), share) for client, share in zip(facts.players, shares, strict=True)])
    )
    along = (alike * reputations).sum(axis=1)
    length = np.sqrt(max(0.0, float((along * reputations).sum())))
    values = np.clip(along / length, -1.0, 1.0) if length > 0 else np.zeros(n)
    reputations = _over_sum(np.maximum(LEAST_REPUTATION, decay * reputations + (1 - decay) * values))
    kept |= {str(client): each for client, each in zip(facts.players, reputations.tolist(), strict=True)}
    return Values(values, state={**state, "reputation": kept})


def _over_sum(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Alike where all are 0."""
    total = weights.sum()
    return weights / total if total > 0 else np.full(len(weights), 1.0 / len(weights))


def _places(facts: ValuationFacts) -> NDArray[np.int64]:
    """[n], of the players in the cohort."""
    of_client = {client: place for place, client in enumerate(facts.clients)}
    return np.array([of_client[player] for player in facts.players], np.int64)
