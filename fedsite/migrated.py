"""A data base that lacks migrations stops the server with a sentence, not with a traceback at the first page."""

from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.db.utils import Error


def unapplied() -> list[str]:
    """Names of the migrations that the data base still lacks."""
    executor = MigrationExecutor(connection)
    return [str(migration) for migration, _ in executor.migration_plan(executor.loader.graph.leaf_nodes())]


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
