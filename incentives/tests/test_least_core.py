"""The least core of games in which it is known, and what it must be in any."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kinds
from extensions.testing import parametrize_with_checks

from .games import additive, asked, of_table, shoes
from .test_valuation_axioms import tables
from .valuations import valued


@parametrize_with_checks([kinds.find("valuation", "least_core")])
def test_it_keeps_the_contract_of_valuations(check):
    check()


@pytest.mark.parametrize(
    ("game", "n", "expected", "subsidy"),
    [
        (shoes(3), 6, [0.5] * 6, 0.0),
        (shoes(2), 5, [1, 1, 0, 0, 0], 0.0),
        (lambda coalitions: np.floor(coalitions.sum(axis=1) / 2), 6, [0.5] * 6, 0.0),
        (additive([3.0, 0.0, -2.0]), 3, [3, 0, -2], 0.0),
        (lambda coalitions: 1.0 * coalitions.all(axis=1), 4, [0.25] * 4, -0.25),
        (lambda coalitions: 1.0 * (coalitions.sum(axis=1) > 1), 3, [1 / 3] * 3, 1 / 3),
        (lambda coalitions: np.full(len(coalitions), 5.0), 3, [0] * 3, 0.0),
    ],
    ids=["pairs of shoes", "scarce shoes", "miner", "additive", "unanimity", "majority", "nothing"],
)
def test_reference_games_have_their_least_core(game, n, expected, subsidy):
    found = valued("least_core", game, n)
    assert found.contributions == pytest.approx(expected, abs=1e-7)
    assert found.contributions.sum() == pytest.approx(sum(expected), abs=1e-9)
    assert found.state["subsidy"] == pytest.approx(subsidy, abs=1e-7)


@given(tables(most=7))
@settings(deadline=None, max_examples=200)
def test_no_coalition_gains_more_than_the_subsidy_by_leaving(case):
    n, values = case
    found = valued("least_core", of_table(values), n)
    members = (np.arange(2**n)[:, None] >> np.arange(n) & 1)[1:-1]
    gains = values[1:-1] - values[0]
    scale = np.abs(values - values[0]).max()
    assert found.contributions.sum() == pytest.approx(values[-1] - values[0], abs=1e-9 * max(1, scale))
    if n > 1:
        worst = (gains - members @ found.contributions).max()
        assert worst == pytest.approx(found.state["subsidy"], abs=1e-7 * scale)
        halves = (gains + gains[::-1] - (values[-1] - values[0])) / 2  # a coalition and its complement bound it
        assert found.state["subsidy"] >= halves.max() - 1e-7 * scale


@given(tables(most=6), st.data())
@settings(deadline=None, max_examples=100)
def test_players_alike_are_worth_the_same(case, data):
    n, values = case
    a, b = data.draw(st.integers(0, n - 1)), data.draw(st.integers(0, n - 1))
    numbers, both = np.arange(2**n), 1 << a | 1 << b
    only_b = (numbers & both) == 1 << b
    values = values[np.where(only_b, numbers & ~both | 1 << a, numbers)]
    found = valued("least_core", of_table(values), n).contributions
    assert found[a] == pytest.approx(found[b], abs=1e-6 * np.abs(values - values[0]).max() + 1e-12)


def test_of_many_it_asks_random_halves():
    batches = []
    worths = np.linspace(0.1, 1, 12)
    found = valued("least_core", asked(additive(worths), batches), 12)
    assert len({row.tobytes() for batch in batches for row in batch}) <= 288
    assert found.contributions == pytest.approx(worths, abs=1e-6)
