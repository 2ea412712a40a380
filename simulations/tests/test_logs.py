"""JSON lines of the log say which simulation and which worker they are about."""

import asyncio
import io
import json
import logging

import pytest
from asgiref.sync import sync_to_async
from django.core.exceptions import RequestAborted

from simulations import logs, processes
from simulations.running import leases


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


def test_a_claim_begins_with_the_process_that_the_log_names():
    assert leases.new_claimant().startswith(f"{processes.name()}:")


def logged(formatter: logging.Formatter, name: str, text: str, *, level: int, error: Exception | None = None) -> str:
    about = (type(error), error, None) if error else None
    return formatter.format(logging.LogRecord(name, level, __file__, 1, "%s", (text,), about))


def test_what_people_type_forges_no_second_line():
    text = "lab\n2026-01-01 00:00:00,000 INFO people.views: ada made token\r\x1b[2J\u2028\x85 Zoë"
    (line,) = logged(logs.Lines(), "people.views", text, level=logging.INFO).splitlines()
    assert line.endswith(
        r" INFO people.views: lab\n2026-01-01 00:00:00,000 INFO people.views: ada made token\r\x1b[2J\u2028\x85 Zoë"
    )
    broken = logged(logs.Lines(), "x", "It broke", level=logging.ERROR, error=ValueError("a\n2026-01-01 INFO forged"))
    assert broken.splitlines()[1:] == ["    ValueError: a", "    2026-01-01 INFO forged"]


@pytest.mark.parametrize("formatter", [logs.Lines(), logs.JsonLines()])
def test_a_refused_request_is_told_in_one_line(formatter):
    error = ValueError("Invalid HTTP_HOST header")
    for name, level in (("django.security.DisallowedHost", logging.ERROR), ("django.request", logging.WARNING)):
        assert "ValueError" not in logged(formatter, name, "Bad request", level=level, error=error)
    assert "ValueError" in logged(formatter, "django.request", "Broken", level=logging.ERROR, error=error)


def test_a_visitor_who_left_is_no_error():
    def record(logger: str, error: Exception) -> logging.LogRecord:
        return logging.LogRecord(logger, logging.ERROR, "", 0, "Task exception", None, (type(error), error, None))

    keeps = logs.WithoutThoseWhoLeft().filter
    assert not keeps(record("asyncio", RequestAborted()))
    assert keeps(record("asyncio", ValueError()))
    assert keeps(record("django.request", RequestAborted()))
    assert keeps(logging.LogRecord("asyncio", logging.ERROR, "", 0, "plain", None, None))
