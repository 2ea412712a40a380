"""The child process that trains: an assignment in on standard input, events out on standard output as JSON lines.

It is the only process that loads PyTorch. Its parent holds the other end of standard input open; when that end closes,
however the parent died, the trainer ends at once.
"""

import dataclasses
import json
import os
import sys
import threading
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What a trainer is told."""

    config: dict[str, Any]
    data_dir: str
    checkpoint_dir: str | None = None  # None keeps no checkpoints
    checkpoints: tuple[tuple[int, str], ...] = ()  # (round, SHA-256) of the newest recorded rounds, newest first
    recorded_rounds: int = 0  # these have been told already

    def to_line(self) -> str:
        return json.dumps(dataclasses.asdict(self)) + "\n"

    @classmethod
    def from_line(cls, line: str) -> "Assignment":
        values = json.loads(line)
        values["checkpoints"] = tuple((number, sha256) for number, sha256 in values["checkpoints"])
        return cls(**values)


def main() -> None:
    pipe = _private_stdout()
    assignment = Assignment.from_line(sys.stdin.readline())
    threading.Thread(target=_die_with_parent, daemon=True).start()
    for line in _lines(assignment):
        pipe.write(line + "\n")
        pipe.flush()


def _private_stdout() -> TextIO:
    """The real standard output for events alone: what libraries print goes to standard error."""
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return pipe


def _die_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def _lines(assignment: Assignment):
    """The run's events, encoded; an exception ends them with a `failed` event."""
    from simulations import events

    try:
        for event in _events(assignment):
            yield events.encode(event)
    except Exception as error:
        yield events.encode(events.Failed(message=_sentence(error), traceback=traceback.format_exc()))


def _events(assignment: Assignment):
    import torch

    from simulations.config import SimulationConfig
    from simulations.engine import simulate

    torch.set_num_threads(1)  # OpenMP's threads wait for each other in vain on a busy machine
    folder = Path(assignment.checkpoint_dir) if assignment.checkpoint_dir else None
    yield from simulate(
        SimulationConfig.from_dict(assignment.config),
        data_dir=Path(assignment.data_dir),
        checkpoint_dir=folder,
        checkpoints=assignment.checkpoints,
        recorded_rounds=assignment.recorded_rounds,
    )


def _sentence(error: Exception) -> str:
    from training.config import ConfigError
    from training.events import TrainingError

    if isinstance(error, TrainingError | ConfigError):
        return str(error)
    if isinstance(error, MemoryError):
        return "The machine has not enough memory for this configuration"
    return f"The training stopped with an unexpected {type(error).__name__}: {error}"


if __name__ == "__main__":
    main()
