"""The page of a transaction: a token followed to what was measured, with numbers that give it."""

import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
from django.db.models import F
from django.test import Client as Browser
from django.test.html import parse_html
from hypothesis import given, settings
from hypothesis import strategies as st

import kinds
from incentives import ledger
from incentives.detectors import replication_discounts
from incentives.economy import RuleFacts
from incentives.memo import Paid
from incentives.models import Evidence
from incentives.tests.cast import pay
from simulations import repricing
from simulations.models import Contribution, Round, ShadowRound, Simulation
from simulations.running import verifier
from simulations.showing import payments
from simulations.tests.pages import text
from simulations.tests.test_economies import recorded
from simulations.tests.test_stakes import recorded as staked
from simulations.tests.test_verify_ledger import unguarded, verify  # noqa: F401

RULES = [rule for rule in kinds.family("rule").values() if "/" not in rule.name]
worth = st.floats(-1, 1, allow_subnormal=False).map(lambda value: round(value, 6))


def get(address: str, status: int = 200, **headers: str) -> str:
    response = Browser().get(address, headers=headers)
    assert response.status_code == status
    return response.content.decode()


def page_of(simulation: Simulation, sequence: int = 2, shadow: int = 0, query: str = "") -> str:
    name = f"simulation-{simulation.pk}" + (f"-{shadow}" if shadow else "")
    return text(parse_html(get(f"/ledger/transactions/{name}/{sequence}/{query}")))


@pytest.mark.parametrize("rule", RULES, ids=[rule.name for rule in RULES])
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_shares_before_rounding_are_those_of_the_rule(rule, data):
    """To one unit, which rounding may move: every built-in rule in symbols against the rule itself."""
    contributions = data.draw(st.lists(worth, min_size=1, max_size=8))
    sent = data.draw(st.lists(st.booleans(), min_size=len(contributions), max_size=len(contributions)))
    contributions = [value if here else 0.0 for value, here in zip(contributions, sent, strict=True)]
    given_ = {name: parameter.default for name, parameter in rule.parameters.items()}
    pool, size = 1_000_003, len(contributions)
    vectors = np.random.default_rng(size).normal(size=(size, 3)) * np.array(sent)[:, None]
    facts = RuleFacts(
        round_number=1,
        clients=tuple(range(1, size + 1)),
        contributions=tuple(contributions),
        num_examples=(1,) * size,
        sent=tuple(sent),
        products={"updates": vectors @ vectors.T},
    )
    reputations = data.draw(st.lists(st.integers(0, 10**6), min_size=size, max_size=size))
    state = {"reputation": dict(zip(map(str, facts.clients), reputations, strict=True))}
    shares = rule.load()(facts, pool, state if rule.name == "reputation" else {}, **given_).shares
    told = payments.share_of(
        {"kind": rule.name, **given_},
        contributions,
        sent,
        reputations=reputations,
        discounts=replication_discounts(facts.products["updates"], np.array(sent)).tolist(),
    )
    assert told.symbols
    for weight, share in zip(told.weights, shares, strict=True):
        assert share == pytest.approx(pool * weight / told.of if weight else 0, abs=2.01)


# Four clients, of which the fourth sent nothing: contributions 0.5, 0.25, -0.25, 0. Each line worked by hand.
BY_HAND = [
    ({"kind": "proportional"}, 1, "c+ / Σ c+", "0.25 / 0.75", 1 / 3),
    ({"kind": "equal"}, 2, "1 / n for each who sent something", "1 / 3", 1 / 3),
    ({"kind": "equal"}, 3, "1 / n for each who sent something", "0 / 3", 0),
    ({"kind": "wage_bonus", "share": 0.2}, 0, "(0.2 / n + 0.8 × c+ / Σ c+)", "(0.2 / 3 + 0.8 × 0.5 / 0.75)", 0.6),
    ({"kind": "wage_bonus", "share": 0.2}, 2, "(0.2 / n + 0.8 × c+ / Σ c+)", "(0.2 / 3 + 0.8 × 0 / 0.75)", 0.2 / 3),
    ({"kind": "wage_bonus", "share": 0.2}, 3, "(0.2 / n + 0.8 × c+ / Σ c+)", "0", 0),
    ({"kind": "top_k", "k": 1}, 0, "c+ / Σ c+ among the 1 largest, 0 for others", "0.5 / 0.5", 1),
    ({"kind": "top_k", "k": 1}, 1, "c+ / Σ c+ among the 1 largest, 0 for others", "0 / 0.5", 0),
    ({"kind": "rank"}, 0, "rank / Σ ranks, 1 for the least c+ above 0", "2 / 3", 2 / 3),
    (
        {"kind": "softmax", "temperature": 0.5},  # e^0, e^-1, e^-3
        1,
        "exp((c − largest c) / s) / Σ of them, s = 0.5 × largest |c|",
        "exp((0.25 − 0.5) / 0.25) / 1.4176665",
        0.367879441 / 1.41766651,
    ),
    ({"kind": "winner_takes_all"}, 0, "1 / how many have the largest c+, 0 for others", "1 / 1", 1),
    ({"kind": "tullock", "exponent": 2.0}, 1, "(c+ / largest c+)^2 / Σ of them", "(0.25 / 0.5)^2 / 1.25", 0.2),
    ({"kind": "tullock", "exponent": 2.0}, 2, "(c+ / largest c+)^2 / Σ of them", "0", 0),
    ({"kind": "slashing", "rate": 2.0}, 0, "c+ / Σ c+", "0.5 / 0.75", 2 / 3),
    (  # reputations 0.5, 1, 1, 1: 0.125 of 0.375
        {"kind": "reputation", "decay": 0.5, "power": 2.0},
        0,
        "c+ × r^2 / Σ of them",
        "0.5 × 0.500000^2 / 0.375",
        1 / 3,
    ),
    ({"kind": "sybil_discount", "by": "replication"}, 1, "c+ × d / Σ c+", "0.25 × 0.5 / 0.75", 1 / 6),
]


@pytest.mark.parametrize(("rule", "place", "symbols", "numbers", "share"), BY_HAND)
def test_a_share_is_told_with_the_numbers_that_give_it(rule, place, symbols, numbers, share):
    told = payments.share_of(
        rule,
        [0.5, 0.25, -0.25, 0.0],
        [True, True, True, False],
        place,
        reputations=[500_000, *[1_000_000] * 3],
        discounts=[1.0, 0.5, 1.0, 0.0],
    )
    assert (told.symbols, told.numbers) == (symbols, numbers)
    assert told.weights[place] / told.of == pytest.approx(share, rel=1e-8)
    in_python = numbers.replace("^", "**").replace("×", "*").replace("−", "-")
    assert eval(in_python, {"exp": math.exp}) == pytest.approx(share, rel=1e-6)


def test_a_wage_without_a_bonus_is_told_by_the_share_of_the_pool_that_it_is():
    told = payments.share_of({"kind": "wage_bonus", "share": 0.2}, [-0.5, 0.0], [True, True], 0)
    assert told == payments.Share("0.2 / n, and no bonus where Σ c+ = 0", "0.2 / 2", [0.2, 0.2], 2)


def tokens(pattern: str, said: str) -> list[int]:
    """Micro-tokens of what a pattern finds."""
    found = re.search(pattern, said)
    assert found, said
    return [round(float(each) * 1e6) for each in found.groups()]


@pytest.mark.django_db
@pytest.mark.database
def test_what_a_stake_loses_is_told_with_the_numbers_that_give_it():
    simulation = staked()
    left = 5_000_000
    for number in (1, 2, 3):
        shown = page_of(simulation, number, query="?client=3")
        part = Contribution.objects.get(round__number=number, client__number=3)
        assert tokens(r"at stake before the round = ([\d.]+)", shown) == [left]
        told = r"direction [\d.]+ is above 0\.5: 0\.25 × ([\d.]+), rounded down = ([\d.]+)"
        stake, by_detector = tokens(told, shown)
        assert (stake, by_detector) == (left, left // 4)
        harm = r"is below 0: 1 × ([\d.]+) × ([\d,]+) / ([\d,]+) examples, rounded down, at most .*? = ([\d.]+)"
        if part.value < 0:
            pool, size, total, taken = (float(each.replace(",", "")) for each in re.search(harm, shown).groups())
            by_rule = min(left - by_detector, int(pool * 1e6 * size / total))
            assert round(taken * 1e6) == by_rule
        else:
            assert "is not below 0" in shown
            by_rule = 0
        assert part.slashed_microtokens == by_detector + by_rule
        left -= part.slashed_microtokens
        assert tokens(r"at stake after the round = ([\d.]+)", shown) == [left]
        assert f"stake:3 → treasury, {part.slashed_microtokens:,} micro-tokens" in shown
    assert "client:3 → stake:3, 5,000,000 micro-tokens" in page_of(simulation, 1, query="?client=3")
    assert "direction" in page_of(simulation, query="?client=1")
    assert re.search(r"direction [\d.]+ is not above 0\.5", page_of(simulation, query="?client=1"))
    assert "norm 0." in page_of(simulation, shadow=1, query="?client=3")


@pytest.mark.django_db
def test_a_reputation_and_a_discount_are_told_with_the_numbers_that_give_them():
    simulation = staked()
    for number in (1, 2, 3):
        shown = page_of(simulation, number, shadow=2, query="?client=1")
        states = simulation.shadows.get(number=2).rounds.order_by("number").values_list("economy_state", flat=True)
        kept = [1_000_000, *(each["reward_rule"]["reputation"].get("1", 1_000_000) for each in states)]
        assert f"r = {kept[number - 1]:,} millionths before the round" in shown
        formula = re.search(r"= (0\.5 × [\d,]+ \+ 0\.5 × 1,000,000 × min\(1, .*?\)) = ([\d,]+) millionths", shown)
        numbers, after = (each.replace(",", "").replace("min(1 ", "min(1, ") for each in formula.groups())
        assert int(after) == kept[number] == round(eval(numbers.replace("×", "*"), {"min": min}))
        exact, paid = tokens(r"= ([\d.]+), to the unit ([\d.]+)", shown)
        assert abs(exact - paid) <= 1
        for client in (1, 2, 3, 4):
            shown = page_of(simulation, number, shadow=3, query=f"?client={client}")
            if "nobody has a share" not in shown:
                exact, paid = tokens(r"= ([\d.]+), to the unit ([\d.]+)", shown)
                assert abs(exact - paid) <= 2, (number, client)
            assert "d = FoolsGold's weight of the updates sent so far = " in shown
    Evidence.objects.filter(sha256=simulation.shadows.get(number=3).rounds.get(number=3).products_sha256).delete()
    assert "to split; the rule gives" in page_of(simulation, 3, shadow=3)


@pytest.mark.parametrize(
    ("pool", "number", "paid", "pools", "first", "second"),
    [  # tokens of the round, and with those before it
        ({"kind": "fixed", "tokens": 10.0}, 2, 5, 15, "10 tokens in each round = 10.000000", "15 less 10.000000"),
        ({"kind": "fixed", "tokens": 10.0}, 1, 10, 10, "10 tokens in each round = 10.000000", "15 less 0.000000"),
        ({"kind": "halving", "tokens": 10.0, "rounds": 4}, 3, 0, 15, "10 / 2^0 = 10.000000", "15 less 15.000000"),
        ({"kind": "decay", "tokens": 10.0, "factor": 0.5}, 3, 0, 15, "10 × 0.5^2 = 2.500000", "15 less 15.000000"),
        (
            {"kind": "improvement", "scaling_factor": 10.0},
            2,
            5,
            15,
            "max(0, 2.25000000 − 1.50000000) × 10 = 7.500000",
            "15 less 10.000000",
        ),
    ],
)
def test_a_pool_is_told_before_what_the_budget_leaves_of_it(pool, number, paid, pools, first, second):
    facts = SimpleNamespace(
        round_number=number, best_validation_loss=2.25, previous_validation_loss=2.0, validation_loss=1.5
    )
    state = {"money": {"pools": pools * 10**6, "treasury": 0}}
    made = Paid(
        contributions=(),
        pool=paid * 10**6,
        minted=paid * 10**6,
        burned=0,
        shares=(),
        utilities_sha256=None,
        state=state,
    )
    lines = payments.pool_formulas({"pool": pool, "budget_tokens": 15.0}, facts, made)
    left = 15 - (pools - paid)
    assert lines == [f"pool = {first}", f"at most the budget of {second} of the rounds before = {left:.6f}"]


@pytest.mark.django_db
@pytest.mark.database
def test_a_token_is_followed_to_what_was_measured():
    simulation = recorded()
    shown = page_of(simulation)
    part = Contribution.objects.filter(round__number=2).order_by("-reward_microtokens").select_related("client")[0]
    row, tokens = Round.objects.get(number=2), f"{part.reward_microtokens / 1e6:.6f}"
    assert f"Why did client {part.client.number} get {tokens} tokens?" in shown
    before, after, factor, pool = map(
        float, re.search(r"pool = max\(0, ([\d.]+) − ([\d.]+)\) × ([\d.]+) = ([\d.]+)", shown).groups()
    )
    assert pool == row.pool_microtokens / 1e6 == pytest.approx((before - after) * factor, abs=2e-6)
    pool, own, total, exact, rounded = map(
        float, re.search(r"([\d.]+) × ([\d.e-]+) / ([\d.e-]+) = ([\d.]+), to the unit ([\d.]+)", shown).groups()
    )
    assert exact == pytest.approx(pool * own / total, rel=1e-6)
    assert rounded == part.reward_microtokens / 1e6 == pytest.approx(exact, abs=1e-6)
    assert own == pytest.approx(part.value, rel=1e-7)
    for label in ("by size", "wage", "left out", "treasury"):
        assert label in shown
    transaction = simulation.ledger.transactions.get(sequence=2)
    for value in (transaction.memo["facts_sha256"], transaction.memo["economy_sha256"], transaction.hash):
        assert value in shown
    assert row.evidence_sha256 in shown
    assert "8 coalitions of 3 players" in shown


@pytest.mark.django_db
def test_each_economy_tells_its_own_pool_and_rule():
    simulation = recorded()
    wage = page_of(simulation, shadow=2)
    assert "wage, which pays nobody" in wage
    assert re.search(r"burned = 0\.1 × [\d.]+ = [\d.]+", wage)
    assert "rule wage_bonus@1" in wage
    assert "share = (pool − burned) × (0.5 / n + 0.5 × c+ / Σ c+)" in wage
    budget = page_of(simulation, sequence=3, shadow=3)
    assert "pool = 3 tokens in each round = 3.000000" in budget
    assert "at most the budget of 7 less 6.000000 of the rounds before = 1.000000" in budget
    treasury = page_of(simulation, sequence=1, shadow=4)
    assert "pool = 9.000000 in the treasury / 3 rounds left = 3.000000" in treasury
    size = page_of(simulation, shadow=1)
    assert "without asking coalitions. The examples that it reports." in size


@pytest.mark.django_db
def test_everybodys_share_can_be_asked_for():
    simulation = recorded()
    assert "Client 2 sent nothing" in page_of(simulation, query="?client=2")
    assert "No transfer: nothing was to be moved to it" in page_of(simulation, query="?client=2")
    address = f"/ledger/transactions/simulation-{simulation.pk}/2/"
    for nonsense in ("99", "x", "²", "-1", "9" * 30):
        assert "a client or a transaction that does not exist" in get(f"{address}?client={nonsense}&shares=x", 404)


@pytest.mark.django_db
def test_who_was_not_in_the_round_is_told_so_and_no_other_share_is_shown_in_its_place():
    simulation = recorded(0, fraction_fit=0.5)
    cohort = set(Contribution.objects.filter(round__number=2).values_list("client__number", flat=True))
    absent = min({1, 2, 3, 4} - cohort)
    address = f"/ledger/transactions/simulation-{simulation.pk}/2/"
    shown = text(parse_html(get(f"{address}?client={absent}")))
    assert f"Client {absent} was not in round 2" in shown
    assert "Why did client" not in shown
    assert "Its share" not in shown
    assert "All shares of round 2" in shown
    assert "Why did client" in text(parse_html(get(f"{address}?client=")))


@pytest.mark.django_db
def test_what_is_the_difference_of_two_coalitions_is_told_with_their_worth():
    """Who is left out, and who is alone: as the evidence has it, to the digits that are shown."""
    ways = {"leave_one_out": r"V\(N\) − V\(N without 3\)", "loss_improvement": r"V\(3 alone\) − V\(nobody\)"}
    for valuation, symbols in ways.items():
        simulation = recorded(0, valuation=valuation)
        told = re.search(symbols + r" = (\S+) − \((\S+)\) = (\S+)", page_of(simulation, query="?client=3"))
        more, less, difference = (float(number.replace("−", "-")) for number in told.groups())
        assert more - less == pytest.approx(difference, abs=2e-8)
        assert difference == pytest.approx(
            Contribution.objects.get(round__simulation=simulation, round__number=2, client__number=3).value, abs=1e-8
        )
    assert "V(" not in page_of(simulation, query="?client=2"), "who sent nothing plays in no coalition"
    assert "V(" not in page_of(recorded(0), query="?client=3")


@pytest.mark.django_db
def test_the_marginal_contributions_have_the_contribution_as_their_mean():
    simulation = recorded()
    for part in Contribution.objects.filter(round__number=2).exclude(client__number=2).select_related("client"):
        table = payments.marginals(simulation, 0, 2, part.client.number)
        assert len(table["rows"]) == 4
        assert table["value"] == pytest.approx(part.value, abs=1e-12)
    address = f"/simulations/{simulation.pk}/marginals/"
    assert "What client 1 added" in get(f"{address}?round=2&client=1")
    assert "<html" not in get(f"{address}?round=2&client=1&economy=2", **{"HX-Request": "true"})
    assert address in get(f"/ledger/transactions/simulation-{simulation.pk}/2/")
    for query in (
        "",
        "?round=2&client=2",
        "?round=9&client=1",
        "?round=2&client=1&economy=1",
        "?round=2&client=1&economy=3",
    ):
        assert "Not every coalition" in get(f"{address}{query}")


@pytest.mark.django_db
@pytest.mark.database
def test_recompute_says_equal_or_where_not():
    simulation = recorded(2)
    address = f"/simulations/{simulation.pk}/recompute/"
    said = Browser().post(address, {"round": 2}).content.decode()
    assert "Equal." in said
    assert "3 payments of round 2" in said
    ShadowRound.objects.filter(shadow__number=1, number=2).update(pool_microtokens=F("pool_microtokens") + 1)
    assert "Not equal: by size, round 2" in Browser().post(address, {"round": 2}).content.decode()
    Evidence.objects.all().delete()
    assert "cannot be computed again" in Browser().post(address, {"round": 1}).content.decode()
    assert [Browser().post(address, {"round": each}).status_code for each in ("0", "4", "x", "")] == [422] * 4
    assert Browser().get(address).status_code == 405
    assert Browser(enforce_csrf_checks=True).post(address, {"round": 2}).status_code == 403


@pytest.mark.django_db
@pytest.mark.database
def test_what_does_not_follow_is_not_called_verified():
    """From the failed computation on, until everything was read again; then as that found it."""
    simulation = recorded(1)
    verifier.look()
    assert "Chain verified" in get("/ledger/state/")
    assert "● verified" in page_of(simulation, shadow=1)
    pool = ShadowRound.objects.filter(number=2)
    for change, seen, badge in ((1, "Not equal: simulation-", "Chain broken"), (-1, "● verified", "Chain verified")):
        pool.update(pool_microtokens=F("pool_microtokens") + change)
        if change == 1:
            assert [bool(wrong) for _, _, wrong in repricing.recompute(simulation, 2)] == [False, True]
            assert "to be verified again" in page_of(simulation, shadow=1)
            assert "Chain to be verified again" in get("/ledger/state/")
            assert "● verified" in page_of(simulation), "another ledger"
            assert verifier.look() == 1
        else:
            assert verify()[0] == 0
        assert seen in page_of(simulation, shadow=1)
        assert badge in get("/ledger/state/")
    assert verifier.look() == 0


@pytest.mark.django_db
def test_an_old_payment_tells_what_it_can(unguarded):  # noqa: F811
    """A row of scheme 1: the loss before was not written down, and the memo names rule and evidence."""
    simulation = recorded(0)
    Simulation.objects.filter(pk=simulation.pk).update(scheme=1, training_sha256="")
    row = simulation.rounds.get(number=2)
    content = Evidence.objects.get(sha256=row.evidence_sha256).content
    simulation.rounds.filter(number=2).update(
        evidence=content,
        rule="proportional@1",
        economy_state={},
        previous_validation_loss=None,
        best_validation_loss=None,
        minted_microtokens=None,
        carried=None,
    )
    Contribution.objects.update(num_examples=None, effort=None)
    Evidence.objects.all().delete()
    memo = {"round": 2, "rule": "proportional@1", "evidence_sha256": row.evidence_sha256, "weights_sha256": "ab"}
    simulation.ledger.transactions.filter(sequence=2).update(memo=memo)
    shown = page_of(simulation)
    assert "pool = max(0, loss to beat − loss) × 10" in shown
    assert "rule proportional@1" in shown
    assert f"evidence sha256 {row.evidence_sha256}" in shown
    assert "8 coalitions of 3 players" in shown


@pytest.mark.django_db
def test_what_was_let_go_of_is_said():
    simulation = recorded(0)
    Contribution.objects.filter(round__number=2).delete()
    shown = page_of(simulation)
    assert "What round 2 paid" in shown
    assert "Who was in the round was let go of" in shown


@pytest.mark.django_db
def test_a_transaction_that_is_no_rounds_payment_is_shown_as_before():
    pay(ledger.open_ledger("manual"), "one", 4)
    html = get("/ledger/transactions/manual/1/")
    assert "Transaction 1" in html
    assert "Recompute" not in html


@pytest.mark.django_db
def test_a_large_cohort_costs_as_many_queries_as_a_small_one(django_assert_max_num_queries):
    simulation = recorded()
    with django_assert_max_num_queries(16):
        get(f"/ledger/transactions/simulation-{simulation.pk}-2/2/")
