"""What is hashed, and how. Pure; anyone can write it again from this page.

    content      the transaction without its place: key, description, memo, reverses, transfers
    body         content + sequence + version, as canonical JSON (RFC 8785: sorted keys, no
                 spaces, UTF-8; integers and strings only)
    record hash  SHA-256(0x00 || body)
    chain hash   SHA-256(previous chain hash || record hash), on raw bytes; hexadecimal where it is stored
    genesis      SHA-256("fedsite ledger 1")

Neither row ids nor times nor the ledger's name are hashed: equal histories have equal heads, whatever else
is recorded.
A transfer is the list [debit, credit, amount, code]; `reverses` is a sequence number or null.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

VERSION = 1
GENESIS = hashlib.sha256(f"fedsite ledger {VERSION}".encode()).hexdigest()


class Entry(NamedTuple):
    """One transfer to be: account names, micro-tokens, and what for."""

    debit: str
    credit: str
    amount: int
    code: str


@dataclass(frozen=True, kw_only=True)
class Content:
    """A transaction without its place in a chain."""

    key: str
    transfers: tuple[Entry, ...]
    description: str
    memo: Mapping[str, int | str]
    reverses: int | None = None  # sequence of the transaction that this one mirrors

    def fields(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "description": self.description,
            "memo": dict(self.memo),
            "reverses": self.reverses,
            "transfers": [list(entry) for entry in self.transfers],
        }

    def sha256(self) -> str:
        """Tells a repeat from another transaction under the same key."""
        return hashlib.sha256(canonical(self.fields())).hexdigest()


def body(content: Content, sequence: int) -> bytes:
    return canonical({"version": VERSION, "sequence": sequence, **content.fields()})


def chain_hash(previous: str, content: Content, sequence: int) -> str:
    record = hashlib.sha256(b"\x00" + body(content, sequence)).digest()
    return hashlib.sha256(bytes.fromhex(previous) + record).hexdigest()


def canonical(value: Any) -> bytes:
    """RFC 8785 of objects, lists, strings, integers and null; keys are ASCII. ValueError otherwise."""
    refuse_inexact(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def refuse_inexact(value: Any) -> None:
    """Floats and booleans have no place in hashed bytes: one number would have several spellings."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            refuse_inexact(item)
    elif not (value is None or type(value) in (int, str)):
        raise ValueError(f"{value!r} is not an integer or a string")
