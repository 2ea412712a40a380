"""Whether this process can serve: asked every few seconds, and by strangers too."""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.db import connection
from django.db.utils import Error

from simulations.database import unapplied

log = logging.getLogger(__name__)
FREE_BYTES = 64 * 1024 * 1024  # room for some rounds: their rows and checkpoints


def problem() -> str | None:
    """What stands in the way. Hosts, users and folders are for the log alone."""
    try:
        missing = unapplied()
        is_read_only = _is_read_only()
    except Error as error:
        log.warning("Not ready: the database does not answer: %s", error)
        connection.close()
        return "The database does not answer"
    if missing:
        return f"{len(missing)} migrations are missing"
    if is_read_only:
        return "The database cannot be written"
    return next(_full_or_closed(), None)


def _is_read_only() -> bool:
    """A standby, or a file that is not ours to write. No row is written to find out: strangers ask."""
    question = "SHOW transaction_read_only" if connection.vendor == "postgresql" else "PRAGMA query_only"
    with connection.cursor() as cursor:
        cursor.execute(question)
        [answer] = cursor.fetchone()
    file = _database_file()
    return answer in ("on", 1) or bool(file and not os.access(file, os.W_OK))


def _database_file() -> Path | None:
    """SQLite's; None where the database lies elsewhere, or in memory."""
    file = Path(str(connection.settings_dict["NAME"]))
    return file if connection.vendor == "sqlite" and file.is_file() else None


def _full_or_closed() -> Iterator[str]:
    """Folders that this process writes to. A web process whose workers are elsewhere may lack the checkpoints'."""
    checkpoints = settings.FEDSITE_CHECKPOINT_DIR
    folders = {"the database": file.parent} if (file := _database_file()) else {}
    if settings.EMBEDDED_WORKER or checkpoints.exists():
        folders["checkpoints"] = next(each for each in (checkpoints, *checkpoints.parents) if each.exists())
    for name, folder in folders.items():
        try:
            with tempfile.TemporaryFile(dir=folder) as probe:
                probe.write(bytes(4096))
            free = shutil.disk_usage(folder).free
        except OSError as error:
            log.warning("Not ready: %s cannot be written: %s", folder, error)
            yield f"The folder of {name} cannot be written"
            continue
        if free < FREE_BYTES:
            log.warning("Not ready: %s has %s bytes left", folder, free)
            yield f"The disk of {name} is full"
