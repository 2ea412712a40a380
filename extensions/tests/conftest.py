"""Fixtures of plug-ins' tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from extensions import catalogue
from kinds.catalogue import plug


@pytest.fixture
def plugged(settings: Any, tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """`plugged(lab="text", ...)`: a folder with these files, described and in the catalogue until the test ends."""
    settings.FEDSITE_PLUGINS_DIR = tmp_path / "plugins"
    settings.FEDSITE_CHECKPOINT_DIR = tmp_path / "checkpoints"

    def write(**files: str) -> Path:
        settings.FEDSITE_PLUGINS_DIR.mkdir(exist_ok=True)
        for name, text in files.items():
            (settings.FEDSITE_PLUGINS_DIR / f"{name}.py").write_text(text)
        catalogue.current.settle()
        return settings.FEDSITE_PLUGINS_DIR

    yield write
    catalogue.current.__init__()
    plug(())
