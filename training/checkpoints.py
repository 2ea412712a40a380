"""The state between two rounds on disk: whole or not at all, and known by its hash."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from training import failpoints

KEPT = 2  # the newest, and the one before in case the newest is torn


@dataclass(frozen=True, kw_only=True, eq=False)
class State:
    """All that a run needs to go on after a round."""

    round_number: int  # the last one done; 0 = untrained
    weights: Tensor  # float32 [P]
    strategy_state: Mapping[str, Tensor]  # saved as of the CPU, on whatever device it is
    validation_loss: float | None  # of `weights`; None without a validation set
    best_validation_loss: float | None = None  # over rounds 0 to this; None too in files of the first release
    config_sha256: str
    kept: Mapping[str, Tensor] = field(default_factory=dict)  # beside them, where somebody looks at it: `previous_step`
    # [P], the server's of this round; `summed` [clients, P], each client's updates so far. In the machine's memory


def save(folder: Path, state: State) -> str:
    """Writes `round-000012.pt` and returns its SHA-256; equal states give equal bytes.

    The file appears whole under its name or not at all, also when the machine loses power. Older rounds than
    the one before are removed, newer ones never, so a process that lost its run cannot take away what its
    successor wrote.
    """
    content = _packed(state)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / _name(state.round_number)
    temporary = folder / f"{target.name}.{secrets.token_hex(8)}.tmp"
    try:
        _write(temporary, content)
        failpoints.reach("checkpoint_written")
        os.replace(temporary, target)
        failpoints.reach("checkpoint_renamed")
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(folder)
    _remove_older(folder, state.round_number)
    return hashlib.sha256(content).hexdigest()


def load(folder: Path, round_number: int, sha256: str) -> State | None:
    """The state after a round; None where the file is missing or is not the one with this hash."""
    try:
        content = (folder / _name(round_number)).read_bytes()
    except FileNotFoundError:
        return None
    if hashlib.sha256(content).hexdigest() != sha256:
        return None
    return State(**torch.load(io.BytesIO(content), weights_only=True))


def _packed(state: State) -> bytes:
    buffer = io.BytesIO()
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    # clone: of a view, torch.save would write the whole storage behind it
    fields["weights"] = state.weights.clone()
    fields["strategy_state"] = {name: tensor.cpu().clone() for name, tensor in sorted(state.strategy_state.items())}
    if not state.kept:
        del fields["kept"]  # as files of runs that keep nothing have always been
    else:
        fields["kept"] = {name: tensor.cpu().clone() for name, tensor in sorted(state.kept.items())}
    torch.save(fields, buffer)
    return buffer.getvalue()


def _name(round_number: int) -> str:
    return f"round-{round_number:06d}.pt"


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """A rename is only on disk once its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_older(folder: Path, round_number: int) -> None:
    """Also what killed processes left half written."""
    oldest_kept = _name(max(round_number - KEPT + 1, 0))
    for path in folder.glob("round-*.pt*"):
        if path.name < oldest_kept:
            path.unlink(missing_ok=True)
