"""Marginal worth over a few random orders in which the players may join (Castro et al. 2009)."""

import numpy as np

from extensions import Kind, Values, whole


def orders(game, facts, state, rng, *, num_orders):
    n = len(facts.players)
    if n == 0:
        return Values(np.zeros(0))
    gains = np.zeros((num_orders, n))
    for number in range(num_orders):
        order = rng.permutation(n)
        joined = np.zeros((n + 1, n), dtype=bool)  # a row for each step: nobody, the first, the first two, ...
        for step, player in enumerate(order, start=1):
            joined[step:, player] = True
        gains[number, order] = np.diff(game(joined))
    return Values(gains.mean(axis=0))


def cost(n, *, num_orders):
    return num_orders * (n + 1)


KINDS = (
    Kind(
        family="valuation",
        name="orders",
        help="Mean marginal worth over a few random orders",
        source="Castro et al. 2009",
        code=orders,
        cost=cost,
        traits=frozenset({"efficient", "null_player"}),  # claimed, and so checked
        parameters={"num_orders": whole(10, "Orders that are drawn in a round", minimum=1, maximum=1000)},
    ),
)
