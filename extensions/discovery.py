"""Which plug-ins there are: files of a folder, and entry points of installed distributions. Nothing of them is run."""

from __future__ import annotations

import importlib.metadata
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from extensions.sources import MOST_BYTES
from kinds.kind import NAME

GROUP = "fedsite.plugins"  # of entry points
MOST_FILES = 200  # that a folder is looked through for


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A file or an entry point that says it is a plug-in."""

    namespace: str  # lab, of lab.py: its kinds are lab/NAME
    where: str  # for people: lab.py, or wages (fedsite-wages 1.2)
    folder: str = ""  # of a file: its folder; empty for an entry point
    distribution: str = ""
    module: str = ""  # of an entry point
    signature: tuple[int | str, ...] = ()  # another one where it may have changed; costs no reading
    problem: str = ""  # why it cannot be described, in a sentence

    @property
    def path(self) -> Path:
        return Path(self.folder, self.where)


def look(folder: Path, distributions: Iterable[str] = ()) -> list[Candidate]:
    """All that there is now, by name. A file whose name begins with an underscore is a helper of others."""
    return [*_of_folder(folder), *(each for name in distributions for each in _of_distribution(name))]


def _of_folder(folder: Path) -> list[Candidate]:
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    except OSError as error:
        return [Candidate(namespace="", where=str(folder), problem=f"the folder cannot be read: {error.strerror}")]
    names = [name for name in names if name.endswith(".py") and not name.startswith(("_", "."))]
    found = [_of_file(folder, name) for name in names[:MOST_FILES]]
    if len(names) > MOST_FILES:
        text = f"there are {len(names):,} files; those after the first {MOST_FILES} are not looked at"
        found.append(Candidate(namespace="", where=str(folder), problem=text))
    return found


def _of_file(folder: Path, name: str) -> Candidate:
    namespace, problem = name[:-3], ""
    signature: tuple[int, ...] = ()
    try:
        found = os.stat(folder / name)
        signature = (found.st_mtime_ns, found.st_size, found.st_ino)
        if not stat.S_ISREG(found.st_mode):  # a pipe would never end
            problem = "it is not a file"
        elif found.st_size > MOST_BYTES:
            problem = f"it has {found.st_size:,} bytes; at most {MOST_BYTES:,} are kept, and so allowed"
    except OSError as error:
        problem = f"it cannot be read: {error.strerror}"
    if not NAME.fullmatch(namespace):
        problem = "its name is no name of a plug-in: small letters, digits and underscores, up to 60"
    return Candidate(
        namespace=namespace,
        where=name if name.isprintable() else ascii(name),
        folder=str(folder),
        signature=signature,
        problem=problem,
    )


def _of_distribution(name: str) -> list[Candidate]:
    try:
        distribution = importlib.metadata.distribution(name)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return [Candidate(namespace="", where=name, distribution=name, problem="no such distribution is installed")]
    points = [point for point in distribution.entry_points if point.group == GROUP]
    if not points:
        text = f"it has no entry point in the group {GROUP}"
        return [Candidate(namespace="", where=name, distribution=name, problem=text)]
    record = distribution.locate_file("") / Path(str(distribution._path)).name / "RECORD"  # type: ignore[attr-defined]
    try:
        changed = os.stat(str(record)).st_mtime_ns
    except OSError:
        changed = 0
    return [
        Candidate(
            namespace=point.name,
            where=f"{point.name} ({name} {distribution.version})",
            distribution=name,
            module=point.module,
            signature=(distribution.version, point.value, changed),
            problem="" if NAME.fullmatch(point.name) else "its name is no name of a plug-in",
        )
        for point in sorted(points, key=lambda point: point.name)
    ]
