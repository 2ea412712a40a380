"""What a Shapley value must be, on random games (Shapley 1953: efficiency, symmetry, null player, additivity)."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incentives.valuation import VALUATIONS

from .games import of_table
from .test_valuation import by_permutations

shapley = VALUATIONS["shapley"]
EXACT = {"abs": 1e-9, "rel": 0}


@st.composite
def tables(draw, most=8, games=1):
    """n and the utilities of all coalitions of as many games as asked for."""
    n = draw(st.integers(1, most))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    scale = draw(st.sampled_from([1e-3, 1.0, 100.0]))
    shift = draw(st.sampled_from([0.0, -2.3, 50.0]))
    return n, *(shift + scale * rng.standard_normal(2**n) for _ in range(games))


def numbers(n):
    return np.arange(2**n)


@given(tables(most=12))
@settings(deadline=None)
def test_it_shares_out_exactly_what_everybody_gains(case):
    n, values = case
    assert math.fsum(shapley(of_table(values), [1] * n)) == pytest.approx(values[-1] - values[0], **EXACT)


@given(tables(most=6))
@settings(deadline=None, max_examples=25)
def test_it_equals_the_mean_over_all_orders_of_arrival(case):
    n, values = case
    assert shapley(of_table(values), [1] * n) == pytest.approx(by_permutations(of_table(values), n), **EXACT)


@given(tables(), st.data())
@settings(deadline=None)
def test_it_gives_exactly_nothing_to_a_null_player(case, data):
    n, values = case
    null = data.draw(st.integers(0, n - 1))
    values = values[numbers(n) & ~(1 << null)]
    assert shapley(of_table(values), [1] * n)[null] == 0.0
    assert VALUATIONS["leave_one_out"](of_table(values), [1] * n)[null] == 0.0
    assert VALUATIONS["loss_improvement"](of_table(values), [1] * n)[null] == 0.0


@given(tables(), st.data())
@settings(deadline=None)
def test_it_gives_equal_players_equal_values_to_the_last_bit(case, data):
    n, values = case
    a, b = data.draw(st.integers(0, n - 1)), data.draw(st.integers(0, n - 1))
    both = 1 << a | 1 << b
    only_b = (numbers(n) & both) == 1 << b
    values = values[np.where(only_b, numbers(n) & ~both | 1 << a, numbers(n))]
    phi = shapley(of_table(values), [1] * n)
    assert phi[a] == phi[b]


@given(tables(games=2), st.floats(-10, 10))
@settings(deadline=None)
def test_it_is_linear_in_the_game(case, factor):
    n, first, second = case
    both = shapley(of_table(first + factor * second), [1] * n)
    apart = shapley(of_table(first), [1] * n) + factor * shapley(of_table(second), [1] * n)
    assert both == pytest.approx(apart, **EXACT)


@given(tables(), st.data())
@settings(deadline=None)
def test_it_follows_the_players_when_they_change_places(case, data):
    n, values = case
    order = data.draw(st.permutations(range(n)))
    game = of_table(values)
    moved = shapley(lambda coalitions: game(coalitions[:, np.argsort(order)]), [1] * n)
    assert moved.tolist() == shapley(game, [1] * n)[list(order)].tolist()


@given(tables())
@settings(deadline=None)
def test_it_never_gives_less_than_nothing_where_everybody_always_helps(case):
    n, values = case
    steps = np.abs(values)
    grown = np.array([steps[(numbers(n) & ~k) == 0].sum() for k in numbers(n)])  # each coalition adds to its supersets
    assert (shapley(of_table(grown), [1] * n) >= 0).all()
