"""What every command of manage.py can rely on, whatever pipe, terminal or locale it was started in."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any, TextIO

from django.core.management import execute_from_command_line
from django.db import Error

USAGE, BROKEN_PIPE, INTERRUPTED = 2, 128 + 13, 128 + 2  # exit status, as shells tell of SIGPIPE and SIGINT


def main(argv: list[str]) -> None:
    """Run a command. What it prints into files and pipes is UTF-8, and a terminal sees escapes of what it cannot show.
    A reader that has seen enough, as `head` has, or Ctrl-C ends it quietly; a full disk ends it with a sentence."""
    sys.stdout, sys.stderr = _prepared(sys.stdout), _prepared(sys.stderr)
    for place, argument in enumerate(argv[1:], start=1):
        if any("\ud800" <= character <= "\udfff" for character in argument):  # as Python spells bytes of no encoding
            print(f"Argument {place} is not UTF-8: {argument[:80]!a}", file=sys.stderr)
            sys.exit(USAGE)
    try:
        try:
            execute_from_command_line(argv)
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Error as error:
        from simulations import database  # once the apps are loaded

        if "--traceback" in argv or not database.is_trouble(error):
            raise
        sys.exit(database.sentence(error))
    except Unwritable as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), error.fileno)  # or the interpreter would complain when it ends
        if error.errno == errno.EPIPE:
            sys.exit(BROKEN_PIPE)
        sys.exit(f"What was to be printed could not be written: {error.strerror}")


class Unwritable(OSError):
    """Of what we print into, not of a file or a socket that a command uses."""

    fileno = -1


class End(io.FileIO):
    """Standard output or error."""

    def write(self, data: Any) -> int | None:
        try:
            return super().write(data)
        except OSError as error:
            unwritable = Unwritable(error.errno, error.strerror)
            unwritable.fileno = self.fileno()
            raise unwritable from None


def _prepared(stream: TextIO | None) -> TextIO:
    if stream is None:  # it was closed before we were started
        return open(os.devnull, "w")
    end = End(stream.fileno(), "w", closefd=False)
    encoding = stream.encoding if end.isatty() else "utf-8"
    by_line = stream.line_buffering or end.isatty()
    return io.TextIOWrapper(io.BufferedWriter(end), encoding, "backslashreplace", line_buffering=by_line)
