"""Numbers as pages show them, and the figures that pages work out."""

import pytest

from fedsite.theme.templatetags import figures
from simulations.showing import fragments


def test_it_writes_large_numbers_in_a_few_digits():
    assert figures.decimals(41_234_567_890_123_456_789_012_345.0) == "4.12e+25"
    assert figures.decimals(-2.5e7, 2) == "−2.50e+07"
    assert figures.signed(1e17) == "+1.00e+17"
    assert figures.signed(-1e17) == "−1.00e+17"
    assert figures.decimals(99_999.5, 1) == "99,999.5"


@pytest.mark.parametrize(
    ("microtokens", "short", "exact"),
    [
        (0, "0.000", "0.000000"),
        (92_418_000, "92.418", "92.418000"),
        (1, "0.000", "0.000001"),
        (1_234_567_890_123, "1,234,567.890", "1,234,567.890123"),
        (-1_500_000, "−1.500", "−1.500000"),
        (2**53 - 1, "9,007,199,254.741", "9,007,199,254.740991"),
        (None, "–", "–"),
    ],
)
def test_it_writes_tokens(microtokens, short, exact):
    assert figures.tokens(microtokens) == short
    assert figures.exact_tokens(microtokens) == exact


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (41.4, "41 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7800, "2 h 10 min"),
        (None, "–"),
    ],
)
def test_it_writes_durations_in_two_units(seconds, text):
    assert figures.seconds(seconds) == text


def test_it_writes_signs_and_nothing():
    assert figures.signed(0.25) == "+0.2500"
    assert figures.signed(-0.25) == "−0.2500"
    assert figures.signed(0.0) == "0.0000"
    assert figures.signed(-0.0) == figures.signed(-0.00004) == figures.signed(0.00004) == "0.0000"
    assert figures.signed(-0.00006) == figures.decimals(-0.00006) == "−0.0001"
    assert figures.decimals(-0.4, 0) == "0"
    assert figures.tokens(-499) == "0.000"
    assert figures.signed(None) == figures.decimals(None) == figures.thousands(None) == "–"


@pytest.mark.parametrize(
    ("amounts", "expected"),
    [([5, 5, 5], 0.0), ([0, 0, 0, 8], 0.75), ([1, 2, 3, 4], 0.25), ([0, 0], None), ([], None), ([7], 0.0)],
)
def test_it_computes_gini(amounts, expected):
    assert fragments.gini(amounts) == (expected if expected is None else pytest.approx(expected, abs=1e-12))


def test_gini_is_the_mean_difference_over_twice_the_mean():
    amounts = [3, 1, 4, 1, 5, 9, 2, 6]
    differences = sum(abs(a - b) for a in amounts for b in amounts) / len(amounts) ** 2
    assert fragments.gini(amounts) == pytest.approx(differences / (2 * sum(amounts) / len(amounts)))


@pytest.mark.parametrize("amounts", [[0, 0], [1, 2, 3], [0, 1_000_003, 40, 999_999], list(range(0, 5000, 7)), [20] * 5])
def test_the_histogram_counts_everyone_once(amounts):
    bins = fragments.histogram(amounts)
    assert sum(bin["clients"] for bin in bins) == len(amounts)
    assert len(bins) <= fragments.BINS
    for place, bin in enumerate(bins):
        last = place == len(bins) - 1
        inside = [
            amount for amount in amounts if bin["low"] <= amount < bin["high"] or (last and amount == bin["high"])
        ]
        assert bin["clients"] == len(inside)


def test_bars_share_one_scale_with_zero():
    rows = [{"contribution": value} for value in (3.0, -1.0, 0.0)]
    low, high = -1.0, 3.0
    drawn = [fragments._bar(row["contribution"], 100 * -low / (high - low), high - low) for row in rows]
    assert [(bar["left"], bar["width"], bar["harms"]) for bar in drawn] == [
        ("25.00", "75.00", False),
        ("0.00", "25.00", True),
        ("25.00", "0.00", False),
    ]
    assert {bar["zero"] for bar in drawn} == {"25.00"}
