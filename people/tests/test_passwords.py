"""Changing a password, and having it reset by mail."""

import re
import socket

import pytest
from django.contrib.auth.models import User
from django.core import mail
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from people import gates, mails
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
    user, other = ada(), Client()
    client.force_login(user), other.force_login(user)
    client.post("/account/password/", {"old_password": PASSWORD, "new_password1": NEW, "new_password2": NEW})
    assert client.get("/account/").status_code == 200
    assert other.get("/account/").status_code == 302


def test_guessing_it_in_a_browser_that_is_signed_in_is_slowed_down_too(client, monkeypatch):
    clock = Clock(monkeypatch)
    client.force_login(ada())
    values = {"old_password": "wrong", "new_password1": NEW, "new_password2": NEW}
    answers = [client.post("/account/password/", values) for _ in range(8)]
    assert [answer.status_code for answer in answers] == [200] * 6 + [429] * 2
    assert "Too many attempts. Try again in 2 seconds." in answers[-1].content.decode()
    assert client.post("/account/password/", values | {"old_password": PASSWORD}).status_code == 429
    clock.wait(2)
    unlike = client.post("/account/password/", values | {"old_password": PASSWORD, "new_password2": "other"})
    assert unlike.status_code == 200
    for _ in range(7):  # who knows the password may choose a new one as often as he likes
        assert (
            client.post("/account/password/", values | {"old_password": PASSWORD, "new_password2": ""}).status_code
            == 200
        )
    assert client.post("/account/password/", values | {"old_password": PASSWORD}).status_code == 302


# Mail is sent from another thread, which sees what is committed

by_mail = pytest.mark.django_db(transaction=True)


def ask_for_mail(client, address: str = "ada@example.org", **headers):
    answer = client.post("/accounts/reset/", {"email": address}, headers=headers)
    mails.finish()
    return answer


@by_mail
@pytest.mark.parametrize("access", ["open", "login"])
def test_it_is_reset_by_mail(client, settings, access):
    settings.FEDSITE_ACCESS = access
    ada()
    assert "Forgotten your password?" in client.get("/accounts/login/").content.decode()
    assert ask_for_mail(client)["Location"] == "/accounts/reset/sent/"
    assert client.get("/accounts/reset/sent/").status_code == 200
    (message,) = mail.outbox
    assert message.to == ["ada@example.org"]
    assert "ada on testserver" in message.body
    link = re.search(r"http://testserver(/\S+)", message.body)[1]
    form = client.get(link, follow=True)
    assert "Choose a new password" in form.content.decode()
    done = client.post(form.redirect_chain[-1][0], {"new_password1": NEW, "new_password2": NEW}, follow=True)
    assert "was set" in done.content.decode()
    for n in range(51):  # while others guess, this browser is known
        gates.seconds_to_sign_in("ada", f"10.2.0.{n}")
    assert Client().post("/accounts/login/", {"username": "ada", "password": NEW}).status_code == 429
    assert signs_in(client, NEW)
    assert "used already, or is too old" in client.get(link, follow=True).content.decode()


@by_mail
def test_no_answer_waits_for_mail_so_none_tells_who_has_an_account(client, settings):
    """A mail server that says nothing: what was asked of it is still unsent when the answer is there."""
    ada()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT, settings.EMAIL_TIMEOUT = *silent.getsockname(), 60
        cost = []
        for address in ("nobody@example.org", "ada@example.org"):
            with CaptureQueriesContext(connection) as queries:
                answer = client.post("/accounts/reset/", {"email": address})
            assert answer["Location"] == "/accounts/reset/sent/"
            cost.append([re.sub(r"'[^']*'|\d+", "?", query["sql"]) for query in queries])
        silent.settimeout(60)
        spoken_to, _ = silent.accept()
        with spoken_to:
            assert mails._waiting.unfinished_tasks == 1
    mails.finish()
    assert len(cost[0]) - len(cost[1]) in (0, 1)  # the first one makes the gate of its address
    assert not any("auth_user" in sql for sql in cost[0] + cost[1])


@by_mail
def test_a_stranger_does_not_learn_who_has_an_account(client):
    assert ask_for_mail(client, "nobody@example.org")["Location"] == "/accounts/reset/sent/"
    assert mail.outbox == []


@by_mail
def test_a_mailbox_cannot_be_flooded_from_one_address(client, monkeypatch):
    Clock(monkeypatch)
    ada()
    answers = [ask_for_mail(client) for _ in range(9)]
    assert [answer.status_code for answer in answers] == [302] * 6 + [429] * 3
    assert answers[-1]["Retry-After"] == "2"
    assert len(mail.outbox) == 3


@by_mail
def test_a_mailbox_cannot_be_flooded_from_many_addresses(client, monkeypatch):
    clock = Clock(monkeypatch)
    ada(), User.objects.create_user("ada-2", "ADA@example.org", PASSWORD)
    for n in range(8):
        answer = client.post("/accounts/reset/", {"email": "ada@example.org"}, REMOTE_ADDR=f"10.0.0.{n}")
        assert answer["Location"] == "/accounts/reset/sent/"
        mails.finish()
    assert len(mail.outbox) == 3
    clock.wait(3601)
    ask_for_mail(client)
    assert len(mail.outbox) == 5


@by_mail
@pytest.mark.parametrize(
    ("headers", "more", "domain"),
    [
        ({"host": "testserver:6666"}, {}, "testserver"),
        ({"host": "testserver:80"}, {}, "testserver:80"),  # the port that we listen on
        ({"host": "testserver:80"}, {"FEDSITE_PROXIES": 1}, "testserver"),
        ({"host": "testserver:8443"}, {"CSRF_TRUSTED_ORIGINS": ["http://testserver:8443"]}, "testserver:8443"),
        ({"x-forwarded-host": "evil.example", "x-forwarded-port": "6666"}, {"FEDSITE_PROXIES": 1}, "testserver"),
        ({"host": "testserver:6666", "x-forwarded-port": "6666"}, {"FEDSITE_PROXIES": 1}, "testserver"),
        ({"forwarded": "host=evil.example:1"}, {}, "testserver"),
    ],
)
def test_nobody_forges_where_the_link_leads(client, settings, headers, more, domain):
    ada()
    for name, value in more.items():
        setattr(settings, name, value)
    ask_for_mail(client, **headers)
    assert re.search(r"http://([^/]+)/", mail.outbox[0].body)[1] == domain
