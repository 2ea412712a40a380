"""The plug-ins of this moment, for processes that run none of them: pages, the worker's parent, the shell.

`kinds` calls `look` whenever its catalogue is read. That costs a few `stat` at most once a second; what has changed is
described in the background, by children, and whoever has found the change waits a little for it. Until it is described,
a file that has changed offers what it was last described with; whoever needs its source of now calls `settle`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import Error

from extensions import discovery
from extensions.descriptions import Description, described
from extensions.discovery import Candidate
from kinds import Kind
from kinds.catalogue import before_reading, plug

log = logging.getLogger(__name__)
LOOK_SECONDS = 1.0  # between two looks
PATIENCE = 2.0  # seconds that a page waits for what has just changed
AT_ONCE = 2  # children
LONGEST_PAUSE = 60.0  # seconds until a file that changes all the time is described again


@dataclass(frozen=True, kw_only=True)
class Member:
    """A kind of a plug-in, and whether it can be chosen."""

    kind: Kind
    is_enabled: bool = True
    results: tuple[Mapping[str, Any], ...] = ()
    refused: str = ""  # why it cannot, in a sentence

    @property
    def is_offered(self) -> bool:
        return self.is_enabled and not self.refused


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file or an entry point, as people see it."""

    where: str
    error: str = ""
    traceback: str = ""
    sha256: str = ""
    source: Mapping[str, str]
    is_waiting: bool = False
    members: tuple[Member, ...] = ()

    @property
    def is_broken(self) -> bool:
        return bool(self.error) or any(member.refused for member in self.members)


def entries_of(descriptions: Iterable[Description], disabled: frozenset[str]) -> list[Entry]:
    """Each with its kinds. An id that is there twice is an error of both, which names both."""
    descriptions = list(descriptions)
    places: dict[str, list[str]] = {}
    for description in descriptions:
        for kind in description.kinds:
            places.setdefault(kind.name, []).append(description.candidate.where)
    found = []
    for description in descriptions:
        twice = [kind.name for kind in description.kinds if len(places[kind.name]) > 1]
        error = description.error
        if twice:
            error = f"there are two of {twice[0]}: in {' and in '.join(places[twice[0]])}"
        members = tuple(
            Member(
                kind=kind,
                is_enabled=kind.name not in disabled,
                results=tuple(description.results(kind)),
                refused=_refusal(description, kind) or error,
            )
            for kind in description.kinds
        )
        found.append(
            Entry(
                where=description.candidate.where,
                error=error,
                traceback=description.traceback,
                sha256=description.sha256,
                source=description.source,
                is_waiting=description.is_waiting,
                members=members,
            )
        )
    return found


def _refusal(description: Description, kind: Kind) -> str:
    return "; ".join(
        f"{result['check']} ({result['says']}) does not hold: {result['witness']}"
        if result["status"] == "refused"
        else f"it claims {result['check']}, which does not hold: {result['witness']}"
        for result in description.refusals(kind)
    )


class Catalogue:
    """What one process knows. Threads share it."""

    def __init__(self) -> None:
        self._looking = threading.Lock()
        self._changing = threading.Lock()
        self._next_look = 0.0
        self._candidates: list[Candidate] = []
        self._known: dict[Candidate, Description] = {}
        self._seen: dict[Candidate, tuple[Any, ...]] = {}  # how the files of a description looked
        self._pending: dict[Candidate, Future[None]] = {}
        self._often: dict[str, tuple[int, float]] = {}  # how often it has changed of late, and when at last
        self._disabled: frozenset[str] = frozenset()
        self._published: tuple[Any, ...] = ()
        self._children: ThreadPoolExecutor | None = None

    def look(self, patience: float = PATIENCE) -> None:
        """Sees what has changed since the last look. Never raises, and waits `patience` seconds at most."""
        now = time.monotonic()
        if now < self._next_look or not self._looking.acquire(blocking=False):
            return
        try:
            self._next_look = now + LOOK_SECONDS
            self._look(patience)
        except Exception:
            log.exception("The plug-ins could not be looked at")
        finally:
            self._looking.release()

    def settle(self, seconds: float = 600.0, namespaces: Collection[str] | None = None) -> bool:
        """Looks now, and waits until everything, or all of these namespaces, is described as it is now; False where
        that took more than `seconds`."""
        with self._looking:
            self._next_look = time.monotonic() + LOOK_SECONDS
            return self._look(seconds, lambda candidate: namespaces is None or candidate.namespace in namespaces)

    def _look(self, patience: float, is_needed: Callable[[Candidate], bool] | None = None) -> bool:
        """Waits for what is needed, or without that for what has just begun."""
        candidates = discovery.look(Path(settings.FEDSITE_PLUGINS_DIR), settings.FEDSITE_PLUGINS)
        in_loop = _in_event_loop()
        if candidates and not in_loop:
            self._disabled = self._switched_off()
        with self._changing:
            self._candidates = candidates
            before = {}
            for candidate in [each for each in self._known if each not in candidates]:
                before[candidate.where] = self._known.pop(candidate)
                self._seen.pop(candidate, None)
            for candidate in candidates:
                if candidate not in self._known and (old := before.get(candidate.where)):
                    self._known[candidate] = replace(old, candidate=candidate, is_waiting=True)
        fresh = []
        for candidate in candidates:
            if candidate in self._pending:
                continue
            known = self._known.get(candidate)
            if known is None or known.is_waiting or self._seen.get(candidate) != _signature(candidate, known):
                often, at = self._often.get(candidate.where, (0, 0.0))
                since = time.monotonic() - at
                pause = min(LONGEST_PAUSE, 2.0 ** (often - 3)) if often else 0.0
                if since < pause and not (is_needed and is_needed(candidate)):
                    continue  # a file that writes itself would keep a child busy for ever
                self._often[candidate.where] = (1 if since > 2 * LONGEST_PAUSE else often + 1, time.monotonic())
                fresh.append(self._describe(candidate))
        # What has been waited for once is not waited for again: a page reads the catalogue many times.
        waited_for = fresh
        if is_needed:
            with self._changing:
                waited_for = [found for candidate, found in self._pending.items() if is_needed(candidate)]
        if waited_for and not in_loop:
            wait(waited_for, timeout=patience)
        self._publish()
        return all(each.done() for each in waited_for)

    def _describe(self, candidate: Candidate) -> Future[None]:
        if self._children is None:
            self._children = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="plug-ins")
        with self._changing:
            waiting = Description(candidate=candidate, is_waiting=True)
            self._known.setdefault(candidate, waiting)
            self._pending[candidate] = found = self._children.submit(self._describe_now, candidate)
        return found

    def _describe_now(self, candidate: Candidate) -> None:
        try:
            found = described(candidate, Path(settings.FEDSITE_CHECKPOINT_DIR) / "plugins")
        except Exception as error:  # of ours: a disk, a lack of processes
            log.exception("%s could not be described", candidate.where)
            found = Description(
                candidate=candidate, error=f"it could not be described: {type(error).__name__}: {error}"
            )
        with self._changing:
            self._known[candidate] = found
            self._seen[candidate] = _signature(candidate, found)
            self._pending.pop(candidate, None)
        self._publish()

    def _publish(self) -> None:
        """Puts what may be chosen into `kinds`; nothing where nothing is new."""
        with self._changing:
            found = tuple(member.kind for entry in self._entries() for member in entry.members if member.is_offered)
            state = tuple((kind.family, kind.name, kind.source_sha256) for kind in found)
            if state != self._published:
                plug(found)
                self._published = state

    def entries(self) -> list[Entry]:
        """All that there is, by name; `look` or `settle` first."""
        with self._changing:
            return self._entries()

    def _entries(self) -> list[Entry]:
        known = [
            self._known.get(candidate) or Description(candidate=candidate, is_waiting=True)
            for candidate in self._candidates
        ]
        return entries_of(known, self._disabled)

    def source(self, sha256: str) -> Mapping[str, str] | None:
        """The text of a plug-in that is here with that hash, by path."""
        return next((entry.source for entry in self.entries() if sha256 and entry.sha256 == sha256), None)

    def _switched_off(self) -> frozenset[str]:
        from extensions.models import Plugin

        try:
            return frozenset(Plugin.objects.filter(is_enabled=False).values_list("pk", flat=True))
        except Error:  # not migrated yet, or not there: what was known holds
            return self._disabled


def _signature(candidate: Candidate, known: Description) -> tuple[Any, ...]:
    """Another one where a file that the description was made from may have changed."""
    found: list[Any] = []
    for path in known.files if candidate.folder else ():
        try:
            seen = os.stat(Path(candidate.folder, path))
            found.append((path, seen.st_mtime_ns, seen.st_size, seen.st_ino))
        except OSError:
            found.append((path,))
    return tuple(found)


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


current = Catalogue()


def watch() -> None:
    """From now on whoever reads `kinds` sees the plug-ins too."""
    before_reading(current.look)
