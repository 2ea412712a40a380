"""What a simulation's page shows and what its stream sends, from the same partial templates.

A page after N events equals an earlier page with the streamed fragments applied: log lines and rounds are appended,
everything else is replaced by its id. Everything here is bounded, whatever the number of clients and rounds.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from typing import Any

from django.core.cache import cache
from django.db.models import F, Q
from django.template.loader import render_to_string

from simulations import plugins
from simulations.models import Audit, AuditStatus, Client, Event, Origin, Round, Simulation, Status
from simulations.running import lifecycle, turns
from simulations.showing import wording

LOG_LINES = 500
ROUND_ROWS = 500
ALL_CLIENTS = 50  # up to here every client has its bar
ENDS = 10  # of more clients: so many from the top and from the bottom
BINS = 20
HEAT_LEVELS = 8
QUIET_KINDS = {"log", "round"}  # all other kinds can change the status and what may be done


def render_update(simulation: Simulation, events: Sequence[Event], *, may_act: bool = True) -> str:
    """The fragment that brings a page up to `events`: their log lines, then replacements out of band.

    `events` is not empty and ascending; `simulation` is the row as read after them, or with them. At most two queries.
    """
    kinds = {event.kind for event in events}
    context: dict[str, Any] = {"simulation": simulation, "lines": events, "last_sequence": events[-1].sequence}
    if kinds - QUIET_KINDS:
        context |= status(simulation, may_act) | {"status_changed": True}
    if kinds - {"log"}:
        context |= summary(simulation) | {"summary_changed": True}
    if "started" in kinds:
        context |= labels(simulation) | {"started": True, "rows": first_row(simulation)}
    if "round" in kinds:
        context |= {"rounds_changed": True, "rows": context.get("rows", []) + streamed_rows(simulation, events)}
    rewards_changed = bool(kinds - QUIET_KINDS) and simulation.rounds_done > 0  # its words know whether it is over
    if kinds & {"started", "round"} or rewards_changed:
        context |= clients(simulation) | {"rewards_changed": rewards_changed}
    return render_to_string("simulations/_update.html", {**context, "oob": True})


def page(simulation: Simulation, *, may_act: bool = True) -> dict[str, Any]:
    """The context of everything that is live on a page. Rows are read after `simulation`, and none beyond it."""
    return {
        "simulation": simulation,
        "lines": log_lines(simulation),
        "log_limit": LOG_LINES,
        "last_sequence": simulation.last_sequence,
        "rows": first_row(simulation) + recorded_rows(simulation),
        "sample": sample(simulation),
        **status(simulation, may_act),
        **summary(simulation),
        **labels(simulation),
        **clients(simulation),
    }


# Status, summary, log


def status(simulation: Simulation, may_act: bool) -> dict[str, Any]:
    """What is done with it, and what the reader may do."""
    is_interrupted = lifecycle.is_interrupted(simulation)
    return {
        "state": "interrupted" if is_interrupted else simulation.status,
        "facts": wording.facts(simulation),
        "can_cancel": may_act and not simulation.is_finished,
        "can_resume": may_act and lifecycle.can_resume(simulation),
        "can_archive": may_act and simulation.is_finished,
    }


def summary(simulation: Simulation) -> dict[str, Any]:
    stands = simulation.is_finished or lifecycle.is_interrupted(simulation)
    label, kind = ("Time", "spent") if stands else ("Time left", "left")
    waiting = place(simulation) if simulation.status == Status.QUEUED and not stands else {}
    return {"time_label": label, "time_kind": kind, "time_left": time_left(simulation), **waiting}


def time_left(simulation: Simulation) -> float | None:
    """Seconds, by the mean of the rounds so far; None before the first round."""
    if not simulation.rounds_done:
        return None
    left = simulation.num_rounds - simulation.rounds_done
    return simulation.duration_seconds / simulation.rounds_done * left


def place(simulation: Simulation) -> dict[str, Any]:
    """What it waits for: those before it, or plug-ins that are not here."""
    return {"ahead": ahead(simulation), "lacking": plugins.lacking(simulation.config)}


def ahead(one: Simulation | Audit) -> int:
    """Simulations and audits that run or wait before this one."""
    running = Simulation.objects.filter(status=Status.RUNNING).exclude(origin=Origin.SHELL)
    return turns.place_in_queue(one) + running.count() + Audit.objects.filter(status=AuditStatus.RUNNING).count()


def log_lines(simulation: Simulation) -> list[Event]:
    after = simulation.last_sequence - LOG_LINES
    seen = simulation.events.filter(sequence__gt=after, sequence__lte=simulation.last_sequence)
    return list(seen.order_by("sequence"))


# Rounds


def step(simulation: Simulation) -> int:
    """Every how many rounds a row is shown: each one, else each that is evaluated, else a sample of those."""
    if simulation.num_rounds <= ROUND_ROWS:
        return 1
    every = simulation.config["evaluate_every"]
    return every * math.ceil(simulation.num_rounds / every / ROUND_ROWS)


def sample(simulation: Simulation) -> str:
    """What the rows leave out, in words."""
    shown = step(simulation)
    if shown == 1:
        return ""
    if shown == simulation.config["evaluate_every"]:
        return "each round that was evaluated"
    return f"a sample: one round in {shown:,} of {simulation.num_rounds:,}"


def is_shown(number: int, simulation: Simulation) -> bool:
    return number % step(simulation) == 0 or number in (1, simulation.num_rounds)


def first_row(simulation: Simulation) -> list[dict[str, Any]]:
    """Round 0, the untrained model, once it is evaluated."""
    if simulation.initial_loss is None:
        return []
    return [{"number": 0, "loss": simulation.initial_loss, "accuracy": simulation.initial_accuracy}]


def recorded_rows(simulation: Simulation) -> list[dict[str, Any]]:
    shown = simulation.rounds.annotate(rest=F("number") % step(simulation)).filter(
        Q(rest=0) | Q(number__in=(1, simulation.num_rounds)), number__lte=simulation.rounds_done
    )
    return [_row_of_round(row) for row in shown.defer("evidence").order_by("number")]


def streamed_rows(simulation: Simulation, events: Iterable[Event]) -> list[dict[str, Any]]:
    rounds = [event.data for event in events if event.kind == "round"]
    return [_row_of_data(data) for data in rounds if is_shown(data["round"], simulation)]


def _row_of_round(row: Round) -> dict[str, Any]:
    paid = row.pool_microtokens - row.treasury_microtokens - row.burned_microtokens
    return {
        "number": row.number,
        "loss": row.loss,
        "accuracy": row.accuracy,
        "cohort_size": row.cohort_size,
        "paid": paid,
        "treasury": row.treasury_microtokens,
        "seconds": row.duration_seconds,
    }


def _row_of_data(data: dict[str, Any]) -> dict[str, Any]:
    return {
        "number": data["round"],
        "loss": data["loss"],
        "accuracy": data["accuracy"],
        "cohort_size": data["cohort_size"],
        "paid": data["paid_microtokens"],
        "treasury": data["treasury_microtokens"],
        "seconds": data["duration_seconds"],
    }


# Clients


def clients(simulation: Simulation) -> dict[str, Any]:
    """All clients of a small simulation; both ends and the distribution of a large one. One query."""
    names = ("number", "holder", "behaviour", "contribution", "reward_microtokens", "rounds")
    everyone = list(simulation.clients.order_by("number").values(*names))
    context = {"everyone": len(everyone), "is_crowd": len(everyone) > ALL_CLIENTS, **rewards(everyone)}
    context["game_note"] = wording.game_note(simulation)
    measured = [client for client in everyone if client["rounds"]]
    if not context["is_crowd"]:
        return context | {"clients": bars(simulation, everyone)}
    best = heapq.nsmallest(ENDS, measured, key=lambda client: (-client["contribution"], client["number"]))
    worst = heapq.nsmallest(ENDS, measured, key=lambda client: (client["contribution"], client["number"]))
    ends = bars(simulation, best + worst)
    return context | {
        "best": ends[: len(best)],
        "worst": ends[len(best) :],
        "bins": histogram([client["reward_microtokens"] for client in everyone]),
        "not_yet": len(everyone) - len(measured),
    }


def bars(simulation: Simulation, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each client with its bar, in percent: all on one scale from the least to the greatest, zero included."""
    values = [row["contribution"] for row in rows]
    low, high = min([0.0, *values]), max([0.0, *values])
    span = (high - low) or 1.0
    zero = 100 * -low / span
    return [row | _bar(row["contribution"], zero, span) | wording.behaviour(simulation, row) for row in rows]


def _bar(value: float, zero: float, span: float) -> dict[str, Any]:
    width = 100 * abs(value) / span
    left = zero - width if value < 0 else zero
    return {"zero": f"{zero:.2f}", "left": f"{left:.2f}", "width": f"{width:.2f}", "harms": value < 0}


def rewards(rows: list[dict[str, Any]]) -> dict[str, Any]:
    amounts = [row["reward_microtokens"] for row in rows]
    return {"gini": gini(amounts), "num_paid": sum(amount > 0 for amount in amounts)}


def gini(amounts: Iterable[int]) -> float | None:
    """The Gini coefficient: 0 where all have the same, (n-1)/n where one has everything; None where nobody has any."""
    ascending = sorted(amounts)
    total, count = sum(ascending), len(ascending)
    if not total:
        return None
    return 2 * sum(rank * amount for rank, amount in enumerate(ascending, 1)) / (count * total) - (count + 1) / count


def ginis(simulations: Iterable[Simulation]) -> dict[int, float | None]:
    """Of many simulations with one query; those of finished ones are remembered."""
    keys = {simulation.pk: f"gini:{simulation.pk}:{simulation.rounds_done}" for simulation in simulations}
    known = cache.get_many(keys.values())
    amounts: dict[int, list[int]] = {pk: [] for pk, key in keys.items() if key not in known}
    holders = Client.objects.filter(simulation__in=amounts) if amounts else Client.objects.none()
    for pk, amount in holders.values_list("simulation_id", "reward_microtokens"):
        amounts[pk].append(amount)
    fresh = {pk: gini(values) for pk, values in amounts.items()}
    finished = {simulation.pk for simulation in simulations if simulation.is_finished}
    cache.set_many({keys[pk]: value for pk, value in fresh.items() if pk in finished}, timeout=24 * 3600)
    return {pk: fresh[pk] if pk in fresh else known[key] for pk, key in keys.items()}


def histogram(amounts: list[int]) -> list[dict[str, Any]]:
    """How many clients hold how many tokens: at most 20 bins of whole micro-tokens; the last includes its end."""
    size = max(1, math.ceil(max(amounts, default=0) / BINS))
    counts = [0] * min(BINS, max(amounts, default=0) // size + 1)
    for amount in amounts:
        counts[min(amount // size, len(counts) - 1)] += 1
    return [{"low": size * place, "high": size * (place + 1), "clients": count} for place, count in enumerate(counts)]


# Labels


def labels(simulation: Simulation) -> dict[str, Any]:
    """Who holds which labels: the share of each of the first clients' examples, with a level of colour."""
    rows = simulation.clients.order_by("number").values("number", "num_examples", "label_counts")[:ALL_CLIENTS]
    return heat(rows)


def heat(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Of rows with `number`, `num_examples` and `label_counts`: the cells of each, and the labels."""
    found = [{**row, "cells": [_cell(count, row["num_examples"]) for count in row["label_counts"]]} for row in rows]
    return {"heat": found, "label_names": range(len(found[0]["cells"])) if found else []}


def _cell(count: int, num_examples: int) -> dict[str, Any]:
    share = count / num_examples if num_examples else 0.0
    # The square root keeps an even tenth apart from nothing, and one label alone apart from two.
    return {"count": count, "share": round(100 * share), "level": math.ceil(HEAT_LEVELS * math.sqrt(share))}
