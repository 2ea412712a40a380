"""Mail that leaves after the answer: no answer tells by its time whether there was somebody to write to."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable
from queue import Full, Queue

from django.db import close_old_connections
from django.urls import get_script_prefix, set_script_prefix

log = logging.getLogger(__name__)
MOST_WAITING = 100
PAUSE_SECONDS = 1.0  # by then the answer is gone, however busy the machine

_waiting: Queue[Callable[[], None]] = Queue(MOST_WAITING)


class TooMany(Exception):
    """As many mails wait as may; each takes about a second."""


def later(send: Callable[[], None]) -> None:
    """Call it soon, in a thread of its own, or raise TooMany. What waits is lost with the process."""
    prefix = get_script_prefix()  # of a thread; links need it

    def send_with_links() -> None:
        set_script_prefix(prefix)
        send()

    _start()
    try:
        _waiting.put_nowait(send_with_links)
    except Full:
        log.warning("%d mails wait already; one more was refused", MOST_WAITING)
        raise TooMany from None


def finish() -> None:
    """Wait until all have left."""
    _waiting.join()


@functools.cache
def _start() -> None:
    threading.Thread(target=_send, name="mail", daemon=True).start()


def _send() -> None:
    while True:
        send = _waiting.get()
        time.sleep(PAUSE_SECONDS)
        try:
            send()
        except Exception:
            log.exception("A mail was not sent")
        finally:
            close_old_connections()
            _waiting.task_done()
