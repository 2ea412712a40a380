"""Places where a test lets the process die, as a power cut would. Stdlib only.

FAILPOINT=name:count ends the process, with status 137 and nothing else, when it reaches that place for the count-th
time. Without the variable nothing happens. Whatever dies, the run must end as if nothing had.
"""

from __future__ import annotations

import os

NAMES = frozenset(
    {
        "trainer_started",  # the trainer has its assignment
        "event_told",  # the trainer has written an event's line
        "checkpoint_written",  # on disk under its temporary name
        "checkpoint_renamed",  # under its own name; the round is not told yet
        "queued",  # the simulation's row is committed, nobody was rung
        "claimed",  # the claim is committed, there is no trainer yet
        "trainer_running",  # it was started, nothing of it is recorded
        "event_heard",  # an event has come out of the pipe and is not recorded
        "lines_written",  # within a transaction, the lines that came before an event, the event not yet
        "contributions_written",  # within a round's transaction
        "reward_posted",  # within a round's transaction, the ledger's part done
        "round_written",  # a round's transaction is about to commit
        "round_committed",  # and has
        "completion_heard",  # all rounds are recorded, the end is not
        "completion_written",  # within the transaction of the end
        "completed",  # it is committed, the trainer still there
    }
)
STATUS = 137  # what a shell says of a process that was killed with -9


def armed(text: str) -> tuple[str, int]:
    """(name, count) of FAILPOINT; ("", 0) of an empty one."""
    if not text:
        return "", 0
    name, _, count = text.partition(":")
    if name not in NAMES or not (count.isascii() and count.isdigit() and int(count)):
        raise ValueError(f"FAILPOINT={text!r}: expected name:count, a name of {', '.join(sorted(NAMES))}")
    return name, int(count)


_name, _left = armed(os.environ.get("FAILPOINT", ""))


def reach(name: str) -> None:
    """This is the place `name`."""
    global _left
    if name == _name:
        _left -= 1
        if _left == 0:
            os._exit(STATUS)
