"""Who may come in, and what strangers and wrong addresses are shown."""

import pytest

pytestmark = pytest.mark.django_db


def test_a_wrong_address_is_the_sites_own_page_in_debug_too(client, settings):
    settings.DEBUG = True
    for address in ("/nonsense/", "/simulations/999999/"):
        response = client.get(address)
        assert response.status_code == 404
        assert b"urlpatterns" not in response.content.lower()
        assert b"Start" in response.content
    assert client.get("/api/simulations/999999/").json() == {"detail": "There is no simulation 999999"}


def test_a_stranger_is_led_to_the_sign_in_page(client, settings):
    settings.FEDSITE_ACCESS = "login"
    assert client.get("/ledger/").headers["Location"] == "/accounts/login/?next=/ledger/"
    assert client.get("/accounts/login/").status_code == 200
    fragment = client.get("/ledger/state/", headers={"HX-Request": "true"})
    assert (fragment.status_code, fragment.headers["HX-Redirect"]) == (401, "/accounts/login/")


def test_one_signs_in_and_out(client, settings, django_user_model):
    settings.FEDSITE_ACCESS = "login"
    django_user_model.objects.create_user("ada", password="long-enough-9")
    wrong = client.post("/accounts/login/", {"username": "ada", "password": "wrong"})
    assert wrong.status_code == 200
    right = client.post("/accounts/login/?next=/ledger/", {"username": "ada", "password": "long-enough-9"})
    assert right.headers["Location"] == "/ledger/"
    assert client.get("/ledger/").status_code == 200
    client.post("/accounts/logout/")
    assert client.get("/ledger/").status_code == 302


def test_load_balancers_are_answered_whoever_asks(client, settings):
    settings.FEDSITE_ACCESS = "login"
    assert client.get("/healthz").json() == client.get("/readyz").json() == {"status": "ok"}
