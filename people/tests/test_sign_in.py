"""Signing in: slowed down after failures, for one name from one address, on the site and for the admin alike."""

import pytest

from people.tests.cast import PASSWORD, Clock, ada, ben

pytestmark = pytest.mark.django_db
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
    fail(client, 3, name="ada")
    fail(client, 3, name=" ADA ")
    assert sign_in(client).status_code == 429


def test_one_address_cannot_try_one_password_on_everybody(client, clock):
    for n in range(21):
        fail(client, 1, name=f"user-{n}")
    assert sign_in(client, name="user-22").status_code == 429
    assert sign_in(client, name="user-22", address="10.0.0.2").status_code == 200


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
