"""A trainer that has started a whole Ray of its own, from its first word to when nothing is left of it."""

import asyncio
import os
import time

import psutil
import pytest

from simulations.config import SimulationConfig
from simulations.running import trainer
from simulations.running.events import Round
from simulations.running.process import Trainer
from simulations.running.trainer import Assignment

PATIENCE_SECONDS = 30
ENDS = {
    "killed": lambda trainer: trainer.kill(),
    "left alone": lambda trainer: trainer.process.stdin.close(),
}


def group_of(pid: int) -> list[str]:
    """Names of who is alive in the process group that `pid` leads, or led."""
    return [each.info["name"] for each in psutil.process_iter(["name", "pid", "status"]) if _belongs(each, pid)]


def _belongs(process: psutil.Process, pid: int) -> bool:
    try:
        return process.info["status"] != psutil.STATUS_ZOMBIE and os.getpgid(process.pid) == pid
    except ProcessLookupError:
        return False


async def first_round(trainer: Trainer) -> Round:
    """Whatever else Ray prints on standard output would not be an event."""
    return await anext(aiter(event async for event in trainer.events() if event.kind == "round"))


@pytest.mark.parametrize("end", ENDS)
async def test_nothing_of_its_ray_outlives_a_trainer(tmp_path, end):
    config = SimulationConfig.of(dataset="digits", num_clients=4, num_rounds=2, backend="ray")
    trainer = await Trainer.start(Assignment(config=config.to_dict(), data_dir=str(tmp_path)))
    try:
        assert (await first_round(trainer)).round_number == 1
        assert {"raylet", "gcs_server"} <= set(group_of(trainer.process.pid))
        ENDS[end](trainer)
        assert await trainer.ended()
    finally:
        await trainer.close()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (left := group_of(trainer.process.pid)) and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    assert left == []


def test_whatever_an_exception_says_can_be_recorded():
    """Of a plug-in, it may be anything; half of a surrogate pair and NUL are no text to a database."""
    said = trainer._sentence(ValueError("no \ud800 pay\0"))
    assert trainer._storable(said) == "The training stopped with an unexpected ValueError: no ? pay?"
