"""What a simulation says happened: the loop's events, and rounds that were paid. JSON lines on a pipe. Stdlib only."""

from __future__ import annotations

import base64
import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, ClassVar

from training.events import ClientShare as ClientShare
from training.events import Completed as Completed
from training.events import Log as Log
from training.events import Started as Started


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """Nothing is left to `auto`: the data set is found. Comes first."""

    kind: ClassVar[str] = "resolved"
    message: str
    config: dict[str, Any]
    config_sha256: str
    training_sha256: str  # of what training alone reads of it
    manifest: dict[str, Any]  # on what it is trained from here on, see simulations.manifest


@dataclass(frozen=True, kw_only=True)
class ClientRound:
    """A client's round, trained, valued and paid."""

    client: int
    holder: int  # whose identity it is
    num_examples: int  # that it reports
    true_examples: int  # that it holds
    effort: int  # examples trained
    untrained: bool  # the update that it sent is not of any training of its own
    loss_before: float | None
    loss_after: float | None
    update_norm: float
    contribution: float | None  # None without a valuation
    error: float | None  # standard error of the contribution, where it is estimated
    reward_microtokens: int
    slashed_microtokens: int | None = None  # that its stake lost; None where nobody has one

    @property
    def sent(self) -> bool:
        return self.untrained or self.loss_before is not None

    @property
    def num_held(self) -> int:
        return self.true_examples


@dataclass(frozen=True, kw_only=True)
class ShadowRound:
    """What an economy beside the paying one made of a round; lists in the order of the round's clients."""

    number: int  # of the shadow, from 1
    contributions: tuple[float, ...]
    errors: tuple[float, ...] | None
    rewards: tuple[int, ...]  # micro-tokens
    pool_microtokens: int
    minted_microtokens: int
    burned_microtokens: int
    evidence_sha256: str | None
    economy_state: dict[str, Any]
    slashed: tuple[int, ...] | None = None  # micro-tokens that stakes lost
    scores: dict[str, tuple[float, ...]] = field(default_factory=dict)  # by detector
    products_sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Round:
    """One whole round."""

    kind: ClassVar[str] = "round"
    message: str
    round_number: int
    clients: tuple[ClientRound, ...]  # the cohort, ascending
    shadows: tuple[ShadowRound, ...]  # those that value anything
    loss: float | None
    accuracy: float | None
    previous_validation_loss: float | None
    validation_loss: float | None
    best_validation_loss: float | None  # of the rounds before
    carried: float | None  # what the model gains, by the paying economy's measure, where nobody sends anything
    pool_microtokens: int
    minted_microtokens: int  # into the treasury: the pool, unless that is paid from what the treasury holds
    burned_microtokens: int
    treasury_microtokens: int  # what of the pool nobody got
    rule: str | None  # name@version; None without a valuation
    evidence: bytes | None  # utilities of the evaluated coalitions, see incentives.valuation.evidence
    evidence_sha256: str | None
    others: tuple[bytes, ...]  # evidence beside that: shadows', and products of updates, see incentives.products
    economy_state: dict[str, Any]  # what valuation, pool and rule keep for the next round, by field
    scores: dict[str, tuple[float, ...]] = field(default_factory=dict)  # by detector, in the order of the clients
    products_sha256: str | None = None
    weights_sha256: str
    checkpoint_sha256: str | None
    train_seconds: float
    evaluate_seconds: float
    valuation_seconds: float
    duration_seconds: float


@dataclass(frozen=True, kw_only=True)
class Failed:
    """The run cannot go on."""

    kind: ClassVar[str] = "failed"
    message: str
    traceback: str


Event = Resolved | Log | Started | Round | Completed | Failed
KINDS: dict[str, type[Any]] = {kind.kind: kind for kind in (Resolved, Log, Started, Round, Completed, Failed)}
PARTS: dict[tuple[str, str], type[Any]] = {
    ("started", "clients"): ClientShare,
    ("round", "clients"): ClientRound,
    ("round", "shadows"): ShadowRound,
}


def encode(event: Event) -> str:
    """One line of JSON."""
    values = {"kind": event.kind, **dataclasses.asdict(event)}
    if isinstance(event, Round):
        values["evidence"] = None if event.evidence is None else base64.b64encode(event.evidence).decode()
        values["others"] = [base64.b64encode(each).decode() for each in event.others]
    return json.dumps(values, separators=(",", ":"), allow_nan=False)


def decode(line: str) -> Event:
    """The event of one line; ValueError where it is none."""
    values = json.loads(line)
    kind = values.pop("kind")
    if kind not in KINDS:
        raise ValueError(f"unknown kind of event {kind!r}")
    for name, part in ((name, part) for (of, name), part in PARTS.items() if of == kind):
        values[name] = tuple(part(**_tuples(item)) for item in values[name])
    if kind == "round":
        values["evidence"] = None if values["evidence"] is None else base64.b64decode(values["evidence"])
        values["others"] = tuple(map(base64.b64decode, values["others"]))
        values["scores"] = _tuples(values["scores"])
    return KINDS[kind](**values)  # type: ignore[no-any-return]


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    found = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return {**found, "scores": _tuples(values["scores"])} if "scores" in values else found
