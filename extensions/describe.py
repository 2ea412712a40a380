"""A plug-in's description, made by a process of its own: `python -m extensions.describe FILE`.

Three lines of JSON, one for each phase: `ready` before anything of the plug-in runs, `imported` with what it says of
itself (or `failed`, with the traceback), `checked` with the results of its contract. Whoever waits can tell by the
last line what took too long. What the plug-in prints goes to standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from extensions import importing, sources
from extensions.discovery import Candidate
from kinds import Kind

MOST_SECONDS = 60  # of everything, for when nobody waits any more
MOST_MEMORY = 4 * 10**9  # bytes of data
MOST_TRACEBACK = 8_000  # characters
COSTS = (*range(17), 32, 64, 100, 128, 256, 512, 1_000, 10_000)  # players whose coalitions are counted beforehand
NEEDS_PYTORCH = (b"torch", b"Behaviour", b"Strategy", b"behaviour", b"strategy", b"model", b"training")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("file", help="a file of the folder of plug-ins, or the name of an entry point")
    parser.add_argument("--distribution", default="", help="the installed distribution that has the entry point")
    parser.add_argument("--module", default="", help="the module that the entry point names")
    parser.add_argument("--full", action="store_true", help="every check, the slow ones too")
    asked = parser.parse_args()
    pipe = _private_stdout()
    _bound()
    if asked.distribution:
        named = {"distribution": asked.distribution, "module": asked.module}
        candidate = Candidate(namespace=asked.file, where=asked.file, **named)
    else:
        path = Path(os.path.abspath(asked.file))
        candidate = Candidate(namespace=path.name.removesuffix(".py"), where=path.name, folder=str(path.parent))
    _prepare(candidate)
    tell(pipe, {"phase": "ready"})
    try:
        loaded = importing.load(candidate)
        text = sources.texts_of(loaded.files)
    except BaseException as error:
        tell(pipe, failed(error, candidate))
        end(pipe)
    try:
        description = described(loaded, text)
    except BaseException as error:
        tell(pipe, failed(error, candidate))
        end(pipe)
    tell(pipe, {"phase": "imported", **description})
    checks = {kind.name: checked(kind, loaded, full=asked.full) for kind in loaded.kinds}
    tell(pipe, {"phase": "checked", **description, "checks": checks})
    end(pipe)


def end(pipe: TextIO) -> None:
    """At once: no exit handler of a plug-in runs, no thread of it is waited for."""
    pipe.flush()
    os._exit(0)


def tell(pipe: TextIO, message: Mapping[str, Any]) -> None:
    pipe.write(json.dumps(message, allow_nan=False) + "\n")
    pipe.flush()


def _private_stdout() -> TextIO:
    """The real standard output for us alone."""
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return pipe


def _bound() -> None:
    """It ends by itself, and takes no more than it may, also where its parent is gone."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(MOST_SECONDS * (4 if "--full" in sys.argv else 1) + 120)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        for what, most in ((resource.RLIMIT_DATA, MOST_MEMORY), (resource.RLIMIT_CPU, MOST_SECONDS * 5)):
            _, hard = resource.getrlimit(what)
            resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def _prepare(candidate: Candidate) -> None:
    """Loads what is ours before the plug-in's own time begins."""
    import extensions.contract.rule  # NumPy, and what rules need

    try:
        text = b"torch" if candidate.distribution else candidate.path.read_bytes()
    except OSError:
        return
    if any(word in text for word in NEEDS_PYTORCH):
        import torch

        import extensions.contract.behaviour
        import extensions.contract.model
        import extensions.contract.strategy  # noqa: F401

        torch.set_num_threads(1)
        torch.ones(2, requires_grad=True).sum().backward()  # type: ignore[no-untyped-call]  # loads what PyTorch loads late


def failed(error: BaseException, candidate: Candidate) -> dict[str, Any]:
    """In a sentence, and where."""
    if isinstance(error, importing.Unusable | sources.Unkeepable):
        text, trace = str(error), ""
    else:
        frames = traceback.TracebackException.from_exception(error, limit=-30)
        trace = "".join(frames.format())[-MOST_TRACEBACK:]
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        if isinstance(error, SystemExit):
            text = f"it ends the process that imports it ({text})"
    folder = importing.opened()
    read = {path: sources.sha256_of({path: data}) for path, data in folder.files.items()} if folder else {}
    missing = sorted(folder.missing)[:50] if folder else []
    text = text.splitlines()[0][:500] if text else "it could not be imported"
    return {"phase": "failed", "error": text, "traceback": trace, "files": read, "missing": missing}


def described(loaded: importing.Loaded, text: Mapping[str, str]) -> dict[str, Any]:
    return {
        "sha256": sources.sha256_of(loaded.files),
        "files": {path: sources.sha256_of({path: data}) for path, data in loaded.files.items()},
        "source": dict(text),
        "kinds": [
            {"family": kind.family, **kind.to_dict(), "traits": sorted(kind.traits), "costs": costs(kind)}
            for kind in loaded.kinds
        ],
    }


def costs(kind: Kind) -> list[list[int]]:
    """(players, coalitions at most) of a valuation with its parameters at their defaults; of a model (channels, height,
    width, classes, parameters of the network) for each data set that there is."""
    from extensions.contract import usual

    if kind.family == "model":
        from extensions.contract.model import built
        from training.catalogue import DATASETS

        shapes = {(*info.shape, info.num_classes): info for info in DATASETS.values()}
        return [
            [*shape, sum(each.numel() for each in built(kind, info).parameters())] for shape, info in shapes.items()
        ]
    if kind.cost is None or kind.family != "valuation":
        return []
    found = []
    for n in COSTS:
        try:
            found.append([n, int(kind.cost(n, **usual(kind)))])
        except Exception:
            break  # more players than it takes
    return [pair for pair in found if 0 <= pair[1] < 10**18]


def checked(kind: Kind, loaded: importing.Loaded, *, full: bool) -> dict[str, Any]:
    from extensions import contract

    expected = loaded.expected.get(kind.name.partition("/")[2], {})
    results = [result.to_dict() for result in contract.examined(kind, expected, fast_only=not full)]
    try:
        digest = contract.digest(kind)
    except Exception:
        digest = ""  # a check has said why
    return {"results": results, "digest": digest}


if __name__ == "__main__":
    main()
