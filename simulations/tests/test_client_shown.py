"""A client's page: each economy's sums are those of its rows, and one of them is shown by round with its payments."""

import re

import pytest
from django.test import Client as Browser
from django.test.html import parse_html

from simulations.models import Contribution, ShadowClient, ShadowRound
from simulations.showing import client_shown
from simulations.tests.pages import by_id, elements, text
from simulations.tests.test_economies import SHADOWS, recorded
from simulations.tests.test_pages_economies import crowd

pytestmark = [pytest.mark.django_db, pytest.mark.database]


def get(address: str, status: int = 200) -> str:
    response = Browser().get(address)
    assert response.status_code == status
    return response.content.decode()


def test_each_economy_has_its_sums_and_leads_to_its_rounds():
    simulation = recorded()
    client = simulation.clients.get(number=3)
    client.simulation = simulation
    told = client_shown.context(client, 0)
    assert [row["label"] for row in told["economies"]] == ["paying", *(each["label"] for each in SHADOWS)]
    assert told["economies"][0]["reward"] == client.reward_microtokens
    for row, shadow in zip(told["economies"][1:], simulation.shadows.order_by("number"), strict=True):
        sums = ShadowClient.objects.get(shadow=shadow, number=3)
        assert (row["contribution"], row["reward"]) == (sums.contribution, sums.reward_microtokens)
        assert row["share"] == sums.reward_microtokens / shadow.paid_microtokens
    html = get(f"/simulations/{simulation.pk}/clients/3/")
    for number in range(1, 5):
        assert f'href="/simulations/{simulation.pk}/clients/3/?economy={number}"' in html


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_a_shadow_by_round_is_what_its_rows_hold_for_the_client(fraction):
    """Its place in the cohort's lists is counted, not read."""
    simulation = recorded(2, fraction_fit=fraction)
    for client in simulation.clients.all():
        client.simulation = simulation
        parts = client_shown.context(client, 2)["parts"]
        assert len(parts) == client.rounds
        for part in parts:
            of_round = Contribution.objects.filter(round__simulation=simulation, round__number=part["round"])
            cohort = list(of_round.order_by("client__number").values_list("client__number", flat=True))
            row = ShadowRound.objects.get(shadow__number=2, number=part["round"])
            place = cohort.index(client.number)
            assert (part["value"], part["reward_microtokens"]) == (row.contributions[place], row.rewards[place])
        assert sum(part["reward_microtokens"] for part in parts) == client_shown.context(client, 2)["chosen"]["reward"]


def test_its_page_under_a_shadow_says_so_and_links_to_that_ledger():
    simulation = recorded()
    address = f"/simulations/{simulation.pk}/clients/3/?economy=2"
    page = parse_html(get(address))
    assert "Under wage, which pays nobody: what it would have been." in text(page)
    html = get(address)
    assert f"/ledger/transactions/simulation-{simulation.pk}-2/1/?client=3" in html
    assert f"/ledger/transactions/simulation-{simulation.pk}/1/?client=3" not in html
    assert "clients/4/?economy=2" in html, "the next client, under the same economy"
    assert "which pays nobody" not in get(f"/simulations/{simulation.pk}/clients/3/")
    get(f"/simulations/{simulation.pk}/clients/3/?economy=9", 404)


def test_who_was_never_sampled_has_nothing_in_any_economy():
    simulation = crowd(4, 2)
    ShadowClient.objects.filter(number=4).delete()
    html = get(f"/simulations/{simulation.pk}/clients/4/?economy=1")
    assert "It was in no round" in html


def test_of_large_cohorts_fewer_rounds_are_read(monkeypatch, django_assert_max_num_queries):
    simulation = recorded(1)
    client = simulation.clients.get(number=3)
    client.simulation = simulation
    monkeypatch.setattr(client_shown, "MOST_NUMBERS", 8)  # two cohorts of four
    assert [part["round"] for part in client_shown.context(client, 1)["parts"]] == [2, 3]
    monkeypatch.setattr(client_shown, "MOST_NUMBERS", 1)
    with django_assert_max_num_queries(7):
        assert [part["round"] for part in client_shown.context(client, 1)["parts"]] == [3]
    assert len(client_shown.context(client, 0)["parts"]) == 3


def test_cells_of_who_gets_what_lead_to_the_client_under_that_economy():
    simulation = recorded()
    cells = re.findall(r'<td class="heat-\d".*?</td>', get(f"/simulations/{simulation.pk}/"), flags=re.DOTALL)
    links = [re.search(r'href="([^"]*)"', cell)[1] for cell in cells if "economy" in cell or "clients/" in cell]
    base = f"/simulations/{simulation.pk}/clients"
    assert links[:5] == [f"{base}/1/", *(f"{base}/1/?economy={number}" for number in range(1, 5))]
    assert len(links) == 4 * 5
    for link in links[:5]:
        get(link)
    rows = get(f"/simulations/{simulation.pk}/economies/clients/")
    assert f'href="{base}/2/?economy=3"' in rows
    grouped = elements(by_id(parse_html(get(f"/simulations/{crowd(60, 1).pk}/")), "split-rows"))
    assert not [each for each in grouped if each.name == "a"]
