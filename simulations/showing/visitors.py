"""Who asks, for answers that outlast their question: a stream goes on only for as long as its viewer may look."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Visitor:
    """What access knows of a request's sender, and puts onto the request as `visitor`."""

    key: Hashable  # of the token or the session; visitors of one key are one
    now: Callable[[], Any]  # the user as the database knows him now; None where nobody would be let in any more
