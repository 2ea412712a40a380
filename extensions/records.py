"""The kept sources of plug-ins, for pages that know their hash."""

from __future__ import annotations

from extensions.models import Source


def files_of(sha256: str) -> list[tuple[str, str]]:
    """(path, text) of a source that a run was queued with; empty where it is not kept."""
    found = Source.objects.filter(pk=sha256).first() if sha256 else None
    return sorted(found.files.items()) if found else []
