"""Whole micro-tokens that sum to the pool."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import kinds
from incentives.economy import Payment, RuleFacts
from incentives.rewards import (
    MOST_MICROTOKENS,
    fixed_pool,
    improvement_pool,
    largest_remainder,
    proportional,
)

pools = st.integers(0, MOST_MICROTOKENS) | st.integers(0, 20)
contributions = st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.floats(-1, 1), max_size=30)


def test_it_gives_the_textbook_seats():
    """Balinski & Young's example of Hamilton's method: five states, 26 seats."""
    assert largest_remainder([9061, 7179, 5259, 3319, 1182], 26) == [9, 7, 5, 4, 1]


def test_it_gives_equal_remainders_to_the_larger_weight_then_to_the_earlier_place():
    assert largest_remainder([1, 3], 2) == [0, 2]
    assert largest_remainder([1, 1, 1], 2) == [1, 1, 0]
    assert largest_remainder([Fraction(1, 3), Fraction(1, 6)], 1) == [1, 0]


@pytest.mark.parametrize("weights", [[], [0, 0], [Fraction(0)], [2, -1]])
def test_it_needs_a_positive_weight_and_no_negative_one(weights):
    with pytest.raises(ValueError, match="largest remainder"):
        largest_remainder(weights, 5)


def test_it_pays_the_positive_part():
    assert proportional([0.3, -5.0, 0.1, 0.0], 1_000_000) == [750_000, 0, 250_000, 0]
    assert proportional([1.0, 1.0, 1.0], 100) == [34, 33, 33]
    assert proportional(np.array([1.0, 3.0]), 8) == [2, 6]


@pytest.mark.parametrize("nobody", [[], [0.0], [-1.0, -0.0, -1e300]])
def test_it_leaves_the_pool_where_nobody_helped(nobody):
    assert proportional(nobody, 1_000_000) == [0] * len(nobody)


@given(contributions, pools)
@example([1e308, 1e308, 5e-324], MOST_MICROTOKENS)
@settings(deadline=None)
def test_it_pays_whole_units_that_sum_to_the_pool_within_one_of_the_exact_share(given_contributions, pool):
    paid = proportional(given_contributions, pool)
    assert all(type(amount) is int and amount >= 0 for amount in paid)
    weights = [Fraction(max(contribution, 0)) for contribution in given_contributions]
    if not any(weights):
        assert sum(paid) == 0
        return
    assert sum(paid) == pool
    for weight, amount in zip(weights, paid, strict=True):
        assert abs(amount - weight * pool / sum(weights)) < 1
        assert weight > 0 or amount == 0


@given(contributions, pools)
@settings(deadline=None)
def test_it_never_pays_less_for_more(given_contributions, pool):
    paid = proportional(given_contributions, pool)
    amounts = [amount for _, amount in sorted(zip(given_contributions, paid, strict=True))]
    assert amounts == sorted(amounts)


@given(contributions, pools, st.floats(0, 1))
@settings(deadline=None)
def test_it_pays_equals_alike_but_for_a_unit(given_contributions, pool, twice):
    *_, first, second = proportional([*given_contributions, twice, twice], pool)
    assert first - second in (0, 1)


@given(contributions, pools, st.randoms())
@settings(deadline=None)
def test_it_follows_the_clients_when_they_change_places(given_contributions, pool, random):
    positive = [contribution for contribution in given_contributions if contribution > 0]
    assume(len(set(positive)) == len(positive))  # between equals the earlier place wins a unit
    order = random.sample(range(len(given_contributions)), len(given_contributions))
    paid = proportional(given_contributions, pool)
    assert proportional([given_contributions[i] for i in order], pool) == [paid[i] for i in order]


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=20), st.integers(0, 10**12), st.integers(-30, 30))
@settings(deadline=None)
def test_it_does_not_mind_the_unit_of_contribution(given_contributions, pool, power):
    scaled = [math.ldexp(contribution, power) for contribution in given_contributions]
    assert proportional(scaled, pool) == proportional(given_contributions, pool)


def test_it_pays_ten_thousand_clients():
    rng = np.random.default_rng(0)
    paid = proportional(rng.standard_normal(10_000).tolist(), MOST_MICROTOKENS)
    assert sum(paid) == MOST_MICROTOKENS


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_it_names_the_contribution_that_is_not_a_number(wrong):
    with pytest.raises(ValueError, match=f"contributions: number 2 of 3 is {wrong}"):
        proportional([1.0, wrong, 2.0], 10)


@pytest.mark.parametrize("pool", [-1, 2**53, 1.5, True, None])
def test_it_refuses_a_pool_that_is_not_whole_micro_tokens(pool):
    with pytest.raises(ValueError, match="pool: "):
        proportional([1.0], pool)
    with pytest.raises(ValueError, match="pool: "):
        largest_remainder([1], pool)


def test_a_rule_pays_what_the_facts_say():
    facts = RuleFacts(round_number=1, clients=(3, 5), contributions=(1.0, 1.0), num_examples=(10, 20))
    assert kinds.find("rule", "proportional").load()(facts, 4, {}) == Payment([2, 2])


@pytest.mark.parametrize(
    ("previous_loss", "loss", "scaling_factor", "microtokens"),
    [
        (0.5, 0.4, 10.0, 1_000_000),
        (0.4, 0.5, 10.0, 0),
        (0.4, 0.4, 10.0, 0),
        (2.3, 0.0, 1.0, 2_300_000),
        (1.0, 0.0, 0.0, 0),
        (6e-7, 0.0, 1.0, 1),
        (4e-7, 0.0, 1.0, 0),
        (-1.0, -3.0, 1.0, 2_000_000),
    ],
)
def test_it_makes_a_pool_of_what_the_loss_dropped(previous_loss, loss, scaling_factor, microtokens):
    pool = improvement_pool(previous_loss, loss, scaling_factor)
    assert pool == microtokens
    assert type(pool) is int


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
@pytest.mark.parametrize("place", ["previous_loss", "loss", "scaling_factor"])
def test_it_names_what_is_not_a_number(place, wrong):
    with pytest.raises(ValueError, match=f"{place}: {wrong}"):
        improvement_pool(**({"previous_loss": 1.0, "loss": 0.5, "scaling_factor": 1.0} | {place: wrong}))


def test_it_refuses_a_negative_scaling_and_too_large_a_pool():
    with pytest.raises(ValueError, match="scaling_factor: -1"):
        improvement_pool(1.0, 0.5, -1.0)
    for too_large in (1e10, 1e300):
        with pytest.raises(ValueError, match="micro-tokens"):
            improvement_pool(too_large, 0.0, 10.0)
        with pytest.raises(ValueError, match="micro-tokens"):
            fixed_pool(too_large)
    with pytest.raises(ValueError, match="micro-tokens"):
        improvement_pool(1e300, 0.0, 1e300)


def test_it_makes_a_pool_of_tokens():
    assert [fixed_pool(tokens) for tokens in (10.0, 0.0, 0.1, 1e-7, 9_007_199_254)] == [
        10_000_000,
        0,
        100_000,
        0,
        9_007_199_254_000_000,
    ]
    for wrong in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="pool_tokens: "):
            fixed_pool(wrong)
