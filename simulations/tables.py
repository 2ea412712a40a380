"""A run as tidy tables in a zip, written as it is read: `round`, `client` and `economy` are the keys between them.

Equal rows give equal bytes; neither row numbers nor the moment of writing are in them.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from typing import Any

from incentives.export import csv_cell
from incentives.memo import Paid
from incentives.specification import Specification
from simulations import economies, records
from simulations.config import PAYING
from simulations.models import Round, ShadowRound, Simulation

MOST_PARTS = 20_000  # clients' parts in rounds that are in memory at a time
LINES = 2_000  # between two pieces
BEGINNING = (1980, 1, 1, 0, 0, 0)  # of a zip's time; a moment would differ

OF_ROUND = (
    *("cohort_size", "loss", "accuracy", "previous_validation_loss", "validation_loss", "best_validation_loss"),
    *("carried", "weights_sha256", "train_seconds", "evaluate_seconds", "valuation_seconds", "duration_seconds"),
)
OF_UPDATE = ("num_examples", "true_examples", "effort", "untrained", "loss_before", "loss_after", "update_norm")
COLUMNS = {
    "rounds": ("round", *OF_ROUND),
    "clients": ("client", "holder", "num_examples", "behaviour"),
    "updates": ("round", "client", *OF_UPDATE),
    "contributions": ("economy", "round", "client", "contribution", "contribution_error"),
    "payments": ("economy", "round", "client", "reward_microtokens", "slashed_microtokens"),
    "stakes": ("economy", "client", "stake_microtokens"),
    "scores": ("economy", "round", "client", "detector", "score"),
    "pools": (
        *("economy", "round", "pool_microtokens", "minted_microtokens", "burned_microtokens", "paid_microtokens"),
    ),
}


def zipped(simulation: Simulation) -> Iterator[bytes]:
    """The rounds that are done now, in pieces; memory does not depend on their number."""
    written = _Written()
    with zipfile.ZipFile(written, "w") as archive:
        for name, columns in COLUMNS.items():
            info = zipfile.ZipInfo(f"{name}.csv", BEGINNING)
            info.compress_type, info.external_attr, info.create_system = zipfile.ZIP_DEFLATED, 0o644 << 16, 3
            with archive.open(info, "w", force_zip64=True) as file:
                text = io.StringIO()
                lines = csv.writer(text, lineterminator="\n")
                lines.writerow(columns)
                for count, row in enumerate(ROWS[name](simulation), 1):
                    lines.writerow(map(csv_cell, row))
                    if count % LINES == 0:
                        file.write(text.getvalue().encode())
                        text.seek(0)
                        text.truncate()
                        yield written.taken()
                file.write(text.getvalue().encode())
            yield written.taken()
    yield written.taken()


class _Written(io.RawIOBase):
    """What a zip is written to that nobody can seek in: it holds what has not been taken yet."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.parts.append(bytes(data))
        return len(data)

    def taken(self) -> bytes:
        found, self.parts = b"".join(self.parts), []
        return found


def _rounds(simulation: Simulation) -> Iterator[tuple]:
    for rows in _chunks(simulation):
        for row in rows:
            yield row.number, *(getattr(row, name) for name in OF_ROUND)


def _clients(simulation: Simulation) -> Iterator[tuple]:
    last = 0
    everyone = simulation.clients.order_by("number").values_list("number", "holder", "num_examples", "behaviour")
    while rows := list(everyone.filter(number__gt=last)[:MOST_PARTS]):
        for number, holder, num_examples, behaviour in rows:
            yield number, holder or number, num_examples, behaviour
        last = rows[-1][0]


def _updates(simulation: Simulation) -> Iterator[tuple]:
    for rows in _chunks(simulation):
        parts = records.parts_of(simulation, [row.number for row in rows])
        for row in rows:
            for part in parts[row.number]:
                told = part | {"true_examples": records.held_of(part)}
                yield row.number, part["client__number"], *(told[name] for name in OF_UPDATE)


def _contributions(simulation: Simulation) -> Iterator[tuple]:
    for label, number, clients, paid in _paid(simulation):
        errors = paid.errors or [None] * len(clients)
        for client, value, error in zip(clients, paid.contributions, errors, strict=True):
            yield label, number, client, value, error


def _payments(simulation: Simulation) -> Iterator[tuple]:
    for label, number, clients, paid in _paid(simulation):
        for client, share, lost in zip(clients, paid.shares, paid.slashed or [0] * len(clients), strict=True):
            yield label, number, client, share, lost


def _stakes(simulation: Simulation) -> Iterator[tuple]:
    """What each has at stake before round 1."""
    yield from ((PAYING, *each) for each in economies.stakes_of(simulation).items())
    for shadow in simulation.shadows.order_by("number"):
        found = economies.stakes_of(simulation, Specification.from_dict(shadow.specification))
        yield from ((shadow.label, *each) for each in found.items())


def _scores(simulation: Simulation) -> Iterator[tuple]:
    for label, number, clients, paid in _paid(simulation):
        for detector, scores in paid.scores.items():
            for client, score in zip(clients, scores, strict=True):
                yield label, number, client, detector, score


def _pools(simulation: Simulation) -> Iterator[tuple]:
    for label, number, _, paid in _paid(simulation):
        yield label, number, paid.pool, paid.minted, paid.burned, sum(paid.shares)


def _paid(simulation: Simulation) -> Iterator[tuple[str, int, list[int], Paid]]:
    """By round, each economy that measured it, the paying one first. Rounds whose clients were let go of are left
    out."""
    shadows = list(simulation.shadows.order_by("number").values_list("pk", "label"))
    for rows in _chunks(simulation):
        numbers = [row.number for row in rows]
        parts = records.parts_of(simulation, numbers)
        found = ShadowRound.objects.filter(shadow__in=[pk for pk, _ in shadows], number__in=numbers)
        made = {(each.number, each.shadow_id): each for each in found}
        for row in rows:
            clients = [part["client__number"] for part in parts[row.number]]
            if len(clients) != row.cohort_size:
                continue
            if row.rule:
                yield PAYING, row.number, clients, records.paid_of(row, parts[row.number])
            for pk, label in shadows:
                if (row.number, pk) in made:
                    yield label, row.number, clients, economies.paid_by(made[row.number, pk])


def _chunks(simulation: Simulation) -> Iterator[list[Round]]:
    """The rounds that were done when the simulation was read."""
    economies_of = 1 + simulation.shadows.count()
    rows = simulation.rounds.filter(number__lte=simulation.rounds_done).defer("evidence").order_by("number")
    last, size = 0, 1
    while chunk := list(rows.filter(number__gt=last)[:size]):
        yield chunk
        last = chunk[-1].number
        size = max(1, min(500, MOST_PARTS // (economies_of * max(1, chunk[-1].cohort_size))))


ROWS = {
    "rounds": _rounds,
    "clients": _clients,
    "updates": _updates,
    "contributions": _contributions,
    "payments": _payments,
    "stakes": _stakes,
    "scores": _scores,
    "pools": _pools,
}
