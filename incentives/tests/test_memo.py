"""What a round's transaction commits to: one encoding for every value, golden hashes, a second writer of the page."""

import dataclasses
import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from incentives.memo import Facts, Paid, encode

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


def read(data: bytes, at: int = 0):
    """A second reader, from the page in incentives.memo alone: (value, where it ends)."""
    letter = data[at : at + 1]
    if letter in b"ntf":
        return {b"n": None, b"t": True, b"f": False}[letter], at + 1
    if letter == b"i":
        end = data.index(b";", at)
        return int(data[at + 1 : end]), end + 1
    if letter == b"d":
        return struct.unpack("<d", data[at + 1 : at + 9])[0], at + 9
    if letter in b"sb":
        colon = data.index(b":", at)
        end = colon + 1 + int(data[at + 1 : colon])
        content = data[colon + 1 : end]
        return (content.decode() if letter == b"s" else content), end
    members, at = [], at + 1
    while data[at : at + 1] != b"e":
        member, at = read(data, at)
        members.append(member)
    if letter == b"l":
        return members, at + 1
    return dict(zip(members[::2], members[1::2], strict=True)), at + 1


def typed(value):
    """Equal for equal values of equal types: 1 is not 1.0, and no True. But 10^16 is 1e16, as jsonb has it."""
    if type(value) is int and abs(value) >= 10**16:
        value = float(value)
    if isinstance(value, list | tuple):
        return "list", [typed(each) for each in value]
    if isinstance(value, dict):
        return "object", {name: typed(each) for name, each in value.items()}
    return type(value), value


@given(VALUES)
def test_it_is_read_back_by_whoever_knows_the_page(value):
    encoded = encode(value)
    found, end = read(encoded)
    assert end == len(encoded)
    assert typed(found) == typed(value)


@given(VALUES, VALUES)
def test_two_values_have_two_encodings(one, other):
    assert (encode(one) == encode(other)) == (typed(one) == typed(other))


def test_it_is_as_the_page_says():
    assert encode([None, True, False, -12, "aé", b"\x00", 1.5, {"b": [], "a": {}}]) == (
        b"lntfi-12;s3:a\xc3\xa9b1:\x00d" + struct.pack("<d", 1.5) + b"os1:aoes1:blee" + b"e"
    )
    assert encode(-0.0) == encode(0.0)
    assert encode((1, 2)) == encode([1, 2])
    assert encode(10**16 - 1) == b"i9999999999999999;"
    assert encode([10**16, -(10**23)]) == encode([1e16, -1e23])
    assert encode(10**400) == b"i1" + b"0" * 400 + b";"
    for wrong in (float("nan"), float("inf"), object(), {1: 2}):
        with pytest.raises((ValueError, AttributeError, TypeError)):
            encode(wrong)


FACTS = Facts(
    training_sha256="ab" * 32,
    round_number=1,
    cohort=(1, 3),
    num_examples=(10, 20),
    true_examples=(10, 20),
    effort=(10, 0),
    losses_before=(2.5, None),
    losses_after=(2.25, None),
    update_norms=(0.5, 0.0),
    previous_validation_loss=2.0,
    validation_loss=1.5,
    best_validation_loss=2.0,
    weights_sha256="cd" * 32,
)
PAID = Paid(contributions=(0.5, 0.0), pool=5_000_000, minted=5_000_000, burned=0, shares=(5_000_000, 0))


def test_hashes_are_for_ever():
    """Ledgers that were written stand on them."""
    assert FACTS.sha256() == "9ae46f032786a9747f567bbd45c1af162f1865f3726dddf929143535c5409037"
    assert (
        PAID.sha256({"valuation": {"kind": "shapley"}})
        == "7db85d16a57ede26e80b0f61c94be826600ba260a952eef932d98df5575ca252"
    )
    assert FACTS.sha256() == hashlib.sha256(b"fedsite facts 1\n" + encode(FACTS.to_dict())).hexdigest()


def test_who_sent_something_is_hashed_where_losses_do_not_tell():
    assert dataclasses.replace(FACTS, sent=(True, False)) == FACTS
    without_training = dataclasses.replace(FACTS, sent=(True, True))
    assert without_training.sha256() != FACTS.sha256()
    assert (FACTS.arrived, without_training.arrived) == ((True, False), (True, True))


def test_every_fact_and_every_part_of_a_payment_moves_its_hash():
    for name, value in {
        "training_sha256": "ac" * 32,
        "round_number": 2,
        "cohort": (1, 2),
        "num_examples": (10, 21),
        "true_examples": (11, 20),
        "effort": (10, 1),
        "losses_before": (2.5000000000000004, None),
        "losses_after": (2.25, 0.0),
        "update_norms": (0.5, 1e-300),
        "previous_validation_loss": 2.5,
        "validation_loss": None,
        "best_validation_loss": 1.0,
        "weights_sha256": "ce" * 32,
    }.items():
        assert dataclasses.replace(FACTS, **{name: value}).sha256() != FACTS.sha256(), name
    economy = {"valuation": {"kind": "shapley"}}
    for name, value in {
        "contributions": (0.5000000000000001, 0.0),
        "errors": (0.0, 0.0),
        "pool": 4_999_999,
        "minted": 0,
        "burned": 1,
        "shares": (4_999_999, 1),
        "utilities_sha256": "0" * 64,
        "state": {"pool": {"a": 1}},
    }.items():
        assert dataclasses.replace(PAID, **{name: value}).sha256(economy) != PAID.sha256(economy), name
    assert PAID.sha256({"valuation": {"kind": "equal"}}) != PAID.sha256(economy)
