"""Waiting for a data base that does not answer: restarted, locked, full."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from channels.db import database_sync_to_async
from django.db import InterfaceError, OperationalError

log = logging.getLogger(__name__)
SILENCE = (OperationalError, InterfaceError)
RETRY_SECONDS = 1.0


async def insist(call: Callable[..., Any], *arguments: Any) -> Any:
    """Call with the data base until it answers. The call must bear a repeat: whether a COMMIT was done is not known
    when its answer is lost."""
    while True:
        try:
            return await database_sync_to_async(call)(*arguments)
        except SILENCE as error:
            log.warning("The data base does not answer (%s); trying again", in_a_line(error))
            await asyncio.sleep(RETRY_SECONDS)


def in_a_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
