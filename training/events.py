"""What the loop says happened, as plain frozen data. Stdlib only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True, kw_only=True)
class Log:
    """A line for the reader."""

    kind: ClassVar[str] = "log"
    message: str
    level: str = "info"  # info, warning (someone did not play fair, something was replaced), reward


@dataclass(frozen=True, kw_only=True)
class ClientShare:
    """What a client holds, under one of its identities where it has several."""

    client: int  # from 1
    holder: int  # whose identity it is; most often its own
    num_examples: int
    label_counts: tuple[int, ...]  # true labels, whatever the client does to them
    behaviour: str  # the kind; honest where none is configured


@dataclass(frozen=True, kw_only=True)
class Started:
    """The data is split and the untrained model (round 0) is evaluated."""

    kind: ClassVar[str] = "started"
    message: str
    dataset: str
    num_parameters: int
    num_validation: int
    num_test: int
    weights_sha256: str
    loss: float  # test set
    accuracy: float  # test set
    clients: tuple[ClientShare, ...]


@dataclass(frozen=True, kw_only=True)
class ClientReport:
    """What the server saw of a client in a round."""

    client: int
    num_examples: int  # that it reports
    loss_before: float | None  # mean over its first local batches; None where the client did not train
    loss_after: float | None  # mean over its last local batches
    update_norm: float  # Euclidean; 0.0 where the client sent no update
    # and what it cannot see
    effort: int = 0  # examples trained, each as often as it was in a batch
    untrained: bool = False  # the update that it sent is not of any training of its own
    held: int | None = None  # examples that it holds; None: as many as it reports
    holder: int | None = None  # whose identity it is; None: its own
    copies: int | None = None  # the client whose update it sent

    @property
    def sent(self) -> bool:
        return self.untrained or self.loss_before is not None

    @property
    def num_held(self) -> int:
        return self.num_examples if self.held is None else self.held


@dataclass(frozen=True, kw_only=True)
class RoundTrained:
    """A round is trained, aggregated, evaluated and valued."""

    kind: ClassVar[str] = "trained"
    round_number: int  # from 1
    cohort: tuple[int, ...]  # ascending
    reports: tuple[ClientReport, ...]  # in the cohort's order
    loss: float | None  # test set; None where the round was not evaluated
    accuracy: float | None
    previous_validation_loss: float | None  # None without a validation set
    validation_loss: float | None
    best_validation_loss: float | None  # of all rounds before this one, the untrained model included
    weights_sha256: str
    checkpoint_sha256: str | None  # None where no checkpoint is kept
    train_seconds: float
    evaluate_seconds: float
    valuation_seconds: float
    duration_seconds: float
    valued: Any = field(default=None, repr=False)  # whatever `value` made of the round's game


@dataclass(frozen=True, kw_only=True)
class Completed:
    """All rounds are done."""

    kind: ClassVar[str] = "completed"
    message: str
    weights_sha256: str


Event = Log | Started | RoundTrained | Completed


class TrainingError(Exception):
    """The run cannot go on; the text is a plain sentence for the reader."""
