"""A page after N events equals an earlier page with the streamed fragments applied."""

import random
from functools import cache

import pytest
from django.test import Client as Browser
from django.test.html import Element

from simulations.models import Event, Round, Simulation
from simulations.running import lifecycle, worker
from simulations.running.engine import simulate
from simulations.running.recorder import Claim
from simulations.showing import feed, fragments
from simulations.tests.cast import NOWHERE, claimed, config, happened, queued, recorded
from simulations.tests.pages import apply, by_id, live, text

pytestmark = pytest.mark.django_db
PAGES = ("/simulations/{}/", "/?simulation={}")


def shown(simulation_id: int, address: str = PAGES[0]) -> Element:
    return live(Browser().get(address.format(simulation_id)).content.decode())


def fragment(simulation_id: int, after: int) -> tuple[str, int]:
    simulation, events = feed.read_after(simulation_id, after)
    return fragments.render_update(simulation, events), events[-1].sequence


@cache
def crowd() -> tuple:
    """A run with more clients than have their own bar."""
    return tuple(simulate(crowd_config(), data_dir=NOWHERE))


def crowd_config():
    return config(num_clients=60, num_rounds=2, fraction_fit=0.3, valuation="leave_one_out", behaviours={})


@pytest.mark.parametrize(("run", "address"), [("small", PAGES[0]), ("small", PAGES[1]), ("crowd", PAGES[0])])
def test_it_is_the_same_from_wherever_one_came(run, address):
    simulation = lifecycle.queue(config() if run == "small" else crowd_config(), origin="api")
    pages = [shown(simulation.pk, address)]
    claim, after = claimed(simulation), simulation.last_sequence
    for event in happened() if run == "small" else crowd():
        worker.write(claim, event)
        html, after = fragment(simulation.pk, after)
        fresh = shown(simulation.pk, address)
        pages = [apply(page, html) for page in pages]
        assert all(page == fresh for page in pages), html
        pages = [*pages[:1], fresh]
    assert Simulation.objects.get(pk=simulation.pk).is_finished
    assert text(by_id(pages[0], "status")) == "completed"


def test_it_is_the_same_however_events_are_joined():
    draws = random.Random(5)
    simulation = queued()
    page, claim, after = shown(simulation.pk), claimed(simulation), 1
    for event in happened():
        worker.write(claim, event)
        if draws.random() < 0.2 or event is happened()[-1]:
            html, after = fragment(simulation.pk, after)
            page = apply(page, html)
            assert page == shown(simulation.pk)


def test_a_replay_from_the_start_ends_at_the_same_page():
    simulation = queued()
    page = shown(simulation.pk)
    claim = claimed(simulation)
    for event in happened():
        worker.write(claim, event)
    html, after = fragment(simulation.pk, 1)
    assert after == Simulation.objects.get(pk=simulation.pk).last_sequence
    assert apply(page, html) == shown(simulation.pk)


@pytest.mark.parametrize("end", ["failed", "cancelled", "interrupted"])
def test_it_shows_every_end_alike(end):
    simulation = recorded(until=8)
    page, after = shown(simulation.pk), simulation.last_sequence
    claim = recorded_claim(simulation)
    if end == "failed":
        lifecycle.fail(claim, "Client 2: round 3: <b>no</b> gradient", "Traceback:\n  line 1\n")
    if end == "cancelled":
        lifecycle.cancel(simulation.pk)
    if end == "interrupted":
        lifecycle.release(claim)
    page = apply(page, fragment(simulation.pk, after)[0])
    assert page == shown(simulation.pk)
    assert text(by_id(page, "status")) == ("queued" if end == "interrupted" else end)
    assert ("Resume" in text(by_id(page, "actions"))) == (end != "interrupted")
    assert ("&lt;b&gt;no&lt;/b&gt;" in str(page)) == (end == "failed")


def recorded_claim(simulation: Simulation) -> Claim:
    return Claim(simulation_id=simulation.pk, fence=simulation.fence)


def test_a_line_of_the_log_replaces_nothing_else():
    simulation = recorded(until=4)
    line = simulation.events.create(sequence=99, kind="log", message="<i>slow</i>", data={"level": "warning"})
    html = fragments.render_update(simulation, [line])
    assert "log-warning" in html
    assert "&lt;i&gt;slow&lt;/i&gt;" in html
    assert html.count("hx-swap-oob") == 1  # the number of events


def test_an_update_needs_few_queries(django_assert_max_num_queries):
    simulation = recorded()
    events = list(simulation.events.order_by("sequence"))
    with django_assert_max_num_queries(4):
        fragments.render_update(simulation, events)


def test_the_log_shows_the_newest_lines():
    simulation = recorded()
    start, more = simulation.last_sequence, fragments.LOG_LINES
    Event.objects.bulk_create(
        Event(simulation=simulation, sequence=start + n, kind="log", message=f"line {n}") for n in range(1, more + 1)
    )
    before = shown(simulation.pk)
    simulation.last_sequence += more
    simulation.save()
    lines = fragments.log_lines(simulation)
    assert [line.sequence for line in lines] == list(range(start + 1, start + more + 1))
    assert by_id(apply(before, fragment(simulation.pk, start)[0]), "log") == by_id(shown(simulation.pk), "log")


@pytest.mark.parametrize(("num_rounds", "count"), [(3, 3), (500, 500), (501, 252), (1000, 501), (3000, 501)])
def test_page_and_stream_show_the_same_rounds(num_rounds, count):
    simulation = queued(num_rounds=num_rounds)
    Round.objects.bulk_create(a_round(simulation, number) for number in range(1, num_rounds + 1))
    simulation.rounds_done = num_rounds
    rows = fragments.recorded_rows(simulation)
    events = [Event(kind="round", data=a_rounds_data(number)) for number in range(1, num_rounds + 1)]
    assert rows == fragments.streamed_rows(simulation, events)
    assert len(rows) == count
    assert (rows[0]["number"], rows[-1]["number"]) == (1, num_rounds)


def a_round(simulation: Simulation, number: int) -> Round:
    seconds = dict.fromkeys(("train_seconds", "evaluate_seconds", "valuation_seconds", "duration_seconds"), 0.5)
    return Round(
        simulation=simulation,
        number=number,
        cohort_size=2,
        loss=1 / number,
        accuracy=None,
        pool_microtokens=5,
        treasury_microtokens=1,
        weights_sha256="ab",
        **seconds,
    )


def a_rounds_data(number: int) -> dict:
    return {
        "round": number,
        "cohort_size": 2,
        "loss": 1 / number,
        "accuracy": None,
        "paid_microtokens": 4,
        "treasury_microtokens": 1,
        "duration_seconds": 0.5,
    }


def test_the_page_names_where_its_stream_goes_on():
    simulation = recorded(until=5)
    html = Browser().get(f"/simulations/{simulation.pk}/").content.decode()
    assert f'sse-connect="/simulations/{simulation.pk}/stream/?after={simulation.last_sequence}"' in html
    finished = recorded()
    assert "sse-connect" not in Browser().get(f"/simulations/{finished.pk}/").content.decode()
