"""The account page: tokens are made, shown once, listed and revoked by their owner."""

import re

import pytest

from people import tokens
from people.forms import TokenForm
from people.models import Token
from people.tests.cast import ada, ben

pytestmark = pytest.mark.django_db


@pytest.fixture
def owner(client):
    user = ada()
    client.force_login(user)
    return user


def make(client, **fields):
    return client.post("/account/tokens/", {"name": "lab", "scope": "read", "days": "30"} | fields)


@pytest.mark.parametrize("access", ["open", "login"])
def test_a_stranger_is_led_to_the_sign_in_page(client, settings, access):
    settings.FEDSITE_ACCESS = access
    assert client.get("/account/")["Location"] == "/accounts/login/?next=/account/"
    assert make(client).status_code == 302
    assert not Token.objects.exists()


def test_the_secret_is_shown_once_and_never_again(client, owner):
    response = make(client)
    assert response.status_code == 201
    assert "no-store" in response["Cache-Control"]
    secret = re.search(r'id="secret">(fed_[\w-]+)<', response.content.decode())[1]
    token = tokens.known(secret)
    assert (token.owner, token.name, token.scope) == (owner, "lab", "read")
    assert 29 <= (token.expires_at - token.created_at).days <= 30
    again = client.get("/account/").content.decode()
    assert secret not in again
    assert token.prefix in again


def test_a_token_may_be_valid_until_it_is_revoked(client, owner):
    make(client, days="0", scope="write")
    token = Token.objects.get()
    assert (token.expires_at, token.scope) == (None, "write")


@pytest.mark.parametrize("fields", [{"name": ""}, {"name": "x" * 65}, {"scope": "all"}, {"days": "7"}, {"days": "x"}])
def test_a_wrong_field_makes_nothing(client, owner, fields):
    response = make(client, **fields)
    assert response.status_code == 422
    assert f'id="id_{next(iter(fields))}_error"' in response.content.decode()
    assert not Token.objects.exists()


def test_too_many_are_refused_in_plain_words(client, owner, monkeypatch):
    monkeypatch.setattr(tokens, "MOST", 1)
    make(client)
    response = make(client)
    assert response.status_code == 409
    assert "1 tokens already" in response.content.decode()


def test_the_owner_alone_revokes_it(client, owner):
    theirs, secret = tokens.create(ben(), name="theirs", scope="read", expires_at=None)
    make(client)
    mine = Token.objects.get(owner=owner)
    assert "theirs" not in client.get("/account/").content.decode()
    assert client.post(f"/account/tokens/{theirs.pk}/revoke/").status_code == 404
    assert client.get(f"/account/tokens/{mine.pk}/revoke/").status_code == 405
    assert client.post(f"/account/tokens/{mine.pk}/revoke/")["Location"] == "/account/"
    assert list(Token.objects.all()) == [theirs]
    assert tokens.known(secret) == theirs


def test_the_page_keeps_the_content_policy_and_its_ids(client, owner):
    make(client)
    for address in ("/account/", "/account/password/", "/accounts/login/", "/accounts/reset/"):
        html = client.get(address).content.decode()
        assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=|javascript:", html), address
        ids = re.findall(r'\sid="([^"]+)"', html)
        assert len(ids) == len(set(ids)), address
        for reference in re.findall(r'\s(?:for|aria-labelledby|aria-describedby|form)="([^"]*)"', html):
            assert set(reference.split()) <= set(ids), (address, reference)


def test_the_page_asks_few_questions(client, owner, django_assert_max_num_queries):
    for n in range(20):
        tokens.create(owner, name=str(n), scope="read", expires_at=None)
    with django_assert_max_num_queries(4):
        client.get("/account/")


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2J", "a\x00b", "a\u2028b"])
def test_the_name_of_a_token_is_one_line(name):
    form = TokenForm({"name": name, "scope": "read", "days": "90"})
    assert "name" in form.errors
