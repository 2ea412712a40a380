"""The page's part about economies: sums that are those of the rows, bounded cost, and one more for a finished run."""

import re
from itertools import accumulate, pairwise

import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.test import Client as Browser
from django.test.html import parse_html
from hypothesis import given, settings
from hypothesis import strategies as st

from incentives import ledger
from simulations import repricing
from simulations.models import Client, Shadow, ShadowClient, ShadowRound, Simulation
from simulations.showing import fragments, ledgers_shown, waiting
from simulations.tests import test_stakes
from simulations.tests.cast import queued
from simulations.tests.pages import attribute, by_id, elements, text
from simulations.tests.test_economies import SHADOWS, recorded

HTMX = {"HX-Request": "true"}
amounts = st.lists(st.integers(0, 10**12), min_size=1, max_size=40)


def get(address: str, status: int = 200, **headers: str) -> str:
    response = Browser().get(address, headers=headers)
    assert response.status_code == status
    return response.content.decode()


def send(simulation: Simulation, line: str, **headers: str):
    return Browser().post(f"/simulations/{simulation.pk}/reprice/", {"economy": line}, headers=headers)


def crowd(count: int, shadows: int, rounds: int = 0) -> Simulation:
    """Rows as a run of so many clients and economies leaves them, without the run."""
    simulation = queued(num_clients=count, shadows=[{"label": f"economy {k}"} for k in range(1, shadows + 1)])
    Simulation.objects.filter(pk=simulation.pk).update(
        status="completed", rounds_done=rounds or 1, num_rounds=rounds or 1
    )
    Client.objects.bulk_create(
        Client(
            simulation=simulation,
            number=n,
            num_examples=1,
            label_counts=[1],
            behaviour="honest" if n % 3 else "free_rider",
            rounds=1,
            reward_microtokens=n,
        )
        for n in range(1, count + 1)
    )
    kept = Shadow.objects.filter(simulation=simulation)
    if not kept.exists():
        specification = {name: simulation.config[name] for name in ledgers_shown.OF_AN_ECONOMY}
        for k in range(1, shadows + 1):
            own = ledger.open_ledger(f"simulation-{simulation.pk}-{k}", is_shadow=True)
            Shadow.objects.create(
                simulation=simulation, number=k, label=f"economy {k}", specification=specification, ledger=own
            )
    ShadowClient.objects.bulk_create(
        ShadowClient(shadow=shadow, number=n, reward_microtokens=n * shadow.number)
        for shadow in kept
        for n in range(1, count + 1)
    )
    return Simulation.objects.get(pk=simulation.pk)


# How even


@settings(deadline=None)
@given(amounts)
def test_the_gini_coefficient_is_what_the_lorenz_curve_leaves_of_the_diagonal(held):
    curve = ledgers_shown.lorenz(held, len(held))
    if not any(held):
        assert (set(curve), fragments.gini(held), ledgers_shown.jain(held)) == ({0.0}, None, None)
        return
    area = sum((low + high) / 2 for low, high in pairwise(curve)) / len(held)
    assert fragments.gini(held) == pytest.approx(1 - 2 * area, abs=1e-9)
    assert curve == sorted(curve)
    assert all(point <= place / len(held) + 1e-12 for place, point in enumerate(curve))


@settings(deadline=None)
@given(amounts, st.integers(1, 30))
def test_a_lorenz_curve_of_fewer_points_lies_on_the_whole_one(held, steps):
    total, ascending = sum(held), [0, *accumulate(sorted(held))]
    for step, point in enumerate(ledgers_shown.lorenz(held, steps)):
        place = step * len(held) / steps
        below = min(int(place), len(held) - 1)
        exact = ascending[below] + (place - below) * (ascending[below + 1] - ascending[below])
        assert point == pytest.approx(exact / total if total else 0.0, abs=1e-9)


def test_it_knows_numbers_worked_by_hand():
    assert ledgers_shown.lorenz([4, 1, 2, 1], 4) == [0, 0.125, 0.25, 0.5, 1]
    assert ledgers_shown.jain([1, 1, 2, 4]) == pytest.approx(64 / 88)
    assert ledgers_shown.jain([5, 5]) == 1
    assert ledgers_shown.jain([0, 9, 0]) == pytest.approx(1 / 3)


def test_no_two_economies_of_a_page_have_the_same_line():
    values = {
        "pk": None,
        "label": "",
        "says": "",
        "added_at": None,
        "ledger": "",
        "pool": 0,
        "paid": 0,
        "burned": 0,
        "treasury": 0,
        "minted": 0,
        "slashed": 0,
        "slashed_to": "treasury",
        "at_stake": 0,
    }
    every = [
        ledgers_shown.Economy(number=number, is_endowed=False, rewards={}, **values)
        for number in range(ledgers_shown.MOST_ECONOMIES)
    ]
    assert len({(each.colour, each.dash) for each in every}) == ledgers_shown.MOST_ECONOMIES
    known = re.search(r"const DASHES = \{(.*)\}", (django_settings.BASE_DIR / "static/js/charts.js").read_text())[1]
    assert {name.strip(' "') for name in re.findall(r'([\w"-]+):', known)} == set(ledgers_shown.DASHES)


# Of a run


@pytest.mark.django_db
@pytest.mark.database
def test_what_it_shows_is_what_the_rounds_paid():
    """With burns, budgets and an endowed treasury; the oracle sums the rewards of each round."""
    simulation = recorded()
    shown = ledgers_shown.context(simulation)
    assert [each.label for each in shown["economies"]] == ["paying", *(each["label"] for each in SHADOWS)]
    curves = list(zip(*(paid for _, paid in shown["over_rounds"]), strict=True))
    assert [number for number, _ in shown["over_rounds"]] == [0, 1, 2, 3]
    for shadow, curve in zip(simulation.shadows.order_by("number"), curves[1:], strict=True):
        rounds = shadow.rounds.order_by("number").values_list("rewards", flat=True)
        assert list(curve) == [0, *accumulate(sum(rewards) for rewards in rounds)]
        assert curve[-1] == shadow.paid_microtokens
    assert curves[0][-1] == simulation.paid_microtokens
    everyone = simulation.clients.values("number", "behaviour", "reward_microtokens")
    for economy in ledgers_shown._economies(simulation, list(simulation.shadows.order_by("number")), list(everyone)):
        assert economy.minted == economy.paid + economy.burned + economy.treasury
        ways = ledgers_shown._flow(economy)
        assert sum(way["amount"] for way in ways if way["from"] == "Treasury") == economy.minted
    assert {each.label for each in shown["economies"] if each.burned} == {"wage"}
    wage = next(row for row in shown["summary"] if row["economy"].label == "wage")
    assert (wage["num_paid"], wage["dishonest"]) == (3, 0)
    sums = [sum(row["cells"][place]["tokens"] for row in shown["split"]) for place in range(5)]
    assert sums == [each.paid for each in shown["economies"]]


@pytest.mark.django_db
@pytest.mark.database
def test_stakes_flow_from_the_mint_and_are_lost_to_the_treasury_or_burned():
    """With a pool that was minted before round 1, too; the oracle sums the rewards of each round."""
    simulation = test_stakes.recorded()
    repricing.reprice(simulation, "as it is", {})
    repricing.reprice(simulation, "endowed", {"pool": {"kind": "treasury", "tokens": 9.0, "rounds": 3}})
    shown = ledgers_shown.context(simulation)
    assert shown["is_staked"]
    curves = list(zip(*(paid for _, paid in shown["over_rounds"]), strict=True))
    for shadow, curve in zip(simulation.shadows.order_by("number"), curves[1:], strict=True):
        rounds = shadow.rounds.order_by("number").values_list("rewards", flat=True)
        assert list(curve) == [0, *accumulate(sum(rewards) for rewards in rounds)], shadow.label
    lost = sum(simulation.clients.values_list("slashed_microtokens", flat=True))
    for number, taker in ((0, "Treasury"), (1, "Burned"), (5, "Treasury")):
        flow = {(way["from"], way["to"]): way["amount"] for way in ledgers_shown.context(simulation, number)["flow"]}
        row = shown["summary"][number]["economy"]
        assert flow["Mint", "Stakes"] == 20_000_000 == row.at_stake + row.slashed
        assert flow["Stakes", taker] == row.slashed > 0
        assert flow["Stakes", "Still at stake"] == row.at_stake
        rounds = simulation.shadows.get(number=number).rounds if number else simulation.rounds
        assert flow["Treasury", "Burned"] == sum(rounds.values_list("burned_microtokens", flat=True))
        for name in ("Treasury", "Stakes"):
            into, out = (sum(each for ways, each in flow.items() if ways[end] == name) for end in (1, 0))
            assert into == out
        assert number or row.slashed == lost
        assert flow["Mint", "Treasury"] == (9_000_000 if number == 5 else 12_000_000)
    assert ("Mint", "Stakes") not in {(way["from"], way["to"]) for way in ledgers_shown.context(simulation, 2)["flow"]}
    html = get(f"/simulations/{simulation.pk}/")
    assert ">At stake</th>" in html
    assert "Still at stake" in html


@pytest.mark.django_db
def test_the_page_has_a_picture_and_a_table_for_each_question():
    simulation = recorded()
    page = parse_html(get(f"/simulations/{simulation.pk}/?flow=2"))
    assert len([row for row in elements(by_id(page, "economies-rows")) if row.name == "tr"]) == 5
    assert text(by_id(page, "economies-heading")) == "What would each economy have paid?"
    for id in ("split-rows", "over-rows", "lorenz-rows", "flow-rows"):
        assert any(element.name == "tr" for element in elements(by_id(page, id)))
    rider = [row for row in elements(by_id(page, "split-rows")) if row.name == "tr"][1]
    assert text(rider).split() == ["2", "free", "rider", "0", *text(rider).split()[4:]]
    assert all(text(cell) for cell in elements(rider) if cell.name == "td")
    assert "Burned" in text(by_id(page, "flow-rows"))
    assert "Burned" not in text(by_id(parse_html(get(f"/simulations/{simulation.pk}/?flow=99")), "flow-rows"))
    options = [option for option in elements(by_id(page, "flow-of")) if option.name == "option"]
    chosen = [option for option in options if "selected" in dict(option.attributes)]
    assert [attribute(option, "value") for option in chosen] == ["2"]


@pytest.mark.django_db
def test_an_old_run_without_shadows_shows_its_own_economy():
    simulation = recorded(0)
    Simulation.objects.filter(pk=simulation.pk).update(scheme=2)
    page = parse_html(get(f"/simulations/{simulation.pk}/"))
    assert text(by_id(page, "economies-heading")) == "Where do the tokens go?"
    assert "Who gets what?" not in text(page)
    assert by_id(page, "flow-rows")


@pytest.mark.django_db
def test_a_run_that_pays_nobody_has_no_such_part():
    simulation = recorded(0, valuation="none")
    assert "economies-heading" not in get(f"/simulations/{simulation.pk}/")


@pytest.mark.django_db
def test_what_changes_comes_by_itself_and_leaves_the_rest_alone():
    waiting = queued(shadows=SHADOWS[:1])
    assert 'hx-trigger="simulation-moved from:body' in get(f"/simulations/{waiting.pk}/")
    assert get(f"/simulations/{waiting.pk}/economies/?parts=1", 204, **HTMX) == ""
    simulation = recorded()
    whole = get(f"/simulations/{simulation.pk}/economies/", **HTMX)
    parts = get(f"/simulations/{simulation.pk}/economies/?parts=1&flow=1", **HTMX)
    assert parts.count('hx-swap-oob="true"') == 5
    page = parse_html(whole)
    for id in re.findall(r'<tbody id="([^"]+)" hx-swap-oob', parts):
        assert by_id(page, id)


@pytest.mark.django_db
def test_a_thousand_clients_cost_as_many_queries_as_ten(django_assert_num_queries, django_assert_max_num_queries):
    for count in (10, 1000):
        simulation = crowd(count, 6)
        with django_assert_num_queries(6):
            shown = ledgers_shown.context(simulation)
        assert len(shown["split"]) == (10 if count == 10 else 2)
        with django_assert_max_num_queries(6):
            page = ledgers_shown.clients_page(simulation, "1", "6")
        assert [row["number"] for row in page["rows"]][:2] == [count, count - 1]
        assert [reward for _, reward in page["rows"][0]["rewards"]] == [count * k for k in (1, 1, 2, 3, 4, 5, 6)]
    address = f"/simulations/{simulation.pk}/"
    assert len(get(address)) < 150_000
    html = get(f"{address}economies/clients/?sort=3&page=10")
    assert "901 to 1,000 of 1,000" in html
    for nonsense in ("?sort=x", "?page=x", "?sort=99&page=-1"):
        assert 'scope="row"' in get(f"{address}economies/clients/{nonsense}", **HTMX)


@pytest.mark.django_db
def test_a_crowd_is_summed_once_a_round(monkeypatch, django_assert_num_queries):
    monkeypatch.setattr(ledgers_shown, "REMEMBERED", 0)
    simulation = crowd(60, 2)
    first = ledgers_shown.context(simulation)
    with django_assert_num_queries(1):
        assert ledgers_shown.context(simulation) == first
    Shadow.objects.filter(number=1).update(rounds_done=1)
    ShadowClient.objects.filter(shadow__number=1).update(reward_microtokens=0)
    assert ledgers_shown.context(simulation)["summary"][1]["num_paid"] == 0
    assert ledgers_shown.context(simulation, 2)["flow_of"] == 2


@pytest.mark.django_db
def test_ten_thousand_rounds_are_a_hundred_points():
    simulation = crowd(2, 1, rounds=10_000)
    shadow = Shadow.objects.get(simulation=simulation)
    ShadowRound.objects.bulk_create(
        ShadowRound(
            shadow=shadow,
            number=number,
            contributions=[1.0],
            rewards=[3],
            pool_microtokens=4,
            minted_microtokens=4,
            burned_microtokens=1,
            economy_state={"money": {"pools": 4 * number, "treasury": 0}},
        )
        for number in range(1, 10_001)
    )
    burn = ledger.Entry(debit="mint", credit="burn", amount=10_000, code="burn")
    ledger.post(shadow.ledger_id, key="all", transfers=[burn])
    over = ledgers_shown.context(simulation)["over_rounds"]
    assert len(over) == 101
    assert [over[0][1][1], over[1], over[-1]] == [0, (100, [0, 300]), (10_000, [0, 30_000])]


# Another economy


@pytest.mark.django_db
@pytest.mark.database
def test_another_economy_is_priced_from_the_page():
    simulation = recorded(0)
    response = send(simulation, "a: b: valuation=leave_one_out burn_share=0.5", **HTMX)
    assert response.status_code == 200
    html = response.content.decode()
    assert "a: b was priced." in html
    assert "added " in html
    shadow = simulation.shadows.get()
    assert (shadow.label, shadow.specification["burn_share"]) == ("a: b", 0.5)
    assert send(simulation, "second: reward_rule=tullock reward_rule.exponent=3").status_code == 302
    assert simulation.shadows.count() == 2


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "one economy at a time; 0 are named"),
        ("a:\nb:", "one economy at a time; 2 are named"),
        ("nothing", "line 1: expected a label, a colon"),
        ("x: seed=3", "line 1: expected one of valuation"),
        ("x: burn_share=much", "line 1: burn_share: &#x27;much&#x27; is not a number"),
        ("x: reward_rule=unheard", ">reward_rule: "),
        ("x: reward_rule=wage_bonus reward_rule.share=2", ">reward_rule.share: "),
        ("paying:", "paying: is how the top-level economy is called"),
        ("x: valuation=none", "an economy that measures nothing pays nobody"),
        ("x: utility=accuracy", "It cannot be priced from what was recorded: round 1: no economy of this run measured"),
    ],
)
def test_what_cannot_be_priced_is_said_where_it_was_entered(line, says):
    simulation = recorded(0)
    response = send(simulation, line, **HTMX)
    assert response.status_code == 422
    assert says in response.content.decode()
    assert send(simulation, line).status_code == 422
    assert not Shadow.objects.exists()


@pytest.mark.django_db
def test_a_run_that_goes_on_or_is_too_long_is_not_priced_here(monkeypatch):
    queue = queued()
    assert 'id="reprice"' not in get(f"/simulations/{queue.pk}/")
    assert "only a finished run is priced again" in send(queue, "x:").content.decode()
    simulation = recorded(0)
    for bound, says in (
        ("MOST_ROUNDS", "About 3 rounds are more than the 2"),
        ("MOST_UTILITIES", "utilities are more"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(waiting, bound, 2)
            for said in (send(simulation, "x:", **HTMX), send(simulation, "x:")):
                assert says in said.content.decode()
                assert f"manage.py reprice {simulation.pk}" in said.content.decode()
    with monkeypatch.context() as patched:
        patched.setattr(waiting, "SECONDS", 0.01)
        assert "Nothing came of it" in send(simulation, "x:", **HTMX).content.decode()
    with waiting.a_child(), waiting.a_child():
        assert send(simulation, "x:").status_code == 503
        assert Browser().post(f"/simulations/{simulation.pk}/recompute/", {"round": 1}).status_code == 503
    assert not Shadow.objects.exists()


@pytest.mark.django_db
def test_only_its_owner_prices_it_again(settings):
    settings.FEDSITE_ACCESS = "login"
    simulation = recorded(0)
    ada, eve = (User.objects.create_user(name) for name in ("ada", "eve"))
    Simulation.objects.filter(pk=simulation.pk).update(owned_by=ada)
    address = f"/simulations/{simulation.pk}/"
    browser = Browser()
    browser.force_login(eve)
    assert 'id="reprice"' not in browser.get(address).content.decode()
    assert browser.post(f"{address}reprice/", {"economy": "x:"}).status_code == 403
    settings.FEDSITE_OTHERS_MAY_LOOK = False
    for part in ("economies/", "economies/clients/", "marginals/?round=1&client=1"):
        assert browser.get(f"{address}{part}", headers=HTMX).status_code == 404
    for part in ("reprice/", "recompute/"):
        assert browser.post(f"{address}{part}", {"economy": "x:", "round": 1}).status_code == 404
    browser.force_login(ada)
    assert 'id="reprice"' in browser.get(address).content.decode()
    strict = Browser(enforce_csrf_checks=True)
    strict.force_login(ada)
    assert strict.post(f"{address}reprice/", {"economy": "x:"}).status_code == 403
    assert not Shadow.objects.exists()
