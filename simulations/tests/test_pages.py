"""Pages: what they show, what they refuse, and that their cost is bounded."""

import json
import re
from datetime import timedelta

import pytest
from django.template.loader import render_to_string
from django.test import Client as Browser
from django.test.html import parse_html
from django.utils import timezone

from simulations.models import Client, Event, Simulation, Status
from simulations.running import lifecycle
from simulations.running.recorder import Claim
from simulations.showing import results
from simulations.showing.forms import preset_texts
from simulations.tests.cast import config, queued, recorded
from simulations.tests.pages import attribute, by_id, elements, text

pytestmark = pytest.mark.django_db
HTMX = {"HX-Request": "true"}
SMALL = {"dataset": "digits", "num_clients": "4", "num_rounds": "3"}


def get(address: str, status: int = 200, **headers: str) -> str:
    response = Browser().get(address, headers=headers)
    assert response.status_code == status
    return response.content.decode()


def send(address: str, fields: dict[str, str] | None = None, **headers: str):
    return Browser().post(address, fields or {}, headers=headers)


def everywhere() -> list[str]:
    """The address of every kind of page, with something to show."""
    done, running, waiting = recorded(), recorded(until=8), queued()
    lifecycle.cancel(recorded(until=6).pk)
    pages = ["/", f"/?simulation={done.pk}", f"/?simulation={running.pk}", "/simulations/", "/accounts/login/"]
    pages += [f"/simulations/{each.pk}/" for each in (done, running, waiting)]
    pages += [f"/simulations/{done.pk}/clients/", f"/simulations/{done.pk}/clients/2/"]
    return [*pages, "/ledger/", f"/ledger/transactions/simulation-{done.pk}/1/"]


def test_no_page_holds_what_the_content_policy_forbids():
    for address in everywhere():
        html = get(address)
        assert not re.search(
            r"<script(?![^>]*(\ssrc=|\stype=\"application/json\"))|<style|\sstyle=|\son\w+=|javascript:|hx-on", html
        ), address
        assert "unsafe" not in Browser().get(address).headers["Content-Security-Policy"]


def test_every_label_and_description_points_at_something():
    for address in everywhere():
        html = get(address)
        ids = re.findall(r'\sid="([^"]+)"', html)
        assert len(ids) == len(set(ids)), address
        for reference in re.findall(r'\s(?:for|aria-labelledby|aria-describedby|form)="([^"]*)"', html):
            assert set(reference.split()) <= set(ids), (address, reference)


def test_the_first_visit_says_how_to_start():
    html = get("/")
    assert "None yet." in html
    assert "Start Simulation" in html
    assert "There are none yet." in get("/simulations/")
    assert "sse-connect" not in html


def test_home_shows_the_newest_that_is_not_finished():
    running = recorded(until=6)
    recorded()
    assert f'aria-label="Simulation {running.pk}"' in get("/")


def test_a_run_whose_shell_was_killed_is_shown_as_interrupted_and_does_not_hold_the_home_page():
    waiting, shells = queued(), recorded(until=8)
    gone = {
        "origin": "shell",
        "claimed_by": "elsewhere:1:m-1:token",
        "lease_expires_at": timezone.now() - timedelta(hours=1),
    }
    Simulation.objects.filter(pk=shells.pk).update(**gone)
    for _ in range(2):
        page = parse_html(get(f"/simulations/{shells.pk}/"))
        assert text(by_id(page, "status")) == "interrupted"
        assert "Time left" not in text(by_id(page, "summary"))
        assert "Resume" in text(by_id(page, "actions"))
        assert "interrupted" in get("/simulations/")
        assert Browser().get(f"/api/simulations/{shells.pk}/").json()["interrupted"] is True
        assert f"Simulation {waiting.pk}" in get("/")
        lifecycle.claim_next([waiting.pk])  # a worker's look


def test_home_goes_on_showing_what_was_started_there():
    done = recorded()
    queued()
    assert f'aria-label="Simulation {done.pk}"' in get(f"/?simulation={done.pk}")
    for nonsense in ("99", "x", "²", "9" * 30, "-1"):
        assert 'id="live"' in get(f"/?simulation={nonsense}")


def test_start_without_javascript_leads_to_the_simulation():
    response = send("/simulations/", SMALL)
    simulation = Simulation.objects.get()
    assert (response.status_code, response["Location"]) == (302, f"/simulations/{simulation.pk}/")
    assert (simulation.status, simulation.origin, simulation.num_clients) == (Status.QUEUED, "page", 4)
    assert "Simulation 1 is queued".replace("1", str(simulation.pk)) in get(response["Location"])


def test_start_with_htmx_gives_the_live_region_at_once():
    response = send("/simulations/", SMALL, **HTMX)
    simulation = Simulation.objects.get()
    html = response.content.decode()
    assert html.lstrip().startswith('<section id="live"')
    assert f"Simulation {simulation.pk} is queued" in html
    assert f'sse-connect="/simulations/{simulation.pk}/stream/?after=1"' in html
    assert response["HX-Push-Url"] == f"/?simulation={simulation.pk}"


@pytest.mark.parametrize("headers", [{}, HTMX])
def test_a_wrong_field_starts_nothing_and_is_named(headers):
    fields = preset_texts("default") | {"num_clients": "0", "lr": "<b>"}
    response = send("/simulations/", fields, **headers)
    html = response.content.decode()
    assert response.status_code == 422
    assert Simulation.objects.count() == 0
    page = parse_html(html)
    assert text(by_id(page, "error-lr")) == "'<b>' is not a number"
    assert "<b>" not in html
    assert text(by_id(page, "error-num_clients")).startswith("0 is not")
    assert (html.lstrip().startswith("<form"), response.get("HX-Retarget")) == (
        (True, "#start") if headers else (False, None)
    )


def test_the_head_of_a_refusal_names_the_fields_and_leads_to_them():
    html = send("/simulations/", SMALL | {"lr": "x", "pool": "fixed", "pool.fixed.tokens": "-1"}).content.decode()
    said = re.search(r'role="alert">Nothing was started: (.*?)</p>', html)
    expected = '<a class="link" href="#field-{}">{}</a>'
    links = [
        expected.format("lr", "Learning rate"),
        expected.format("pool-fixed-tokens", "Pool of a round, tokens a round"),
    ]
    assert said[1] == f"2 fields cannot be used as entered: {links[0]}, {links[1]}."
    for name in ("lr", "pool-fixed-tokens"):
        assert f'id="field-{name}"' in html


def test_a_wrong_name_that_is_no_field_is_named_too():
    html = send("/simulations/", SMALL | {"alpha": "0.3"}).content.decode()
    assert "alpha: iid has no &#x27;alpha&#x27;" in html
    assert Simulation.objects.count() == 0


@pytest.mark.parametrize("headers", [{}, HTMX])
def test_a_full_queue_is_said_and_starts_nothing(settings, headers):
    settings.FEDSITE_MAX_QUEUED = 1
    queued()
    response = send("/simulations/", SMALL, **headers)
    assert response.status_code == 429
    assert "simulations are waiting already" in response.content.decode()
    assert Simulation.objects.count() == 1


def test_without_javascript_a_running_simulation_reloads_itself():
    refresh = '<noscript><meta http-equiv="refresh"'
    assert refresh in get(f"/simulations/{recorded(until=5).pk}/")
    assert refresh not in get(f"/simulations/{recorded().pk}/")


def test_heads_are_answered():
    assert all(Browser().head(address).status_code == 200 for address in ("/", "/simulations/", "/ledger/"))


def test_a_form_of_another_site_is_refused():
    response = Browser(enforce_csrf_checks=True).post("/simulations/", SMALL)
    assert response.status_code == 403
    assert "Nothing was changed" in response.content.decode()
    assert Simulation.objects.count() == 0


PLANS = ("/simulations/estimate/", "/simulations/split/")


def test_what_a_start_would_take_is_told_and_nothing_is_started(settings):
    line = send(PLANS[0], SMALL | {"partition": "dirichlet", "valuation": "shapley"}).content.decode()
    for figure in ("About ", " MB of memory", "rows", "48 coalitions", "at most about 23.03 tokens"):
        assert figure in line
    table = parse_html(send(PLANS[1], SMALL).content.decode())
    assert [text(row).split()[0] for row in elements(table) if row.name == "tr"][1:] == ["1", "2", "3", "4"]
    wrong = {"num_clients": "0", "lr": "x"}
    assert send(PLANS[0], wrong).content.decode().strip() == "2 fields cannot be used as entered."
    assert "once every field can be used as entered" in send(PLANS[1], wrong).content.decode()
    settings.FEDSITE_MAX_MEMORY = 10**9
    much = send(PLANS[0], SMALL | {"num_clients": "1000", "model": "cnn"}).content.decode()
    assert "1.0 GB are allowed (FEDSITE_MAX_MEMORY)" in much
    assert Simulation.objects.count() == 0


@pytest.mark.parametrize("address", PLANS)
def test_plans_are_for_the_sites_own_pages(address, settings):
    assert Browser().get(address).status_code == 405
    assert Browser(enforce_csrf_checks=True).post(address, SMALL).status_code == 403
    assert send(address, SMALL).headers["Cache-Control"].startswith("max-age=0, no-cache, no-store")
    settings.FEDSITE_ACCESS = "login"
    assert send(address, SMALL).status_code == 302
    assert send(address, SMALL, **HTMX).status_code == 401


def test_the_queue_shows_the_place():
    recorded(until=5)  # running
    first, second = queued(), queued()
    assert "1 ahead" in get(f"/simulations/{first.pk}/place/")
    assert "2 ahead" in get(f"/simulations/{second.pk}/")
    assert get(f"/simulations/{recorded().pk}/place/", 204) == ""


def test_the_list_filters_sorts_and_hides_the_archived():
    done, waiting, hidden = recorded(), queued(model="cnn"), queued()
    Simulation.objects.filter(pk=hidden.pk).update(archived=True)
    assert numbers("/simulations/") == [waiting.pk, done.pk]
    assert numbers("/simulations/?status=completed") == [done.pk]
    assert numbers("/simulations/?model=cnn") == [waiting.pk]
    assert numbers("/simulations/?dataset=mnist") == []
    assert numbers("/simulations/?dataset=digits&status=queued") == [waiting.pk]
    assert numbers("/simulations/?sort=accuracy") == [done.pk, waiting.pk]
    assert numbers("/simulations/?sort=nonsense&status=nonsense&page=nonsense") == [waiting.pk, done.pk]


def numbers(address: str) -> list[int]:
    return [
        int(number)
        for number in re.findall(r'<th scope="row"><a class="link" href="/simulations/(\d+)/"', get(address))
    ]


def test_lists_cost_the_same_however_long(django_assert_max_num_queries):
    for _ in range(3):
        recorded()
    for address, most in (("/", 6), ("/simulations/", 4), ("/simulations/recent/", 4)):
        with django_assert_max_num_queries(most):
            get(address)


def test_pages_of_one_simulation_have_bounded_queries(django_assert_max_num_queries):
    simulation = recorded()
    for address, most in (("", 11), ("clients/", 4), ("clients/2/", 7), ("place/", 2)):
        with django_assert_max_num_queries(most):
            get(f"/simulations/{simulation.pk}/{address}", 204 if address == "place/" else 200)


def test_a_thousand_clients_make_a_page_of_bounded_size():
    simulation = crowd(1000)
    html = get(f"/simulations/{simulation.pk}/")
    assert len(html) < 120_000
    assert "All 1,000 clients" in html
    assert "first 50 of 1,000 clients" in html
    rows = by_id(parse_html(html), "best-rows").children
    assert [text(row).split()[0] for row in rows] == [f"{number:,}" for number in range(1000, 990, -1)]
    assert [text(row).split()[0] for row in by_id(parse_html(html), "worst-rows").children] == [
        str(n) for n in range(1, 11)
    ]


def crowd(count: int) -> Simulation:
    simulation = queued(num_clients=count, behaviours={}, valuation="leave_one_out")
    Client.objects.bulk_create(
        Client(
            simulation=simulation,
            number=number,
            num_examples=10,
            label_counts=[1] * 10,
            behaviour="honest",
            rounds=1,
            contribution=number / 100 - 1,
            reward_microtokens=max(0, number - 100),
        )
        for number in range(1, count + 1)
    )
    return simulation


def test_clients_come_a_hundred_at_a_time_in_any_order():
    simulation = crowd(250)
    address = f"/simulations/{simulation.pk}/clients/"
    assert clients_of(address) == list(range(1, 101))
    assert clients_of(f"{address}?sort=tokens&page=3") == list(range(51, 101))
    assert clients_of(f"{address}?sort=contribution&page=2") == list(range(150, 50, -1))
    assert clients_of(f"{address}?page=99") == list(range(201, 251))
    assert get(address, **HTMX).lstrip().startswith("<div")


def clients_of(address: str) -> list[int]:
    return [int(number) for number in re.findall(r'/clients/(\d+)/"', get(address))]


def test_a_clients_page_shows_its_rounds_and_transfers():
    simulation = recorded()
    html = get(f"/simulations/{simulation.pk}/clients/1/")
    assert html.count('data-value="') == 21  # three rounds: number, sizes, losses, worth, tokens
    assert f"/ledger/transactions/simulation-{simulation.pk}/1/" in html
    rider = get(f"/simulations/{simulation.pk}/clients/2/")
    assert "free rider" in rider
    assert "It was paid nothing." in rider
    payment = f"/ledger/transactions/simulation-{simulation.pk}/3/?client="
    assert html.count(f'{payment}1"') == 2  # of its third round, and of the transfer to it
    assert html.count("/ledger/transactions/") == html.count("?client=1")
    assert rider.count(f'{payment}2"') == 1
    assert "Why did client 2 get nothing?" in get(f"{payment}2")
    assert "Why did client 2 get nothing?" in get(re.search(r'href="(/ledger/transactions/[^"]+)', rider)[1])


def test_a_client_that_was_in_no_round_has_no_picture_of_its_rounds():
    simulation = crowd(3)
    address = f"/simulations/{simulation.pk}/clients/3/"
    html = get(address)
    assert "It has not been in a round yet." in html
    assert html.count("data-chart=") == html.count('class="chart"') == 0
    Simulation.objects.filter(pk=simulation.pk).update(status="completed")
    assert "It was in no round." in get(address)


def test_who_is_waited_for_while_it_runs_was_in_no_cohort_when_it_is_over():
    simulation = crowd(60)
    Client.objects.filter(simulation=simulation, number=3).update(rounds=0)
    Simulation.objects.filter(pk=simulation.pk).update(rounds_done=1)
    address = f"/simulations/{simulation.pk}/"
    assert "1 not in a cohort yet" in get(address)
    Simulation.objects.filter(pk=simulation.pk).update(status="completed")
    assert "1 was in no cohort" in get(address)


@pytest.mark.parametrize("address", ["/", "/simulations/{}/"])
def test_a_page_hears_of_the_end_however_soon_after_the_beginning(address):
    """While an element throttles one trigger, htmx drops every other one of it."""
    html = get(address.format(queued().pk))
    triggers = [attribute(element, "hx-trigger") or "" for element in elements(parse_html(html))]
    assert any("simulation-finished" in trigger for trigger in triggers)
    assert not [trigger for trigger in triggers if "throttle" in trigger and "," in trigger]


@pytest.mark.parametrize(
    "address",
    [
        "/simulations/99/",
        "/simulations/99/clients/",
        "/simulations/99/clients/1/",
        "/simulations/99999999999999999999/",
        "/simulations/99/place/",
        "/nowhere",
    ],
)
def test_what_does_not_exist_is_not_found(address, settings):
    settings.DEBUG = False
    assert "There is no such page" in get(address, 404)


@pytest.mark.parametrize("action", ["cancel", "resume", "again"])
def test_actions_need_a_post_and_a_simulation(action):
    simulation = queued()
    assert Browser().get(f"/simulations/{simulation.pk}/{action}/").status_code == 405
    assert send(f"/simulations/99/{action}/").status_code == 404


def test_cancel_and_resume_from_the_page():
    simulation = recorded(until=8)
    address = f"/simulations/{simulation.pk}/"
    assert send(f"{address}cancel/")["Location"] == address
    assert Simulation.objects.get(pk=simulation.pk).status == Status.CANCELLED
    again = send(f"{address}cancel/")
    assert (again.status_code, "only a queued or running one" in again.content.decode()) == (409, True)
    assert send(f"{address}resume/")["Location"] == address
    assert Simulation.objects.get(pk=simulation.pk).status == Status.QUEUED
    assert send(f"{address}resume/").status_code == 409


def test_run_again_queues_the_same_configuration():
    simulation = recorded()
    response = send(f"/simulations/{simulation.pk}/again/")
    fresh = Simulation.objects.latest("pk")
    assert response["Location"] == f"/simulations/{fresh.pk}/"
    assert fresh.config == simulation.config
    assert fresh.status == Status.QUEUED


def test_the_configuration_shows_each_kind_with_its_own_parameters_and_who_does_what():
    behaviours = {2: {"kind": "label_flip", "from_round": 2}, 3: {"kind": "label_flip", "from_round": 2}}
    population = [{"share": 0.25, "kind": "sign_flip", "scale": 5, "from_round": 2, "to_round": 3}]
    fields = {"num_clients": 8, "behaviours": behaviours, "population": population, "strategy": "fedprox"}
    page = get(f"/simulations/{queued(**fields, partition={'kind': 'dirichlet', 'alpha': 0.3}).pk}/")
    rows = [text(row) for row in elements(parse_html(page)) if row.name == "div"]
    for row in ("Split of the data Dirichlet", "Alpha 0.3", "Strategy FedProx", "Proximal mu 0.1"):
        assert row in rows
    assert rows.index("Alpha 0.3") > rows.index("Split of the data Dirichlet")
    assert not [row for row in rows if row.startswith(("Shards", "Server's", "Malicious"))]
    assert "Behaviours 2-3 label flip, fraction 1, from round 2" in rows
    assert "Population 25 % sign flip, scale 5, from round 2" in rows


def test_what_can_no_longer_be_run_says_why():
    simulation = recorded()
    Simulation.objects.filter(pk=simulation.pk).update(config=simulation.config | {"model": "gone"})
    response = send(f"/simulations/{simulation.pk}/again/")
    assert response.status_code == 422
    assert "can no longer be run" in response.content.decode()


def test_a_failure_is_shown_with_its_traceback_folded():
    simulation = recorded(until=6)
    lifecycle.fail(claim_of(simulation), "Client 2: round 1: <i>too large</i>", "Traceback: <here>")
    html = get(f"/simulations/{simulation.pk}/")
    assert "Client 2: round 1: &lt;i&gt;too large&lt;/i&gt;" in html
    assert re.search(r"<details[^>]*><summary[^>]*>Traceback</summary><pre[^>]*>Traceback: &lt;here&gt;</pre>", html)


def claim_of(simulation: Simulation) -> Claim:
    return Claim(simulation_id=simulation.pk, fence=simulation.fence)


def test_nothing_measured_is_said():
    simulation = lifecycle.queue(config(valuation="none"), origin="page")
    assert "nothing measured or paid" in get(f"/simulations/{simulation.pk}/")


@pytest.mark.parametrize("template", ["404.html", "500.html"])
def test_pages_of_errors_render_without_anything(template):
    assert "fed<span" in render_to_string(template)


def test_the_whole_log_is_whole(client, django_assert_max_num_queries):
    simulation = recorded()
    fresh = range(simulation.last_sequence + 1, 1_201)
    Event.objects.bulk_create(Event(simulation=simulation, sequence=n, kind="log", message="so") for n in fresh)
    Simulation.objects.filter(pk=simulation.pk).update(last_sequence=1_200)
    page = client.get(f"/simulations/{simulation.pk}/").content.decode()
    assert page.count(f'href="/simulations/{simulation.pk}/events/"') == 2
    simulation.refresh_from_db()
    Event.objects.create(simulation=simulation, sequence=1_201, kind="log", message="newer than the row")
    with django_assert_max_num_queries(5):
        events = json.loads("".join(results.log_lines(simulation)))
    assert [event["sequence"] for event in events] == list(range(1, 1_201))
    assert events[0]["kind"] == "queued"
    answer = client.get(f"/simulations/{simulation.pk}/events/")
    assert answer["Content-Type"] == "application/json"
    assert answer["Content-Disposition"] == f'attachment; filename="simulation-{simulation.pk}-events.json"'
    assert client.get(f"/simulations/{simulation.pk + 1}/events/").status_code == 404
