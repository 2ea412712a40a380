"""JSON lines of the log say which simulation and which worker they are about."""

import asyncio
import io
import json
import logging

import pytest
from asgiref.sync import sync_to_async

from simulations import logs, processes
from simulations.running import lifecycle


@pytest.fixture
def lines():
    """What has been logged, as objects, newest last."""
    stream, logger = io.StringIO(), logging.getLogger("simulations")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonLines())
    logger.addHandler(handler)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logger.removeHandler(handler)


def test_a_record_is_one_line_with_all_that_one_filters_by(lines):
    logging.getLogger("simulations.showing.feed").warning("Two\nlines of %s", "Zoë")
    (entry,) = lines()
    assert entry.pop("at").endswith("+00:00")
    assert entry == {
        "level": "WARNING",
        "logger": "simulations.showing.feed",
        "process": processes.name(),
        "message": "Two\nlines of Zoë",
    }


def test_it_keeps_the_traceback(lines):
    try:
        raise ValueError("too small")
    except ValueError:
        logging.getLogger("simulations").exception("It broke")
    assert lines()[0]["traceback"].endswith("ValueError: too small")


async def test_a_task_speaks_of_its_own_simulation_and_so_do_its_threads(lines):
    log = logging.getLogger("simulations")

    async def work(number: int) -> None:
        logs.about(simulation=number)
        logs.about(worker="here:1")
        await asyncio.sleep(0)
        await sync_to_async(log.warning)("in a thread")
        await asyncio.create_task(asyncio.to_thread(log.warning, "in a child"))

    await asyncio.gather(work(1), work(2))
    log.warning("outside")
    told = sorted((entry["message"], entry.get("simulation"), entry.get("worker")) for entry in lines())
    expected = [(place, number, "here:1") for place in ("in a child", "in a thread") for number in (1, 2)]
    assert told == [*expected, ("outside", None, None)]


def test_a_claims_owner_begins_with_the_process_that_the_log_names():
    assert lifecycle.new_owner().startswith(f"{processes.name()}:")
