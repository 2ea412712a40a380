"""Changing a password, and having it reset by mail."""

import re

import pytest
from django.core import mail

from people.tests.cast import PASSWORD, Clock, ada

pytestmark = pytest.mark.django_db
NEW = "quite-another-7"


def signs_in(client, password: str) -> bool:
    answer = client.post("/accounts/login/", {"username": "ada", "password": password})
    return answer.status_code == 302


def test_it_is_changed_by_somebody_who_knows_it(client):
    client.force_login(ada())
    values = {"old_password": PASSWORD, "new_password1": NEW, "new_password2": NEW}
    wrong = client.post("/account/password/", values | {"old_password": "wrong"})
    assert wrong.status_code == 200
    assert "aria-invalid" in wrong.content.decode()
    assert client.post("/account/password/", values)["Location"] == "/account/password/changed/"
    assert "was changed" in client.get("/account/password/changed/").content.decode()
    client.post("/accounts/logout/")
    assert not signs_in(client, PASSWORD)
    assert signs_in(client, NEW)


def test_a_change_signs_other_browsers_out(client):
    from django.test import Client

    user, other = ada(), Client()
    client.force_login(user), other.force_login(user)
    client.post("/account/password/", {"old_password": PASSWORD, "new_password1": NEW, "new_password2": NEW})
    assert client.get("/account/").status_code == 200
    assert other.get("/account/").status_code == 302


@pytest.mark.parametrize("access", ["open", "login"])
def test_it_is_reset_by_mail(client, settings, access):
    settings.FEDSITE_ACCESS = access
    ada()
    assert "Forgotten your password?" in client.get("/accounts/login/").content.decode()
    assert client.post("/accounts/reset/", {"email": "ada@example.org"})["Location"] == "/accounts/reset/sent/"
    assert client.get("/accounts/reset/sent/").status_code == 200
    (message,) = mail.outbox
    assert message.to == ["ada@example.org"]
    assert "ada on testserver" in message.body
    link = re.search(r"http://testserver(/\S+)", message.body)[1]
    form = client.get(link, follow=True)
    assert "Choose a new password" in form.content.decode()
    done = client.post(form.redirect_chain[-1][0], {"new_password1": NEW, "new_password2": NEW}, follow=True)
    assert "was set" in done.content.decode()
    assert signs_in(client, NEW)
    assert "used already, or is too old" in client.get(link, follow=True).content.decode()


def test_a_stranger_does_not_learn_who_has_an_account(client):
    assert client.post("/accounts/reset/", {"email": "nobody@example.org"})["Location"] == "/accounts/reset/sent/"
    assert mail.outbox == []


def test_a_mailbox_cannot_be_flooded(client, monkeypatch):
    Clock(monkeypatch)
    ada()
    answers = [client.post("/accounts/reset/", {"email": "ada@example.org"}) for _ in range(9)]
    assert [answer.status_code for answer in answers] == [302] * 6 + [429] * 3
    assert answers[-1]["Retry-After"] == "2"
    assert len(mail.outbox) == 6
