"""For authors of plug-ins: their contract as tests of pytest's.

from extensions.testing import parametrize_with_checks
from lab import KINDS

@parametrize_with_checks(KINDS)
def test_contract(check):
    check()
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from extensions.contract import Check, Holds, checks_of, counter_example
from kinds import Kind


def parametrize_with_checks(kinds: Iterable[Kind], expected: Mapping[str, Mapping[str, str]] | None = None) -> Any:
    """A mark that runs a test once for each required check and each claim of each kind, `check` being its argument.

    `expected` is a plug-in's EXPECTED: what it says it does not keep is expected to fail.
    """
    import pytest

    found = []
    for kind in kinds:
        reasons = (expected or {}).get(kind.name, {})
        for check in checks_of(kind.family):
            if not check.required and check.name not in {*kind.traits, *reasons}:
                continue
            marks = [pytest.mark.xfail(reason=reasons[check.name], strict=True)] if check.name in reasons else []
            found.append(pytest.param(run(check, kind), id=f"{kind.name}-{check.name}", marks=marks))
    return pytest.mark.parametrize("check", found)


def run(check: Check, kind: Kind) -> Callable[[], None]:
    """A function that fails with the counter-example."""
    return partial(_run, check, kind)


def _run(check: Check, kind: Kind) -> None:
    witness = counter_example(check, kind)
    if witness is not None and not isinstance(witness, Holds):
        raise AssertionError(f"{kind.name} is said to: {check.says}. {witness}")
