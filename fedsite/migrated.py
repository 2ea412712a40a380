"""A data base that lacks migrations stops the server with a sentence, not with a traceback at the first page."""

import functools

from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.db.utils import Error


def unapplied() -> list[str]:
    """Names of the migrations that the data base still lacks."""
    applied = MigrationRecorder(connection).applied_migrations()
    return [f"{app}.{name}" for app, name in sorted(_ours() - applied.keys())]


@functools.cache
def _ours() -> frozenset[tuple[str, str]]:
    """App and name of every migration; their files are read once in a process."""
    return frozenset(MigrationLoader(None, ignore_no_migrations=True).graph.nodes)


def require_migrations() -> None:
    """SystemExit with what to do, where the data base is behind or cannot be reached."""
    try:
        missing = unapplied()
    except Error as error:
        raise SystemExit(f"The data base cannot be used: {error}") from None
    finally:
        connection.close()
    if missing:
        raise SystemExit(
            f"The data base lacks {len(missing)} migrations ({missing[0]} first). "
            "Run `python manage.py migrate` (or `make run`), then start again."
        )
