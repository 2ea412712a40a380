"""A client as its page shows it: what each economy made of it, under one of them its time line, and its holder's
identities together.

A fixed number of queries, and no more of lists of cohorts in memory than MOST_NUMBERS, whatever their size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from django.db.models import Count, Q, QuerySet, Sum

from incentives.ledger import client_account, stake_account
from incentives.models import Transaction, Transfer
from incentives.specification import Specification
from simulations.config import PAYING
from simulations.detections import detectors_of, watches
from simulations.economies import ledger_name, stakes_of, transaction_key
from simulations.models import Client, Contribution, Round, Shadow, ShadowClient, ShadowRound
from simulations.showing import fragments, wording
from simulations.showing.ledgers_shown import DASHES, LINES
from training import behaviours

TRANSFER_ROWS = 50
MOST_NUMBERS = 200_000  # of clients in the rounds that a shadow is shown by
IDENTITIES = 100
OF_A_PART = (
    *("value", "error", "reward_microtokens", "slashed_microtokens", "num_examples", "effort", "untrained"),
    *("loss_before", "loss_after", "update_norm"),
)


def context(client: Client, number: int) -> dict[str, Any] | None:
    """What its page tells, and of economies of the one that is chosen by `number`, 0 being the paying one; None where
    there is no such economy."""
    simulation = client.simulation
    shadows = list(simulation.shadows.order_by("number"))
    shadow = next((each for each in shadows if each.number == number), None)
    if number and shadow is None:
        return None
    rows = economies(client, shadows)
    chosen = next(row for row in rows if row["number"] == number)
    ledger_id = shadow.ledger_id if shadow else simulation.ledger_id
    specification = shadow.specification if shadow else simulation.configuration
    names = detectors_of(specification) if watches(specification) else []
    configured = {int(client): given for client, given in simulation.config["behaviours"].items()}
    given = configured.get(client.holder or client.number)
    last = simulation.num_clients + len(behaviours.holders(simulation.num_clients, configured))
    told = parts(client, shadow, ledger_id, names)
    stake = stakes_of(simulation, Specification.from_dict(shadow.specification) if shadow else None).get(client.number)
    return {
        "simulation": simulation,
        "client": client,
        "last": last,
        "labels": [(label, count, _share(count, client)) for label, count in enumerate(client.label_counts)],
        "economies": rows,
        "chosen": chosen,
        "is_staked": any(row["slashed"] for row in rows) or stake is not None,
        "parts": _with_stake(told, stake, chosen["slashed"], given),
        "detectors": [
            {
                "label": wording.kind("detector", name),
                "colour": LINES[place % len(LINES)],
                "dash": DASHES[place // len(LINES) % len(DASHES)],
            }
            for place, name in enumerate(names)
        ],
        "stake": stake,
        "stake_left": None if stake is None else stake - chosen["slashed"],
        "is_valued": any(part["value"] is not None for part in told),
        "does_it_always": given is None or not {"from_round", "to_round"} & given.keys(),
        "ledger": ledger_name(simulation.pk, number) if number else f"simulation-{simulation.pk}",
        "transfers": transfers(client, ledger_id),
        **identities(client, shadow, last),
        **wording.behaviour(
            simulation, {"number": client.number, "holder": client.holder, "behaviour": client.behaviour}
        ),
    }


def _share(count: int, client: Client) -> float:
    return count / client.num_examples if client.num_examples else 0.0


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
        "slashed": sums.slashed_microtokens,
        "share": sums.reward_microtokens / paid if paid else None,
    }


def parts(
    client: Client, shadow: Shadow | None, ledger_id: int | None, detectors: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Its part in each of its newest rounds, ascending, as an economy measured and paid it, each with the scores of
    these detectors and the number of the transaction that paid it. Five queries at most."""
    rows = client.contributions.order_by("-round__number")
    found = list(rows.values("round__number", "round__cohort_size", *OF_A_PART)[: fragments.ROUND_ROWS])
    if shadow or detectors:
        found = _with_lists(client, shadow, found, detectors)
    numbers = [row["round__number"] for row in found]
    keys = {transaction_key(number): number for number in numbers}
    posted = Transaction.objects.filter(ledger=ledger_id, key__in=keys).values_list("key", "sequence")
    sequences = {keys[key]: sequence for key, sequence in posted}
    return [
        {"round": row["round__number"], "paid_in": sequences.get(row["round__number"]), "scores": row.get("scores", [])}
        | {name: row[name] for name in OF_A_PART}
        for row in reversed(found)
    ]


def _with_lists(
    client: Client, shadow: Shadow | None, newest: Sequence[Mapping[str, Any]], detectors: Sequence[str]
) -> list[dict[str, Any]]:
    """The same with what economies keep as lists in the order of the cohort, of as many rounds as are bounded above: a
    shadow's numbers, of the rounds that it has, and scores. Its place in a list is how many of lower numbers were in
    the round. Two queries."""
    few, numbers = 0, 0
    for row in newest:
        numbers += row["round__cohort_size"]
        if few and numbers > MOST_NUMBERS:
            break
        few += 1
    rounds = [row["round__number"] for row in newest[:few]]
    before = Contribution.objects.filter(round__simulation=client.simulation_id, round__number__in=rounds)
    before = before.filter(client__number__lt=client.number).order_by().values_list("round__number")
    places = dict(before.annotate(Count("pk")))
    made: dict[int, Any] = {}
    if shadow:
        made = {each.number: each for each in ShadowRound.objects.filter(shadow=shadow, number__in=rounds)}
    else:
        of_run = Round.objects.filter(simulation=client.simulation_id, number__in=rounds).only("number", "scores")
        made = {each.number: each for each in of_run}
    found = []
    for row in newest[:few]:
        number = row["round__number"]
        if (own := made.get(number)) is None:
            continue
        place = places.get(number, 0)
        told = dict(row)
        if shadow:
            told |= {"value": own.contributions[place], "reward_microtokens": own.rewards[place]}
            told |= {"error": own.errors[place] if own.errors else None}
            told |= {"slashed_microtokens": own.slashed[place] if own.slashed else None}
        sent = row["untrained"] or row["loss_before"] is not None
        told["scores"] = [own.scores[name][place] if sent and name in own.scores else None for name in detectors]
        found.append(told)
    return found


def _with_stake(
    told: Sequence[Mapping[str, Any]], stake: int | None, lost: int, given: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """Parts with what the stake has left after each, which all rounds together have `lost`, and whether the client's
    behaviour was in force."""
    left, found = (stake or 0) - lost, []
    for part in reversed(told):
        acts = given is not None and behaviours.acts(given, part["round"])
        found.append({**part, "stake": left, "acts": acts})
        left += part["slashed_microtokens"] or 0
    return found[::-1]


def identities(client: Client, shadow: Shadow | None, last: int) -> dict[str, Any]:
    """Those of its holder, the holder first, with their sums under an economy, and with all of them together; nothing
    where it has one alone. Four queries at most."""
    simulation, holder = client.simulation, client.holder or client.number
    if last == simulation.num_clients:
        return {"identities": []}
    own = simulation.clients.filter(Q(number=holder) | Q(holder=holder)).order_by("number")
    money = ("contribution", "reward_microtokens", "slashed_microtokens")
    rows = list(own.values("number", "num_examples", "rounds", *money)[:IDENTITIES])
    if len(rows) < 2:
        return {"identities": []}
    paid: QuerySet[Any] = own
    if shadow:
        paid = shadow.clients.filter(number__in=own.order_by().values("number"))
        shown = paid.filter(number__lte=rows[-1]["number"])
        made = {each["number"]: each for each in shown.values("number", *money)}
        nothing = dict.fromkeys(money, 0)  # who was in no cohort yet
        rows = [row | made.get(row["number"], nothing) for row in rows]
    together = paid.aggregate(**{name: Sum(name, default=0) for name in money})
    return {"identities": rows, "holder": holder, "of_holder": together | {"count": own.count()}}


def transfers(client: Client, ledger_id: int | None) -> QuerySet[Transfer]:
    """The newest ones to it, and to and from its stake."""
    stake = stake_account(client.number)
    to_it = Q(credit_account__ledger=ledger_id, credit_account__name__in=(client_account(client.number), stake))
    rows = Transfer.objects.filter(to_it | Q(debit_account__ledger=ledger_id, debit_account__name=stake))
    rows = rows.select_related("transaction__ledger", "debit_account", "credit_account")
    return rows.order_by("-transaction__sequence", "-position")[:TRANSFER_ROWS]
