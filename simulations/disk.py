"""What lies on disk: how much it is, and which checkpoints nobody needs any more."""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.db import connection

log = logging.getLogger(__name__)
COUNTED_SECONDS = 60  # that a count stays: folders of thousands of runs take a while to walk


def checkpoint_folder(simulation_id: int) -> Path:
    return settings.FEDSITE_CHECKPOINT_DIR / f"simulation-{simulation_id}"


def all_but_final(simulation_id: int) -> list[Path]:
    """Of a completed run: every checkpoint but the last, which holds the final weights."""
    files = sorted(checkpoint_folder(simulation_id).glob("round-*"))
    final = max((path.name for path in files if path.suffix == ".pt"), default="")
    return [path for path in files if path.name != final]


def remove(files: Iterable[Path]) -> None:
    """What cannot be removed stays, and is told; no run fails for it."""
    for path in files:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s could not be removed: %s", path, error.strerror)


@dataclass(frozen=True, kw_only=True)
class Use:
    what: str
    place: str
    bytes: int
    free_bytes: int | None  # on the same disk; None where it is another machine's


_counted: tuple[float, list[Use]] | None = None


def use() -> list[Use]:
    """Database, checkpoints and data, at most a minute old. One query."""
    global _counted
    now = time.monotonic()
    if _counted is None or now - _counted[0] > COUNTED_SECONDS:
        folders = {"checkpoints": settings.FEDSITE_CHECKPOINT_DIR, "data": settings.FEDSITE_DATA_DIR}
        _counted = (now, [_database(), *(_folder(what, Path(place)) for what, place in folders.items())])
    return _counted[1]


def _database() -> Use:
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT pg_database_size(current_database()), current_database()")
            size, place = cursor.fetchone()
            return Use(what="database", place=place, bytes=size, free_bytes=None)
        cursor.execute("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size")
        (size,) = cursor.fetchone()
    file = Path(connection.settings_dict["NAME"])
    wal = file.with_name(f"{file.name}-wal")  # what was written newly and is not in the file yet
    size += wal.stat().st_size if wal.exists() else 0
    return Use(what="database", place=str(file), bytes=size, free_bytes=_free(file))


def _folder(what: str, folder: Path) -> Use:
    return Use(what=what, place=str(folder), bytes=size_of(folder.rglob("*")), free_bytes=_free(folder))


def size_of(files: Iterable[Path]) -> int:
    total = 0
    for path in files:
        with contextlib.suppress(OSError):  # it has gone meanwhile
            total += 0 if path.is_symlink() or not path.is_file() else path.stat().st_size
    return total


def _free(place: Path) -> int | None:
    there = next((path for path in (place, *place.parents) if path.exists()), None)
    return shutil.disk_usage(there).free if there else None
