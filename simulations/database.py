"""What may be wrong with the database: whether waiting mends it, and how to say it in a sentence.

Everything else asks here, so that a locked file, a restarted server, a full disk and a missing column are told apart in
one place. Sentences with a path or a host are for those who run the site; visitors are told the reason alone.
"""

import functools
import logging
import sqlite3
import time
from pathlib import Path
from typing import Any

from django.db import DatabaseError, Error, InterfaceError, OperationalError, connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

SILENCE = (OperationalError, InterfaceError)  # what a database says, or Django in its name, that does not answer
LOCKED = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
PASSING_SQLITE = {*LOCKED, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_NOMEM}
# PostgreSQL's classes: connections, rolled back, not available, ended by somebody, lack of anything but of disk.
PASSING_STATES = ("08", "40", "55", "57", "530", "532", "533", "25P03")
READ_ONLY, FULL, UNDEFINED = "25006", "53100", ("42P01", "42703")
COMPLAINT_SECONDS = 60  # between two log lines that say the same
OUTDATED = ("no such table", "no such column", "has no column named")


def name() -> str:
    """Which database it is, for those who run the site: SQLite's file, or PostgreSQL's name and host."""
    kept = connection.settings_dict
    if connection.vendor == "sqlite":
        return str(kept["NAME"])
    return f"{kept['NAME']} on {kept.get('HOST') or 'this machine'}"


def _codes(error: BaseException) -> tuple[int | None, str | None]:
    """SQLite's primary code, and PostgreSQL's state, of the driver's own error below Django's."""
    cause: Any = error.__cause__ or error
    code = getattr(cause, "sqlite_errorcode", None)
    return (None if code is None else code & 0xFF), getattr(cause, "pgcode", None)


def passes(error: BaseException) -> bool:
    """Whether it may answer by itself after a while: it is locked, restarted, out of reach. Not where its disk is full,
    it may not be written, or something in it is missing. A server that is out of reach gives no reason."""
    code, state = _codes(error)
    if code is not None:
        return code in PASSING_SQLITE
    return isinstance(error, SILENCE) and (state is None or state.startswith(PASSING_STATES))


def is_trouble(error: BaseException) -> bool:
    """Whether it is the database's own state that stands in the way, and not what was asked of it."""
    _, state = _codes(error)
    return isinstance(error, SILENCE) or (isinstance(error, DatabaseError) and state in (READ_ONLY, FULL, *UNDEFINED))


def reason(error: BaseException) -> str:
    """Why, in a few plain words that tell strangers nothing of ours."""
    code, state = _codes(error)
    if code in LOCKED:
        return "the database is locked by another process"
    if code == sqlite3.SQLITE_FULL or state == FULL:
        return "the database's disk is full"
    if code == sqlite3.SQLITE_READONLY or state == READ_ONLY:
        return "the database may only be read"
    if state in UNDEFINED or any(words in str(error) for words in OUTDATED):
        return "the database lacks migrations"
    if code == sqlite3.SQLITE_CANTOPEN:
        return "the database's file cannot be opened"
    if code is not None:
        return "the database's file cannot be used"
    return "the database does not answer"


def sentence(error: BaseException) -> str:
    """The same for those who run the site: which database, what its driver says, and what may be done."""
    why, (code, _) = reason(error), _codes(error)
    text = f"{why[0].upper()}{why[1:]}: {name()} ({in_a_line(error)})"
    if "migrations" in why:
        return f"{text}. Run `python manage.py migrate` (or `make run`)"
    if code == sqlite3.SQLITE_CANTOPEN and not (folder := Path(name()).parent).is_dir():
        return f"{text}. There is no folder {folder}"
    return text


def in_a_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


_complained: dict[tuple[str, str], float] = {}  # logger and reason, and when


def complain(log: logging.Logger, error: BaseException, doing: str) -> None:
    """A line for those who run the site, and not one a second while it lasts."""
    now, what = time.monotonic(), (log.name, reason(error))
    if now - _complained.get(what, -COMPLAINT_SECONDS) >= COMPLAINT_SECONDS:
        _complained[what] = now
        log.warning("%s; %s", sentence(error), doing)


# At a start


def require() -> None:
    """SystemExit with what to do, where the database lacks migrations, cannot be reached, or may only be read."""
    try:
        missing = unapplied()
        _require_writable()
    except Error as error:
        raise SystemExit(sentence(error)) from None
    if missing:
        raise SystemExit(
            f"The database lacks {len(missing)} migrations ({missing[0]} first): {name()}. "
            "Run `python manage.py migrate` (or `make run`), then start again."
        )


def unapplied() -> list[str]:
    """Names of the migrations that the database still lacks."""
    applied = MigrationRecorder(connection).applied_migrations()
    return [f"{app}.{name}" for app, name in sorted(_ours() - applied.keys())]


@functools.cache
def _ours() -> frozenset[tuple[str, str]]:
    """App and name of every migration; their files are read once in a process."""
    return frozenset(MigrationLoader(None, ignore_no_migrations=True).graph.nodes)


def _require_writable() -> None:
    """Raises what the database says where it may not be written; one that is locked just now may be."""
    try:
        with connection.cursor() as cursor:
            if connection.vendor == "sqlite":
                if not connection.in_atomic_block:  # which has begun that way
                    cursor.execute("BEGIN IMMEDIATE")
                    cursor.execute("ROLLBACK")
                return
            cursor.execute("SELECT current_setting('transaction_read_only')")
            if cursor.fetchone()[0] == "on":
                raise OperationalError("its transactions are read-only")
    except OperationalError as error:
        if connection.vendor != "sqlite" or not passes(error):
            raise
