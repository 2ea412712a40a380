"""Waiting for a database that does not answer: restarted, locked, full."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from channels.db import DatabaseSyncToAsync
from django.db import Error

from simulations import database

log = logging.getLogger(__name__)
RETRY_SECONDS = 1.0


async def insist(
    call: Callable[..., Any],
    *arguments: Any,
    threads: ThreadPoolExecutor | None = None,
    give_up_seconds: float | None = None,
) -> Any:
    """Call with the database until it answers, in one of `threads` or where this task's calls are always made. The
    call must bear a repeat: whether a COMMIT was done is not known when its answer is lost.

    What will not pass by itself, such as a full disk or a missing column, is waited for as long as `give_up_seconds`,
    then raised; None waits for ever.
    """
    lasts_since = None
    while True:
        try:
            return await DatabaseSyncToAsync(call, thread_sensitive=threads is None, executor=threads)(*arguments)
        except Error as error:
            if not database.is_trouble(error):
                raise
            lasts_since = None if database.passes(error) else lasts_since or time.monotonic()
            if lasts_since and give_up_seconds is not None and time.monotonic() - lasts_since >= give_up_seconds:
                raise
            database.complain(log, error, "trying again")
            await asyncio.sleep(RETRY_SECONDS)
