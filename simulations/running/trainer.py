"""The child process that trains: an assignment in on standard input, events out on standard output as JSON lines.

It is the only process that loads PyTorch. Its parent holds the other end of standard input open; when that end closes,
however the parent died, the trainer ends at once. After each round it waits for an empty line, which says that the
round is recorded: a trainer that ran ahead would clear away the checkpoint that a successor needs.
"""

import dataclasses
import json
import os
import signal
import sys
import threading
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from extensions import inside
from training import failpoints
from training.config import SCHEME

RESERVED_BYTES = 512 << 20  # by libraries and threads' stacks, and never touched
# What allocators say where they have nothing left: PyTorch's, OpenMP's and MKL's, the C++ library's, Python's threads.
NO_MEMORY = ("can't allocate memory", "out of memory", "bad_alloc", "cannot allocate memory", "can't start new thread")


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What a trainer is told."""

    config: dict[str, Any]
    data_dir: str
    scheme: int = SCHEME  # under which meaning of the configuration
    checkpoint_dir: str | None = None  # None keeps no checkpoints
    # of the newest recorded rounds, newest first: (round, SHA-256, each economy's state after it)
    checkpoints: tuple[tuple[int, str, list[dict[str, Any]]], ...] = ()
    recorded_rounds: int = 0  # these have been told already
    most_bytes: int | None = None  # of memory
    trainers: int = 1  # that may be at work at once, and so share a GPU's memory
    plugins_dir: str = ""  # the folder of plug-ins
    plugins: tuple[str, ...] = ()  # and installed distributions that have some
    notes: int | None = None  # descriptor of what extensions.inside notes in

    def to_line(self) -> str:
        return json.dumps(dataclasses.asdict(self)) + "\n"

    @classmethod
    def from_line(cls, line: str) -> "Assignment":
        values = json.loads(line)
        values["checkpoints"] = tuple(tuple(each) for each in values["checkpoints"])
        return cls(**values)


def main() -> None:
    pipe = _private_stdout()
    assignment = Assignment.from_line(sys.stdin.readline())
    _bound_memory(assignment.most_bytes)
    if assignment.notes is not None:
        inside.note_in(assignment.notes)
    recorded = threading.Semaphore(0)
    threading.Thread(target=_listen, args=[recorded], daemon=True).start()
    failpoints.reach("trainer_started")
    for kind, line in _lines(assignment):
        pipe.write(line + "\n")
        pipe.flush()
        failpoints.reach("event_told")
        if kind == "round":
            recorded.acquire()


def _bound_memory(most_bytes: int | None) -> None:
    """Beyond it an allocation fails, and the run with a sentence, before the machine starts to kill.

    RLIMIT_DATA: what is written to, not addresses (RLIMIT_AS), of which importing PyTorch alone takes 3.3 GB. It counts
    what is reserved to be written, too.
    """
    if most_bytes is not None and sys.platform == "linux":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = most_bytes + RESERVED_BYTES
        resource.setrlimit(
            resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard)
        )


def _private_stdout() -> TextIO:
    """The real standard output for events alone: what libraries print goes to standard error."""
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return pipe


def _listen(recorded: threading.Semaphore) -> None:
    """Count the parent's words, and die with it, and with us whatever we have started."""
    while sys.stdin.readline():
        recorded.release()
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _lines(assignment: Assignment):
    """The run's events, each with its kind and encoded; an exception ends them with a `failed` event."""
    from simulations.running import events

    try:
        for event in _events(assignment):
            yield event.kind, events.encode(event)
    except Exception as error:
        said = _storable(_sentence(error)), _storable(traceback.format_exc())
        failed = events.Failed(message=said[0], traceback=said[1])
        yield failed.kind, events.encode(failed)


def _events(assignment: Assignment):
    import torch

    from extensions import loading
    from simulations.config import SimulationConfig
    from simulations.running.engine import simulate
    from training import devices

    torch.set_num_threads(1)  # OpenMP's threads wait for each other in vain on a busy machine
    folder = Path(assignment.checkpoint_dir) if assignment.checkpoint_dir else None
    loading.plug_in(assignment.config, Path(assignment.plugins_dir), assignment.plugins)
    config = SimulationConfig.from_record(assignment.config, assignment.scheme)
    devices.share_card(config, assignment.trainers)
    yield from simulate(
        config,
        data_dir=Path(assignment.data_dir),
        checkpoint_dir=folder,
        checkpoints=assignment.checkpoints,
        recorded_rounds=assignment.recorded_rounds,
    )


def _storable(text: str) -> str:
    """Without what no database holds: a plug-in may raise anything."""
    return text.encode("utf-8", "replace").decode().replace("\0", "?")


def _sentence(error: Exception) -> str:
    from extensions.loading import Unavailable
    from training.config import ConfigError
    from training.events import TrainingError

    if _is_lack_of_memory(error):
        return (
            "There is not enough memory for this configuration; a smaller model, or fewer clients in a round "
            "(fraction_fit), need less"
        )
    if isinstance(error, TrainingError | ConfigError | Unavailable):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"The training stopped: {error.strerror}{f': {error.filename}' if error.filename else ''}"
    return f"The training stopped with an unexpected {type(error).__name__}: {error}"


def _is_lack_of_memory(error: BaseException | None) -> bool:
    """Whether this is the cause at bottom: an allocator's own words would help nobody."""
    while error is not None:
        text = str(error).lower()
        if isinstance(error, MemoryError) or any(words in text for words in NO_MEMORY):
            return True
        error = error.__cause__
    return False


if __name__ == "__main__":
    main()
