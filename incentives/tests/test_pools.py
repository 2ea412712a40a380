"""What a round pays, by pool."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kinds
from extensions.contract import Holds, checks_of, counter_example
from incentives.economy import PoolFacts
from incentives.rewards import MICROTOKENS

POOLS = tuple(kinds.family("pool").values())


def amounts(name, numbers, *, treasury=0, **parameters) -> list[int]:
    code = kinds.find("pool", name).load()
    nothing = {"previous_validation_loss": None, "validation_loss": None, "best_validation_loss": None}
    return [
        code(PoolFacts(round_number=number, treasury=treasury, **nothing), {}, **parameters)[0] for number in numbers
    ]


@pytest.mark.parametrize("kind", POOLS, ids=lambda kind: kind.name)
def test_it_keeps_the_contract_that_plug_ins_must_keep(kind):
    for check in checks_of("pool"):
        if check.required:
            found = counter_example(check, kind)
            assert found is None or isinstance(found, Holds), check.says


def test_it_halves_after_every_so_many_rounds():
    assert amounts("halving", range(1, 8), tokens=0.000_007, rounds=2) == [7, 7, 3, 3, 1, 1, 0]
    assert amounts("halving", (1, 10, 11, 21, 10_000), tokens=10.0, rounds=10) == [10**7, 10**7, 5 * 10**6, 2500000, 0]


def test_it_decays_to_the_nearest_micro_token():
    assert amounts("decay", range(1, 5), tokens=10.0, factor=0.9) == [10_000_000, 9_000_000, 8_100_000, 7_290_000]
    # 5, 2.5, 1.25, 0.625, 0.3125 micro-tokens; a tie goes to the even one
    assert amounts("decay", range(1, 6), tokens=0.000_005, factor=0.5) == [5, 2, 1, 1, 0]
    assert amounts("decay", (1, 2), tokens=3.0, factor=0.0) == [3_000_000, 0]
    assert amounts("decay", (1, 10_000), tokens=3.0, factor=1.0) == [3_000_000, 3_000_000]
    # 0.1 x 0.7^2 as the numbers are written, not as doubles: 49,000 exactly
    assert amounts("decay", (3,), tokens=0.1, factor=0.7) == [49_000]


@given(st.integers(1, 400), st.integers(0, 10**6), st.integers(0, 1000))
@settings(deadline=None)
def test_decay_is_that_of_exact_numbers(number, thousandths, factor):
    exact = Fraction(thousandths, 1000) * Fraction(factor, 1000) ** (number - 1) * MICROTOKENS
    (found,) = amounts("decay", (number,), tokens=thousandths / 1000, factor=factor / 1000)
    assert abs(found - exact) <= Fraction(1, 2)


def test_the_treasury_is_spread_over_the_rounds_that_are_left():
    assert amounts("treasury", (1, 2, 3, 4, 5), treasury=100, tokens=1.0, rounds=4) == [25, 33, 50, 100, 0]


@given(st.integers(0, 10**15), st.integers(1, 30), st.data())
@settings(deadline=None)
def test_what_a_rule_leaves_in_the_treasury_is_spread_over_later_rounds(endowment, rounds, data):
    """A fold as a ledger does it: the last round pays all that is there, and nothing is ever minted or lost."""
    balance, paid = endowment, 0
    for number in range(1, rounds + 3):
        (pool,) = amounts("treasury", (number,), treasury=balance, tokens=endowment / MICROTOKENS, rounds=rounds)
        assert pool == (balance // (rounds + 1 - number) if number <= rounds else 0)
        kept = data.draw(st.sampled_from([0, pool, pool // 3])) if number < rounds else 0
        balance, paid = balance - (pool - kept), paid + pool - kept
    assert (balance, paid) == (0, endowment)


def test_where_all_is_paid_the_rounds_differ_by_a_unit():
    balance, pools = 1_000_003, []
    for number in range(1, 8):
        pools += amounts("treasury", (number,), treasury=balance, tokens=1.0, rounds=7)
        balance -= pools[-1]
    assert sum(pools) == 1_000_003
    assert max(pools) - min(pools) == 1


def test_only_the_treasury_is_endowed_and_what_is_known_before_says_so():
    assert [kind.name for kind in POOLS if "endowed" in kind.traits] == ["treasury"]
    assert {kind.name for kind in POOLS if "scheduled" in kind.traits} == {"fixed", "halving", "decay", "treasury"}
