"""Browsers in which somebody has proved who he is, known by a signed cookie.

Not a session and no right at all: it only lets a person pass while others guess his password (people.gates).
"""

from __future__ import annotations

import secrets

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from people.gates import person

COOKIE = "browser"
YEAR_SECONDS = 365 * 24 * 3600


def known(request: HttpRequest, name: str) -> str:
    """The browser's own random name, where this person has used it within a year; else nothing."""
    return request.get_signed_cookie(COOKIE, default="", salt=_salt(name), max_age=YEAR_SECONDS)


def remember(response: HttpResponse, name: str) -> None:
    response.set_signed_cookie(
        COOKIE,
        secrets.token_hex(8),
        salt=_salt(name),
        max_age=YEAR_SECONDS,
        path=settings.SESSION_COOKIE_PATH,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )


def _salt(name: str) -> str:
    return f"browser of {person(name)}"
