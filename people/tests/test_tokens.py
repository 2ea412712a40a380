"""A token is known by its secret alone, for as long as it and its owner are good."""

import hashlib
from datetime import timedelta

import pytest
from django.utils import timezone

from people import tokens
from people.models import Token
from people.tests.cast import ada, ben

pytestmark = [pytest.mark.django_db, pytest.mark.database]


def make(owner=None, **fields) -> tuple[Token, str]:
    return tokens.create(owner or ada(), **{"name": "lab", "scope": "write", "expires_at": None} | fields)


def test_it_keeps_a_hash_and_the_beginning_of_the_secret_only():
    token, secret = make()
    stored = Token.objects.values().get()
    assert stored["secret_sha256"] == hashlib.sha256(secret.encode()).hexdigest()
    assert secret.startswith(token.prefix)
    assert len(token.prefix) == 12
    assert secret not in str(stored)


def test_it_draws_256_bits():
    secrets = [make(owner)[1] for owner in (ada(), ben())]
    assert len({*secrets}) == 2
    assert all(len(secret) == len("fed_") + 43 for secret in secrets)


def test_it_knows_the_owner_by_the_secret():
    owner = ada()
    _, secret = make(owner)
    assert tokens.known(secret).owner == owner
    for wrong in ("", secret[:-1], secret + "x", secret.upper(), "fed_"):
        assert tokens.known(wrong) is None


@pytest.mark.parametrize(("age", "known"), [(timedelta(days=1), True), (timedelta(seconds=-1), False)])
def test_it_ends_at_its_time(age, known):
    token, secret = make(expires_at=timezone.now() + age)
    assert (tokens.known(secret) is not None) is known
    assert token.has_expired is not known


def test_a_token_of_somebody_who_was_locked_out_is_not_known():
    owner = ada()
    _, secret = make(owner)
    owner.is_active = False
    owner.save()
    assert tokens.known(secret) is None


def test_it_remembers_its_use_to_within_ten_minutes(django_assert_num_queries):
    token, secret = make()
    tokens.known(secret)
    token.refresh_from_db()
    first = token.last_used_at
    assert timezone.now() - first < timedelta(minutes=1)
    with django_assert_num_queries(1):
        tokens.known(secret)
    Token.objects.update(last_used_at=first - timedelta(minutes=11))
    tokens.known(secret)
    token.refresh_from_db()
    assert token.last_used_at >= first


def test_one_person_has_a_bounded_number(monkeypatch):
    monkeypatch.setattr(tokens, "MOST", 2)
    owner = ada()
    make(owner), make(owner)
    with pytest.raises(tokens.TooMany, match="2 tokens already"):
        make(owner)
    make(ben())
