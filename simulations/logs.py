"""Log records as JSON lines (FEDSITE_LOG=json), each with the simulation and the worker that it is about."""

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime

from simulations import processes

subject: ContextVar[dict[str, str | int]] = ContextVar("subject", default={})  # noqa: B039  # never changed in place


def about(**ids: str | int) -> None:
    """What all further records of this task are about, and of the threads and tasks that it starts."""
    subject.set(subject.get() | ids)


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
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)
