"""Lines are recorded together with what comes after them, and late by no more than a moment."""

import asyncio
import time
from contextlib import aclosing

from simulations.running import worker
from simulations.running.events import Log
from simulations.running.worker import LINE_WAITS_SECONDS, together
from simulations.tests.cast import rounds

LINES = [Log(message=f"Line {number}") for number in range(5)]


async def say(*parts):
    """Events, and the seconds of silence between them."""
    for part in parts:
        if isinstance(part, float):
            await asyncio.sleep(part)
        else:
            yield part


async def groups(*parts) -> list[list]:
    async with aclosing(together(say(*parts))) as found:
        return [group async for group in found]


async def test_a_round_takes_its_lines_along_and_goes_alone_without_any():
    first, second, third = rounds()
    said = (*LINES[:2], first, second, LINES[2], third, LINES[3])
    assert await groups(*said) == [[*LINES[:2], first], [second], [LINES[2], third], [LINES[3]]]


async def test_a_line_does_not_wait_for_a_round_that_takes_long():
    begin = time.monotonic()
    async with aclosing(together(say(LINES[0], 0.01, LINES[1], 30.0, rounds()[0]))) as found:
        assert await anext(found) == LINES[:2]
    assert LINE_WAITS_SECONDS <= time.monotonic() - begin < 10


async def test_lines_that_never_end_are_recorded_all_the_same(monkeypatch):
    monkeypatch.setattr(worker, "MOST_LINES", 2)
    assert await groups(*LINES) == [LINES[:2], LINES[2:4], LINES[4:]]


async def test_nothing_is_read_ahead_of_a_round_that_is_not_recorded():
    """The trainer waits for a word after each round; whoever read on would wait for the trainer."""
    read = []

    async def source():
        for event in (LINES[0], rounds()[0], LINES[1]):
            read.append(event)
            yield event

    async with aclosing(together(source())) as found:
        await anext(found)
        await asyncio.sleep(0.05)
        assert read == [LINES[0], rounds()[0]]
