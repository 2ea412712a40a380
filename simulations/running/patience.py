"""Waiting for a data base that does not answer: restarted, locked, full."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from channels.db import DatabaseSyncToAsync
from django.db import InterfaceError, OperationalError

log = logging.getLogger(__name__)
SILENCE = (OperationalError, InterfaceError)
RETRY_SECONDS = 1.0


async def insist(call: Callable[..., Any], *arguments: Any, threads: ThreadPoolExecutor | None = None) -> Any:
    """Call with the data base until it answers, in one of `threads` or where this task's calls are always made. The
    call must bear a repeat: whether a COMMIT was done is not known when its answer is lost."""
    while True:
        try:
            return await DatabaseSyncToAsync(call, thread_sensitive=threads is None, executor=threads)(*arguments)
        except SILENCE as error:
            log.warning("The data base does not answer (%s); trying again", in_a_line(error))
            await asyncio.sleep(RETRY_SECONDS)


def in_a_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
