"""Which process this is, told apart from every other one of every machine, and whether another one is still alive.

A host's name is no machine: two containers may have the same one, and a laptop gets another one with each network. A
process's number is no process: it is given again. So the name of a process is host:process:birth, where the birth holds
the machine (its boot, and on Linux the PID namespace in which numbers mean something) and when the process began.
"""

import asyncio
import hashlib
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

PROC = Path("/proc")
GIVE_UP_SECONDS = 10  # for what must still be done when we are told to end
GONE = "XZ"  # states of a process that has ended, in /proc/PID/stat


@cache
def machine() -> str:
    """Of this boot of this machine, and on Linux of this PID namespace. Where neither can be known: of this process."""
    try:
        if sys.platform == "darwin":
            boot = _told("sysctl", "-n", "kern.bootsessionuuid")
        else:
            boot = (PROC / "sys/kernel/random/boot_id").read_text().strip() + os.readlink(PROC / "self/ns/pid")
    except OSError:
        boot = ""
    return hashlib.sha256((boot or uuid.uuid4().hex).encode()).hexdigest()[:12]


def name() -> str:
    """host:process:birth, as a claim names it. The host is for people to read."""
    return f"{socket.gethostname()[:99]}:{os.getpid()}:{machine()}-{_own_beginning(os.getpid())}"


def host_and_process(name: str) -> tuple[str, str]:
    """What people want to know of a process's name, or of who has a claim."""
    host, process, *_ = [*name.split(":"), "", ""]
    return host, process


def is_dead(name: str) -> bool:
    """Whether a name, or who has a claim, is a process of this machine that is gone. False where nobody can know."""
    _, number, birth, *_ = [*name.split(":"), "", "", ""]
    where, _, began = birth.partition("-")
    if where != machine() or not number.isdigit():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    begins = _beginning(int(number))
    return bool(began and begins) and begins != began


@cache
def _own_beginning(pid: int) -> str:  # of a number, since a fork is another process
    return _beginning(pid)


def _beginning(pid: int) -> str:
    """When a process began, in its machine's own measure; 'gone' of one that has ended, and empty where unknown."""
    with suppress(OSError):
        if sys.platform == "darwin":
            return _told("ps", "-o", "lstart=", "-p", str(pid)).replace(" ", "").replace(":", "")
        state, *rest = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return "gone" if state in GONE else rest[18]
    return ""


def _told(*command: str) -> str:
    """What a program of the system says; nothing where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"LC_ALL": "C"})
    return done.stdout.strip() if done.returncode == 0 else ""


def end_gently(task: asyncio.Task, *signals: signal.Signals, say: Callable[[], None]) -> None:
    """Let each of the signals be told and cancel the task, which then gives back what it holds.

    A second signal ends the process at once, and so do GIVE_UP_SECONDS. One that is ignored, as after nohup, stays so.
    """
    loop = asyncio.get_running_loop()
    heard = [number for number in signals if signal.getsignal(number) != signal.SIG_IGN]

    def end() -> None:
        say()
        for number in heard:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        signal.alarm(GIVE_UP_SECONDS)
        task.cancel()

    for number in heard:
        loop.add_signal_handler(number, end)
