"""Evidence read without numpy says what the reader with numpy says, of every version and family."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incentives import coalitions
from incentives.valuation.evidence import Recorded, pack, unpack
from incentives.valuation.exact import all_coalitions


def blob(n: int, version: int, family: str, seed: int = 0) -> bytes:
    draws = np.random.default_rng(seed)
    game = Recorded(lambda asked: draws.normal(size=len(asked)))
    left_out = np.concatenate([np.ones((1, n), dtype=bool), ~np.eye(n, dtype=bool)])
    some = all_coalitions(n)[draws.permutation(2**n)[: 2**n // 2 + 1]]
    game({"all": all_coalitions(n), "left out": left_out, "alone": ~left_out, "some": some}[family])
    return pack(range(3, 3 + n), [10] * n, game, version)


@settings(deadline=None)
@given(
    n=st.integers(1, 9),
    version=st.sampled_from([1, 2, 3]),
    family=st.sampled_from(["all", "left out", "alone", "some"]),
    seed=st.integers(0, 9),
)
def test_both_readers_agree(n, version, family, seed):
    content = blob(n, version, family, seed)
    told, read = unpack(content), coalitions.read(content)
    numbers = [sum(1 << place for place in range(n) if row[place]) for row in told.coalitions]
    assert read.players == told.players
    assert read.count == len(numbers)
    assert read.utilities() == dict(zip(numbers, told.utilities.tolist(), strict=True))


def test_what_was_changed_or_cut_is_not_read():
    content = blob(4, 3, "all")
    for wrong in (b"", b"FEDGAME3", content[:-1], content[8:], content[:60] + b"x" + content[61:]):
        with pytest.raises(ValueError, match="evidence"):
            coalitions.read(wrong)
