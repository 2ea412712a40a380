"""Small games with known values: coalitions, bool [m, n], in; utilities, float64 [m], out."""

import numpy as np


def of_sets(table):
    """The game of a table from sets of players, as letters, to utilities; the empty set is worth 0 unless named."""
    players = sorted(set("".join(table)))

    def game(coalitions):
        names = ["".join(name for name, there in zip(players, row, strict=True) if there) for row in coalitions]
        return np.array([{"": 0, **table}[name] for name in names], dtype=float)

    return game


def of_table(values):
    """The game whose coalition k, player i in it where bit i of k is set, is worth values[k]."""
    values = np.asarray(values, dtype=float)

    def game(coalitions):
        return values[coalitions @ (1 << np.arange(coalitions.shape[1]))]

    return game


def symmetric_voting(coalitions):
    return (coalitions.sum(axis=1) > coalitions.shape[1] / 2).astype(float)


def shoes(left):
    """The first `left` players own a left shoe, the others a right one; a pair is worth 1."""

    def game(coalitions):
        return np.minimum(coalitions[:, :left].sum(axis=1), coalitions[:, left:].sum(axis=1)).astype(float)

    return game


glove = shoes(2)  # for three players: two left gloves and one right


def airport(costs):
    """A runway as long as the largest aircraft of the coalition needs."""
    return lambda coalitions: (coalitions * np.asarray(costs, dtype=float)).max(axis=1, initial=0.0)


def additive(worths):
    return lambda coalitions: coalitions @ np.asarray(worths, dtype=float)


def unanimity(needed):
    return lambda coalitions: coalitions[:, list(needed)].all(axis=1).astype(float)


def asked(game, batches):
    """The same game, which notes what it is asked."""

    def noting(coalitions):
        batches.append(coalitions.copy())
        return game(coalitions)

    return noting
