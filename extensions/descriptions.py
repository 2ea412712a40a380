"""Plug-ins as the processes see them that run no foreign code: described by children, in data, kept by their hash."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import selectors
import signal
import subprocess
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from extensions.discovery import Candidate
from extensions.environment import environment
from extensions.sources import MOST_BYTES, sha256_of
from kinds import Kind, Parameter
from kinds.catalogue import PLUGGABLE

PROJECT = Path(__file__).resolve().parents[1]
FORMAT = 2  # of what is kept; another one where a contract or a description changes
START_SECONDS = 120.0  # until a child has loaded what is ours, on a machine that does much else
SECONDS = 10.0  # that a plug-in has to be imported, and again for its checks
FULL_SECONDS = 120.0  # for all of them
MOST_LINE = 4 * 1024 * 1024  # bytes that a child may answer
MOST_WORDS = 2_000  # characters of what it printed last
OUT = ("refused", "broken claim")


@dataclass(frozen=True, kw_only=True)
class Description:
    """What is known of a candidate. It is broken where `error` is not empty; a kind of it may be refused alone."""

    candidate: Candidate
    error: str = ""
    traceback: str = ""
    sha256: str = ""  # of the source
    source: Mapping[str, str] = field(default_factory=dict)  # text by path
    files: Mapping[str, str] = field(default_factory=dict)  # hash by path; empty: it must not be there
    kinds: tuple[Kind, ...] = ()
    checks: Mapping[str, Any] = field(default_factory=dict)  # by kind: {"results": [...], "digest": ...}
    is_waiting: bool = False  # it is being described

    def results(self, kind: Kind) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.checks.get(kind.name, {}).get("results", [])
        return found

    def refusals(self, kind: Kind) -> list[dict[str, Any]]:
        """The checks that keep it out."""
        return [result for result in self.results(kind) if result["status"] in OUT]


def described(candidate: Candidate, cache: Path | None, *, full: bool = False) -> Description:
    """As it was kept, or by a child now. `full`: every check, kept nowhere."""
    if candidate.problem:
        return Description(candidate=candidate, error=candidate.problem)
    key = key_of(candidate)
    if key is None:
        return Description(candidate=candidate, error="it cannot be read, or was removed")
    if full or cache is None:
        return _from_answer(candidate, _ask(candidate, full=full))
    with _alone(cache, key):
        if kept := read(candidate, cache, key):
            return kept
        answer = _ask(candidate)
        if key_of(candidate) != key:  # what was described is not what is there
            answer = {"phase": "failed", "error": "it was changed or removed while it was described", "passing": True}
        else:
            _keep(cache, key, answer)
    return _from_answer(candidate, answer)


def key_of(candidate: Candidate) -> str | None:
    """What a description is kept under: the file, and where it was described. None where it cannot be read."""
    if candidate.distribution:
        own = repr(candidate.signature)
    else:
        try:
            own = hashlib.sha256(candidate.path.read_bytes()).hexdigest()
        except OSError:
            return None
    versions = [sys.version, sys.prefix, platform.node(), *map(_version, ("torch", "numpy"))]
    text = json.dumps([FORMAT, candidate.where, candidate.folder, candidate.module, own, *versions])
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def read(candidate: Candidate, cache: Path, key: str) -> Description | None:
    """What is kept, where each of the files that it was made from is still the same."""
    try:
        answer = json.loads((cache / f"{key}.json").read_text())
    except (OSError, ValueError):
        return None
    found = _from_answer(candidate, answer)
    return found if all(_hash(candidate, path) == sha256 for path, sha256 in found.files.items()) else None


def _hash(candidate: Candidate, path: str) -> str:
    if candidate.distribution:
        return ""  # its signature tells
    try:
        return sha256_of({path: Path(candidate.folder, path).read_bytes()})
    except OSError:
        return ""


def _keep(cache: Path, key: str, answer: Mapping[str, Any]) -> None:
    """Where nothing can be kept, it is described again next time."""
    with contextlib.suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
        new = cache / f"{key}.{os.getpid()}.new"
        new.write_text(json.dumps(answer))
        new.rename(cache / f"{key}.json")


@contextlib.contextmanager
def _alone(cache: Path, key: str) -> Iterator[None]:
    """One process of this machine describes a plug-in; others wait for what it finds."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = (cache / f"{key}.lock").open("w")
    except OSError:
        yield
        return
    with lock:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _ask(candidate: Candidate, *, full: bool = False) -> dict[str, Any]:
    """A child's last answer; of one that said too little, why."""
    command = [sys.executable, "-m", "extensions.describe"]
    if candidate.distribution:
        command += [candidate.namespace, "--distribution", candidate.distribution, "--module", candidate.module]
    else:
        command.append(str(candidate.path))
    seconds = {"": START_SECONDS, "ready": SECONDS, "imported": FULL_SECONDS if full else SECONDS}
    answer, ending, words = run([*command, *(["--full"] if full else [])], lambda phase: seconds.get(phase, 0.0))
    phase = answer.get("phase")
    if phase in ("checked", "failed"):
        return answer
    doing = {None: "started", "ready": "imported"}.get(phase, "checked")
    text = f"while it was {doing}, {ending}" if phase else f"its process could not be started: {ending}"
    passing = phase is None  # nothing of the plug-in had begun
    files = answer.get("files", {})
    return {"phase": "failed", "error": text, "traceback": words, "files": files, "passing": passing}


def run(command: list[str], patience: Callable[[str], float]) -> tuple[dict[str, Any], str, str]:
    """Starts a child and reads its lines until it has said its last or time is up, then ends it with all its group.

    Gives the last line that it said, how it ended, in words, and what it printed last.
    """
    process = subprocess.Popen(
        command,
        cwd=PROJECT,
        env=environment() | {"PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    answer: dict[str, Any] = {}
    said, words, ending = b"", b"", ""
    began = time.monotonic()
    try:
        with selectors.DefaultSelector() as ends, process.stdout, process.stderr:
            for stream in (process.stdout, process.stderr):
                os.set_blocking(stream.fileno(), False)
                ends.register(stream, selectors.EVENT_READ)
            while answer.get("phase") not in ("checked", "failed"):
                left = began + patience(answer.get("phase", "")) - time.monotonic()
                if left <= 0:
                    ending = f"it did not end within {patience(answer.get('phase', '')):.0f} seconds"
                    break
                is_over = process.poll() is not None
                ready = ends.select(0 if is_over else min(left, 0.1))
                for key, _ in ready:
                    piece = os.read(key.fd, 65_536)
                    if not piece:
                        ends.unregister(key.fileobj)
                    elif key.fileobj is process.stderr:
                        words = (words + piece)[-MOST_WORDS:]
                    else:
                        said += piece
                *lines, said = said.split(b"\n")
                for line in lines:
                    answer, began = _message(line) or answer, time.monotonic()
                if len(said) > MOST_LINE:
                    ending = f"it said more than {MOST_LINE:,} bytes"
                    break
                if is_over and not ready:
                    ending = _ending(process.returncode)
                    break
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
    return answer, ending, words.decode(errors="replace")


def _message(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("phase"), str) else None


def _ending(status: int) -> str:
    if status >= 0:
        return f"its process ended with status {status}"
    names = {each.value: each.name for each in signal.Signals}
    return f"its process was ended by signal {names.get(-status, -status)}"


def _from_answer(candidate: Candidate, answer: Mapping[str, Any]) -> Description:
    """A child's answer is foreign too: what is not as it should be is an error of the plug-in's."""
    try:
        files = {str(path): str(sha256) for path, sha256 in dict(answer.get("files", {})).items()}
        files |= dict.fromkeys(map(str, answer.get("missing", ())), "")
        if any(path.startswith("/") or ".." in Path(path).parts for path in files):
            raise ValueError("files outside its folder")
        if answer["phase"] != "checked":
            error, trace = str(answer["error"])[:1_000], str(answer.get("traceback", ""))[:10_000]
            return Description(candidate=candidate, error=error, traceback=trace, files=files)
        source = {str(path): str(text) for path, text in dict(answer["source"]).items()}
        if sum(map(len, source.values())) > MOST_BYTES:
            raise ValueError("too much source")
        sha256 = sha256_of({path: text.encode() for path, text in source.items()})
        if sha256 != answer["sha256"]:
            raise ValueError("a source of another hash")
        kinds = tuple(_kind(each, candidate, sha256) for each in answer["kinds"])
        checks = {kind.name: _checks(answer["checks"][kind.name]) for kind in kinds}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        text = f"it describes itself in a way that cannot be read: {type(error).__name__}: {error}"
        return Description(candidate=candidate, error=text[:1_000])
    return Description(candidate=candidate, sha256=sha256, source=source, files=files, kinds=kinds, checks=checks)


def _kind(values: Mapping[str, Any], candidate: Candidate, sha256: str) -> Kind:
    """As the catalogue holds it: its code is a name that only a trainer can load."""
    if values["family"] not in PLUGGABLE or not values["kind"].startswith(f"{candidate.namespace}/"):
        raise ValueError(f"{values['family']} {values['kind']}")
    texts = {name: _text(values[name], 500) for name in ("help", "label", "source")}
    parameters = {name: Parameter.from_dict(each) for name, each in values["parameters"].items()}
    if len(parameters) > 50:
        raise ValueError(f"{len(parameters)} parameters")
    for parameter in parameters.values():
        _text(parameter.help, 500)
    costs = [tuple(map(int, each)) for each in values["costs"]]
    return Kind(
        family=values["family"],
        name=values["kind"],
        version=values["version"],
        code=f"fedsite_plugins.{candidate.namespace}:{values['kind']}",
        parameters=parameters,
        traits=frozenset(_text(each, 100) for each in values["traits"]),
        cost=(_size if values["family"] == "model" else _cost)(costs) if costs else None,
        source_sha256=sha256,
        help=texts["help"],
        label=texts["label"],
        source=texts["source"],
    )


def _text(value: Any, most: int) -> str:
    if not isinstance(value, str) or len(value) > most or not value.isprintable():
        raise ValueError(f"{str(value)[:40]!r} is not a line of at most {most} characters")
    return value


def _cost(costs: list[tuple[int, ...]]) -> Callable[..., int]:
    """Coalitions by the next larger number of players that was asked for, with parameters at their defaults."""
    players = [n for n, _ in costs]
    return lambda n, **parameters: costs[min(bisect_left(players, n), len(costs) - 1)][1]


def _size(sizes: list[tuple[int, ...]]) -> Callable[..., int]:
    """Parameters of a model by a data set's shape and classes; of one that was not tried, the most that were found."""
    known = {tuple(size[:4]): size[4] for size in sizes}
    most = max(known.values())
    return lambda shape, num_classes, **parameters: known.get((*shape, num_classes), most)


def _checks(values: Mapping[str, Any]) -> dict[str, Any]:
    names = ("check", "says", "status", "witness")
    results = [
        {**{name: str(each[name])[:1_000] for name in names}, "required": bool(each["required"])}
        for each in values["results"]
    ]
    return {"results": results, "digest": str(values["digest"])}
