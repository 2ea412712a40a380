"""The contract of behaviours: `f(**parameters) -> Behaviour`, whose hooks are tried alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from extensions.contract import Check, at_the_ends, purity, usual
from kinds import Kind
from training.clients import Behaviour

CLASSES = 10
EXAMPLES = (1, 7, 64)


def labels(n: int) -> Tensor:
    return (torch.arange(n) * 7 + 3) % CLASSES


def delta() -> Tensor:
    return torch.linspace(-1.0, 1.0, 50)


def _made(kind: Kind, parameters: dict[str, Any] | None = None) -> Behaviour:
    found: Behaviour = kind.load()(**(usual(kind) if parameters is None else parameters))
    return found


def _labels(behaviour: Behaviour, n: int) -> Tensor | None:
    return behaviour.labels and behaviour.labels(labels(n), CLASSES, torch.Generator().manual_seed(5))


def _wrong(behaviour: Any) -> str | None:
    if not isinstance(behaviour, Behaviour):
        return f"it gave {type(behaviour).__name__}, not a Behaviour"
    for name in ("silence", "effort"):
        share = getattr(behaviour, name)
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            return f"{name} is {share!r}, not from 0 to 1"
    for n in EXAMPLES:
        found = _labels(behaviour, n)
        if found is None:
            break
        if not isinstance(found, Tensor) or found.dtype != torch.int64 or found.shape != (n,):
            return f"labels of {n} examples became {_words(found)}, not int64 [{n}]"
        if not ((found >= 0) & (found < CLASSES)).all():
            return f"labels are {found.tolist()[:10]}, not from 0 to {CLASSES - 1}"
    sent = behaviour.update(delta())
    if not isinstance(sent, Tensor) or sent.dtype != torch.float32 or sent.shape != delta().shape:
        return f"an update of float32 [{len(delta())}] became {_words(sent)}"
    if not torch.isfinite(sent).all():
        return "what it sends is not finite"
    return None


def _words(value: Any) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def outputs(kind: Kind) -> Iterator[str]:
    behaviour = _made(kind)
    yield repr((behaviour.silence, behaviour.effort, behaviour.update(delta()).tolist()))
    for n in EXAMPLES:
        found = _labels(behaviour, n)
        yield repr(found if found is None else found.tolist())


def hooks(kind: Kind) -> str | None:
    return _wrong(_made(kind))


def ends(kind: Kind) -> str | None:
    for parameters in at_the_ends(kind):
        if found := _wrong(_made(kind, parameters)):
            return f"with {parameters}: {found}"
    return None


def input_unchanged(kind: Kind) -> str | None:
    behaviour, true, found = _made(kind), labels(64), delta()
    if behaviour.labels is not None:
        behaviour.labels(true, CLASSES, torch.Generator().manual_seed(5))
    behaviour.update(found)
    if not torch.equal(true, labels(64)):
        return "it changed the true labels in their place"
    return None if torch.equal(found, delta()) else "it changed the update in its place"


def same_on_resume(kind: Kind) -> str | None:
    """Made again in another process, it does what it did."""
    one, two = list(outputs(kind)), list(outputs(kind))
    return None if one == two else "made again, it takes other labels or sends another update"


def pure(kind: Kind) -> str | None:
    return purity.witness(lambda: list(outputs(kind)))


def honest_labels(kind: Kind) -> str | None:
    found = _labels(_made(kind), 64)
    if found is None:
        return None
    wrong = int((found != labels(64)).sum())
    return f"{wrong} of 64 labels are others" if wrong else None


def honest_update(kind: Kind) -> str | None:
    return None if torch.equal(_made(kind).update(delta()), delta()) else "it sends another update than it found"


def always_sends(kind: Kind) -> str | None:
    silence = _made(kind).silence
    return f"it sends nothing with probability {silence:g}" if silence else None


CHECKS = (
    Check(
        name="hooks",
        says="gives a Behaviour whose hooks keep shapes, types and bounds",
        run=hooks,
        required=True,
    ),
    Check(name="input_unchanged", says="changes nothing of what it is given", run=input_unchanged, required=True),
    Check(name="same_on_resume", says="does the same when it is made again", run=same_on_resume, required=True),
    Check(name="pure", says="uses no clock, file, socket, process or shared generator", run=pure, required=True),
    Check(name="ends", says="keeps all that at the ends of its parameters", run=ends, required=True, fast=False),
    Check(name="always_sends", says="sends something in every round", run=always_sends),
    Check(name="honest_labels", says="trains on the true labels", run=honest_labels),
    Check(name="honest_update", says="sends the update that it found", run=honest_update),
)
