"""What a family's function must keep, as checks that run: each with a name, and a witness where it does not hold.

Required ones keep a plug-in out. The others are properties: measured, shown, and a plug-in's own business, unless it
claims one in its Kind's traits.
"""

from __future__ import annotations

import hashlib
import importlib
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from kinds import Kind

FAMILIES = ("rule", "pool", "valuation", "strategy", "behaviour", "model", "detector")
NEEDS = {"products", "summed", "previous_step"}  # traits that claim nothing: what is made and kept for a kind
WITH_PYTORCH = ("strategy", "behaviour", "model")
MOST_WITNESS = 400  # characters
OUT = ("refused", "broken claim")  # statuses that keep a plug-in out


class Holds(str):
    """That it holds, and a figure that is worth showing."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True)
class Check:
    """One sentence of a contract. `run(kind)` gives a counter-example in words, and None or Holds where it holds."""

    name: str
    says: str
    run: Callable[[Kind], str | None]
    required: bool = False
    fast: bool = True  # it runs whenever a plug-in is described


@dataclass(frozen=True, kw_only=True)
class Result:
    """Status: holds, does not hold, broken claim, refused, expected."""

    check: str
    says: str
    status: str
    witness: str = ""
    required: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def checks_of(family: str) -> tuple[Check, ...]:
    """KeyError for a family that takes no plug-ins."""
    if family not in FAMILIES:
        raise KeyError(family)
    found: tuple[Check, ...] = importlib.import_module(f"extensions.contract.{family}").CHECKS
    return found


def examined(kind: Kind, expected: Mapping[str, str] | None = None, *, fast_only: bool = False) -> Iterator[Result]:
    """One result after the other. `expected`: properties that it says it does not have, and why."""
    checks, expected = checks_of(kind.family), expected or {}
    properties = {check.name for check in checks if not check.required}
    for name in sorted({*kind.traits, *expected} - properties - NEEDS):
        says = f"a claim or an exception names one of: {', '.join(sorted(properties))}"
        unknown = f"there is no property {name}"
        yield Result(check="claims", says=says, status="refused", witness=unknown, required=True)
    for check in checks:
        if fast_only and not check.fast:
            continue
        witness = counter_example(check, kind)
        if witness is None or isinstance(witness, Holds):
            status = "holds"
        elif check.required:
            status = "refused"
        elif check.name in kind.traits:
            status = "broken claim"
        else:
            status = "expected" if check.name in expected else "does not hold"
        text = "" if witness is None else witness[:MOST_WITNESS]
        if status == "expected":
            text = f"{expected[check.name]} ({text})"[:MOST_WITNESS]
        yield Result(check=check.name, says=check.says, status=status, witness=text, required=check.required)


def counter_example(check: Check, kind: Kind) -> str | None:
    """In words; an exception is one too."""
    try:
        return check.run(kind)
    except Exception as error:
        frames = [
            frame
            for frame in traceback.extract_tb(error.__traceback__)
            if "/extensions/contract/" not in frame.filename
        ]
        where = f" (line {frames[-1].lineno} of {frames[-1].filename.rpartition('/')[2]})" if frames else ""
        return f"{type(error).__name__}: {error}{where}"


def usual(kind: Kind) -> dict[str, Any]:
    """Its parameters at their defaults."""
    return {name: parameter.check(parameter.default) for name, parameter in kind.parameters.items()}


def at_the_ends(kind: Kind) -> Iterator[dict[str, Any]]:
    """Its parameters with one of them at an end of what it may be."""
    for name, parameter in kind.parameters.items():
        ends: list[Any] = [end for end in (parameter.minimum, parameter.maximum) if end is not None]
        for end in [*ends, *parameter.choices, *([True, False] if parameter.type == "flag" else [])]:
            yield usual(kind) | {name: parameter.check(end)}


def digest(kind: Kind) -> str:
    """Of what it gives for a fixed set of inputs: equal in every process, or it is refused."""
    outputs = importlib.import_module(f"extensions.contract.{kind.family}").outputs(kind)
    return hashlib.sha256("\n".join(outputs).encode()).hexdigest()


def timed(call: Callable[[], Any]) -> float:
    """Seconds of this process's work, whatever else the machine does."""
    began = time.process_time()
    call()
    return time.process_time() - began
