"""The contract of detectors: `f(facts, state, **parameters) -> (scores [n], state)`, on rounds made up."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from extensions.contract import Check, at_the_ends, purity, usual
from incentives.economy import DetectorFacts, check_state
from incentives.products import RecordedProducts
from kinds import Kind

SIZES = (1, 2, 5)
WEIGHTS = 8
ROUNDS = 3


def facts(n: int, round_number: int = 1, *, silent: int | None = None) -> DetectorFacts:
    """As of clients 2, 4, 6, ...; one of them may have sent nothing."""
    rng = np.random.default_rng([n, round_number])
    updates = rng.standard_normal((n, WEIGHTS))
    sent = np.arange(n) != silent
    updates[~sent] = 0.0
    products: dict[str, NDArray[np.float64]] = {
        "updates": updates @ updates.T,
        "squared_norms": (updates**2).sum(1),
        "alone": 1 + 0.1 * rng.standard_normal(n),
    }
    products["summed"] = products["updates"] * round_number
    vectors = {name: rng.standard_normal(WEIGHTS) for name in ("step", "previous_step", "gradient", "root_step")}
    if round_number == 1:
        vectors["previous_step"] = np.zeros(WEIGHTS)
    for name, vector in vectors.items():
        products[name] = updates @ vector
        products |= {f"{name}.{other}": np.array(vector @ vectors[other]) for other in vectors}
    return DetectorFacts(
        round_number=round_number,
        clients=tuple(range(2, 2 * n + 1, 2)),
        num_examples=tuple(100 + 10 * place for place in range(n)),
        sent=tuple(sent.tolist()),
        losses_before=tuple(2.0 if here else None for here in sent),
        losses_after=tuple(1.0 if here else None for here in sent),
        update_norms=tuple(np.sqrt(products["squared_norms"]).tolist()),
        previous_validation_loss=1.0,
        products=RecordedProducts(products),
    )


def _rounds(kind: Kind, n: int, parameters: Mapping[str, Any] | None = None) -> Iterator[tuple[Any, Any]]:
    """What it gives in rounds in a row, its state handed on as JSON gives it back."""
    state: Any = {}
    for number in range(1, ROUNDS + 1):
        found = kind.load()(
            facts(n, number, silent=number % n if n > 1 else None), state, **(parameters or usual(kind))
        )
        if not isinstance(found, tuple) or len(found) != 2:
            raise TypeError(f"it gave {type(found).__name__}, not scores and a state")
        check_state(found[1])
        state = json.loads(json.dumps(found[1]))
        yield found


def _wrong(kind: Kind, parameters: Mapping[str, Any] | None = None) -> str | None:
    for n in SIZES:
        for number, (scores, _) in enumerate(_rounds(kind, n, parameters), 1):
            each = np.asarray(scores, np.float64)
            if each.shape != (n,):
                return f"round {number} of {n} clients: scores are {list(each.shape)}, not [{n}]"
            if not ((each >= 0) & (each <= 1)).all():
                return f"round {number} of {n} clients: scores are {each.tolist()}, not from 0 to 1"
    return None


def outputs(kind: Kind) -> Iterator[str]:
    for n in SIZES:
        for scores, state in _rounds(kind, n):
            yield repr((np.asarray(scores, np.float64).tolist(), state))


def scores(kind: Kind) -> str | None:
    return _wrong(kind)


def ends(kind: Kind) -> str | None:
    for parameters in at_the_ends(kind):
        if found := _wrong(kind, parameters):
            return f"with {parameters}: {found}"
    return None


def repeatable(kind: Kind) -> str | None:
    """Made again in another process, from the state as it was kept, it does what it did."""
    return None if list(outputs(kind)) == list(outputs(kind)) else "made again, it gives other scores"


def pure(kind: Kind) -> str | None:
    return purity.witness(lambda: list(outputs(kind)))


def products_named(kind: Kind) -> str | None:
    """What it asks products of must be kept for it."""
    seen = facts(5, 2)
    kind.load()(seen, {}, **usual(kind))
    asked = set(seen.products.asked)
    kept = {"summed": "summed", "previous_step": "previous_step"}
    wanted = ({"products"} if asked else set()) | {kept[name.partition(".")[0]] for name in asked if name in kept}
    missing = sorted(wanted - kind.traits)
    return f"it asks for {', '.join(sorted(asked))}; its traits lack {', '.join(missing)}" if missing else None


def silent_scores(kind: Kind) -> str | None:
    """Of whom nothing came, nothing is said."""
    found, _ = kind.load()(facts(5, 2, silent=3), {}, **usual(kind))
    score = float(np.asarray(found)[3])
    return f"a client that sent nothing scores {score}" if score else None


def anonymous(kind: Kind) -> str | None:
    """Numbers of clients decide nothing."""
    seen = facts(5, 2)
    renamed = dataclasses.replace(seen, clients=tuple(client + 1 for client in seen.clients))
    one, two = (kind.load()(each, {}, **usual(kind))[0] for each in (seen, renamed))
    return None if np.array_equal(one, two) else f"scores {np.asarray(one).tolist()} become {np.asarray(two).tolist()}"


CHECKS = (
    Check(name="scores", says="gives a score from 0 to 1 for each client, and a state", run=scores, required=True),
    Check(
        name="repeatable",
        says="gives the same for the same, from the state that is kept",
        run=repeatable,
        required=True,
    ),
    Check(name="products_named", says="names in its traits what it asks for", run=products_named, required=True),
    Check(name="pure", says="uses no clock, file, socket, process or shared generator", run=pure, required=True),
    Check(name="ends", says="keeps all that at the ends of its parameters", run=ends, required=True, fast=False),
    Check(name="silent", says="says nothing of a client that sent nothing", run=silent_scores),
    Check(name="anonymous", says="does not mind how clients are numbered", run=anonymous),
)
