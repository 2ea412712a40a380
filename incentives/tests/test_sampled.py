"""Valuations that sample: exact where they may ask everything, near it where not, never beyond their budget."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kinds
from extensions.contract import checks_of, counter_example
from extensions.testing import parametrize_with_checks
from incentives import budgets
from incentives.valuation import VALUATIONS, NotFinite

from .games import additive, airport, asked, glove, of_table, shoes, symmetric_voting, unanimity
from .test_valuation import GTG
from .test_valuation_axioms import tables
from .valuations import valued

ORDERS = ("permutation", "antithetic", "stratified")
TRUNCATED = ("truncated_monte_carlo", "gtg_shapley")
SHAPLEY = (*ORDERS, *TRUNCATED, "complementary", "regression", "fedsv")
SAMPLED = tuple(name for name, kind in kinds.family("valuation").items() if "evaluations" in kind.parameters)
EXACT = {"abs": 1e-9, "rel": 0}
FEW = [  # the same kinds with so few evaluations that five players are sampled
    dataclasses.replace(
        kinds.find("valuation", name),
        parameters=kinds.find("valuation", name).parameters | {"evaluations": kinds.whole(20, "few", minimum=1)},
    )
    for name in SAMPLED
]


def bent(n):
    """A game like a round's: everybody helps, later ones less, in a way of their own."""
    worths = np.linspace(0.05, 0.5, n)
    return lambda coalitions: -2.3 + np.tanh(coalitions @ worths) + 0.02 * coalitions[:, 0] * coalitions[:, -1]


@parametrize_with_checks([*(kinds.find("valuation", name) for name in SAMPLED)])
def test_each_keeps_the_contract_of_valuations(check):
    check()


@pytest.mark.parametrize(
    "check", [each for each in checks_of("valuation") if each.required and each.fast], ids=lambda check: check.name
)
@pytest.mark.parametrize("kind", FEW, ids=lambda kind: kind.name)
def test_each_keeps_it_where_it_samples(kind, check):
    assert counter_example(check, kind) is None


@pytest.mark.parametrize("name", SHAPLEY)
@pytest.mark.parametrize(
    ("game", "n", "expected"),
    [
        (GTG, 3, [35, 35, 30]),
        (symmetric_voting, 6, [1 / 6] * 6),
        (shoes(3), 6, [0.5] * 6),
        (glove, 3, [1 / 6, 1 / 6, 4 / 6]),
        (airport([1, 2, 3]), 3, [1 / 3, 5 / 6, 11 / 6]),
        (lambda coalitions: np.floor(coalitions.sum(axis=1) / 2), 5, [0.4] * 5),
        (additive([3.0, 0.0, -2.0]), 3, [3, 0, -2]),
        (unanimity([0, 2]), 4, [0.5, 0, 0.5, 0]),
    ],
    ids=["gtg", "voting", "shoes", "glove", "airport", "miner", "additive", "unanimity"],
)
def test_reference_games_have_their_published_values(name, game, n, expected):
    found = valued(name, game, n)
    assert found.contributions == pytest.approx(expected, **EXACT)
    assert found.errors is None


@pytest.mark.parametrize("name", SHAPLEY)
def test_with_a_budget_for_everything_each_is_the_shapley_value(name):
    found = valued(name, bent(9), 9, evaluations=2**9)
    assert found.contributions == pytest.approx(VALUATIONS["shapley"](bent(9), [1] * 9), **EXACT)


@pytest.mark.parametrize("name", [*SHAPLEY, "banzhaf", "beta_shapley"])
def test_each_is_near_its_exact_value_and_its_errors_say_how_near(name):
    """Over 40 seeds: no bias beyond four standard errors of the mean, but of the regression, and errors no smaller than
    what is seen."""
    exact = valued(name, bent(9), 9, evaluations=2**9).contributions
    more = {"round_tolerance": 0.0, "tolerance": 0.0}
    parameters = {"gtg_shapley": more, "truncated_monte_carlo": {"tolerance": 0.0}}.get(name, {})
    found = [valued(name, bent(9), 9, seed=seed, evaluations=200, **parameters) for seed in range(40)]
    values = np.array([each.contributions for each in found])
    spread = values.std(axis=0, ddof=1)
    bias = spread if name == "regression" else 4 * spread / np.sqrt(40)
    assert (np.abs(values.mean(axis=0) - exact) <= bias + 1e-12).all()
    told = np.sqrt(np.mean([np.square(each.errors) for each in found], axis=0))
    assert (told >= 0.6 * spread).all()


@pytest.mark.parametrize("name", SAMPLED)
@pytest.mark.parametrize("n", [8, 11, 40])
def test_none_asks_for_more_than_it_says(name, n):
    batches = []
    found = valued(name, asked(bent(n), batches), n)
    distinct = {row.tobytes() for batch in batches for row in batch}
    assert len(distinct) <= kinds.find("valuation", name).cost(n) == min(2**n, max(240, 24 * n))
    assert np.isfinite(found.contributions).all()
    assert (found.errors is None) == (name == "least_core")


@pytest.mark.parametrize("name", SAMPLED)
def test_draws_come_from_the_generator_alone(name):
    before = repr(np.random.get_state())
    one, two, other = (valued(name, bent(9), 9, seed=seed) for seed in (1, 1, 2))
    assert one.contributions.tobytes() == two.contributions.tobytes()
    assert one.contributions.tobytes() != other.contributions.tobytes()
    assert repr(np.random.get_state()) == before


@pytest.mark.parametrize("name", [*ORDERS, "fedsv", "regression"])
@given(case=tables(games=1), seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=350)
def test_orders_share_out_exactly_what_everybody_gains(name, case, seed):
    n, values = case
    found = valued(name, of_table(values), n, seed=seed, evaluations=max(2, 2 * n + 2))
    assert found.contributions.sum() == pytest.approx(values[-1] - values[0], **EXACT)


@pytest.mark.parametrize("name", [*ORDERS, *TRUNCATED])
@given(case=tables(), data=st.data())
@settings(deadline=None, max_examples=250)
def test_orders_give_exactly_nothing_to_a_null_player(name, case, data):
    n, values = case
    null = data.draw(st.integers(0, n - 1))
    values = values[np.arange(2**n) & ~(1 << null)]
    assert valued(name, of_table(values), n, evaluations=max(2, 2 * n)).contributions[null] == 0.0


@pytest.mark.parametrize("name", [*ORDERS, "complementary", "regression", "banzhaf", "beta_shapley"])
@given(case=tables(games=2), factor=st.floats(-10, 10))
@settings(deadline=None, max_examples=300)
def test_estimates_of_equal_draws_are_linear_in_the_game(name, case, factor):
    n, first, second = case
    budget = budgets.of_sizes(n, evaluations=min(2**n, 60))
    one, two, both = (
        valued(name, of_table(each), n, evaluations=budget).contributions
        for each in (first, second, first + factor * second)
    )
    assert both == pytest.approx(one + factor * two, abs=1e-8)


def test_a_rotation_puts_everybody_at_each_place_once():
    from incentives.valuation.sampling import rotated

    orders = rotated(14, 7, np.random.default_rng(0))
    assert all(sorted(column) == sorted([*range(7)] * 2) for column in orders.T.tolist())


def test_fewer_rotations_than_places_are_evenly_spaced():
    from incentives.valuation.sampling import rotated

    orders = rotated(3, 9, np.random.default_rng(0)).tolist()
    assert [sorted(order.index(player) for order in orders) for player in orders[0]] == [
        [place % 3, place % 3 + 3, place % 3 + 6] for place in range(9)
    ]


def test_orders_start_anew_from_nobody():
    """Wang et al. 2020 print algorithm 2 without this: from the second order on, the first to come would be measured
    against everybody, and be worth 1 less."""
    found = valued("permutation", lambda coalitions: 7.0 + coalitions.any(axis=1), 9)
    assert found.contributions.min() >= 0
    assert found.contributions.sum() == pytest.approx(1.0, **EXACT)


@pytest.mark.parametrize("name", [*ORDERS, *TRUNCATED])
def test_values_below_nothing_stay_below_nothing(name):
    """svfl 0.1.0 cuts gains off at 0; the authors' code of GTG-Shapley divides all values by the sum of those of one
    sign."""
    worths = [0.5, -0.2, 0.1, -0.3, 0.4, 0.2, 0.1, 0.05, 0.02]
    found = valued(name, additive(worths), 9)
    near = 0 if name in ORDERS else 0.02
    assert found.contributions == pytest.approx(worths, abs=1e-9 + near)
    assert found.contributions.sum() == pytest.approx(sum(worths), abs=1e-9 + near)


def test_gtg_values_nobody_in_a_round_that_changes_little():
    batches = []
    found = valued("gtg_shapley", asked(additive([1e-5] * 9), batches), 9)
    assert found.contributions.tolist() == [0.0] * 9
    assert sum(map(len, batches)) == 2


def test_gtg_lets_everybody_come_first_in_turn_and_ends_when_values_stay():
    batches = []
    valued("gtg_shapley", asked(additive(np.full(9, 0.1)), batches), 9, evaluations=511)
    first = [row for batch in batches for row in batch if row.sum() == 1]
    assert {int(row.argmax()) for row in first} == set(range(9))
    free = valued("gtg_shapley", additive(np.full(9, 0.1)), 9, evaluations=511)
    assert np.allclose(free.errors, 0)
    assert len({row.tobytes() for batch in batches for row in batch}) < 400, "36 orders, not the whole budget"


def test_truncation_leaves_out_who_comes_late_and_spends_that_on_further_orders():
    batches = []
    valued("truncated_monte_carlo", asked(lambda rows: 1.0 * rows.any(axis=1), batches), 9)
    assert {int(row.sum()) for batch in batches for row in batch} == {0, 1, 9}


@pytest.mark.parametrize("name", SAMPLED)
def test_a_utility_that_is_not_a_number_is_refused(name):
    with pytest.raises(NotFinite):
        valued(name, lambda coalitions: np.where(coalitions.all(axis=1), np.nan, 1.0), 9, evaluations=512)


def test_too_few_evaluations_are_refused_with_the_least():
    with pytest.raises(ValueError, match="10 evaluations are too few; 10 clients take at least 11"):
        budgets.of_orders(10, evaluations=10)
    assert budgets.of_orders(3, evaluations=8) == 8
    assert budgets.of_orders(10_000) == 240_000
    assert budgets.of_sizes(10_000) == 240_000


def test_the_regression_is_the_nearest_of_all_at_equal_budgets():
    """Valued 20 times each with 240 evaluations: its root mean squared error is below half of any other's."""
    exact = VALUATIONS["shapley"](bent(10), [1] * 10)
    far = {
        name: np.sqrt(
            np.mean([(valued(name, bent(10), 10, seed=seed).contributions - exact) ** 2 for seed in range(20)])
        )
        for name in SHAPLEY
    }
    assert far["regression"] < 0.5 * min(value for name, value in far.items() if name != "regression")


def test_the_regression_is_exact_where_players_only_add_up():
    worths = np.linspace(-0.3, 0.7, 30)
    found = valued("regression", additive(worths), 30)
    assert found.contributions == pytest.approx(worths, abs=1e-9)
    assert found.errors == pytest.approx(np.zeros(30), abs=1e-9)


def test_the_regression_takes_no_pair_twice():
    from incentives.valuation.regression import _pairs

    drawn = _pairs(8, 115, np.random.default_rng(0))
    both = {row.tobytes() for row in [*drawn, *~drawn]}
    assert len(both) == 2 * len(drawn)
    assert all(2 <= row.sum() <= 6 for row in drawn)


def test_a_large_airport_is_estimated():
    """100 aircraft in ten blocks that need runways of 1 to 10, pyDVL's game."""
    blocks = np.array([8, 12, 6, 14, 8, 9, 13, 10, 10, 10])
    values = (0.01, 0.020869565, 0.033369565, 0.046883079, 0.063549745, 0.082780515, 0.106036329, 0.139369662)
    expected = np.array([*values, 0.189369662, 0.289369662])
    costs = np.repeat(np.arange(1, 11), blocks)
    for name in ("permutation", "antithetic", "stratified"):
        found = valued(name, airport(costs), 100, evaluations=60_000)
        assert found.contributions.sum() == pytest.approx(10.0, **EXACT)
        by_block = np.bincount(costs - 1, found.contributions) / blocks
        assert by_block == pytest.approx(expected, abs=0.03)


def test_banzhaf_has_its_closed_forms():
    assert valued("banzhaf", symmetric_voting, 6).contributions == pytest.approx([math.comb(5, 3) / 2**5] * 6, **EXACT)
    assert valued("banzhaf", unanimity([0, 2]), 4).contributions == pytest.approx([0.5, 0, 0.5, 0], **EXACT)
    assert valued("banzhaf", GTG, 3).contributions == pytest.approx([37.5, 37.5, 32.5], **EXACT)


@given(tables(), st.sampled_from(["banzhaf", "beta_shapley"]))
@settings(deadline=None, max_examples=200)
def test_semivalues_are_sums_over_all_coalitions(case, name):
    n, values = case
    beta = [math.gamma(s + 1) * math.gamma(n - 1 - s + 4) / math.gamma(n + 4) for s in range(n)]
    weights = [0.5 ** (n - 1)] * n if name == "banzhaf" else [each / (math.gamma(4) / math.gamma(5)) for each in beta]
    expected = [
        sum(weights[k.bit_count()] * (values[k | 1 << player] - values[k]) for k in range(2**n) if not k >> player & 1)
        for player in range(n)
    ]
    found = valued(name, of_table(values), n, evaluations=2**n if n > 1 else 2)
    assert found.contributions == pytest.approx(expected, abs=1e-8)


@given(st.integers(1, 40), st.floats(0.1, 20), st.floats(0.1, 20))
@settings(deadline=None)
def test_beta_weights_sum_to_one(n, alpha, beta):
    """B(k + beta, n - k + 1 + alpha) with k = |S|, as pyDVL's documentation prints, does not."""
    from incentives.valuation.semivalues import beta_weights

    weights = beta_weights(n, alpha, beta)
    assert sum(math.comb(n - 1, size) * weights[size] for size in range(n)) == pytest.approx(1.0, abs=1e-9)
    assert beta_weights(n, alpha, beta, by_size=True).sum() == pytest.approx(1.0, abs=1e-9)


@given(tables())
@settings(deadline=None, max_examples=100)
def test_beta_shapley_of_one_and_one_is_shapley(case):
    n, values = case
    found = valued("beta_shapley", of_table(values), n, evaluations=max(2, 2**n), alpha=1.0, beta=1.0)
    assert found.contributions == pytest.approx(VALUATIONS["shapley"](of_table(values), [1] * n), **EXACT)


def test_small_coalitions_count_most_where_alpha_is_larger():
    first = lambda coalitions: 1.0 * coalitions.any(axis=1)  # noqa: E731
    small, large = (
        valued("beta_shapley", first, 5, alpha=a, beta=b).contributions[0] for a, b in ((4.0, 1.0), (1.0, 4.0))
    )
    assert small > 0.2 > large


def test_normalised_fedsv_has_length_one_in_each_round():
    plain, normalised = (valued("fedsv", bent(9), 9, normalised=each) for each in (False, True))
    length = np.linalg.norm(plain.contributions)
    assert normalised.contributions == pytest.approx(plain.contributions / length, **EXACT)
    assert normalised.errors == pytest.approx(plain.errors / length, **EXACT)
    assert valued("fedsv", additive([0.0] * 9), 9, normalised=True).contributions.tolist() == [0.0] * 9
