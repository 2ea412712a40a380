"""docs/plugins.md shows what is there: the examples as they are tested, and every check."""

from __future__ import annotations

import re

import pytest

from extensions.contract import FAMILIES, checks_of
from extensions.tests import files

PAGE = (files.EXAMPLES.parents[1] / "docs" / "plugins.md").read_text()


@pytest.mark.parametrize("family", FAMILIES)
def test_it_shows_the_example_that_is_tested(family: str) -> None:
    assert f"```python\n{(files.EXAMPLES / f'{family}.py').read_text()}```" in PAGE


def contract_table() -> str:
    rows = [
        f"| {family} | `{check.name}` | {'yes' if check.required else ''} | {check.says} |"
        for family in FAMILIES
        for check in checks_of(family)
    ]
    return "\n".join(["| family | check | required | it |", "| --- | --- | --- | --- |", *rows])


def test_it_lists_every_check() -> None:
    assert contract_table() in PAGE, f"docs/plugins.md lacks this table:\n\n{contract_table()}\n"


def test_it_says_that_this_is_no_sandbox() -> None:
    assert re.search(r"\*\*.*This is no sandbox\.\*\*", PAGE, flags=re.DOTALL)
