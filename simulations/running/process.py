"""A trainer as its parent sees it: a child process whose output is a stream of events."""

import asyncio
import contextlib
import dataclasses
import logging
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO

from extensions import inside
from extensions.environment import environment
from simulations.running import events
from simulations.running.trainer import Assignment

log = logging.getLogger(__name__)
PROJECT = Path(__file__).resolve().parents[2]
LINE_LIMIT = 64 * 1024 * 1024  # a round of 10,000 clients is a line of a few MB


class Trainer:
    """One running child. It ends when we do: it watches the standard input that we hold open."""

    def __init__(self, process: asyncio.subprocess.Process, notes: IO[bytes]) -> None:
        self.process = process
        self.notes = notes
        self.last_words: deque[str] = deque(maxlen=30)
        self.listener = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, assignment: Assignment) -> "Trainer":
        notes = inside.shared()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "simulations.running.trainer"),
            cwd=PROJECT,
            env=environment(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LINE_LIMIT,
            start_new_session=True,  # Ctrl-C is the parent's to handle
            pass_fds=[notes.fileno()],
        )
        process.stdin.write(dataclasses.replace(assignment, notes=notes.fileno()).to_line().encode())
        return cls(process, notes)

    async def events(self) -> AsyncIterator[events.Event]:
        """What the child says, until its end. A line that its death has cut short is none."""
        async for line in self.process.stdout:
            if line.endswith(b"\n"):
                yield events.decode(line.decode())

    def go_on(self) -> None:
        """The round that the child told last is recorded; it waits for this."""
        self.process.stdin.write(b"\n")

    async def _listen(self) -> None:
        async for line in self.process.stderr:
            self.last_words.append(line.decode(errors="replace").rstrip())

    def kill(self) -> None:
        if self.process.returncode is None:
            self._kill_group()

    def _kill_group(self) -> None:
        """The child and all that it has started, such as a Ray: it leads a group of its own."""
        with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left of it
            os.killpg(self.process.pid, signal.SIGKILL)

    async def ended(self) -> str:
        """Wait for the end; how it came, in words."""
        code = await self.process.wait()
        self._kill_group()
        await self.listener
        if self.last_words and code:
            log.warning("The trainer's last words:\n%s", "\n".join(self.last_words))
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        return how + (f", inside the plug-in {self.fell_inside}" if self.fell_inside else "")

    @property
    def fell_inside(self) -> str:
        """The plug-in in whose code it has ended by itself; empty where somebody killed it, or in nobody's code."""
        is_killed = self.process.returncode in (None, -signal.SIGKILL, -signal.SIGTERM)
        return "" if is_killed else inside.noted(self.notes)

    async def close(self) -> None:
        self.kill()
        await self.process.wait()
        self.listener.cancel()
        self.process.stdin.close()
        self.notes.close()
