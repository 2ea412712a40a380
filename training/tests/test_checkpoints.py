import dataclasses
import hashlib
import os

import pytest
import torch

from training import checkpoints
from training.checkpoints import State


def state(round_number: int, **fields) -> State:
    values = {
        "weights": torch.arange(5, dtype=torch.float32) / 3 + round_number,
        "strategy_state": {"velocity": torch.tensor([0.1, -2.0]), "count": torch.tensor(7)},
        "validation_loss": 0.1 + 0.2,
        "config_sha256": "c" * 64,
    }
    return State(**{**values, "round_number": round_number, **fields})


def same(one: State, two: State) -> bool:
    tensors = torch.equal(one.weights, two.weights) and one.strategy_state.keys() == two.strategy_state.keys()
    inner = all(torch.equal(one.strategy_state[name], two.strategy_state[name]) for name in one.strategy_state)
    plain = ("round_number", "validation_loss", "config_sha256")
    return tensors and inner and all(getattr(one, name) == getattr(two, name) for name in plain)


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("fields", [{}, {"validation_loss": None, "strategy_state": {}}])
def test_it_brings_back_what_was_saved(tmp_path, fields):
    saved = state(12, **fields)
    sha256 = checkpoints.save(tmp_path / "new" / "folder", saved)
    assert names(tmp_path / "new" / "folder") == ["round-000012.pt"]
    content = (tmp_path / "new" / "folder" / "round-000012.pt").read_bytes()
    assert hashlib.sha256(content).hexdigest() == sha256
    assert same(checkpoints.load(tmp_path / "new" / "folder", 12, sha256), saved)


def test_it_gives_equal_states_equal_bytes(tmp_path):
    other = state(1, strategy_state=dict(reversed(list(state(1).strategy_state.items()))))
    assert checkpoints.save(tmp_path / "a", state(1)) == checkpoints.save(tmp_path / "b", other)


def test_it_writes_no_more_than_a_view_shows(tmp_path):
    checkpoints.save(tmp_path, state(1, weights=torch.zeros(1_000_000)[:5]))
    assert (tmp_path / "round-000001.pt").stat().st_size < 10_000


def test_it_keeps_the_last_two(tmp_path):
    for round_number in range(1, 6):
        checkpoints.save(tmp_path, state(round_number))
    assert names(tmp_path) == ["round-000004.pt", "round-000005.pt"]


def test_it_does_not_take_away_what_a_successor_wrote(tmp_path):
    shas = {number: checkpoints.save(tmp_path, state(number)) for number in (7, 8)}
    checkpoints.save(tmp_path, state(3))  # a process that does not know yet that it lost its run
    for number, sha256 in shas.items():
        assert same(checkpoints.load(tmp_path, number, sha256), state(number))


def test_it_does_not_stumble_over_another_process_that_saves_the_same_round(tmp_path, monkeypatch):
    write, met = checkpoints._write, []

    def write_while_another_does(path, content):
        write(path, content)
        monkeypatch.setattr(checkpoints, "_write", write)
        met.append(checkpoints.save(tmp_path, state(4, config_sha256="another")))

    monkeypatch.setattr(checkpoints, "_write", write_while_another_does)
    sha256 = checkpoints.save(tmp_path, state(4))
    assert names(tmp_path) == ["round-000004.pt"]
    assert same(checkpoints.load(tmp_path, 4, sha256), state(4))
    assert checkpoints.load(tmp_path, 4, met[0]) is None


def test_it_clears_what_a_killed_process_left(tmp_path):
    (tmp_path / "round-000002.pt.0123456789abcdef.tmp").write_bytes(b"half")
    (tmp_path / "unrelated.txt").write_text("stays")
    checkpoints.save(tmp_path, state(6))
    assert names(tmp_path) == ["round-000006.pt", "unrelated.txt"]


def test_it_finds_nothing_where_nothing_is(tmp_path):
    assert checkpoints.load(tmp_path / "nowhere", 1, "0" * 64) is None


@pytest.mark.parametrize("damage", [lambda old: old[:-1], lambda old: b"", lambda old: old[:50] + b"X" + old[51:]])
def test_it_detects_a_torn_file(tmp_path, damage):
    sha256 = checkpoints.save(tmp_path, state(1))
    path = tmp_path / "round-000001.pt"
    path.write_bytes(damage(path.read_bytes()))
    assert checkpoints.load(tmp_path, 1, sha256) is None


def test_it_leaves_the_old_file_whole_when_writing_fails(tmp_path, monkeypatch):
    sha256 = checkpoints.save(tmp_path, state(1))

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(tmp_path, dataclasses.replace(state(1), config_sha256="other"))
    assert names(tmp_path) == ["round-000001.pt"]
    assert same(checkpoints.load(tmp_path, 1, sha256), state(1))
