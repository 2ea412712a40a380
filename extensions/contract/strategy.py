"""The contract of strategies: `f(weights, updates, total_examples, state, **parameters) -> (weights, state)`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from extensions.contract import Check, Holds, at_the_ends, purity, timed, usual
from kinds import Kind
from training.clients import Update
from training.products import Products

SIZE = 40  # weights
ROUNDS = 4
MOST_SECONDS = 2.0
BIG = (100, 10_000)  # clients and weights in a round that is timed


def weights() -> Tensor:
    return torch.linspace(-1.0, 1.0, SIZE)


def updates(number: int, clients: int = 6, size: int = SIZE, *, silent: Sequence[int] = (2,)) -> list[Update]:
    """A round's, in the clients' order; those at the places in `silent` sent nothing."""
    generator = torch.Generator().manual_seed(number)
    found = []
    for place in range(clients):
        delta = torch.randn(size, generator=generator) * 0.1
        sent = None if place in silent else delta
        found.append(Update(client=place + 1, num_examples=50 + 10 * place, sent=sent, loss_before=1.0, loss_after=0.5))
    return found


def _joined(kind: Kind, given: list[Update], state: Any, *, at: Tensor | None = None, parameters: Any = None) -> Any:
    code = kind.load()
    code = getattr(code, "join", code)
    total = sum(update.num_examples for update in given)
    return code(
        weights() if at is None else at, given, total, state, **(usual(kind) if parameters is None else parameters)
    )


def _wrong(found: Any, size: int = SIZE) -> str | None:
    if not isinstance(found, tuple) or len(found) != 2:
        return f"it gave {type(found).__name__}, not (weights, state)"
    after, state = found
    if not isinstance(after, Tensor) or after.dtype != torch.float32 or after.shape != (size,):
        words = f"{after.dtype} {list(after.shape)}" if isinstance(after, Tensor) else type(after).__name__
        return f"the weights are {words}, not float32 [{size}]"
    if not torch.isfinite(after).all():
        return "the weights are not finite"
    if not hasattr(state, "items") or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        return "the state is not tensors by name"
    return None


def _fold(kind: Kind, parameters: Any = None, *, through_file: bool = False) -> Iterator[Any]:
    at = weights()
    state: Any = {}
    for number in range(1, ROUNDS + 1):
        found = _joined(kind, updates(number), state, at=at.clone(), parameters=parameters)
        yield found
        at, state = found
        if through_file:
            state = {name: torch.from_numpy(value.numpy().copy()) for name, value in state.items()}


def outputs(kind: Kind) -> Iterator[str]:
    for after, state in _fold(kind):
        yield repr((after.tolist(), sorted((name, value.tolist()) for name, value in state.items())))


def float_weights(kind: Kind) -> str | None:
    return next((f"round {number}: {found}" for number, found in enumerate(map(_wrong, _fold(kind)), 1) if found), None)


def ends(kind: Kind) -> str | None:
    for parameters in at_the_ends(kind):
        for number, found in enumerate(map(_wrong, _fold(kind, parameters)), start=1):
            if found:
                return f"with {parameters}, round {number}: {found}"
    return None


def nobody_sends(kind: Kind) -> str | None:
    return _wrong(_joined(kind, updates(1, 3, silent=(0, 1, 2)), {}))


def one_client(kind: Kind) -> str | None:
    return _wrong(_joined(kind, updates(1, 1, silent=()), {}))


def input_unchanged(kind: Kind) -> str | None:
    state: Any = {}
    at = weights()
    for number in range(1, ROUNDS + 1):
        given, kept, before = updates(number), {name: value.clone() for name, value in state.items()}, at.clone()
        after = _joined(kind, given, state, at=at)
        if not torch.equal(at, before):
            return f"round {number}: it changed the weights in their place"
        if any(
            one.delta is not None and two.delta is not None and not torch.equal(one.delta, two.delta)
            for one, two in zip(given, updates(number), strict=True)
        ):
            return f"round {number}: it changed an update in its place"
        if state.keys() != kept.keys() or any(not torch.equal(state[name], kept[name]) for name in kept):
            return f"round {number}: it changed its old state in its place"
        at, state = after
    return None


def repeatable(kind: Kind) -> str | None:
    for number, ((one, _), (two, _)) in enumerate(zip(_fold(kind), _fold(kind), strict=True), start=1):
        if not torch.equal(one, two):
            return f"round {number} gives other weights the second time"
    return None


def state_survives(kind: Kind) -> str | None:
    pairs = zip(_fold(kind), _fold(kind, through_file=True), strict=True)
    for number, ((one, _), (two, _)) in enumerate(pairs, start=1):
        if not torch.equal(one, two):
            return f"round {number} gives other weights after a restart"
    return None


def any_order(kind: Kind) -> str | None:
    """Up to the rounding of sums."""
    one = _joined(kind, updates(1), {})[0]
    two = _joined(kind, updates(1)[::-1], {})[0]
    far = float((one - two).abs().max())
    return f"in another order of the clients a weight differs by {far:.3g}" if far > 1e-5 else None


def quick(kind: Kind) -> str | None:
    clients, size = BIG
    given = updates(1, clients, size, silent=())
    seconds = timed(lambda: _joined(kind, given, {}, at=torch.zeros(size)))
    text = f"{clients} clients of {size:,} weights took {seconds:.2f} s"
    return text if seconds > MOST_SECONDS else Holds(text)


def pure(kind: Kind) -> str | None:
    return purity.witness(lambda: list(_fold(kind)))


def stands_still(kind: Kind) -> str | None:
    after = _joined(kind, updates(1, 3, silent=(0, 1, 2)), {})[0]
    far = float((after - weights()).abs().max())
    return f"where nobody sends anything a weight moves by {far:.3g}" if far else None


def follows_all(kind: Kind) -> str | None:
    """Where everybody sends the same, that is the step, up to rounding."""
    delta = torch.linspace(-0.1, 0.1, SIZE)
    given = [
        Update(client=place + 1, num_examples=50, sent=delta.clone(), loss_before=1.0, loss_after=0.5)
        for place in range(5)
    ]
    far = float((_joined(kind, given, {})[0] - weights() - delta).abs().max())
    return f"where all send the same step it takes one that differs by {far:.3g}" if far > 1e-5 else None


def bears_one_liar(kind: Kind) -> str | None:
    """One of seven sends an update a thousand times as large as the others'."""
    honest = updates(1, 7, silent=())
    far_off = torch.linspace(-100.0, 100.0, SIZE)
    liar = Update(client=7, num_examples=50, sent=far_off, loss_before=1.0, loss_after=0.5)
    far = float((_joined(kind, [*honest[:6], liar], {})[0] - weights()).abs().max())
    return f"one liar among seven moves a weight by {far:.3g}" if far > 1.0 else None


def true_coefficients(kind: Kind) -> str | None:
    """Over rounds, whoever is silent or not there; up to rounding. Holds where there are none."""
    code = kind.load()
    told = getattr(code, "coefficients", None)
    if told is None:
        return None
    absences: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (  # who is silent, and who is not there
        ((2,), ()),
        ((), ()),
        ((0, 1, 4), ()),
        ((), (0, 5)),
        ((0, 1, 2, 3, 4, 5), ()),
    )
    for parameters in (usual(kind), *at_the_ends(kind)):
        at = weights()
        state: Any = {}
        for number in range(1, ROUNDS + 1):
            for silent, away in absences:
                given = updates(number, silent=(*silent, *away))
                members = np.array([update.delta is not None for update in given])
                sizes = np.array([0 if place in away else each.num_examples for place, each in enumerate(given)])
                deltas = torch.stack([torch.zeros(SIZE) if each.delta is None else each.delta for each in given])
                carried = state.get(code.carried)
                beside = {} if carried is None else {"carried": lambda carried=carried: carried}
                first, others = told(members, sizes, Products(deltas, members, beside), dict(state), **parameters)
                others = np.asarray(others, np.float64)
                if others.shape != members.shape or others[~members].any():
                    return (
                        f"round {number}: the coefficients are not one for each client, and 0 of those who are silent"
                    )
                step = torch.from_numpy(others) @ deltas.double()
                if carried is not None:
                    step = step + float(first) * carried.double()
                there = [each for each, size in zip(given, sizes, strict=True) if size]
                taken = _joined(kind, there, state, at=at.clone(), parameters=parameters)[0] - at
                far = float((step - taken).abs().max())
                if not far <= 1e-5 * max(1.0, float(taken.abs().max())):
                    who = f"{int(members.sum())} of {len(there)} sending"
                    return f"with {parameters}, round {number}, {who}, they give a step that differs by {far:.3g}"
            at, state = _joined(kind, updates(number), state, at=at.clone(), parameters=parameters)
    return None


def weighted_sum(kind: Kind) -> str | None:
    if getattr(kind.load(), "coefficients", None) is None:
        return "it tells no coefficients"
    return true_coefficients(kind)


CHECKS = (
    Check(
        name="float_weights", says="gives float32 [P], finite, and tensors by name", run=float_weights, required=True
    ),
    Check(name="nobody_sends", says="takes a round in which nobody sends anything", run=nobody_sends, required=True),
    Check(name="one_client", says="takes a round of one client", run=one_client, required=True),
    Check(name="input_unchanged", says="changes nothing of what it is given", run=input_unchanged, required=True),
    Check(name="repeatable", says="gives the same for the same", run=repeatable, required=True),
    Check(name="state_survives", says="goes on after a restart as without one", run=state_survives, required=True),
    Check(name="any_order", says="gives the same in another order of the clients", run=any_order, required=True),
    Check(
        name="quick",
        says=f"takes at most {MOST_SECONDS:g} s for {BIG[0]} clients of {BIG[1]:,} weights",
        run=quick,
        required=True,
        fast=False,
    ),
    Check(name="pure", says="uses no clock, file, socket, process or shared generator", run=pure, required=True),
    Check(name="ends", says="keeps all that at the ends of its parameters", run=ends, required=True, fast=False),
    Check(
        name="true_coefficients",
        says="takes the step that its coefficients give, where it tells some",
        run=true_coefficients,
        required=True,
    ),
    Check(name="stands_still", says="moves nothing where nobody sends anything", run=stands_still),
    Check(name="follows_all", says="takes the step that everybody sends", run=follows_all),
    Check(name="bears_one_liar", says="is not carried away by one of seven", run=bears_one_liar),
    Check(name="weighted_sum", says="takes a weighted sum of updates, and tells the weights", run=weighted_sum),
)
