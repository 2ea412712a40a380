"""A client's page: one time line of what it did and what came of it, its stake, its holder's identities together."""

import pytest
from django.test.html import Element, parse_html

from simulations.models import Client, Contribution, Round, ShadowClient, Simulation
from simulations.showing import client_shown
from simulations.tests.pages import attribute, elements, text
from simulations.tests.test_deviations import recorded as deviating
from simulations.tests.test_pages_detectors import crowd
from simulations.tests.test_pages_economies import get
from simulations.tests.test_stakes import DETECTORS, recorded

pytestmark = pytest.mark.django_db


def tables(simulation: Simulation, number: int, query: str = "") -> dict[str, list[dict[str, Element]]]:
    """Of the page, by the name of each table, its rows by heading."""
    page = parse_html(get(f"/simulations/{simulation.pk}/clients/{number}/{query}"))
    found = {}
    for box in elements(page):
        table = next((each for each in box.children if isinstance(each, Element) and each.name == "table"), None)
        if attribute(box, "role") != "group" or table is None:
            continue
        head, *rows = [
            [cell for cell in row.children if isinstance(cell, Element)] for row in elements(table) if row.name == "tr"
        ]
        found[attribute(box, "aria-label")] = [dict(zip(map(text, head), row, strict=True)) for row in rows]
    return found


@pytest.mark.database
def test_its_time_line_is_what_the_rows_say():
    simulation = recorded()
    rows = tables(simulation, 3)["Values by round"]
    left = 5_000_000
    assert len(rows) == 3
    for number, row in enumerate(rows, 1):
        part = Contribution.objects.get(round__number=number, client__number=3)
        left -= part.slashed_microtokens
        wanted = {
            "Round": number,
            "Reports": part.num_examples,
            "Trained": part.effort,
            "Loss before": part.loss_before,
            "Loss after": part.loss_after,
            "Contribution": part.value,
            "Tokens": part.reward_microtokens / 1e6,
            "Stake left": left / 1e6,
        }
        scores = Round.objects.get(number=number).scores
        labels = {"FoolsGold": "foolsgold", "FLTrust": "fltrust", "loss worsening": "loss_worsening"}
        wanted |= {name: scores[labels.get(name, name)][2] for name in row if labels.get(name, name) in DETECTORS}
        assert len(wanted) == 8 + len(DETECTORS)
        assert {name: float(attribute(row[name], "data-value")) for name in wanted} == wanted
        link = next(each for each in elements(row["Round"]) if each.name == "a")
        assert attribute(link, "href") == f"/ledger/transactions/simulation-{simulation.pk}/{number}/?client=3"
    html = get(f"/simulations/{simulation.pk}/clients/3/")
    assert "Stake left of 5.000" in html
    assert f">{left / 1e6:.3f}</dd>" in html
    moved = tables(simulation, 3)["Newest transfers"]
    assert [text(row["For"]) for row in moved][-2:] == ["stake", "endowment"]
    assert sum(text(row["For"]) == "slash" for row in moved) == 3
    assert "Does" not in rows[0], "it does the same in every round"


def test_what_it_did_is_told_by_round_where_that_changed():
    simulation = recorded()
    behaviours = {"3": {"kind": "sign_flip", "scale": 2.0, "from_round": 2}}
    Simulation.objects.filter(pk=simulation.pk).update(config=simulation.config | {"behaviours": behaviours})
    rows = tables(simulation, 3)["Values by round"]
    assert [text(row["Does"]) for row in rows] == ["honest", "sign flip", "sign flip"]


def test_who_sends_nothing_has_no_scores():
    simulation = recorded()
    Contribution.objects.filter(client__number=2, round__number=2).update(loss_before=None, loss_after=None)
    rows = tables(simulation, 2)["Values by round"]
    assert [bool(attribute(row["norm"], "data-value")) for row in rows] == [True, False, True]


@pytest.mark.database
def test_a_holders_identities_stand_together():
    simulation = deviating("SYBILS")
    for number in (3, 7):
        *rows, together = tables(simulation, number)["Identities"]
        own = Client.objects.filter(simulation=simulation, number__in=[int(text(row["Identity"])) for row in rows])
        assert {3, 7} <= set(own.values_list("number", flat=True))
        assert {each.holder or each.number for each in own} == {3}
        assert f"{sum(own.values_list('reward_microtokens', flat=True)) / 1e6:.3f}" == text(together["Tokens"])
        links = [attribute(each, "href") for row in rows for each in elements(row["Identity"]) if each.name == "a"]
        assert f"/simulations/{simulation.pk}/clients/3/" in links
        current = [row for row in rows if int(text(row["Identity"])) == number]
        assert len(current) == 1
    held = ShadowClient.objects.filter(shadow__simulation=simulation, number__in=own.values("number"))
    *rows, together = tables(simulation, 7, "?economy=1")["Identities"]
    amounts = list(held.order_by("number").values_list("reward_microtokens", flat=True))
    assert [text(row["Tokens"]) for row in rows] == [f"{amount / 1e6:.3f}" for amount in amounts]
    assert text(together["Tokens"]) == f"{sum(amounts) / 1e6:.3f}"
    assert "Identities" not in tables(simulation, 1)


@pytest.mark.database
def test_each_economy_has_its_own_stake_and_scores():
    simulation = recorded()
    for shadow in simulation.shadows.order_by("number"):
        rows = tables(simulation, 3, f"?economy={shadow.number}")["Values by round"]
        left = 5_000_000
        for row, made in zip(rows, shadow.rounds.order_by("number"), strict=True):
            assert float(attribute(row["norm"], "data-value")) == made.scores["norm"][2]
            assert float(attribute(row["Tokens"], "data-value")) == made.rewards[2] / 1e6
            assert ("Stake left" in row) == (made.slashed is not None) == (shadow.label == "burned")
            if made.slashed:
                left -= made.slashed[2]
                assert float(attribute(row["Stake left"], "data-value")) == left / 1e6
    lost = {text(row["Economy"]): text(row["Stake lost"]) for row in tables(simulation, 3)["Economies"]}
    assert lost["paying"] == f"{simulation.clients.get(number=3).slashed_microtokens / 1e6:.3f}"
    assert (lost["burned"] > "0.000", lost["trusted"]) == (True, "0.000")


def test_many_rounds_of_a_crowd_cost_as_many_queries(django_assert_num_queries):
    for count, rounds, cohort in ((10, 2, 5), (1000, 120, 100)):
        simulation = crowd(count, rounds, cohort)
        client = simulation.clients.get(number=cohort)
        client.simulation = simulation
        with django_assert_num_queries(5):  # shadows, parts, scores, places, payments
            shown = client_shown.context(client, 0)
        assert [row["scores"] for row in shown["parts"]] == [[0.95]] * len(shown["parts"])
        assert shown["parts"][-1]["stake"] == shown["stake_left"] + client.slashed_microtokens
