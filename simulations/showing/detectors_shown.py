"""What the detectors of a simulation's economies point at, and what stakes lost, as its page shows them.

A fixed number of queries, and no more rows and columns than fit a page, whatever the number of clients and rounds.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from django.core.cache import cache

from incentives.models import Transaction
from simulations.config import PAYING
from simulations.detections import Loss, Reason, Watch, Watched, detectors_of, watch, watches
from simulations.economies import ledger_name, transaction_key
from simulations.models import Shadow, Simulation
from simulations.showing import fragments, wording
from simulations.showing.ledgers_shown import MOST_ECONOMIES, REMEMBERED, REMEMBERED_SECONDS

COLUMNS = 50  # rounds
LOSSES = 50  # rows of a table


def context(simulation: Simulation, economy: str | None = None, detector: str | None = None) -> dict[str, Any]:
    """Of one economy, told by its number, and one of its detectors; by default of the first that has any. Nothing where
    none has detectors or stakes. Of a crowd it is remembered until the next round, for whoever else looks."""
    watching = _watching(simulation)
    if not watching:
        return {"watching": []}
    number, label, shadow = next((each for each in watching if str(each[0]) == economy), watching[0])
    choices = {"watching": [each[:2] for each in watching], "watch_of": number, "watch_label": label}
    done = shadow.rounds_done if shadow else simulation.rounds_done
    if not done:
        return choices | {"is_watched": False}
    names = detectors_of(shadow.specification if shadow else simulation.configuration)
    place = names.index(detector) if detector in names else 0
    is_crowd = simulation.num_clients * done >= REMEMBERED
    key = f"detectors:{simulation.pk}:{number}:{done}:{place}"
    found: dict[str, Any] | None = cache.get(key) if is_crowd else None
    if found is None:
        found = _context(simulation, shadow, names[place] if names else "")
        if is_crowd:
            cache.set(key, found, timeout=REMEMBERED_SECONDS)
    return choices | found


def _watching(simulation: Simulation) -> list[tuple[int, str, Shadow | None]]:
    """Number and label of each economy that has detectors or stakes."""
    shadows = simulation.shadows.order_by("number")[: MOST_ECONOMIES - 1]
    found: list[tuple[int, str, Shadow | None]] = [
        (each.number, each.label, each) for each in shadows if watches(each.specification)
    ]
    return [(0, PAYING, None), *found] if watches(simulation.config) else found


def _context(simulation: Simulation, shadow: Shadow | None, detector: str) -> dict[str, Any]:
    seen = watch(simulation, shadow)
    detectors = [{"label": wording.kind("detector", each.name), "measured": each} for each in seen.detectors]
    rounds_done = shadow.rounds_done if shadow else simulation.rounds_done
    return {
        "is_watched": True,
        "detectors": detectors,
        "detector": detector,
        "detector_label": wording.kind("detector", detector) if detector else "",
        "cheats": seen.cheats,
        "rounds_told": len(seen.rounds) if len(seen.rounds) < rounds_done else 0,
        "scores": _scores(simulation, seen, detector) if detectors else None,
        **_losses(simulation, shadow, seen),
    }


# Scores


def _scores(simulation: Simulation, seen: Watch, detector: str) -> dict[str, Any]:
    """A row for each client, of a crowd for those of the highest mean and one for all others; a column for each round,
    of many for a sample."""
    step = max(1, math.ceil(len(seen.rounds) / COLUMNS))
    rounds = [row for place, row in enumerate(seen.rounds, 1) if place % step == 0 or place == len(seen.rounds)]
    means = _means(seen.rounds, detector)
    shown = sorted(heapq.nsmallest(fragments.ALL_CLIENTS, means, key=lambda client: (-means[client], client)))
    thresholds = [entry["above"] for entry in seen.economy.slashing if entry["detector"].kind == detector]
    least = min(thresholds, default=None)
    cells = [_cells(row, detector, least) for row in rounds]
    does = {
        row["number"]: wording.behaviour(simulation, row)
        for row in simulation.clients.filter(number__in=shown).values("number", "holder", "behaviour")
    }
    return {
        "columns": [row.number for row in rounds],
        "step": step,
        "least": least,
        "rows": [
            {"number": client, "mean": means[client], "cells": [each.get(client, ABSENT) for each in cells]}
            | does.get(client, {})
            for client in shown
        ],
        "num_scored": len(means),
        "others": len(means) - len(shown),
        "of_others": [_mean(cell["score"] for client, cell in each.items() if client not in does) for each in cells],
        "auc": [row.auc(detector) for row in rounds],
    }


ABSENT: dict[str, Any] = {"score": None, "level": 0, "is_silent": False, "is_named": False, "cheats": False}


def _cells(row: Watched, detector: str, least: float | None) -> dict[int, dict[str, Any]]:
    """By client of the cohort."""
    scores = row.scores[detector]
    return {
        client: {
            "score": score if sent else None,
            "level": math.ceil(fragments.HEAT_LEVELS * score) if sent else 0,
            "is_silent": not sent,
            "is_named": sent and least is not None and score > least,
            "cheats": cheats,
        }
        for client, score, sent, cheats in zip(row.cohort, scores, row.sent, row.cheats, strict=True)
    }


def _means(rounds: Sequence[Watched], detector: str) -> dict[int, float]:
    """By client, the mean of its scores in the rounds in which it sent something; 0 where it never did."""
    found: dict[int, list[float]] = defaultdict(list)
    for row in rounds:
        for client, score, sent in zip(row.cohort, row.scores[detector], row.sent, strict=True):
            found[client] += [score] if sent else []
    return {client: _mean(scores) or 0.0 for client, scores in found.items()}


def _mean(scores: Iterable[float | None]) -> float | None:
    there = [score for score in scores if score is not None]
    return math.fsum(there) / len(there) if there else None


# Stakes


def _losses(simulation: Simulation, shadow: Shadow | None, seen: Watch) -> dict[str, Any]:
    """The newest losses of stakes, with why and with the payment that took them; one query where there are any."""
    found = list(seen.losses())
    newest = found[: -LOSSES - 1 : -1]
    ledger = shadow.ledger_id if shadow else simulation.ledger_id
    keys = {transaction_key(each.round_number) for each in newest}
    posted = dict(Transaction.objects.filter(ledger=ledger, key__in=keys).values_list("key", "sequence"))
    return {
        "is_staked": bool(seen.stakes),
        "slashed_to": seen.economy.slashed_to,
        "num_losses": len(found),
        "num_losers": len({each.client for each in found}),
        "lost": sum(each.microtokens for each in found),
        "watch_ledger": ledger_name(simulation.pk, shadow.number) if shadow else f"simulation-{simulation.pk}",
        "losses": [
            {"loss": each, "why": why(each), "sequence": posted.get(transaction_key(each.round_number))}
            for each in newest
        ],
    }


def why(loss: Loss) -> list[str]:
    return [_reason(each) for each in loss.reasons]


def _reason(reason: Reason) -> str:
    """'replay 0.9987, above 0.99: 50 % of the stake'; 'rule slashing: contribution −0.0123'."""
    if reason.score is None or reason.above is None or reason.share is None:
        worth = f"{reason.contribution:.4g}".replace("-", "−")
        return f"rule {wording.kind('rule', reason.kind)}: contribution {worth}"
    share = f"{wording.percent(reason.share)} % of the stake"
    return (
        f"{wording.kind('detector', reason.kind)} {over(reason.score, reason.above)}, above {reason.above:g}: {share}"
    )


def over(score: float, above: float) -> str:
    """With as many digits, four at least, as show that it is above."""
    return next(text for digits in range(4, 18) if float(text := f"{score:.{digits}f}") > above or digits == 17)
