"""Log records as lines (FEDSITE_LOG=line, json), JSON ones with the simulation and the worker that they are about.

What people type reaches the log: no record becomes two, whatever it holds. A traceback tells of our faults only, not of
requests that were refused.
"""

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime

from django.core.exceptions import RequestAborted

from simulations import processes

subject: ContextVar[dict[str, str | int]] = ContextVar("subject", default={})  # noqa: B039  # never changed in place


def about(**ids: str | int) -> None:
    """What all further records of this task are about, and of the threads and tasks that it starts."""
    subject.set(subject.get() | ids)


class Lines(logging.Formatter):
    """One line a record, characters that are not to be seen escaped; a traceback follows it, set in."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{self.formatTime(record)} {record.levelname} {record.name}: {record.getMessage()}"
        below = traceback_of(self, record).splitlines()
        return "\n    ".join(printable(part) for part in (line, *below))


class JsonLines(logging.Formatter):
    """One JSON object a record; a line break within it is escaped."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": processes.name(),
            **subject.get(),
            "message": record.getMessage(),
        }
        if traceback := traceback_of(self, record):
            entry["traceback"] = traceback
        return json.dumps(entry)


def traceback_of(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    """Empty where Django warns of a client's mistake, which it does with the exception that refused it."""
    theirs = record.levelno < logging.ERROR or record.name.startswith("django.security")
    return "" if theirs or not record.exc_info else formatter.formatException(record.exc_info)


def printable(text: str) -> str:
    """Line breaks and other invisible characters as \\n, \\x1b, \\u2028."""
    if text.isprintable():
        return text
    shown = (one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    return "".join(shown)


class WithoutThoseWhoLeft(logging.Filter):
    """Django asks nobody how its watch for a visitor's going ended where the answer was ready at the same moment, and
    asyncio then calls that an error."""

    def filter(self, record: logging.LogRecord) -> bool:
        left = record.exc_info is not None and isinstance(record.exc_info[1], RequestAborted)
        return not (left and record.name == "asyncio")
