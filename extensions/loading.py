"""Plug-ins in a process that trains: those that a run was queued with, with the source that it was queued with."""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from extensions import discovery, importing
from extensions.discovery import Candidate
from extensions.inside import inside, noting
from extensions.sources import needed
from kinds import Kind, catalogue


class Unavailable(ValueError):
    """A run's plug-in is not here, or not as it was; the text is a plain sentence."""


def plug_in(record: Mapping[str, Any], folder: Path, distributions: Sequence[str] = ()) -> None:
    """Imports what the record names and puts it into `kinds`, in the place of all that was plugged in before.

    Unavailable where one is not here, has another source than the record's, or cannot be imported.
    """
    wanted = sorted(set(needed(record)))
    candidates = discovery.look(folder, distributions) if wanted else []
    found: dict[str, Kind] = {}
    for namespace in sorted({kind.partition("/")[0] for kind, _ in wanted}):
        found |= {kind.name: kind for kind in _load(namespace, candidates)}
    for name, sha256 in wanted:
        if name not in found:
            raise Unavailable(f"The plug-in {name} is not in its file any more")
        if sha256 != found[name].source_sha256:
            now = found[name].source_sha256[:12]
            raise Unavailable(
                f"The plug-in {name} has another source than when this run was queued: {sha256[:12] or 'none'} then, "
                f"{now} now. Put the old file back, or run it again, which takes today's"
            )
    catalogue.plug(noting(found[name]) for name in dict(wanted))


def plug_in_kept(record: Mapping[str, Any], sources: Mapping[str, Mapping[str, str]]) -> None:
    """The same from files that were kept, by path for each source hash: whatever is in the folder now.

    Unavailable where a source was not kept, or is of a distribution, whose files are no folder.
    """
    wanted = sorted(set(needed(record)))
    found: dict[str, Kind] = {}
    for name, sha256 in wanted:
        namespace = name.partition("/")[0]
        files = sources.get(sha256, {})
        if f"{namespace}.py" not in files:
            raise Unavailable(f"The source of the plug-in {name} was not kept")
        with tempfile.TemporaryDirectory(prefix="fedsite-kept-") as folder:
            for path, text in files.items():
                (Path(folder) / path).parent.mkdir(parents=True, exist_ok=True)
                (Path(folder) / path).write_text(text)
            found |= {kind.name: kind for kind in _load(namespace, discovery.look(Path(folder), ()))}
    catalogue.plug(found[name] for name in dict(wanted))


def _load(namespace: str, candidates: Iterable[Candidate]) -> tuple[Kind, ...]:
    here = [candidate for candidate in candidates if candidate.namespace == namespace]
    if not here:
        raise Unavailable(f"The plug-in {namespace} is not here: there is no {namespace}.py in the folder of plug-ins")
    if len(here) > 1:
        raise Unavailable(f"The plug-in {namespace} is here twice: {' and '.join(each.where for each in here)}")
    (candidate,) = here
    if candidate.problem:
        raise Unavailable(f"The plug-in {candidate.where} cannot be used: {candidate.problem}")
    try:
        with inside(namespace):
            return importing.load(candidate).kinds
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(candidate.path)]
        where = f", line {frames[-1].lineno}" if frames else ""
        text = f"The plug-in {candidate.where} cannot be imported{where}: {type(error).__name__}: {error}"
        raise Unavailable(text) from error
