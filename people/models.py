"""Keys that people give to their programs, and gates before passwords. Users themselves are Django's own."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils import timezone


class Scope(models.TextChoices):
    READ = "read"
    WRITE = "write"


class Token(models.Model):
    """Lets a program act for its owner. The secret itself is shown once and kept nowhere."""

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="tokens")
    name = models.CharField(max_length=64, help_text="what for, in the owner's words")
    prefix = models.CharField(max_length=12, help_text="the secret's beginning, to tell tokens apart")
    secret_sha256 = models.CharField(max_length=64, unique=True)
    scope = models.CharField(max_length=5, choices=Scope, default=Scope.READ)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True, help_text="empty: never")
    last_used_at = models.DateTimeField(null=True, blank=True, help_text="to within ten minutes")

    def __str__(self) -> str:
        return f"Token {self.name}"

    @property
    def has_expired(self) -> bool:
        return self.expires_at is not None and self.expires_at <= timezone.now()


class Gate(models.Model):
    """How often something was tried, and when the next attempt is let in. `people.gates` is the only writer."""

    who = models.CharField(max_length=64, unique=True, help_text="SHA-256 of what is counted together")
    tried = models.PositiveIntegerField()
    open_at = models.DateTimeField()
    forgotten_at = models.DateTimeField(db_index=True, help_text="from then on the count begins anew")

    def __str__(self) -> str:
        return f"Gate {self.who[:12]}"
