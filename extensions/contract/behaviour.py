"""The contract of behaviours: `f(**parameters) -> Behaviour`, whose hooks are tried alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from extensions.contract import Check, at_the_ends, purity, usual
from kinds import Kind
from training.clients import Behaviour, Honest, Seen

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
    return behaviour.labels and behaviour.labels(labels(n), CLASSES, generator())


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def inputs(n: int) -> Tensor:
    return torch.linspace(0.0, 1.0, 16 * n).view(n, 1, 4, 4)


def seen(*, trains: bool, honest: bool) -> Seen:
    """Of a round in which three others are honest."""
    return Seen(
        round_number=2,
        generator=generator(),
        step=0.5 * delta(),
        own=delta() if trains else None,
        honest=Honest(delta(), [delta(), 2 * delta(), delta().flip(0)] if honest else ()),
        num_conspiring=int(honest),
    )


def _made_up(behaviour: Behaviour) -> list[Tensor]:
    """What it sends of its own making, by either hook, also where there is nothing to see."""
    trains, found = behaviour.trains, []
    if behaviour.send is not None:
        found.append(behaviour.send(seen(trains=trains, honest=False)))
    if behaviour.conspire is not None:
        found += [behaviour.conspire(seen(trains=trains, honest=honest)) for honest in (True, False)]
    return found


def _wrong(behaviour: Any) -> str | None:
    if not isinstance(behaviour, Behaviour):
        return f"it gave {type(behaviour).__name__}, not a Behaviour"
    for name in ("silence", "effort"):
        share = getattr(behaviour, name)
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            return f"{name} is {share!r}, not from 0 to 1"
    epochs, reported = behaviour.epochs, behaviour.reported
    if epochs is not None and (isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1):
        return f"epochs is {epochs!r}, not None or a whole number from 1"
    if isinstance(reported, bool) or not isinstance(reported, int | float) or not 0 < reported <= 1000:
        return f"reported is {reported!r}, not above 0 and at most 1000"
    if behaviour.send is not None and behaviour.conspire is not None:
        return "it has both send and conspire"
    if not behaviour.trains and behaviour.send is None and behaviour.conspire is None:
        return "it neither trains nor makes up what it sends; silence 1 is who sends nothing"
    return _wrong_data(behaviour) or _wrong_update(behaviour)


def _wrong_data(behaviour: Behaviour) -> str | None:
    for n in EXAMPLES:
        if behaviour.data is not None:
            places = behaviour.data(n, generator())
            if not isinstance(places, Tensor) or places.dtype != torch.int64 or places.dim() != 1:
                return f"places among {n} examples are {_words(places)}, not int64 [any]"
            if not len(places) or len({*places.tolist()}) != len(places) or places.min() < 0 or places.max() >= n:
                return f"places among {n} examples are {places.tolist()[:10]}: some of 0 to {n - 1}, each once"
        if behaviour.features is not None:
            x = behaviour.features(inputs(n), generator())
            if not isinstance(x, Tensor) or x.dtype != torch.float32 or x.shape != inputs(n).shape:
                return f"inputs of {n} examples became {_words(x)}, not float32 {list(inputs(n).shape)}"
            if not torch.isfinite(x).all():
                return "inputs are not finite"
    for n in EXAMPLES:
        found = _labels(behaviour, n)
        if found is None:
            break
        if not isinstance(found, Tensor) or found.dtype != torch.int64 or found.shape != (n,):
            return f"labels of {n} examples became {_words(found)}, not int64 [{n}]"
        if not ((found >= 0) & (found < CLASSES)).all():
            return f"labels are {found.tolist()[:10]}, not from 0 to {CLASSES - 1}"
    return None


def _wrong_update(behaviour: Behaviour) -> str | None:
    for sent in (behaviour.update(delta()), *_made_up(behaviour)):
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
    yield repr((behaviour.epochs, behaviour.reported, behaviour.trains, behaviour.recalls))
    yield repr([sent.tolist() for sent in _made_up(behaviour)])
    for n in EXAMPLES:
        yield repr(behaviour.data and behaviour.data(n, generator()).tolist())
        yield repr(behaviour.features and behaviour.features(inputs(n), generator()).tolist())
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
        behaviour.labels(true, CLASSES, generator())
    behaviour.update(found)
    if not torch.equal(true, labels(64)):
        return "it changed the true labels in their place"
    x, view = inputs(64), seen(trains=behaviour.trains, honest=behaviour.conspire is not None)
    if behaviour.features is not None:
        behaviour.features(x, generator())
    for make in (behaviour.send, behaviour.conspire):
        if make is not None:
            make(view)
    if not torch.equal(x, inputs(64)):
        return "it changed the true inputs in their place"
    if not torch.equal(view.step, 0.5 * delta()):
        return "it changed the last global step in its place"
    if view.honest.updates and not torch.equal(view.honest.updates[0], delta()):
        return "it changed an honest update in its place"
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
    behaviour = _made(kind)
    if not behaviour.trains:
        return "it makes up what it sends"
    sent = [behaviour.update(delta()), *_made_up(behaviour)]
    return None if all(torch.equal(each, delta()) for each in sent) else "it sends another update than it found"


def honest_size(kind: Kind) -> str | None:
    reported = _made(kind).reported
    return None if reported == 1 else f"it reports {reported:g} times the examples that it holds"


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
    Check(name="honest_size", says="reports the examples that it holds", run=honest_size),
)
