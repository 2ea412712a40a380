"""What a round keeps so that its contributions can be computed again."""

import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incentives.valuation import VALUATIONS
from incentives.valuation.evidence import EvidenceError, Recorded, pack, unpack

from .games import additive, asked, of_table


def recorded_round(name, n, seed=0):
    """A valuation of random utilities, its values and its evidence."""
    rng = np.random.default_rng(seed)
    game = of_table(rng.standard_normal(2**n)) if n <= 16 else additive(rng.standard_normal(n))
    recorded = Recorded(game)
    players, num_examples = range(3, n + 3), rng.integers(1, 1000, n).tolist()
    values = VALUATIONS[name](recorded, num_examples)
    return values, pack(players, num_examples, recorded)


@pytest.mark.parametrize("name", VALUATIONS)
@pytest.mark.parametrize("n", [0, 1, 2, 7, 8, 9, 12])
def test_it_gives_the_same_contributions_again_to_the_last_bit(name, n):
    values, blob = recorded_round(name, n)
    evidence = unpack(blob)
    again = VALUATIONS[name](evidence.game(), evidence.num_examples)
    assert again.tobytes() == values.tobytes()
    assert evidence.players == tuple(range(3, n + 3))


def test_it_holds_a_thousand_players():
    values, blob = recorded_round("leave_one_out", 1000)
    evidence = unpack(blob)
    assert evidence.coalitions.shape == (1001, 1000)
    assert len(blob) == 52 + 16 * 1000 + 1001 * 8
    assert VALUATIONS["leave_one_out"](evidence.game(), evidence.num_examples).tobytes() == values.tobytes()


def test_it_keeps_a_fixed_layout():
    recorded = Recorded(additive([1.0, -2.0]))
    recorded(np.array([[True, True], [False, True]]))
    body = struct.pack("<8sIII4q2B2d", b"FEDGAME3", 2, 2, 0, 4, 9, 100, 50, 0b10, 0b11, -2.0, -1.0)
    assert pack([4, 9], [100, 50], recorded) == body + hashlib.sha256(body).digest()


def test_it_writes_and_reads_the_second_layout():
    """Of runs of scheme 2, for ever: in the order in which they were evaluated."""
    recorded = Recorded(additive([1.0, -2.0]))
    recorded(np.array([[True, True], [False, True]]))
    body = struct.pack("<8sIII4q2B2d", b"FEDGAME2", 2, 2, 0, 4, 9, 100, 50, 0b11, 0b10, -1.0, -2.0)
    blob = body + hashlib.sha256(body).digest()
    assert pack([4, 9], [100, 50], recorded, version=2) == blob
    recorded(np.array([[True, False]]))
    body = struct.pack("<8sIII4q3d", b"FEDGAME2", 2, 3, 2, 4, 9, 100, 50, -1.0, -2.0, 1.0)
    assert pack([4, 9], [100, 50], recorded, version=2) == body + hashlib.sha256(body).digest()
    assert unpack(body + hashlib.sha256(body).digest()).coalitions.tolist() == [[1, 1], [0, 1], [1, 0]]


@pytest.mark.parametrize("name", ["shapley", "leave_one_out", "loss_improvement"])
def test_its_bytes_do_not_depend_on_the_order_of_evaluation(name):
    game = additive(np.arange(5.0))
    blobs = set()
    for before in ([], [[True] * 5], [[False] * 4 + [True]], [[True] + [False] * 4, [False] * 5]):
        recorded = Recorded(game)
        if name == "shapley" and before:  # asked beforehand, of what it asks anyway
            recorded(np.array(before))
        VALUATIONS[name](recorded, [1] * 5)
        blobs.add(pack(range(1, 6), [1] * 5, recorded))
    assert len(blobs) == 1
    evidence = unpack(blobs.pop())
    numbers = evidence.coalitions @ (1 << np.arange(5))
    assert numbers.tolist() == sorted(numbers.tolist())


def test_it_writes_and_reads_the_first_layout():
    """Of runs of scheme 1, for ever."""
    recorded = Recorded(additive([1.0, -2.0]))
    recorded(np.array([[True, True], [False, True], [True, False]]))
    body = struct.pack("<8sII4q3B3d", b"FEDGAME1", 2, 3, 4, 9, 100, 50, 0b11, 0b10, 0b01, -1.0, -2.0, 1.0)
    blob = body + hashlib.sha256(body).digest()
    assert pack([4, 9], [100, 50], recorded, version=1) == blob
    assert unpack(blob).utilities.tolist() == [-1.0, -2.0, 1.0]


@pytest.mark.parametrize(
    ("name", "n", "way", "size"),
    [
        ("shapley", 10, 1, 52 + 160 + 8 * 1024),
        ("leave_one_out", 300, 2, 52 + 16 * 300 + 8 * 301),
        ("loss_improvement", 300, 3, 52 + 16 * 300 + 8 * 301),
        ("equal", 300, 0, 52 + 16 * 300),
    ],
)
def test_it_names_coalitions_that_follow_a_rule(name, n, way, size):
    values, blob = recorded_round(name, n)
    assert (struct.unpack_from("<I", blob, 16)[0], len(blob)) == (way, size)
    evidence = unpack(blob)
    assert VALUATIONS[name](evidence.game(), evidence.num_examples).tobytes() == values.tobytes()


@given(st.integers(1, 20), st.integers(0, 40), st.integers(0, 2**32))
@settings(deadline=None, max_examples=50)
def test_it_packs_what_it_unpacks(n, m, seed):
    rng = np.random.default_rng(seed)
    coalitions = rng.random((m, n)) < 0.5
    recorded = Recorded(additive(rng.standard_normal(n)))
    utilities = recorded(coalitions)
    blob = pack(range(1, n + 1), [5] * n, recorded)
    evidence = unpack(blob)
    assert evidence.game()(coalitions).tobytes() == utilities.tobytes()
    again = Recorded(evidence.game())
    again(evidence.coalitions)
    assert pack(evidence.players, evidence.num_examples, again) == blob


def test_it_evaluates_a_coalition_once():
    batches = []
    recorded = Recorded(asked(additive([1.0, 2.0, 4.0]), batches))
    first = np.array([[True, False, False], [True, True, False], [True, False, False]])
    assert recorded(first).tolist() == [1, 3, 1]
    assert recorded(np.array([[True, True, False], [False, False, True]])).tolist() == [3, 4]
    assert [len(batch) for batch in batches] == [2, 1]
    assert unpack(pack([1, 2, 3], [1, 1, 1], recorded)).utilities.tolist() == [1, 3, 4]  # 001, 011, 100


@pytest.mark.parametrize("utility", [np.nan, np.inf])
def test_it_records_nothing_that_is_not_a_number(utility):
    recorded = Recorded(lambda coalitions: np.full(len(coalitions), utility))
    with pytest.raises(ValueError, match="coalition of 2 of 3 players"):
        recorded(np.array([[True, True, False]]))
    assert recorded.table() == {}


def test_it_says_what_was_not_evaluated():
    _, blob = recorded_round("leave_one_out", 4)
    with pytest.raises(EvidenceError, match="a coalition of 0 players was not evaluated"):
        VALUATIONS["shapley"](unpack(blob).game(), [1] * 4)


def test_it_notices_every_changed_bit():
    _, blob = recorded_round("leave_one_out", 2)
    for place in range(8 * len(blob)):
        changed = bytearray(blob)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises(EvidenceError):
            unpack(bytes(changed))


def test_it_notices_every_cut_and_any_addition():
    _, blob = recorded_round("leave_one_out", 2)
    for length in range(len(blob)):
        with pytest.raises(EvidenceError):
            unpack(blob[:length])
    with pytest.raises(EvidenceError):
        unpack(blob + b"\0")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ((b"FEDGAME1", 1, 2, 4, 9, 1, 1, 1.0, 1.0), "names a coalition twice"),
        ((b"FEDGAME1", 1, 2, 4, 9, 1, 3, 1.0, 1.0), "a player that is not there"),
        ((b"FEDGAME1", 1, 3, 4, 9, 1, 0, 1.0, 1.0), "evidence of 1 players and 3 coalitions has"),
        ((b"FEDGAME4", 1, 2, 4, 9, 1, 0, 1.0, 1.0), "of a version unknown here"),
    ],
)
def test_it_refuses_evidence_that_is_whole_but_wrong(fields, named):
    body = struct.pack("<8sII2q2B2d", *fields)
    with pytest.raises(EvidenceError, match=named):
        unpack(body + hashlib.sha256(body).digest())


@pytest.mark.parametrize(
    ("n", "m", "way"), [(2, 3, 1), (2, 2, 2), (0, 1, 1), (17, 131_072, 1), (2, 3, 4), (2**31, 2**31 + 1, 2)]
)
def test_it_refuses_a_family_that_does_not_fit(n, m, way):
    """Before it makes room for it."""
    body = struct.pack("<8sIII", b"FEDGAME2", n, m, way) + bytes(16 * min(n, 99) + 8 * min(m, 99))
    with pytest.raises(EvidenceError, match="cannot be told in way"):
        unpack(body + hashlib.sha256(body).digest())


def test_it_refuses_to_pack_what_does_not_fit_together():
    recorded = Recorded(additive([1.0] * 9))
    recorded(np.ones((1, 9), dtype=bool))
    for players, num_examples in [([1, 2], [1, 1]), (range(9), [1])]:
        with pytest.raises(ValueError, match="do not fit"):
            pack(players, num_examples, recorded)
