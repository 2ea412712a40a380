"""Values by directions of updates that can be drawn on paper, and CGSV beside the Shapley value that it stands for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kinds
from extensions.testing import parametrize_with_checks
from incentives.economy import ValuationFacts
from incentives.valuation import VALUATIONS

from .valuations import usual

NAMES = ("first_order", "cosine", "cgsv")


def values(name, updates, *, sizes=None, players=None, state=None, total=0, **beside):
    """Of updates [cohort, P] of clients 1, 2, ..., and the vectors beside them by name."""
    updates = np.asarray(updates, np.float64)
    clients = tuple(range(1, len(updates) + 1))
    players = clients if players is None else players
    products = {"updates": updates @ updates.T, "squared_norms": (updates**2).sum(1)}
    for each, vector in beside.items():
        products |= {each: updates @ np.asarray(vector, float), f"{each}.{each}": np.dot(vector, vector)}
    facts = ValuationFacts(
        clients=clients,
        players=players,
        num_examples=np.array([10] * len(players) if sizes is None else sizes, np.int64),
        products=products,
        total_examples=total,
    )
    parameters = usual(name)
    return kinds.find("valuation", name).load()(None, facts, state or {}, None, **parameters)


@parametrize_with_checks([kinds.find("valuation", name) for name in NAMES])
def test_each_keeps_the_contract_of_valuations(check):
    check()


def test_first_order_is_by_size_and_by_the_slope():
    found = values(
        "first_order", [[1, 0], [-1, 0], [0, 5], [2, 0]], sizes=[10, 10, 20, 40], total=100, gradient=[-3, 0]
    )
    assert found.contributions.tolist() == pytest.approx([0.3, -0.3, 0, 2.4])


@given(st.integers(1, 7), st.integers(0, 2**32))
@settings(deadline=None, max_examples=200)
def test_first_order_is_the_shapley_value_of_the_linear_loss(n, seed):
    """Under fixed weights; so it is efficient, symmetric, null and additive for that game."""
    rng = np.random.default_rng(seed)
    updates, gradient, sizes = rng.standard_normal((n, 4)), rng.standard_normal(4), rng.integers(1, 50, n)
    total = int(sizes.sum()) + int(rng.integers(0, 30))
    game = lambda rows: -2.0 - (rows * (sizes / total)) @ updates @ gradient  # noqa: E731
    found = values("first_order", updates, sizes=sizes, total=total, gradient=gradient)
    assert found.contributions == pytest.approx(VALUATIONS["shapley"](game, [1] * n), abs=1e-9)


def test_cosine_is_of_direction_alone():
    found = values("cosine", [[1, 0], [100, 0], [0, 1], [-2, 0], [0, 0]], step=[3, 0])
    assert found.contributions.tolist() == pytest.approx([1, 1, 0, -1, 0])


def test_who_sent_nothing_is_left_out_and_others_keep_their_places():
    found = values("cosine", [[0, 0], [1, 0], [0, 0], [0, 1]], players=(2, 4), step=[1, 0])
    assert found.contributions.tolist() == pytest.approx([1, 0])
    assert set(values("cgsv", [[0, 0], [1, 0], [0, 1]], players=(2, 3)).state["reputation"]) == {"2", "3"}


def test_cgsv_weighs_by_size_at_first_and_by_reputation_then():
    updates = [[1.0, 0.0], [0.0, 2.0]]
    first = values("cgsv", updates, sizes=[30, 10])
    assert first.contributions == pytest.approx(np.array([3, 1]) / np.sqrt(10))
    mixed = 0.95 * np.array([0.75, 0.25]) + 0.05 * first.contributions
    reputations = mixed / mixed.sum()
    assert [*first.state["reputation"].values()] == pytest.approx(reputations)
    second = values("cgsv", updates, sizes=[10, 30], state=first.state)
    assert second.contributions == pytest.approx(reputations / np.linalg.norm(reputations))


def test_a_reputation_has_a_floor_and_waits_for_who_is_away():
    state = {"reputation": {"1": 0.999, "2": 0.0005, "9": 0.3}}
    found = values("cgsv", [[1.0], [-1.0]], state=state)
    assert found.contributions == pytest.approx([1, -1])
    assert found.state["reputation"]["9"] == 0.3
    mean = 0.95 * 0.999 / 0.9995 + 0.05
    assert found.state["reputation"]["2"] == pytest.approx(1e-3 / (1e-3 + mean))
    assert state["reputation"]["2"] == 0.0005


def test_cgsv_is_near_the_shapley_value_of_the_cosine_game():
    """Ten Gaussian vectors of 1,000 numbers, as in the authors' repository: Pearson .984, L1 .0101 over its trials."""
    rng = np.random.default_rng(0)
    correlations, distances = [], []
    for _ in range(10):
        updates = rng.standard_normal((10, 1000))
        units = updates / np.linalg.norm(updates, axis=1, keepdims=True)
        whole = units.sum(axis=0)

        def game(rows, units=units, whole=whole):
            sums = rows @ units
            lengths = np.linalg.norm(sums, axis=1) * np.linalg.norm(whole)
            return np.divide(sums @ whole, lengths, out=np.zeros(len(rows)), where=lengths > 0)

        exact, near = VALUATIONS["shapley"](game, [1] * 10), values("cgsv", updates).contributions
        exact, near = exact / exact.sum(), near / near.sum()
        correlations.append(np.corrcoef(exact, near)[0, 1])
        distances.append(np.abs(exact - near).sum())
    assert np.mean(correlations) > 0.95
    assert np.mean(distances) < 0.02
