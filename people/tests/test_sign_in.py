"""Signing in: slowed down after failures, for one name from one address, on the site and for the admin alike."""

import pytest
from django.conf import settings
from django.core.cache import caches
from django.test import Client

from fedsite.tests import servers
from incentives.tests.test_ledger_concurrency import scratch  # noqa: F401  # a fixture
from people import gates
from people.models import Gate
from people.tests.cast import PASSWORD, Clock, ada, ben

pytestmark = [pytest.mark.django_db, pytest.mark.database]
LOGIN = "/accounts/login/"


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def sign_in(client, name="ada", password="wrong", address="10.0.0.1"):
    return client.post(LOGIN, {"username": name, "password": password}, REMOTE_ADDR=address)


def fail(client, times: int, **who) -> None:
    for _ in range(times):
        assert sign_in(client, **who).status_code == 200


def test_the_first_failures_cost_nothing(client, clock):
    ada()
    fail(client, 5)
    assert sign_in(client, password=PASSWORD).status_code == 302


def test_each_further_failure_doubles_the_pause(client, clock):
    ada()
    fail(client, 6)
    for pause in (2, 4, 8, 16):
        refused = sign_in(client)
        assert (refused.status_code, refused["Retry-After"]) == (429, str(pause))
        assert f"Too many attempts. Try again in {pause} seconds." in refused.content.decode()
        clock.wait(pause - 1)
        assert sign_in(client)["Retry-After"] == "1"
        clock.wait(1)
        assert sign_in(client).status_code == 200


def test_while_it_pauses_the_right_password_is_not_even_tried(client, clock):
    ada()
    fail(client, 6)
    assert sign_in(client, password=PASSWORD).status_code == 429
    clock.wait(2)
    assert sign_in(client, password=PASSWORD).status_code == 302
    fail(client, 5)  # and the count begins anew


def test_the_pause_is_bounded_and_forgotten(client, clock):
    ada()
    fail(client, 6)
    pauses = []
    for _ in range(11):
        pauses.append(int(sign_in(client)["Retry-After"]))
        clock.wait(pauses[-1])
        fail(client, 1)
    assert pauses == [2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]
    clock.wait(3601)
    fail(client, 5)


def test_others_are_not_slowed_down(client, clock):
    ada(), ben()
    fail(client, 6)
    assert sign_in(client).status_code == 429
    assert sign_in(client, address="10.0.0.2", password=PASSWORD).status_code == 302
    assert sign_in(client, name="ben", password=PASSWORD).status_code == 302


def test_spelling_a_name_otherwise_starts_no_new_count(client, clock):
    fail(client, 2, name="ada")
    fail(client, 2, name=" ADA ")
    fail(client, 2, name="\uff41da")  # Django takes a full-width letter for its plain one
    assert sign_in(client).status_code == 429


def test_one_address_cannot_try_one_password_on_everybody(client, clock):
    for n in range(21):
        fail(client, 1, name=f"user-{n}")
    assert sign_in(client, name="user-22").status_code == 429
    assert sign_in(client, name="user-22", address="10.0.0.2").status_code == 200


def test_what_an_address_is_refused_does_not_count_against_the_name(client, clock):
    ada()
    fail(client, 5)
    for n in range(16):
        fail(client, 1, name=f"user-{n}")
    for n in range(20):
        assert sign_in(client, name="ben").status_code == sign_in(client, name=f"user-{n}").status_code == 429
    assert Gate.objects.count() == 1 + 2 * 17  # refusals write nothing
    clock.wait(2)
    ben()
    assert sign_in(client, name="ben", password=PASSWORD).status_code == 302


def test_a_gate_is_not_forgotten_among_others(client, clock):
    """Also not by another process, or after a restart: it lies in no cache."""
    fail(client, 6)
    for n in range(320):
        assert gates.seconds_to_sign_in(f"user-{n}", f"10.1.{n // 250}.{n % 250}") == 0
    for name in settings.CACHES:
        caches[name].clear()
    assert sign_in(client).status_code == 429


def test_many_addresses_that_guess_one_name_are_slowed_down_together(client, clock):
    """And its person is not shut out: not where he was before, nor who waits, nor who reads his mail."""
    ada()
    home, abroad = Client(), Client()
    assert sign_in(home, password=PASSWORD).status_code == 302
    for n in range(51):
        assert gates.seconds_to_sign_in("ada", f"10.2.0.{n}") == 0
    pauses = []
    for n in range(8):
        refused = sign_in(client, address=f"10.3.0.{n}", password=PASSWORD)
        pauses.append(int(refused["Retry-After"]))
        clock.wait(pauses[-1])
        fail(client, 1, address=f"10.3.0.{n}")
    assert pauses == [2, 4, 8, 16, 32, 60, 60, 60]
    assert sign_in(abroad, password=PASSWORD, address="10.4.0.1").status_code == 429
    assert sign_in(home, password=PASSWORD, address="10.4.0.2").status_code == 302
    clock.wait(60)
    assert sign_in(abroad, password=PASSWORD, address="10.4.0.1").status_code == 302
    assert sign_in(abroad, password=PASSWORD, address="10.4.0.3").status_code == 302


def test_a_browser_that_is_known_is_slowed_down_too_and_for_its_person_only(client, clock):
    ada(), ben()
    assert sign_in(client, password=PASSWORD).status_code == 302
    cookie = client.cookies["browser"]
    assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Lax", "/")
    fail(client, 6, address="10.5.0.1")
    assert sign_in(client, address="10.5.0.2").status_code == 429
    for n in range(51):
        assert gates.seconds_to_sign_in("ben", f"10.6.0.{n}") == 0
    assert sign_in(client, name="ben", password=PASSWORD, address="10.7.0.1").status_code == 429
    client.cookies["browser"] = cookie.value[:-1] + "x"
    assert sign_in(client, address="10.5.0.2").status_code == 200  # one that nobody knows


AT_ONCE = """
import time
from concurrent.futures import ThreadPoolExecutor
from django.db import connection
from people import gates
from people.models import Gate

now = time.time()
time.time = lambda: now  # no pause is ever waited out
def attempt(n):
    gates.seconds_to_sign_in("ada", "10.0.0.1")
    gates.seconds_to_sign_in(f"user-{n % 7}", "10.0.0.2")
    connection.close()
with ThreadPoolExecutor(8) as pool:
    list(pool.map(attempt, range(40)))
ways = gates.ways_to_sign_in("ada", "10.0.0.1", "") + gates.ways_to_sign_in("ada", "10.0.0.2", "")[1:2]
print([Gate.objects.get(who=way.key).tried for way in ways])
"""


def test_attempts_in_parallel_do_not_slip_through_together(scratch):  # noqa: F811
    done = servers.run_manage("shell", "-v0", "-c", AT_ONCE, environment=scratch)
    assert (done.stdout, done.stderr) == ("[6, 6, 6, 21]\n", "")


def test_the_admin_has_no_door_of_its_own(client):
    assert client.get("/admin/", follow=True).redirect_chain[-1][0] == f"{LOGIN}?next=/admin/"
    answer = client.post("/admin/login/?next=/admin/people/", {"username": "root", "password": "x"})
    assert answer["Location"] == f"{LOGIN}?next=/admin/people/"


def test_somebody_without_rights_is_told_so(client):
    client.force_login(ada())
    page = client.get("/admin/", follow=True)
    assert "You are signed in as ada, who may not see that page" in page.content.decode()


def test_an_address_behind_proxies_is_the_one_that_the_outermost_saw(client, clock, settings):
    def from_behind(forwarded: str) -> int:
        values = {"username": "ada", "password": "wrong"}
        return client.post(LOGIN, values, REMOTE_ADDR="127.0.0.1", headers={"X-Forwarded-For": forwarded}).status_code

    assert [from_behind(f"6.6.6.{n}") for n in range(7)][-1] == 429  # nobody's word is taken for it
    settings.FEDSITE_PROXIES = 1
    assert [from_behind(f"6.6.6.{n}, 10.0.0.9") for n in range(7)][-1] == 429  # what the visitor wrote there is not
    assert from_behind("10.0.0.10") == 200
    settings.FEDSITE_PROXIES = 2
    assert from_behind("10.0.0.11, 10.0.0.9") == 200
