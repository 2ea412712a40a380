"""How a plug-in is imported. Only in processes that may run foreign code: those that describe plug-ins, and trainers.

A file `lab.py` of the folder is the module `fedsite_plugins.lab`, of a package whose `__path__` is the folder; it
imports helpers beside it by relative imports. The folder is never on sys.path, so that a file can take no other
module's place. What is hashed is what was compiled: no compiled file of an earlier source is used.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import FileFinder, ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from extensions.discovery import Candidate
from extensions.sources import sha256_of
from kinds import Kind, Parameter
from kinds.catalogue import PLUGGABLE

PACKAGE = "fedsite_plugins"
MOST_KINDS = 50  # of a plug-in
MOST_LINE = 500  # characters that help, label and source may have


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A plug-in in this process."""

    kinds: tuple[Kind, ...]  # by their ids, with their code and the hash of their source
    files: dict[str, bytes]  # by path below the folder, or as the distribution names them
    expected: dict[str, dict[str, str]]  # by kind: properties that it does not have, and why


class Unusable(ValueError):
    """It is no plug-in; the text is a plain sentence."""


class Folder(MetaPathFinder):
    """Finds `fedsite_plugins` and what is beneath it, and keeps what it reads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, bytes] = {}
        self.missing: set[str] = set()  # asked for and not there
        self.is_sealed = False

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name == PACKAGE:
            package = ModuleSpec(PACKAGE, None, is_package=True)
            package.submodule_search_locations = [str(self.folder)]
            return package
        if not name.startswith(f"{PACKAGE}."):
            return None
        if self.is_sealed:
            raise ImportError(f"{name} is imported too late: what a plug-in imports belongs to the top of its file")
        for entry in path or ():
            finder = FileFinder(entry, (_loader_into(self), [".py"]))
            if found := finder.find_spec(name):
                return found
        self.missing.add(f"{name.removeprefix(PACKAGE + '.').replace('.', '/')}.py")
        return None


def _loader_into(folder: Folder) -> type[SourceFileLoader]:
    class Loader(SourceFileLoader):
        def get_code(self, fullname: str) -> CodeType:
            data = self.get_data(self.path)
            folder.files[Path(self.path).relative_to(folder.folder).as_posix()] = data
            code: CodeType = self.source_to_code(data, self.path)
            return code

    return Loader


def load(candidate: Candidate) -> Loaded:
    """Imports it. Unusable where its KINDS are none; whatever the import raises passes on."""
    if candidate.distribution:
        module = importlib.import_module(candidate.module)
        files = _of_distribution(candidate, module)
    else:
        folder = open_folder(Path(candidate.folder))
        module = importlib.import_module(f"{PACKAGE}.{candidate.namespace}")
        files, folder.is_sealed = dict(folder.files), True
    return Loaded(kinds=_kinds(candidate, module, sha256_of(files)), files=files, expected=_expected(module))


def open_folder(path: Path) -> Folder:
    """In the place of one that was open before: each plug-in has its helpers to itself, so that its files are those
    that it imports. What was loaded before works on."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, Folder)]
    for name in [name for name in sys.modules if name == PACKAGE or name.startswith(f"{PACKAGE}.")]:
        del sys.modules[name]
    folder = Folder(path)
    sys.meta_path.insert(0, folder)
    return folder


def opened() -> Folder | None:
    return next((finder for finder in sys.meta_path if isinstance(finder, Folder)), None)


def _of_distribution(candidate: Candidate, module: ModuleType) -> dict[str, bytes]:
    """The Python files of its RECORD, and those of its package that were imported, where it is installed as a link."""
    distribution = importlib.metadata.distribution(candidate.distribution)
    found = {}
    for listed in distribution.files or ():
        path = Path(str(listed.locate()))
        if listed.suffix == ".py" and ".." not in listed.parts and path.is_file():
            found[listed.as_posix()] = path.read_bytes()
    top = candidate.module.partition(".")[0]
    for name, each in sorted(sys.modules.items()):
        file = getattr(each, "__file__", None)
        if (name == top or name.startswith(f"{top}.")) and file and file.endswith(".py"):
            named = f"{name.replace('.', '/')}{'/__init__.py' if hasattr(each, '__path__') else '.py'}"
            found.setdefault(named, Path(file).read_bytes())
    return found


def is_line(text: object) -> bool:
    return isinstance(text, str) and len(text) <= MOST_LINE and text.isprintable()


def _kinds(candidate: Candidate, module: ModuleType, sha256: str) -> tuple[Kind, ...]:
    """Its KINDS by their ids."""
    given = getattr(module, "KINDS", None)
    if given is None:
        raise Unusable(
            "it has no KINDS; a file that others import is named with an underscore first, as in _helpers.py"
        )
    if not isinstance(given, tuple | list) or not given or len(given) > MOST_KINDS:
        raise Unusable(f"its KINDS are not a tuple of 1 to {MOST_KINDS} Kinds")
    found: dict[str, Kind] = {}
    for place, kind in enumerate(given, start=1):
        if not isinstance(kind, Kind):
            raise Unusable(f"number {place} of its KINDS is no Kind but of type {type(kind).__name__}")
        if "/" in kind.name:
            raise Unusable(f"{kind.name} is named without a slash: the file's name comes before it by itself")
        if kind.family not in PLUGGABLE:
            raise Unusable(f"{kind.name} is of the family {kind.family!r}; there are {', '.join(PLUGGABLE)}")
        if kind.name in found:
            raise Unusable(f"{kind.name} is there twice")
        if isinstance(kind.code, str) or not (callable(kind.code) or hasattr(kind.code, "join")):
            raise Unusable(f"the code of {kind.name} is of type {type(kind.code).__name__}, not a function")
        if kind.older:
            raise Unusable(f"{kind.name} has older versions: a plug-in's are in the sources that are kept of it")
        for what in ("help", "label", "source"):
            if not is_line(getattr(kind, what)):
                raise Unusable(f"the {what} of {kind.name} is not a line of at most {MOST_LINE} characters")
        for name, parameter in kind.parameters.items():
            try:
                plain = Parameter.from_dict(parameter.to_dict())
            except (AttributeError, TypeError, ValueError) as error:
                raise Unusable(f"{kind.name}.{name}: its default: {error}") from None
            if not is_line(plain.help):
                raise Unusable(f"the help of {kind.name}.{name} is not a line of at most {MOST_LINE} characters")
        found[kind.name] = Kind(
            family=kind.family,
            name=f"{candidate.namespace}/{kind.name}",
            help=kind.help,
            label=kind.label,
            source=kind.source,
            version=kind.version,
            code=kind.code,
            parameters=kind.parameters,
            traits=kind.traits,
            cost=kind.cost,
            source_sha256=sha256,
        )
    return tuple(found.values())


def _expected(module: ModuleType) -> dict[str, dict[str, str]]:
    """EXPECTED = {kind: {property: why it does not have it}}; see docs/plugins.md."""
    given: Any = getattr(module, "EXPECTED", {})
    if not isinstance(given, dict) or not all(
        isinstance(kind, str) and isinstance(reasons, dict) and all(isinstance(text, str) for text in reasons.values())
        for kind, reasons in given.items()
    ):
        raise Unusable('its EXPECTED is not {"kind": {"property": "reason"}}')
    return given
