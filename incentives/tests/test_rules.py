"""What each rule pays: by hand, by a second implementation in floats, and whatever contributions there are."""

import _pydecimal
import decimal
import itertools
import math
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import kinds
from extensions.contract import Holds, checks_of, counter_example
from incentives.economy import Payment, RuleFacts, check_payment
from incentives.products import unlike
from incentives.rewards import MOST_MICROTOKENS, largest_remainder
from incentives.rules import DIGITS

RULES = tuple(kinds.family("rule").values())
ENDS = {
    "share": (0.0, 1.0),
    "k": (1, 12),
    "temperature": (0.01, 100.0),
    "exponent": (0.0, 10.0),
    "rate": (0.0, 1e6),
    "decay": (0.0, 1.0),
    "power": (0.0, 10.0),
}


def pay(kind, contributions, pool=1_000_000, *, round_number=1, sent=(), **parameters) -> list[int]:
    kind = kinds.find("rule", kind) if isinstance(kind, str) else kind
    facts = RuleFacts(
        round_number=round_number,
        clients=tuple(range(1, len(contributions) + 1)),
        contributions=tuple(contributions),
        num_examples=(10,) * len(contributions),
        sent=tuple(sent),
        products=unlike(len(contributions)),
    )
    usual = {name: parameter.default for name, parameter in kind.parameters.items()}
    return list(check_payment(kind.load()(facts, pool, {}, **usual | parameters), len(contributions), pool).shares)


@pytest.mark.parametrize(
    ("rule", "contributions", "parameters", "shares"),
    [
        ("proportional", (0.3, -5.0, 0.1, 0.0), {}, [750_000, 0, 250_000, 0]),
        ("proportional", (-1.0, 0.0), {}, [0, 0]),
        ("equal", (0.3, -5.0, 0.1, 0.0), {}, [250_000] * 4),
        ("equal", (), {}, []),
        ("wage_bonus", (3.0, -5.0, 1.0, 0.0), {}, [650_000, 50_000, 250_000, 50_000]),
        ("wage_bonus", (3.0, 1.0), {"share": 0.7}, [575_000, 425_000]),
        ("wage_bonus", (-1.0, 0.0), {"share": 0.7}, [350_000, 350_000]),  # the bonus stays
        ("wage_bonus", (-1.0,), {"share": 0.0}, [0]),
        ("top_k", (5.0, 1.0, 3.0, 2.0, -1.0), {}, [500_000, 0, 300_000, 200_000, 0]),
        ("top_k", (1.0, 2.0, 1.0, 4.0), {"k": 3}, [125_000, 250_000, 125_000, 500_000]),  # both third
        ("top_k", (1.0, -2.0, 3.0), {"k": 12}, [250_000, 0, 750_000]),
        ("top_k", (-1.0,), {}, [0]),
        ("rank", (0.1, 9.0, 8.0, 0.0), {}, [166_667, 500_000, 333_333, 0]),
        ("rank", (5.0, 5.0, 7.0, 1.0), {}, [250_000, 250_000, 400_000, 100_000]),  # ranks 2.5, 2.5, 4, 1 of 10
        ("rank", (-5.0,), {}, [0]),
        # e / (e + 1 + 1/e) and so on: 0.665240956, 0.244728471, 0.090030573
        ("softmax", (4.0, 0.0, -4.0), {}, [665_241, 244_728, 90_031]),
        ("softmax", (1.0, 0.0), {"temperature": 0.01}, [1_000_000, 0]),
        ("softmax", (0.0, 0.0), {}, [500_000, 500_000]),
        ("winner_takes_all", (2.0, 7.0, -9.0, 7.0), {}, [0, 500_000, 0, 500_000]),
        ("winner_takes_all", (0.0, -9.0), {}, [0, 0]),
        ("tullock", (1.0, 3.0, -2.0), {}, [100_000, 900_000, 0]),
        ("tullock", (4.0, 1.0, 0.25), {"exponent": 0.5}, [571_429, 285_714, 142_857]),
        ("tullock", (4.0, 1.0, -1.0), {"exponent": 0.0}, [500_000, 500_000, 0]),
    ],
)
def test_it_pays_what_the_sum_on_paper_says(rule, contributions, parameters, shares):
    assert pay(rule, contributions, **parameters) == shares


@pytest.mark.parametrize("kind", RULES, ids=lambda kind: kind.name)
def test_who_sends_nothing_gets_nothing(kind):
    shares = pay(kind, (0.0, 2.0, 1.0, 0.0), sent=(False, True, True, True))
    assert shares[0] == 0
    assert pay(kind, (2.0, 1.0, 0.0), sent=(True, True, True)) == shares[1:]
    assert pay(kind, (0.0, 0.0), sent=(False, False)) == [0, 0]
    assert pay(kind, (5.0, 1.0), sent=(False, True)) == [0, 1_000_000]  # whatever a valuation says of it


@pytest.mark.parametrize("kind", RULES, ids=lambda kind: kind.name)
def test_it_keeps_the_contract_that_plug_ins_must_keep(kind):
    for check in checks_of("rule"):
        if check.required:
            found = counter_example(check, kind)
            assert found is None or isinstance(found, Holds), check.says


rounds = st.lists(
    st.floats(allow_nan=False, allow_infinity=False) | st.floats(-1, 1) | st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0]),
    max_size=12,
)
pools = st.integers(0, MOST_MICROTOKENS) | st.integers(0, 20)


@st.composite
def rules(draw):
    """A rule with its parameters, also at their ends."""
    kind = draw(st.sampled_from(RULES))
    values = {}
    for name, parameter in kind.parameters.items():
        if parameter.choices:
            values[name] = draw(st.sampled_from(parameter.choices))
            continue
        low, high = ENDS[name]
        inside = st.integers(low, high) if name == "k" else st.floats(low, high) | st.sampled_from([1.0, 2.0])
        values[name] = min(max(draw(inside | st.sampled_from([low, high])), low), high)
    return kind, values


@given(rules(), rounds, pools, st.integers(1, 10_000), st.data())
@example((kinds.find("rule", "tullock"), {"exponent": 9.7}), [1.7e308, 5e-324], MOST_MICROTOKENS, 1, None)
@settings(deadline=None, max_examples=200)
def test_it_pays_whole_units_within_the_pool_alike_for_equals_and_not_less_for_more(rule, worth, pool, number, data):
    kind, parameters = rule
    n = len(worth)
    sent = data.draw(st.lists(st.booleans(), min_size=n, max_size=n)) if data else [True] * n
    worth = [each if there else 0.0 for each, there in zip(worth, sent, strict=True)]
    shares = pay(kind, worth, pool, round_number=number, sent=sent, **parameters)
    assert all(type(share) is int and share >= 0 for share in shares)
    assert sum(shares) == pool if max(worth, default=0) > 0 else sum(shares) <= pool
    assert not any(share for share, there in zip(shares, sent, strict=True) if not there)
    acting = sorted((each, share) for each, share, there in zip(worth, shares, sent, strict=True) if there)
    for (less, its), (more, other) in itertools.pairwise(acting):
        assert its <= other + 1
        assert less != more or other <= its + 1


@given(rules(), rounds, pools, st.randoms())
@settings(deadline=None)
def test_it_follows_the_clients_when_they_change_places_but_for_a_unit(rule, worth, pool, rng):
    kind, parameters = rule
    order = rng.sample(range(len(worth)), len(worth))
    shares, moved = pay(kind, worth, pool, **parameters), pay(kind, [worth[i] for i in order], pool, **parameters)
    assert all(abs(share - shares[place]) <= 1 for place, share in zip(order, moved, strict=True))
    assert sum(moved) == sum(shares)


@given(rules(), st.lists(st.floats(-1e3, 1e3).filter(lambda c: abs(c) > 1e-6 or c == 0), max_size=12), pools)
@settings(deadline=None)
def test_it_does_not_mind_the_unit_of_contribution(rule, worth, pool):
    kind, parameters = rule
    scaled = [math.ldexp(each, 11) for each in worth]
    assert pay(kind, scaled, pool, **parameters) == pay(kind, worth, pool, **parameters)


@given(rounds, pools, st.integers(1, 100))
@settings(deadline=None)
def test_what_equals_proportional_pays_the_same_to_the_unit(worth, pool, number):
    usual = pay("proportional", worth, pool, round_number=number)
    assert pay("tullock", worth, pool, round_number=number, exponent=1.0) == usual
    assert pay("top_k", worth, pool, round_number=number, k=12) == usual
    assert pay("wage_bonus", worth, pool, round_number=number, share=0.0) == usual


def in_floats(kind, worth, **p) -> np.ndarray:
    """Shares of 1, as formulas say them; `worth` has a positive number and no equal ones."""
    worth = np.array(worth)
    gain = np.maximum(worth, 0)
    if kind in ("proportional", "slashing", "reputation", "sybil_discount"):  # in the first round, of unlike updates
        return gain / gain.sum()
    if kind == "equal":
        return np.ones(len(worth)) / len(worth)
    if kind == "wage_bonus":
        return p["share"] / len(worth) + (1 - p["share"]) * gain / gain.sum()
    if kind == "top_k":
        kept = np.where(np.argsort(np.argsort(-gain)) < p["k"], gain, 0)
        return kept / kept.sum()
    if kind == "rank":
        places = np.where(gain > 0, np.argsort(np.argsort(gain)) - (gain == 0).sum() + 1, 0)
        return places / places.sum()
    if kind == "softmax":
        weights = np.exp(worth / np.abs(worth).max() / p["temperature"])
        return weights / weights.sum()
    if kind == "winner_takes_all":
        return (gain == gain.max()).astype(float)
    return gain ** p["exponent"] / (gain ** p["exponent"]).sum()


@pytest.mark.parametrize("kind", RULES, ids=lambda kind: kind.name)
def test_it_agrees_with_the_formula_in_floats(kind):
    rng = np.random.default_rng(5)
    for _ in range(40):
        worth = rng.standard_normal(rng.integers(2, 9))
        worth[0] = abs(worth[0])
        p = {"share": rng.uniform(), "k": int(rng.integers(1, 9)), "temperature": rng.uniform(0.05, 3)}
        p = {name: value for name, value in (p | {"exponent": rng.uniform(0, 4)}).items() if name in kind.parameters}
        expected = in_floats(kind.name, worth, **p) * 10**9
        np.testing.assert_allclose(pay(kind, worth.tolist(), 10**9, **p), expected, atol=1.001)


def test_exponentials_and_logarithms_are_those_of_every_machine():
    """Python's own decimal, in Python, agrees with the one in C to the last digit: both round correctly."""
    other = _pydecimal.Context(prec=30, rounding="ROUND_HALF_EVEN", traps=[])
    rng = random.Random(7)
    for _ in range(60):
        number = rng.random() * 10.0 ** rng.randrange(-3, 3)
        assert str(DIGITS.exp(decimal.Decimal(-number))) == str(other.exp(_pydecimal.Decimal(-number)))
        assert str(DIGITS.ln(decimal.Decimal(number))) == str(other.ln(_pydecimal.Decimal(number)))


def test_a_hundred_thousand_random_payments_sum_to_the_unit():
    rng, proportional = random.Random(3), kinds.find("rule", "proportional").load()
    for number in range(1, 100_001):
        worth, pool = (rng.random() - 0.2, rng.random(), rng.random() - 0.5), rng.getrandbits(53)
        facts = RuleFacts(round_number=number, clients=(1, 2, 3), contributions=worth, num_examples=(1, 1, 1))
        assert sum(proportional(facts, pool, {}).shares) == pool


@pytest.mark.parametrize(("n", "pool"), [(3, 100), (3, 101), (4, 10), (7, 1_000_003), (10, 15)])
@pytest.mark.parametrize("rule", ["proportional", "equal", "wage_bonus", "rank", "softmax", "winner_takes_all"])
def test_what_rounding_leaves_goes_around(rule, n, pool):
    """Equal clients are never more than a unit apart, at any time; in version 1 the first was ahead in every round."""
    sums = np.zeros(n, dtype=int)
    for number in range(1, 2 * n + 1):
        sums += pay(rule, [0.5] * n, pool, round_number=number)
        assert sums.max() - sums.min() <= 1
        assert sums.sum() == number * pool
    assert sums.max() == sums.min()


def test_turns_are_taken_by_those_who_are_equal():
    """10 over weights 4, 1, 4, 1, 3, 1: floors 2, 0, 2, 0, 2, 0 leave 4; remainders of 14 are 12, 10, 12, 10, 2, 10."""
    weights = [4, 1, 4, 1, 3, 1]
    assert [largest_remainder(weights, 10, turn=turn) for turn in range(4)] == [
        [3, 1, 3, 1, 2, 0],
        [3, 1, 3, 0, 2, 1],
        [3, 0, 3, 1, 2, 1],
        [3, 1, 3, 1, 2, 0],
    ]
    # equal remainders and unequal weights: the larger one first, in every turn
    assert {tuple(largest_remainder([1, 3], 2, turn=turn)) for turn in range(3)} == {(0, 2)}
    assert largest_remainder([Fraction(1, 3), Fraction(1, 6)], 1, turn=5) == [1, 0]


def test_the_first_version_gives_what_rounding_leaves_to_the_earlier_always():
    kind = kinds.find("rule", "proportional")
    for number in (1, 2, 3):
        facts = RuleFacts(round_number=number, clients=(1, 2, 3), contributions=(1.0,) * 3, num_examples=(1, 1, 1))
        assert kind.load(version=1)(facts, 100, {}) == Payment([34, 33, 33])
    assert [pay(kind, (1.0,) * 3, 100, round_number=number) for number in (1, 2, 3)] == [
        [34, 33, 33],
        [33, 34, 33],
        [33, 33, 34],
    ]
