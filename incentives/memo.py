"""What a round's transaction commits to: the hashes of the round's facts and of what an economy made of them.

    facts hash    SHA-256("fedsite facts 1\\n" || encoded facts)
    economy hash  SHA-256("fedsite economy 1\\n" || encoded payment)

in hexadecimal. The facts are what training alone decides, the same for every economy. The payment is an economy's own
specification, what it looked at, what it paid and what it keeps for the next round; neither its label nor any other
economy, so one that is added later ends with the head that it would have had from the start.

Encoding, of which every value has one and no two values the same; but large whole numbers, which a database may give
back for what was a float (1e16 as 10000000000000000), and no amount of money is as large:

    null n   true t   false f
    whole number    i, decimal digits, ;          i-12;
                    from 10^16 on, of either sign: as the nearest float, if there is one
    float           d, eight little-endian bytes of IEEE 754; -0.0 as 0.0; neither infinite nor NaN
    text, bytes     s or b, their length in bytes in decimal digits, :, the bytes (of text its UTF-8)    s3:abc
    list            l, its members, e
    object          o, its names (each as text) and values in the order of the names' UTF-8 bytes, e

Standard library only; anyone can write it again from this page.
"""

from __future__ import annotations

import hashlib
import math
import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

LATER_FACTS = ("sent", "holders")  # facts that are hashed where they are not as usual
FACTS, ECONOMY = b"fedsite facts 1\n", b"fedsite economy 1\n"
LATER = ("slashed", "scores", "products_sha256")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Of a round; lists in the order of `cohort`. Losses are None where nothing was measured."""

    training_sha256: str  # of the configuration, without what only economies read
    round_number: int
    cohort: tuple[int, ...]  # client numbers, ascending
    num_examples: tuple[int, ...]  # that they report
    true_examples: tuple[int, ...]  # that they hold
    effort: tuple[int | None, ...]  # examples trained, each as often as it was in a batch; None: not written down
    losses_before: tuple[float | None, ...]  # of the client's own data; None: it did not train
    losses_after: tuple[float | None, ...]
    update_norms: tuple[float, ...]
    previous_validation_loss: float | None
    validation_loss: float | None
    best_validation_loss: float | None  # of the rounds before
    weights_sha256: str  # of the model after the round
    sent: tuple[bool, ...] | None = None  # who sent something; None: those who have losses
    holders: tuple[int, ...] | None = None  # whose identity each is; None: everybody its own

    @classmethod
    def of(cls, training_sha256: str, round_number: int, of_round: Any, parts: Sequence[Any]) -> Self:
        """From a round as it was trained, told or recorded, and a part of it for each client of the cohort, ascending,
        as training.events.ClientReport has one."""
        return cls(
            training_sha256=training_sha256,
            round_number=round_number,
            cohort=tuple(part.client for part in parts),
            num_examples=tuple(part.num_examples for part in parts),
            true_examples=tuple(part.num_held for part in parts),
            effort=tuple(part.effort for part in parts),
            losses_before=tuple(part.loss_before for part in parts),
            losses_after=tuple(part.loss_after for part in parts),
            update_norms=tuple(part.update_norm for part in parts),
            previous_validation_loss=of_round.previous_validation_loss,
            validation_loss=of_round.validation_loss,
            best_validation_loss=of_round.best_validation_loss,
            weights_sha256=of_round.weights_sha256,
            sent=tuple(part.sent for part in parts),
            holders=tuple(part.holder or part.client for part in parts),
        )

    def __post_init__(self) -> None:
        """What says nothing is None, so that it is in no hash."""
        if self.sent == self._told:
            object.__setattr__(self, "sent", None)
        if self.holders == self.cohort:
            object.__setattr__(self, "holders", None)

    @property
    def _told(self) -> tuple[bool, ...]:
        return tuple(loss is not None for loss in self.losses_before)

    @property
    def arrived(self) -> tuple[bool, ...]:
        """Whose update arrived."""
        return self._told if self.sent is None else self.sent

    @property
    def held_by(self) -> tuple[int, ...]:
        """Whose identity each is."""
        return self.cohort if self.holders is None else self.holders

    def to_dict(self) -> dict[str, Any]:
        """As it is hashed: without what came later where it says nothing."""
        return {name: value for name, value in asdict(self).items() if name not in LATER_FACTS or value is not None}

    def sha256(self) -> str:
        return hashlib.sha256(FACTS + encode(self.to_dict())).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Paid:
    """What an economy made of a round; lists in the order of the facts' cohort, money in micro-tokens."""

    contributions: tuple[float, ...]
    pool: int
    minted: int  # into the treasury: the pool, unless it is paid from what the treasury holds
    burned: int
    shares: tuple[int, ...]
    errors: tuple[float, ...] | None = None  # standard errors of the contributions, where they are estimated
    utilities_sha256: str | None = None  # of the coalitions that it asked for, see incentives.valuation.evidence
    state: Mapping[str, Any] = field(default_factory=dict)  # what it keeps for the next round
    slashed: tuple[int, ...] | None = None  # that stakes lose; None where nobody has one
    scores: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # by detector
    products_sha256: str | None = None  # of the products that it asked for, see incentives.products

    def sha256(self, specification: Mapping[str, Any]) -> str:
        """With the economy's specification in its hashed form. What came after the first of these hashes is left out
        where it is empty."""
        found = {name: value for name, value in asdict(self).items() if value or name not in LATER}
        return hashlib.sha256(ECONOMY + encode({"specification": specification, **found})).hexdigest()


def encode(value: Any) -> bytes:
    """ValueError for what has no encoding."""
    parts: list[bytes] = []
    _encode(value, parts)
    return b"".join(parts)


def _encode(value: Any, parts: list[bytes]) -> None:
    if value is None:
        parts.append(b"n")
    elif isinstance(value, bool):
        parts.append(b"t" if value else b"f")
    elif isinstance(value, int):
        is_large = 10**16 <= abs(value) <= int(sys.float_info.max)
        parts.append(b"d" + struct.pack("<d", value) if is_large else b"i%d;" % value)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} has no encoding")
        parts.append(b"d" + struct.pack("<d", value + 0.0))
    elif isinstance(value, str):
        text = value.encode()
        parts.append(b"s%d:" % len(text) + text)
    elif isinstance(value, bytes):
        parts.append(b"b%d:" % len(value) + value)
    elif isinstance(value, Mapping):
        parts.append(b"o")
        for name in sorted(value, key=str.encode):
            _encode(name, parts)
            _encode(value[name], parts)
        parts.append(b"e")
    elif isinstance(value, Sequence):
        parts.append(b"l")
        for each in value:
            _encode(each, parts)
        parts.append(b"e")
    else:
        raise ValueError(f"a {type(value).__name__} has no encoding")
