"""Downloads a data set through torchvision, in a child process that can really be given up.

A socket that hangs cannot be interrupted from within, so a child works in a temporary folder and the parent,
once the time is over, kills it. Whole files are then renamed into place; a lock lets two runs that start at
once download once.

Run as a program, this file is the child: it imports PyTorch itself and nothing of this package.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

PROGRAM = Path(__file__)
LOOK_EVERY_SECONDS = 0.1


class DownloadError(Exception):
    """Why there are no files; the text follows 'could not be downloaded: '."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Files that torchvision.datasets.<class_name> brings."""

    label: str
    class_name: str
    files: tuple[str, ...]  # below the data folder

    def there(self, folder: Path) -> int:
        return sum((folder / file).is_file() for file in self.files)


@dataclass(frozen=True, kw_only=True)
class Limit:
    """When to give up."""

    seconds: float
    deadline: float  # of time.monotonic()

    def pause(self) -> None:
        if time.monotonic() >= self.deadline:
            raise DownloadError(f"not finished after {self.seconds:g} s")
        time.sleep(LOOK_EVERY_SECONDS)


def download(wanted: Wanted, data_dir: Path, limit_seconds: float) -> Iterator[str]:
    """Brings the files into `data_dir`, or raises DownloadError; yields sentences on how far it is.

    All in all it takes no longer than `limit_seconds`, the time that another process holds the lock included.
    """
    limit = Limit(seconds=limit_seconds, deadline=time.monotonic() + limit_seconds)
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        # The operating system frees the lock when its holder dies.
        with (data_dir / f".{wanted.class_name}.lock").open("w") as lock:
            yield from _wait_for(lock, wanted, limit)
            if wanted.there(data_dir) < len(wanted.files):
                yield from _download(wanted, data_dir, limit)
    except OSError as error:
        raise DownloadError(f"{data_dir} cannot be written: {error.strerror}") from error


def _wait_for(lock: IO[str], wanted: Wanted, limit: Limit) -> Iterator[str]:
    if _try_lock(lock):
        return
    yield f"Waiting for another run that downloads {wanted.label}"
    while not _try_lock(lock):
        limit.pause()


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _download(wanted: Wanted, data_dir: Path, limit: Limit) -> Iterator[str]:
    prefix = f".{wanted.class_name}-"
    for left_behind in data_dir.glob(f"{prefix}*"):  # by a run that was killed: the lock is ours
        shutil.rmtree(left_behind)
    yield f"Downloading {wanted.label} to {data_dir}"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=data_dir) as folder:
        yield from _run_child(wanted, Path(folder), limit)
        for file in wanted.files:
            (data_dir / file).parent.mkdir(parents=True, exist_ok=True)
            os.replace(Path(folder) / file, data_dir / file)


def _run_child(wanted: Wanted, folder: Path, limit: Limit) -> Iterator[str]:
    # -P: the folder of the program does not shadow other modules. Its standard input ends when this process does.
    command = [sys.executable, "-P", str(PROGRAM), wanted.class_name, str(folder.resolve())]
    with subprocess.Popen(
        command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        try:
            yield from _watch(child, wanted, folder, limit)
        finally:
            child.kill()
        reason = child.stdout.read().strip() if child.stdout else ""
    if child.returncode != 0:
        raise DownloadError(reason or f"the download ended with status {child.returncode}")


def _watch(child: subprocess.Popen[str], wanted: Wanted, folder: Path, limit: Limit) -> Iterator[str]:
    seen = 0
    while child.poll() is None:
        limit.pause()
        there = wanted.there(folder)
        if there > seen:
            yield f"Downloading {wanted.label}: {there} of {len(wanted.files)} files"
        seen = there


def main(class_name: str, folder: str) -> int:
    """The child: 0 once torchvision has checked every file, or 1 and the reason on standard output."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        import torchvision.datasets

        getattr(torchvision.datasets, class_name)(folder, download=True)
    except Exception as error:
        print(" ".join(str(error).split())[:500])
        return 1
    return 0


def _end_with_parent() -> None:
    # Not sys.stdin.read(): a thread that waits in it holds its lock, and Python aborts when it cannot close the file.
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
