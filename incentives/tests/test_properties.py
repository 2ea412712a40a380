"""What the rules keep, measured; and published numbers about them (rows 5, 10 and 11 of the gallery)."""

from fractions import Fraction

import numpy as np
import pytest

import kinds
from incentives.economy import Payment, RuleFacts
from incentives.properties import MOST_CLIENTS, POSITIVE, PROPERTIES, bound, rounds
from incentives.rewards import largest_remainder
from incentives.valuation import VALUATIONS

BY_NAME = {each.name: each for each in PROPERTIES}
CHARACTERISTIC = ("balanced", "symmetric", "split_proof", "merge_proof")


def found(rule, names=BY_NAME, **parameters) -> dict[str, str]:
    kind = kinds.find("rule", rule)
    usual = {name: parameter.default for name, parameter in kind.parameters.items()}
    asked = {name: BY_NAME[name].counter_example(bound(kind.load(), usual | parameters)) for name in names}
    return {name: text for name, text in asked.items() if text}


def test_proportional_pay_keeps_everything():
    """Chen, Papadimitriou & Roughgarden 2019, "An axiomatic approach to block rewards", theorem 2 (row 10)."""
    assert found("proportional") == {}
    assert found("tullock", CHARACTERISTIC, exponent=1.0) == {}


@pytest.mark.parametrize(
    ("rule", "lacks"),
    [
        (
            "equal",
            {"split_proof": "contributions 1, 1 are paid 500,000, 500,000; client 1 as 2 of 0.5, 0.5 gets 666,667"},
        ),
        (
            "wage_bonus",
            {"split_proof": "contributions 1, 1 are paid 500,000, 500,000; client 1 as 2 of 0.5, 0.5 gets 533,333"},
        ),
        (
            "top_k",
            {
                "split_proof": "contributions 1, 4 are paid 200,000, 800,000; "
                "client 2 as 3 of 1.333, 1.333, 1.333 gets 1,000,000",
                "merge_proof": "contributions 1, 2, 2, 2 are paid 0, 333,334, 333,333, 333,333; "
                "clients 1, 2 as one get 428,572",
            },
        ),
        (
            "rank",
            {
                "split_proof": "contributions 1, 1 are paid 500,000, 500,000; "
                "client 1 as 3 of 0.3333, 0.3333, 0.3333 gets 600,000",
                "merge_proof": "contributions 1, 2, 2 are paid 166,666, 416,667, 416,667; "
                "clients 1, 2 as one get 666,667",
            },
        ),
        (
            "softmax",
            {"split_proof": "contributions 1, 1 are paid 500,000, 500,000; client 1 as 2 of 0.5, 0.5 gets 548,137"},
        ),
        (
            "winner_takes_all",
            {
                "merge_proof": "contributions 1, 1, 1 are paid 333,334, 333,333, 333,333; "
                "clients 1, 2 as one get 1,000,000"
            },
        ),
        (
            "tullock",
            {
                "merge_proof": "contributions 1, 1, 1 are paid 333,334, 333,333, 333,333; "
                "clients 1, 2 as one get 800,000"
            },
        ),
    ],
)
def test_no_other_rule_does(rule, lacks):
    """Each lacks one of the four by which proportional pay is the only one, with the smallest counter-example."""
    assert found(rule, CHARACTERISTIC) == lacks


def test_every_rule_offered_was_asked():
    (parameters,) = [mark.args[1] for mark in test_no_other_rule_does.pytestmark]
    alike = {"slashing", "reputation", "sybil_discount"}  # proportional, in a first round of unlike updates
    for rule in alike:
        assert found(rule) == {}
    assert {rule for rule, _ in parameters} | {"proportional"} | alike == set(kinds.family("rule"))


@pytest.mark.parametrize(
    ("rule", "lacks"),
    [
        ("equal", {"null_player": "contributions 0 are paid 1,000,000"}),
        (
            "winner_takes_all",
            {
                "continuous": "contributions 1, 1 are paid 500,000, 500,000; "
                "with a billionth more of client 1 1,000,000, 0"
            },
        ),
        (
            "softmax",
            {
                "null_player": "contributions 0 are paid 1,000,000",
                "more_is_not_less": "contributions -1, 1 are paid 119,203, 880,797; "
                "with 2 in place of 1 client 2 gets 817,574",
            },
        ),
    ],
)
def test_other_properties_are_found_out_too(rule, lacks):
    assert found(rule, sorted({*BY_NAME} - {*CHARACTERISTIC, "balanced", "anonymous"})) == lacks


def of_weights(weigh):
    """A rule by what it makes of the facts."""
    return lambda facts, pool: Payment(largest_remainder([Fraction(each) for each in weigh(facts)], pool))


@pytest.mark.parametrize(
    ("name", "rule", "words"),
    [
        ("balanced", lambda facts, pool: Payment([pool + 1] * len(facts.clients)), "8 of a pool of 7"),
        ("balanced", lambda facts, pool: Payment([0] * len(facts.clients)), "contributions 1 are paid 0 of a"),
        (
            "silent",
            of_weights(lambda facts: [1] * len(facts.clients)),
            "client 1 of 1 sends nothing and gets 1,000,000",
        ),
        ("symmetric", of_weights(lambda facts: facts.clients), "contributions 0, 0 are paid 333,333, 666,667"),
        ("anonymous", of_weights(lambda facts: facts.clients), "in the order"),
        ("monotone", of_weights(lambda facts: [9 - each for each in facts.contributions]), "-1, 0 are paid 526,316, 4"),
        ("more_is_not_less", of_weights(lambda facts: [9 - each for each in facts.contributions]), "in place of"),
        ("scale_invariant", of_weights(lambda facts: [abs(c) + 1 for c in facts.contributions]), "contributions -1, 0"),
    ],
)
def test_each_property_finds_who_lacks_it(name, rule, words):
    assert words in BY_NAME[name].counter_example(rule)


def test_rounds_come_the_smallest_first():
    seen = list(rounds(POSITIVE))
    assert len(seen) == sum(len(POSITIVE) ** n for n in range(1, MOST_CLIENTS + 1))
    assert seen[:6] == [(1.0,), (2.0,), (3.0,), (4.0,), (1.0, 1.0), (1.0, 2.0)]


@pytest.mark.parametrize(("alpha", "published"), [(1, 13.3e-2), (10, 1.57e-2), (100, 0.16e-2)])
def test_equal_pay_is_as_far_from_pay_by_size_as_published(alpha, published):
    """Geimer et al. 2024: over Dirichlet(alpha) sizes of n clients the expected squared distance of equal shares to
    shares by size is (n - 1) / (n^2 alpha + n) (row 5). Here of what we pay: a client's size is Beta(alpha, (n - 1)
    alpha), a polynomial density, which Gauss's rule integrates exactly."""
    n = 5
    nodes, weights = np.polynomial.legendre.leggauss(n * alpha // 2 + 1)
    sizes = (nodes + 1) / 2
    log_density = (alpha - 1) * np.log(sizes) + ((n - 1) * alpha - 1) * np.log1p(-sizes)
    density = weights * np.exp(log_density - log_density.max())
    density /= density.sum()
    apart = [
        (VALUATIONS["data_size"](None, [size, *[(1 - size) / (n - 1)] * (n - 1)]) - VALUATIONS["equal"](None, [1] * n))
        for size in sizes
    ]
    distance = n * float(density @ np.array([shares[0] ** 2 for shares in apart]))
    assert distance == pytest.approx((n - 1) / (n**2 * alpha + n), abs=1e-12)
    assert distance == pytest.approx(published, abs=0.005 * 10 ** np.floor(np.log10(published)) + 5e-5)


COVERAGE = ({1, 2, 3}, {3, 4, 5}, {2, 6, 7}, {7, 8, 9})


def share_of_the_first(valuation, identities) -> Fraction:
    """What client 1 is paid of a pool, proportionally, where it shows up under these sets of elements."""
    sets = [*identities, *COVERAGE[1:]]

    def covered(coalitions):
        return np.array(
            [len(set().union(*(held for held, there in zip(sets, row, strict=True) if there))) for row in coalitions],
            dtype=float,
        )

    worth = VALUATIONS[valuation](covered, [len(held) for held in sets])
    facts = RuleFacts(
        round_number=1, clients=tuple(range(len(sets))), contributions=tuple(worth), num_examples=(1,) * len(sets)
    )
    shares = kinds.find("rule", "proportional").load()(facts, 10**15, {}).shares
    return Fraction(sum(shares[: len(identities)]), 10**15)


@pytest.mark.parametrize(
    ("valuation", "expected"),
    [
        ("shapley", lambda k: Fraction(1, 9) * (1 + 2 * Fraction(k, k + 1))),  # of each element, what k of k + 1 hold
        ("loss_improvement", lambda k: Fraction(k, k + 3)),
        ("data_size", lambda k: Fraction(k, k + 3)),
        ("equal", lambda k: Fraction(k, k + 3)),
        ("leave_one_out", lambda k: Fraction(1, 6) if k == 1 else Fraction(0)),
    ],
)
def test_showing_up_several_times_pays_as_published(valuation, expected):
    """Copies of one set in the coverage game (row 11): 22.2, 25.9, 27.8, 29.6 % under Shapley; 25, 40, 50, 62.5 % where
    each is looked at alone; 16.7 % and then nothing by leaving one out."""
    for k in (1, 2, 3, 5):
        assert abs(share_of_the_first(valuation, [COVERAGE[0]] * k) - expected(k)) < Fraction(1, 10**12)


def test_cutting_disjoint_data_gains_nothing_under_shapley():
    whole = share_of_the_first("shapley", [{11, 12, 13, 14}])
    assert abs(share_of_the_first("shapley", [{11, 12}, {13, 14}]) - whole) < Fraction(1, 10**12)
    assert abs(share_of_the_first("shapley", [{11}, {12}, {13}, {14}]) - whole) < Fraction(1, 10**12)
    assert abs(share_of_the_first("equal", [{11, 12}, {13, 14}]) - Fraction(2, 5)) < Fraction(1, 10**12)
