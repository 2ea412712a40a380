"""A small cast for tests: people by name, and a clock that is set by hand."""

from __future__ import annotations

import time

import pytest
from django.contrib.auth.models import User

PASSWORD = "long-enough-9"


def ada(**fields) -> User:
    return User.objects.create_user("ada", "ada@example.org", PASSWORD, **fields)


def ben(**fields) -> User:
    return User.objects.create_user("ben", "ben@example.org", PASSWORD, **fields)


class Clock:
    """time.time() for the counters and the cache that they lie in."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_800_000_000.0
        monkeypatch.setattr(time, "time", lambda: self.now)

    def wait(self, seconds: float) -> None:
        self.now += seconds
