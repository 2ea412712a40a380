"""Making a token, and knowing its owner by it."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q
from django.utils import timezone

from people.models import Token

START = "fed_"  # so that secret scanners, and people, know one when they see it
MOST = 50  # tokens of one owner
COARSE = timedelta(minutes=10)  # a token that is used all day costs a write every so often


class TooMany(Exception):
    """The text is a plain sentence."""


def create(owner: Any, *, name: str, scope: str, expires_at: datetime | None) -> tuple[Token, str]:
    """A token and its secret: 256 random bits, so that a plain SHA-256 keeps them. Raises TooMany."""
    if Token.objects.filter(owner=owner).count() >= MOST:
        raise TooMany(f"You have {MOST} tokens already; revoke one that is no longer used")
    secret = START + secrets.token_urlsafe(32)
    digest = sha256(secret)
    token = Token.objects.create(
        owner=owner, name=name, scope=scope, expires_at=expires_at, prefix=secret[:12], secret_sha256=digest
    )
    return token, secret


def sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def known(secret: str) -> Token | None:
    """The token with this secret and its owner, where both are good today. Remembers that it was used."""
    now = timezone.now()
    valid = Token.objects.filter(Q(expires_at=None) | Q(expires_at__gt=now), owner__is_active=True)
    token = valid.select_related("owner").filter(secret_sha256=sha256(secret)).first()
    if token is not None and (token.last_used_at is None or token.last_used_at < now - COARSE):
        Token.objects.filter(pk=token.pk).update(last_used_at=now)
    return token
