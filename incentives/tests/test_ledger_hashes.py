"""The hashes, against numbers worked out apart from the code."""

import hashlib
import json

import pytest

from incentives import ledger
from incentives.chain import GENESIS, Content, Entry, body, canonical, chain_hash
from incentives.tests.cast import pay, three_rounds

CONTENT = Content(
    key="round:1:reward",
    transfers=(Entry("mint", "treasury", 10, "pool"), Entry("treasury", "client:1", 7, "reward")),
    description='Reward of "round" 1 \\ é €',
    memo={"round": 1, "a": "x"},
)
BODY = (
    '{"description":"Reward of \\"round\\" 1 \\\\ é €","key":"round:1:reward","memo":{"a":"x","round":1},'
    '"reverses":null,"sequence":1,"transfers":[["mint","treasury",10,"pool"],["treasury","client:1",7,"reward"]],'
    '"version":1}'
)


def test_it_writes_the_canonical_bytes():
    assert body(CONTENT, 1).decode() == BODY


def test_it_hashes_to_the_golden_values():
    record = hashlib.sha256(b"\x00" + BODY.encode()).digest()
    assert hashlib.sha256(b"fedsite ledger 1").hexdigest() == GENESIS
    assert chain_hash(GENESIS, CONTENT, 1) == hashlib.sha256(bytes.fromhex(GENESIS) + record).hexdigest()
    assert GENESIS == "a663dd6cfeee3d145ff95a7765f6bbb92c249f76a51a4616be3b757c55f6562f"
    assert chain_hash(GENESIS, CONTENT, 1) == "35a6ae1b20f3b36173c1af2baba8c69ed607769b7bb9c5984599903ad8fa47c7"
    assert CONTENT.sha256() == "3bcee0515fa9ebe918779e36e63303d43c21f083ca10d0d6df00e1bfdb782a00"


@pytest.mark.parametrize("value", [1.0, True, None.__class__, b"x", [1, [0.5]], {"a": {"b": False}}])
def test_it_refuses_to_hash_what_has_no_single_spelling(value):
    with pytest.raises(ValueError, match="is not an integer or a string"):
        canonical(value)


@pytest.mark.django_db
@pytest.mark.database
def test_it_gives_equal_histories_equal_heads_whatever_their_names_and_row_ids():
    first = three_rounds("simulation-1")
    pay(ledger.open_ledger("manual"), "noise", 1)
    second = three_rounds("simulation-2")
    assert (first.head, first.length) == (second.head, second.length)
    assert first.head == "0765db68434ac212aa8cbbb7846ca65aad0eec9a918c3f69608ff602e091b5c0"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("key", "rewards", "memo"),
    [("round:9", (5, 3, 2), {"round": 1}), ("round:1", (5, 3, 1), {"round": 1}), ("round:1", (5, 3, 2), {"round": 2})],
)
def test_it_gives_other_histories_other_heads(key, rewards, memo):
    first = pay(ledger.open_ledger("a"), "round:1", 5, 3, 2)
    assert pay(ledger.open_ledger("b"), key, *rewards, memo=memo).hash != first.hash


@pytest.mark.django_db
def test_it_can_be_derived_from_the_exported_lines_alone():
    from incentives.export import jsonl_lines

    opened = three_rounds()
    head = hashlib.sha256(b"fedsite ledger 1").digest()
    for line in jsonl_lines([opened]):
        posted = json.loads(line)
        names = ("sequence", "key", "description", "memo", "reverses", "transfers")
        hashed = {name: posted[name] for name in names} | {"version": 1}
        text = json.dumps(hashed, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        head = hashlib.sha256(head + hashlib.sha256(b"\x00" + text.encode()).digest()).digest()
        assert head.hex() == posted["hash"]
    assert head.hex() == opened.head
