"""A token made in the shell: its secret alone on standard output, once."""

from datetime import timedelta
from io import StringIO

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from people import tokens
from people.models import Token

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def ada() -> User:
    return User.objects.create_user("ada")


def make_token(*arguments: str) -> str:
    out, err = StringIO(), StringIO()
    call_command("make_token", *arguments, stdout=out, stderr=err)
    assert err.getvalue() == ""
    return out.getvalue()


@pytest.mark.parametrize("scope", ["read", "write"])
def test_it_prints_the_secret_alone(settings, scope):
    settings.FEDSITE_ACCESS = "login"
    printed = make_token("ada", "--scope", scope)
    secret = printed.strip()
    assert printed == f"{secret}\n"
    token = Token.objects.get()
    assert (token.scope, token.owner.username, token.secret_sha256) == (scope, "ada", tokens.sha256(secret))
    headers = {"authorization": f"Bearer {secret}"}
    assert Client().get("/api/simulations/", headers=headers).status_code == 200
    started = Client().post("/api/simulations/", "{}", content_type="application/json", headers=headers)
    assert started.status_code == (201 if scope == "write" else 403)


def test_it_allows_reading_for_three_months_where_nothing_else_is_said():
    make_token("ada")
    token = Token.objects.get()
    assert token.scope == "read"
    assert timedelta(days=89) < token.expires_at - timezone.now() < timedelta(days=91)
    make_token("ada", "--days", "0", "--name", "nightly")
    assert Token.objects.get(name="nightly").expires_at is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nobody"], "USER: there is no active user 'nobody'"),
        (["ben"], "USER: there is no active user 'ben'"),
        (["ada", "--scope", "admin"], "--scope"),
        (["ada", "--days", "-1"], "--days"),
        (["ada", "--days", "many"], "--days"),
        (["ada", "--name", "n" * 65], "--name"),
        (["ada", "--name", "two\nlines"], "--name"),
    ],
)
def test_what_is_wrong_is_named_and_makes_nothing(arguments, said):
    User.objects.create_user("ben", is_active=False)
    with pytest.raises(CommandError, match=said) as error:
        make_token(*arguments)
    assert error.value.returncode in (1, 2)
    assert not Token.objects.exists()


def test_one_person_has_a_bounded_number_of_them(monkeypatch):
    monkeypatch.setattr(tokens, "MOST", 1)
    make_token("ada")
    with pytest.raises(CommandError, match="revoke one"):
        make_token("ada")
