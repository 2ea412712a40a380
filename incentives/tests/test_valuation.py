"""Values of games whose answers are known, or can be had in another way."""

import math
import subprocess
import sys
from itertools import permutations

import numpy as np
import pytest

from incentives.valuation import VALUATIONS, coalitions_needed

from .games import additive, airport, asked, glove, of_sets, shoes, symmetric_voting, unanimity

# Liu et al. 2022, "GTG-Shapley", table 1
GTG = of_sets({"A": 50, "B": 50, "C": 10, "AB": 60, "AC": 90, "BC": 90, "ABC": 100})


def value(name, game, n, num_examples=None):
    return VALUATIONS[name](game, num_examples or [1] * n)


def by_permutations(game, n):
    """The Shapley value from its first definition: everybody arrives in every order."""
    phi = np.zeros(n)
    for order in permutations(range(n)):
        coalitions = np.zeros((n + 1, n), dtype=bool)
        for place, player in enumerate(order):
            coalitions[place + 1 :, player] = True
        phi[list(order)] += np.diff(game(coalitions))
    return phi / math.factorial(n)


def test_it_gives_the_published_shapley_values():
    np.testing.assert_allclose(value("shapley", GTG, 3), [35, 35, 30], atol=1e-12)


@pytest.mark.parametrize("n", [2, 4, 10])
def test_it_shares_a_symmetric_vote_equally(n):
    assert value("shapley", symmetric_voting, n) == pytest.approx([1 / n] * n, abs=1e-12)


@pytest.mark.parametrize("pairs", [1, 3, 5])
def test_it_shares_a_pair_of_shoes_equally_where_left_and_right_are_as_many(pairs):
    assert value("shapley", shoes(pairs), 2 * pairs) == pytest.approx([0.5] * (2 * pairs), abs=1e-12)


@pytest.mark.parametrize(("left", "right"), [(1, 2), (2, 3), (1, 4)])
def test_it_shares_shoes_as_every_order_of_arrival_does(left, right):
    n = left + right
    assert value("shapley", shoes(left), n) == pytest.approx(by_permutations(shoes(left), n), abs=1e-12)


def test_it_pays_the_only_right_glove_four_sixths():
    assert value("shapley", glove, 3) == pytest.approx([1 / 6, 1 / 6, 4 / 6], abs=1e-12)


@pytest.mark.parametrize("costs", [[1, 2, 3], [1, 1, 4, 10], list(range(1, 13))])
def test_it_splits_a_runway_by_who_needs_each_piece(costs):
    """Littlechild & Owen 1973: each further piece of runway is shared by those who need it."""
    shares, owed, before = [], 0.0, 0
    for place, cost in enumerate(costs):
        owed += (cost - before) / (len(costs) - place)
        before = cost
        shares.append(owed)
    assert value("shapley", airport(costs), len(costs)) == pytest.approx(shares, abs=1e-12)


@pytest.mark.parametrize("name", ["shapley", "leave_one_out", "loss_improvement"])
def test_it_gives_everybody_their_own_worth_in_an_additive_game(name):
    worths = [3.0, 0.0, -2.0, 0.5]
    assert value(name, additive(worths), 4) == pytest.approx(worths, abs=1e-12)


def test_it_shares_a_unanimity_game_among_those_who_are_needed():
    assert value("shapley", unanimity([0, 2, 3]), 5) == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3, 0], abs=1e-12)


def test_it_takes_sixteen_players_and_no_more():
    phi = value("shapley", unanimity(range(16)), 16)
    assert phi == pytest.approx([1 / 16] * 16, abs=1e-12)
    with pytest.raises(ValueError, match="at most 16 players, got 17"):
        value("shapley", unanimity(range(17)), 17)


def test_it_leaves_one_out():
    assert value("leave_one_out", GTG, 3).tolist() == [100 - 90, 100 - 90, 100 - 60]


def test_it_measures_each_alone_against_nobody():
    table = {"": 5, "A": 50, "B": 2}
    assert value("loss_improvement", of_sets(table), 2).tolist() == [45, -3]


def test_it_shares_by_examples_and_equally_without_a_game():
    assert value("data_size", None, 3, [10, 30, 60]).tolist() == [0.1, 0.3, 0.6]
    assert value("equal", None, 4).tolist() == [0.25] * 4
    with pytest.raises(ValueError, match="num_examples"):
        value("data_size", None, 2, [0, 0])


@pytest.mark.parametrize("name", VALUATIONS)
def test_it_values_nobody_without_asking(name):
    assert VALUATIONS[name](None, []).shape == (0,)
    assert coalitions_needed(name, 0) == 0


@pytest.mark.parametrize("name", VALUATIONS)
@pytest.mark.parametrize("n", [1, 2, 7])
def test_it_asks_once_for_as_many_coalitions_as_it_says(name, n):
    batches = []
    values = value(name, asked(additive([1.0] * n), batches), n)
    assert values.shape == (n,)
    assert values.dtype == np.float64
    assert sum(map(len, batches)) == coalitions_needed(name, n)
    assert len(batches) <= 1
    assert all(len(np.unique(batch, axis=0)) == len(batch) for batch in batches)


def test_it_does_not_estimate_what_it_does_not_know():
    with pytest.raises(ValueError, match="is not one of"):
        coalitions_needed("guess", 3)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["shapley", "leave_one_out", "loss_improvement"])
def test_it_refuses_a_utility_that_is_not_a_number(name, wrong):
    size = {"shapley": 2, "leave_one_out": 3, "loss_improvement": 1}[name]

    def game(coalitions):
        return np.where(coalitions.sum(axis=1) == size, wrong, 1.0)

    with pytest.raises(ValueError, match=f"coalition of {size} of 4 players is {wrong}"):
        value(name, game, 4)


def test_it_refuses_a_game_that_answers_something_else():
    with pytest.raises(ValueError, match="the game gave utilities"):
        value("shapley", lambda coalitions: np.zeros(3), 3)


def test_it_needs_nothing_but_numpy():
    code = (
        "import sys, incentives.valuation, incentives.valuation.evidence, incentives.rewards;"
        "print([m for m in ('torch', 'django', 'training', 'simulations', 'scipy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
