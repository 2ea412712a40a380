"""Audits that are asked for: who may, whose turn it is, what a lost worker leaves, and that a real site does them."""

import re
import sqlite3
import time
from contextlib import closing
from datetime import timedelta

import httpx
import psutil
import pytest
from django.contrib.auth.models import User
from django.test import Client as Browser
from django.utils import timezone
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from fedsite.tests import servers
from simulations.models import Audit, AuditStatus, Simulation, Starter
from simulations.running import audits, leases, lifecycle, turns
from simulations.running.recorder import StaleClaim
from simulations.tests.cast import claimed, config, queued, recorded
from simulations.tests.test_server import finished, get, start, trainers, wait_for

API = "/api/simulations/"
HTMX = {"HX-Request": "true"}


def done(owned_by: User | None = None) -> Simulation:
    simulation = recorded()
    Simulation.objects.filter(pk=simulation.pk).update(owned_by=owned_by)
    return Simulation.objects.get(pk=simulation.pk)


def expire(claim: audits.Claim) -> None:
    past = timezone.now() - timedelta(seconds=1)
    Audit.objects.filter(pk=claim.audit_id).update(lease_expires_at=past, claimed_by="elsewhere:1:m-1:token")


def post(browser: Browser, path: str, **headers: str):
    return browser.post(path, "{}", content_type="application/json", headers=headers)


# Asking


@pytest.mark.django_db
@pytest.mark.database
def test_it_is_queued_once_and_told():
    simulation, browser = done(), Browser()
    assert browser.get(f"{API}{simulation.pk}/audit/").json() == []
    first = post(browser, f"{API}{simulation.pk}/audit/")
    assert first.status_code == 202
    told = first.json()
    assert (told["status"], told["rounds"], told["num_rounds"], told["difference"]) == ("queued", 0, 3, None)
    assert post(browser, f"{API}{simulation.pk}/audit/").status_code == 202
    assert browser.get(f"{API}{simulation.pk}/audit/").json() == [told]
    assert Audit.objects.count() == 1


@pytest.mark.django_db
@pytest.mark.database
def test_what_has_not_ended_or_has_no_round_is_not_audited():
    waiting, without = queued(), recorded(until=1)
    lifecycle.cancel(without.pk)
    for simulation, why in ((waiting, "is queued"), (without, "is cancelled")):
        refused = post(Browser(), f"{API}{simulation.pk}/audit/")
        assert (refused.status_code, why in refused.json()["detail"]) == (409, True)
        page = Browser().post(f"/simulations/{simulation.pk}/audit/")
        assert (page.status_code, "only a finished run with rounds is audited" in page.content.decode()) == (409, True)
        assert f"/simulations/{simulation.pk}/audit/" not in re.findall(r'action="([^"]*)"', page.content.decode())
    assert not Audit.objects.exists()


@pytest.mark.django_db
@pytest.mark.database
def test_it_counts_among_its_persons_simulations(settings):
    settings.FEDSITE_MAX_PER_ADDRESS = 2
    first, second = done(), done()
    waiting = queued_from(Browser())
    assert post(Browser(), f"{API}{first.pk}/audit/").status_code == 202
    full = post(Browser(), f"{API}{second.pk}/audit/")
    assert (full.status_code, "counting audits" in full.json()["detail"]) == (429, True)
    assert post(Browser(), API).status_code == 429
    lifecycle.cancel(waiting)
    assert post(Browser(), f"{API}{second.pk}/audit/").status_code == 202
    settings.FEDSITE_MAX_PER_ADDRESS, settings.FEDSITE_MAX_QUEUED = 50, 2
    assert "are waiting already" in post(Browser(), API).json()["detail"]
    turns.forget()
    assert Starter.objects.exists()
    for simulation in (first, second):
        audits.cancel(simulation)
    turns.forget()
    assert not Starter.objects.exists(), "an address is forgotten with the last of what it asked for"


def queued_from(browser: Browser) -> int:
    made = post(browser, API)
    assert made.status_code == 201
    return int(made.json()["id"])


def test_audits_and_simulations_take_turns_by_person(db):
    """However many audits one asks for, whoever is new comes next; of one turn simulations go first."""
    runs = [done() for _ in range(3)]
    hers = [audits.ask(run, address="192.0.2.1") for run in runs]
    one, other = (lifecycle.queue(config(), origin="api", address="192.0.2.2") for _ in range(2))
    assert [turns.place_in_queue(each) for each in (one, hers[0], other, hers[1], hers[2])] == [0, 1, 2, 3, 4]
    order = []
    while claim := lifecycle.claim_next():
        if isinstance(claim, audits.Claim):
            order.append(claim.audit_id)
            audits.end(claim, AuditStatus.EQUAL)
        else:
            order.append(f"run {claim.simulation_id}")
            lifecycle.complete(claim, "done")
    assert order == [f"run {one.pk}", hers[0].pk, f"run {other.pk}", hers[1].pk, hers[2].pk]


# Doing


@pytest.mark.django_db
@pytest.mark.database
def test_a_claim_holds_until_it_is_cancelled_taken_over_or_given_back(django_assert_num_queries):
    simulation = done()
    audit = audits.ask(simulation)
    claim = lifecycle.claim_next()
    assert (claim.audit_id, claim.simulation_id, claim.fence) == (audit.pk, simulation.pk, 1)
    with django_assert_num_queries(1):
        assert lifecycle.claim_next() is None
    audits.report(claim, 2)
    assert audits.newest(simulation).rounds == 2
    audits.release(claim)
    again = lifecycle.claim_next()
    assert (again.fence, audits.newest(simulation).rounds) == (2, 0)
    expire(again)
    assert lifecycle.claim_next((), [audit.pk]) is None, "we do not lose it to ourselves"
    taken = lifecycle.claim_next()
    assert taken.fence == 3
    for stale in (claim, again):
        with pytest.raises(StaleClaim):
            audits.report(stale, 3)
    audits.cancel(simulation)
    with pytest.raises(StaleClaim):
        audits.end(taken, AuditStatus.EQUAL, rounds=3)
    with pytest.raises(leases.Conflict, match="waits or runs"):
        audits.cancel(simulation)
    assert audits.newest(simulation).status == "cancelled"
    assert audits.ask(simulation).pk != audit.pk


@pytest.mark.django_db
@pytest.mark.database
def test_one_whose_worker_is_lost_again_and_again_fails():
    simulation = done()
    audits.ask(simulation)
    for _ in range(leases.MOST_LOST):
        expire(lifecycle.claim_next())
    assert lifecycle.claim_next() is None
    assert audits.newest(simulation).problem == "Its worker was lost 3 times in a row"


@pytest.mark.django_db
@pytest.mark.database
def test_a_run_that_goes_on_meanwhile_is_no_concern_of_its_audit():
    simulation = recorded(until=-1)
    lifecycle.cancel(simulation.pk)
    audit = audits.ask(Simulation.objects.get(pk=simulation.pk))
    claim = lifecycle.claim_next()
    lifecycle.resume(simulation.pk)
    run = lifecycle.claim_next()
    assert (run.simulation_id, type(claim)) == (simulation.pk, audits.Claim)
    audits.end(claim, AuditStatus.EQUAL, rounds=3)
    assert lifecycle.stale([run]) == []
    assert Audit.objects.get(pk=audit.pk).status == "equal"


def test_workers_and_metrics_tell_of_audits(db, client):
    user = User.objects.create_superuser("root")
    simulation = done()
    audits.ask(simulation)
    assert 'fedsite_audits{status="queued"} 1' in client.get("/metrics", headers={"host": "localhost"}).content.decode()
    audits.report(lifecycle.claim_next(), 2)
    client.force_login(user)
    html = client.get("/admin/simulations/simulation/workers/").content.decode()
    assert f"Simulation {simulation.pk}</a>, its audit" in html
    assert "2 of 3" in html


# Showing


@pytest.mark.django_db
@pytest.mark.database
def test_its_page_has_a_button_the_state_and_a_way_out(settings):
    settings.FEDSITE_ACCESS = "login"
    people = {name: User.objects.create_user(name) for name in ("ada", "ben", "cora")}
    ada, ben, cora = (Browser() for _ in people)
    for browser, user in zip((ada, ben, cora), people.values(), strict=True):
        browser.force_login(user)
    simulation = done(people["ada"])
    address = f"/simulations/{simulation.pk}/"
    assert ">Audit</button>" in ben.get(address).content.decode()
    asked = ben.post(f"{address}audit/")
    assert asked["Location"] == f"{address}#audit"
    shown = {name: browser.get(address).content.decode() for name, browser in (("ada", ada), ("ben", ben), ("c", cora))}
    assert all('data-audit="queued"' in html for html in shown.values())
    assert ["Cancel the audit" in shown[name] for name in ("ada", "ben", "c")] == [True, True, False]
    assert cora.post(f"{address}audit/cancel/").status_code == 403
    assert post(cora, f"{API}{simulation.pk}/audit/cancel/").status_code == 403
    audits.report(lifecycle.claim_next(), 2)
    part = cora.get(f"{address}audit/", headers=HTMX).content.decode()
    assert "Round 2 of 3 trained again, all equal so far" in part
    assert 'hx-trigger="every 3s"' in part
    over = ben.post(f"{address}audit/cancel/", headers=HTMX).content.decode()
    assert "The audit was cancelled" in over
    assert 'hx-trigger="every' not in over
    assert post(ada, f"{API}{simulation.pk}/audit/cancel/").status_code == 409


@pytest.mark.django_db
@pytest.mark.database
def test_what_was_found_stays_to_be_seen_beside_a_later_one():
    simulation = done()
    audits.ask(simulation)
    audits.end(lifecycle.claim_next(), AuditStatus.DIFFERENT, "round 2: loss is <0.1>, recorded 0.2", rounds=1)
    audits.ask(simulation)
    html = Browser().get(f"/simulations/{simulation.pk}/").content.decode()
    assert "round 2: loss is &lt;0.1&gt;, recorded 0.2" in html
    assert 'data-audit="queued"' in html
    audits.end(lifecycle.claim_next(), AuditStatus.EQUAL, rounds=3, payments=3, economies=1)
    html = Browser().get(f"/simulations/{simulation.pk}/").content.decode()
    assert "3 rounds trained again, 3 payments of 1 economy compared" in html
    assert "Not equal" not in html
    told = Browser().get(f"{API}{simulation.pk}/audit/").json()
    assert [each["status"] for each in told] == ["equal", "different"]
    assert told[1]["difference"].startswith("round 2")


def test_a_run_that_has_not_ended_loads_it_when_it_does(db):
    running = Simulation.objects.get(pk=claimed().simulation_id)
    html = Browser().get(f"/simulations/{running.pk}/").content.decode()
    section = re.search(r'<section id="audit"[^>]*>', html)
    assert section is not None
    assert "simulation-finished from:body" in section[0]
    assert "hidden" in section[0]


# On a real site


def newest(server: servers.Server, number: int) -> dict:
    return httpx.get(f"{server.url}/api/simulations/{number}/audit/").json()[0]


def until(server: servers.Server, number: int, condition) -> dict:
    deadline = time.monotonic() + servers.PATIENCE_SECONDS
    while not condition(told := newest(server, number)):
        assert time.monotonic() < deadline, told
        time.sleep(0.1)
    return told


def ask(server: servers.Server, number: int) -> None:
    assert httpx.post(f"{server.url}/api/simulations/{number}/audit/", json={}).status_code == 202


def is_over(told: dict) -> bool:
    return told["status"] not in ("queued", "running")


def test_a_site_audits_and_neither_its_end_nor_its_death_leaves_a_trainer_or_loses_an_audit(start_server):
    """The server is stopped and killed while it audits: no process outlives it, and the next one begins it anew."""
    server = start_server()
    number = start(server, num_rounds=60, shadows=[{"label": "by size", "valuation": "data_size"}])
    assert wait_for(server, number, finished)["status"] == "completed"
    ask(server, number)
    for what in ("stop", "kill"):
        until(server, number, lambda told: told["rounds"] > 0)
        getattr(server, what)()  # see that no process stays
        server = start_server(server.folder, port=server.port)
    found = until(server, number, is_over)
    assert (found["status"], found["rounds"], found["payments"], found["economies"]) == ("equal", 60, 120, 2)
    wait_for_no_trainer(server)
    before = get(server, number)
    with closing(sqlite3.connect(server.folder / "db.sqlite3")) as file, file:
        file.execute("UPDATE simulations_shadowround SET pool_microtokens = 7 WHERE number = 2")
    ask(server, number)
    found = until(server, number, is_over)
    assert (found["status"], found["rounds"]) == ("different", 1)
    assert found["difference"].startswith("round 2: by size: pool is ")
    assert get(server, number) == before, "the record is as it was"


def test_a_cancelled_audit_ends_its_trainer_and_frees_its_place(start_server):
    server = start_server(FEDSITE_MAX_CONCURRENT="1")
    number = start(server, num_rounds=60)
    wait_for(server, number, finished)
    ask(server, number)
    until(server, number, lambda told: told["status"] == "running")
    later = start(server, num_rounds=1)
    assert get(server, later)["status"] == "queued"
    assert httpx.post(f"{server.url}/api/simulations/{number}/audit/cancel/", json={}).json()["status"] == "cancelled"
    assert wait_for(server, later, finished)["status"] == "completed"
    wait_for_no_trainer(server)


def wait_for_no_trainer(server: servers.Server) -> None:
    deadline = time.monotonic() + servers.STOP_SECONDS
    while alive := [each for each in trainers(server) if each.status() != psutil.STATUS_ZOMBIE]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.1)


def test_on_its_page_one_presses_a_button_reloads_and_sees_what_was_found(browser, server):
    number = start(server, num_rounds=30)
    wait_for(server, number, finished)
    browser.get(f"{server.url}/simulations/{number}/")
    browser.find_element(By.ID, "audit-ask").send_keys(Keys.ENTER)
    shown = "return document.querySelector('[data-audit]')?.dataset.audit"
    wait = WebDriverWait(browser, servers.PATIENCE_SECONDS, poll_frequency=0.1)
    wait.until(lambda _: browser.execute_script(shown) in ("queued", "running"))
    browser.refresh()
    wait.until(lambda _: browser.execute_script(shown) == "equal")
    assert "30 rounds trained again" in browser.find_element(By.ID, "audit").text
    assert browser.get_log("browser") == []
