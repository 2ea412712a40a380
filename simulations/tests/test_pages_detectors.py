"""The page's part about detectors and stakes: scores by client and round, how well they tell, who lost what and why."""

import random
import re

import pytest
from django.test.html import parse_html

from simulations.models import Client, Contribution, Round, Simulation
from simulations.showing import detectors_shown
from simulations.tests.cast import queued
from simulations.tests.pages import attribute, by_id, elements, text
from simulations.tests.test_economies import recorded as unwatched
from simulations.tests.test_pages_economies import HTMX, get
from simulations.tests.test_stakes import DETECTORS, STAKED, recorded

pytestmark = pytest.mark.django_db


def rows(page, id: str) -> list:
    return [element for element in elements(by_id(page, id)) if element.name == "tr"]


def crowd(count: int, rounds: int, cohort: int) -> Simulation:
    """Rows as a run of so many clients leaves them, without the run: the last of each cohort cheats and is found."""
    simulation = queued(
        num_clients=count,
        num_rounds=rounds,
        valuation="data_size",
        detectors=["norm"],
        stake=1.0,
        slashing=[{"detector": "norm", "above": 0.9, "share": 0.1}],
        behaviours={str(client): {"kind": "sign_flip"} for client in range(cohort, count + 1, cohort)},
    )
    Simulation.objects.filter(pk=simulation.pk).update(status="completed", rounds_done=rounds)
    clients = Client.objects.bulk_create(
        Client(
            simulation=simulation,
            number=number,
            num_examples=1,
            label_counts=[1],
            behaviour="honest" if number % cohort else "sign_flip",
        )
        for number in range(1, count + 1)
    )
    draw = random.Random(0)
    for number in range(1, rounds + 1):
        scores = [draw.uniform(0, 0.8) for _ in range(cohort - 1)] + [0.95]
        row = Round.objects.create(
            simulation=simulation,
            number=number,
            cohort_size=cohort,
            pool_microtokens=0,
            treasury_microtokens=0,
            scores={"norm": scores},
            weights_sha256="",
            train_seconds=0,
            evaluate_seconds=0,
            valuation_seconds=0,
            duration_seconds=0,
        )
        first = (number - 1) * cohort % count
        Contribution.objects.bulk_create(
            Contribution(
                round=row,
                client=client,
                value=0.0,
                reward_microtokens=0,
                slashed_microtokens=0 if client.number % cohort else 1000,
                loss_before=1.0,
                update_norm=1.0,
            )
            for client in clients[first : first + cohort]
        )
    return Simulation.objects.get(pk=simulation.pk)


@pytest.mark.database
def test_it_shows_scores_by_client_and_round_and_who_lost_what():
    simulation = recorded()
    page = parse_html(get(f"/simulations/{simulation.pk}/?detector=direction"))
    head, *clients = rows(page, "scores")
    assert text(head) == "Client Round 1 Round 2 Round 3"
    assert [text(row).split()[0] for row in clients] == ["1", "2", "3", "4", "AUC"]
    assert "sign flip" in text(clients[2])
    cells = [cell for cell in elements(clients[2]) if cell.name == "td"]
    for cell, row in zip(cells, simulation.rounds.order_by("number"), strict=True):
        score = row.scores["direction"][2]
        assert attribute(cell, "title") == f"{score!r}, above 0.5; does not play fair"
        assert text(cell) == f"{score:.2f}"
        assert {"heat-named-cell", "underline"} <= set(attribute(cell, "class").split())
    assert text(clients[4]) == "AUC 1.00 1.00 1.00"
    measured = [text(row) for row in rows(page, "measured-rows")]
    assert len(measured) == len(DETECTORS)
    assert "direction 1.000 0.5 3 100.0 % 100.0 %" in measured
    losses = rows(page, "losses")[1:]
    lost = simulation.clients.get(number=3).slashed_microtokens
    amounts = [int(text(row).split()[2].replace(",", "")) for row in losses]
    assert (len(amounts), sum(amounts)) == (3, lost)
    last = losses[-1]
    assert "5,000,000" in text(last)
    assert re.search(r"direction [\d.]+, above 0\.5: 25 % of the stake", text(last))
    links = [attribute(element, "href") for element in elements(last) if element.name == "a"]
    assert links[0] == f"/ledger/transactions/simulation-{simulation.pk}/1/?client=3"
    assert "Why did client 3 get" in get(links[0])


def test_each_economy_and_detector_can_be_chosen():
    simulation = recorded()
    page = parse_html(get(f"/simulations/{simulation.pk}/?watch=1&detector=norm"))
    options = {
        id: [option for option in elements(by_id(page, id)) if option.name == "option"]
        for id in ("watch-of", "detector-of")
    }
    assert [text(option) for option in options["watch-of"]] == ["paying", "burned", "trusted", "alike"]
    chosen = [text(each) for own in options.values() for each in own if "selected" in dict(each.attributes)]
    assert chosen == ["burned", "norm"]
    assert "are burned" in text(by_id(page, "detectors"))
    shown = parse_html(get(f"/simulations/{simulation.pk}/detectors/?watch=2", **HTMX))
    assert "losses" not in {attribute(element, "id") for element in elements(shown)}, "nothing is at stake in it"
    for nonsense in ("?watch=99&detector=x", "?watch=x", "?watch=-1"):
        assert "norm: score of each client" in get(f"/simulations/{simulation.pk}/{nonsense}")


def test_where_nobody_is_watched_there_is_no_such_part():
    simulation = unwatched(0)
    assert "detectors-heading" not in get(f"/simulations/{simulation.pk}/")
    assert "detectors-heading" not in get(f"/simulations/{simulation.pk}/detectors/", **HTMX)


def test_where_nobody_cheats_there_is_nothing_to_find():
    simulation = recorded()
    Simulation.objects.filter(pk=simulation.pk).update(config=simulation.config | {"behaviours": {}})
    html = get(f"/simulations/{simulation.pk}/?detector=direction")
    assert "whoever is above a threshold is a false alarm" in html
    assert "Underlined" not in html


def test_what_changes_comes_by_itself():
    waiting = queued(**STAKED)
    assert 'hx-trigger="simulation-moved from:body' in get(f"/simulations/{waiting.pk}/")
    assert get(f"/simulations/{waiting.pk}/detectors/?parts=1", 204, **HTMX) == ""
    simulation = recorded()
    whole = parse_html(get(f"/simulations/{simulation.pk}/detectors/", **HTMX))
    parts = get(f"/simulations/{simulation.pk}/detectors/?parts=1&detector=direction", **HTMX)
    ids = re.findall(r'id="([^"]+)"[^>]* hx-swap-oob', parts)
    assert ids == ["scores", "measured-rows", "measured-words", "losses"]
    assert all(by_id(whole, id) for id in ids)
    assert "heat-named-cell" in parts, "of the detector that is looked at"


def test_a_thousand_clients_cost_as_many_queries_as_ten(django_assert_num_queries):
    sizes = []
    for count, rounds, cohort in ((10, 2, 5), (1000, 120, 100)):
        simulation = crowd(count, rounds, cohort)
        with django_assert_num_queries(5):  # shadows, rounds, parts, names, payments
            shown = detectors_shown.context(simulation)
        sizes.append(len(get(f"/simulations/{simulation.pk}/detectors/", **HTMX)))
        assert shown["num_losses"] == rounds
        assert shown["detectors"][0]["measured"].thresholds[0].recall == 1.0
    scores = shown["scores"]
    assert (len(scores["columns"]), scores["step"], scores["columns"][-1]) == (40, 3, 120)
    assert (len(scores["rows"]), scores["others"], len(shown["losses"])) == (50, 950, 50)
    assert {row["number"] for row in scores["rows"]} >= set(range(100, 1001, 100)), "those of the highest mean"
    assert max(sizes) < 400_000, sizes


def test_a_crowd_is_looked_at_once_a_round(monkeypatch, django_assert_num_queries):
    monkeypatch.setattr(detectors_shown, "REMEMBERED", 0)
    simulation = crowd(10, 2, 5)
    first = detectors_shown.context(simulation)
    with django_assert_num_queries(1):
        assert detectors_shown.context(simulation) == first
    assert detectors_shown.context(simulation, detector="norm")["detector"] == "norm"


def test_a_score_is_told_with_as_many_digits_as_show_that_it_is_above():
    assert detectors_shown.over(0.97, 0.5) == "0.9700"
    assert detectors_shown.over(0.99000004, 0.99) == "0.99000004"
    assert float(detectors_shown.over(0.1 + 0.2, 0.3)) > 0.3
