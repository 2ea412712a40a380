"""Which plug-ins are switched off, and the sources of those that were used."""

from __future__ import annotations

from django.db import models


class Plugin(models.Model):
    """A kind that was plugged in once, and whether it may be chosen."""

    id = models.CharField(max_length=121, primary_key=True, help_text="file/name, as configurations name it")
    is_enabled = models.BooleanField("enabled", default=True, help_text="whether new runs may choose it")

    class Meta:
        verbose_name = "plug-in"

    def __str__(self) -> str:
        return self.id


class Source(models.Model):
    """The text of a plug-in that a run was queued with. Never changed: its hash is its name."""

    sha256 = models.CharField(max_length=64, primary_key=True, help_text="of what sha256sum prints for the files")
    files = models.JSONField(help_text="text by path")
    recorded_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.sha256[:12]
