import pytest
from django.core.cache import caches

from people import mails


@pytest.fixture(autouse=True)
def _quick_passwords(settings):
    """Django's hasher takes its time on purpose."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(autouse=True)
def _quick_mail(monkeypatch):
    monkeypatch.setattr(mails, "PAUSE_SECONDS", 0)


@pytest.fixture(autouse=True)
def _no_counters():
    """Each test counts from nought, and leaves no count to others."""
    _forget()
    yield
    _forget()


def _forget() -> None:
    for name in ("default", "shared", "alone"):
        caches[name].clear()
