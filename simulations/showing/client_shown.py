"""A client as its page shows it: what each economy made of it, and one of them round by round.

A fixed number of queries, and no more of shadows' lists in memory than MOST_NUMBERS, whatever the size of the cohorts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from django.db.models import Count, QuerySet

from incentives.models import Transaction, Transfer
from simulations.config import PAYING
from simulations.economies import ledger_name, transaction_key
from simulations.models import Client, Contribution, Shadow, ShadowClient, ShadowRound
from simulations.showing import fragments

TRANSFER_ROWS = 50
MOST_NUMBERS = 200_000  # of clients in the rounds that a shadow is shown by
OF_A_PART = ("value", "error", "reward_microtokens", "loss_before", "loss_after", "update_norm")


def context(client: Client, number: int) -> dict[str, Any] | None:
    """What its page tells of economies, and of the one that is chosen by `number`, 0 being the paying one; None where
    there is no such economy."""
    simulation = client.simulation
    shadows = list(simulation.shadows.order_by("number"))
    shadow = next((each for each in shadows if each.number == number), None)
    if number and shadow is None:
        return None
    rows = economies(client, shadows)
    chosen = next(row for row in rows if row["number"] == number)
    ledger_id = shadow.ledger_id if shadow else simulation.ledger_id
    return {
        "economies": rows,
        "chosen": chosen,
        "parts": parts(client, shadow, ledger_id),
        "ledger": ledger_name(simulation.pk, number) if number else f"simulation-{simulation.pk}",
        "transfers": transfers(client, ledger_id),
    }


def economies(client: Client, shadows: Sequence[Shadow]) -> list[dict[str, Any]]:
    """Sums over rounds of what each made of it, the paying one first. One query."""
    made = {each.shadow_id: each for each in ShadowClient.objects.filter(shadow__in=shadows, number=client.number)}
    rows = [_row(0, PAYING, client, client.simulation.paid_microtokens)]
    for each in shadows:
        sums = made.get(each.pk) or ShadowClient()  # it was in no cohort yet
        rows.append(_row(each.number, each.label, sums, each.paid_microtokens))
    return rows


def _row(number: int, label: str, sums: Client | ShadowClient, paid: int) -> dict[str, Any]:
    variance = sums.contribution_variance
    return {
        "number": number,
        "label": label,
        "contribution": sums.contribution,
        "error": None if variance is None or not math.isfinite(variance) else math.sqrt(variance),
        "reward": sums.reward_microtokens,
        "share": sums.reward_microtokens / paid if paid else None,
    }


def parts(client: Client, shadow: Shadow | None, ledger_id: int | None) -> list[dict[str, Any]]:
    """Its part in each of its newest rounds, ascending, as an economy measured and paid it, each with the number of the
    transaction that did."""
    rows = client.contributions.order_by("-round__number")
    found = list(rows.values("round__number", "round__cohort_size", *OF_A_PART)[: fragments.ROUND_ROWS])
    if shadow:
        found = _of_shadow(client, shadow, found)
    numbers = [row["round__number"] for row in found]
    keys = {transaction_key(number): number for number in numbers}
    posted = Transaction.objects.filter(ledger=ledger_id, key__in=keys).values_list("key", "sequence")
    sequences = {keys[key]: sequence for key, sequence in posted}
    return [
        {"round": row["round__number"], "paid_in": sequences.get(row["round__number"])}
        | {name: row[name] for name in OF_A_PART}
        for row in reversed(found)
    ]


def _of_shadow(client: Client, shadow: Shadow, newest: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same with the shadow's numbers, of the rounds that it has. Three queries."""
    few, numbers = 0, 0
    for row in newest:
        numbers += row["round__cohort_size"]
        if few and numbers > MOST_NUMBERS:
            break
        few += 1
    rounds = [row["round__number"] for row in newest[:few]]
    before = Contribution.objects.filter(round__simulation=shadow.simulation_id, round__number__in=rounds)
    before = before.filter(client__number__lt=client.number).order_by().values_list("round__number")
    places = dict(before.annotate(Count("pk")))
    made = {each.number: each for each in ShadowRound.objects.filter(shadow=shadow, number__in=rounds)}
    found = []
    for row in newest[:few]:
        number = row["round__number"]
        if (own := made.get(number)) is not None:
            place = places.get(number, 0)
            values = {"value": own.contributions[place], "reward_microtokens": own.rewards[place]}
            found.append(dict(row) | values | {"error": own.errors[place] if own.errors else None})
    return found


def transfers(client: Client, ledger_id: int | None) -> QuerySet[Transfer]:
    """The newest ones to it."""
    to_it = Transfer.objects.filter(credit_account__ledger=ledger_id, credit_account__client=client.number)
    rows = to_it.select_related("transaction__ledger", "debit_account")
    return rows.order_by("-transaction__sequence")[:TRANSFER_ROWS]
