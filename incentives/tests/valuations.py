"""Kinds of valuations asked about games, as an economy asks them."""

import numpy as np

import kinds
from incentives.economy import ValuationFacts


def usual(name):
    parameters = kinds.find("valuation", name).parameters.items()
    return {each: parameter.check(parameter.default) for each, parameter in parameters}


def valued(name, game, n, *, seed=0, sizes=None, state=None, products=None, players=None, **parameters):
    """The Values of n players, clients 1 to n unless named, none of them silent."""
    clients = tuple(range(1, n + 1)) if players is None else players
    facts = ValuationFacts(
        clients=clients,
        players=clients,
        num_examples=np.array([10] * n if sizes is None else sizes, np.int64),
        products=products,
    )
    code = kinds.find("valuation", name).load()
    return code(game, facts, state or {}, np.random.default_rng(seed), **usual(name) | parameters)
