"""A simulation as one JSON object: what `--json` prints and the API answers."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from django.db import connection
from django.db.models import Sum

from incentives.models import TREASURY, Account, Ledger
from incentives.specification import Specification
from simulations import economies, plugins
from simulations.config import PAYING, SimulationConfig
from simulations.models import Contribution, Shadow, ShadowClient, Simulation, Status
from simulations.running import events, lifecycle
from simulations.showing import wording
from simulations.showing.stream import event_json, timestamp
from training.config import SCHEME
from training.figures import worse

EVENTS = 500
ROUND_FIELDS = (
    *("loss", "accuracy", "pool_microtokens", "weights_sha256"),
    *("duration_seconds", "train_seconds", "evaluate_seconds", "valuation_seconds"),
)


def record(simulation: Simulation) -> dict[str, Any]:
    """What lists show of a simulation."""
    return {
        "id": simulation.pk,
        "status": simulation.status,
        "interrupted": lifecycle.is_interrupted(simulation),
        "owner": simulation.owned_by and simulation.owned_by.get_username(),
        "archived": simulation.archived,
        "pruned_at": timestamp(simulation.pruned_at),
        "num_rounds": simulation.num_rounds,
        "num_clients": simulation.num_clients,
        "fraction_fit": simulation.fraction_fit,
        "dataset": simulation.dataset,
        "model": wording.model(simulation),
        "rounds_done": simulation.rounds_done,
        "loss": simulation.loss,
        "accuracy": simulation.accuracy,
        "pool_microtokens": simulation.pool_microtokens,
        "config_sha256": simulation.config_sha256 or None,
        "weights_sha256": simulation.weights_sha256 or None,
        "ledger_head": simulation.ledger_head or None,
        "failure": simulation.failure or None,
        "warning": simulation.warning or None,
        "lacking": plugins.lacking(simulation.config) if simulation.status == Status.QUEUED else [],
        "created_at": timestamp(simulation.created_at),
        "started_at": timestamp(simulation.started_at),
        "finished_at": timestamp(simulation.finished_at),
    }


def of_simulation(simulation: Simulation, *, most_rounds: int | None = None, most_of_cohort: int | None = None) -> Any:
    """A recorded simulation with its rounds and clients, or the first of them: a fixed number of queries."""
    stakes = economies.stakes_of(simulation)
    return record(simulation) | {
        "config": simulation.config,
        "scheme": simulation.scheme,
        "game": simulation.configuration["game"],
        "manifests": simulation.manifests,
        "economies": [PAYING, *simulation.shadows.order_by("number").values_list("label", flat=True)],
        "rounds": rounds(simulation, most=most_rounds, most_of_cohort=most_of_cohort),
        "clients": [
            {
                "client": client.number,
                "holder": client.holder or client.number,
                "num_examples": client.num_examples,
                "behaviour": client.behaviour,
                "contribution": client.contribution,
                "reward_microtokens": client.reward_microtokens,
                "stake_microtokens": stakes.get(client.number, 0) - client.slashed_microtokens,
                "slashed_microtokens": client.slashed_microtokens,
            }
            for client in simulation.clients.order_by("number")
        ],
        "duration_seconds": simulation.duration_seconds,
    }


def economy_sums(simulation: Simulation) -> list[dict[str, Any]]:
    """What each economy of a recorded run paid, the paying one first: money in micro-tokens, sums over rounds. Seven
    queries; memory by clients times economies."""
    config = SimulationConfig.from_record(simulation.config, simulation.scheme)
    shadows = list(simulation.shadows.select_related("ledger").order_by("number"))
    paying = Ledger.objects.filter(pk=simulation.ledger_id).first()
    burned = simulation.rounds.aggregate(sum=Sum("burned_microtokens", default=0))["sum"]
    ledgers = [simulation.ledger_id, *(each.ledger_id for each in shadows)]
    held = dict(Account.objects.filter(ledger__in=ledgers, name=TREASURY).values_list("ledger", "balance"))
    everyone = list(simulation.clients.values_list("number", "behaviour", "reward_microtokens", "slashed_microtokens"))
    behaviours = {number: behaviour for number, behaviour, *_ in everyone}
    lost = (
        ShadowClient.objects.filter(shadow__in=shadows).values_list("shadow").annotate(sum=Sum("slashed_microtokens"))
    )
    slashed = dict(lost.order_by())
    rewards: dict[int, dict[int, int]] = defaultdict(dict)
    parts = ShadowClient.objects.filter(shadow__in=shadows, reward_microtokens__gt=0)
    for pk, client, reward in parts.values_list("shadow", "number", "reward_microtokens").iterator(10_000):
        rewards[pk][client] = reward
    own = {number: reward for number, _, reward, _ in everyone}
    row = {"label": PAYING, "ledger": paying and paying.name, "ledger_head": simulation.ledger_head or None}
    row |= {"specification": config.economies[0][1].to_dict(), "added_at": None, "rounds_done": simulation.rounds_done}
    row |= {"pool_microtokens": simulation.pool_microtokens, "paid_microtokens": simulation.paid_microtokens}
    row |= {"burned_microtokens": burned, "treasury_microtokens": held.get(simulation.ledger_id, 0)}
    row["slashed_microtokens"] = sum(each for *_, each in everyone)
    names = ("label", "ledger_head", "specification", "rounds_done")
    names += ("pool_microtokens", "paid_microtokens", "burned_microtokens")
    return [row | _who_is_paid(own, behaviours)] + [
        {name: getattr(each, name) for name in names}
        | {"ledger": each.ledger.name, "added_at": timestamp(each.added_at)}
        | {"treasury_microtokens": held.get(each.ledger_id, 0), "slashed_microtokens": slashed.get(each.pk, 0)}
        | _who_is_paid(rewards[each.pk], behaviours)
        for each in shadows
    ]


def _who_is_paid(rewards: Mapping[int, int], behaviours: Mapping[int, str]) -> dict[str, int]:
    return {
        "clients_paid": sum(reward > 0 for reward in rewards.values()),
        "dishonest_microtokens": sum(reward for who, reward in rewards.items() if behaviours[who] != "honest"),
    }


def clients_of(simulation: Simulation, shadow: Shadow) -> list[dict[str, Any]]:
    """The clients of a run with what a shadow of it makes of them, as `of_simulation` has the paying economy's."""
    of_shadow = ("number", "contribution", "reward_microtokens", "slashed_microtokens")
    stakes = economies.stakes_of(simulation, Specification.from_dict(shadow.specification))
    made = {number: rest for number, *rest in ShadowClient.objects.filter(shadow=shadow).values_list(*of_shadow)}
    found = []
    names = ("number", "holder", "num_examples", "behaviour")
    for number, holder, num_examples, behaviour in simulation.clients.order_by("number").values_list(*names):
        contribution, reward, lost = made.get(number, (0.0, 0, 0))  # who was in no cohort yet
        found.append(
            {"client": number, "holder": holder or number, "num_examples": num_examples, "behaviour": behaviour}
            | {"contribution": contribution, "reward_microtokens": reward}
            | {"stake_microtokens": stakes.get(number, 0) - lost, "slashed_microtokens": lost}
        )
    return found


def rounds(
    simulation: Simulation,
    *,
    after: int = 0,
    most: int | None = None,
    most_of_cohort: int | None = None,
    most_numbers: int | None = None,
) -> list[dict[str, Any]]:
    """Rounds by number, each with its cohort's clients ascending.

    `most_of_cohort`: no more clients of each cohort; `most_numbers`: no more clients altogether, unless of one round.
    """
    found = simulation.rounds.filter(number__gt=after).order_by("number")
    rows = list(found.values("id", "number", "cohort_size", *ROUND_FIELDS)[:most])
    if most_numbers:
        sums = accumulate(row["cohort_size"] for row in rows)
        rows = [row for row, numbers in zip(rows, sums, strict=True) if numbers <= most_numbers or row is rows[0]]
    if not rows:
        return []
    span = (rows[0]["number"], rows[-1]["number"])
    cohorts = cohorts_of(simulation, span) if most_of_cohort is None else starts_of(simulation, span, most_of_cohort)
    return [
        {"round": row["number"], "cohort": cohorts[row["number"]], "cohort_size": row["cohort_size"]}
        | {name: row[name] for name in ROUND_FIELDS}
        for row in rows
    ]


def cohorts_of(simulation: Simulation, span: tuple[int, int]) -> dict[int, list[int]]:
    """Each round's clients, ascending. Plain values: a long run of a crowd has a million of them."""
    cohorts: dict[int, list[int]] = defaultdict(list)
    parts = Contribution.objects.filter(round__simulation=simulation, round__number__range=span)
    parts = parts.order_by("client__number").values_list("round__number", "client__number")
    for round_number, client in parts.iterator(10_000):
        cohorts[round_number].append(client)
    return cohorts


# The first clients of each round: a walk of so many steps in an index, where a window function would read every row.
STARTS = """
    SELECT number, (SELECT {joined} FROM (
        SELECT client_id FROM simulations_contribution WHERE round_id = simulations_round.id ORDER BY client_id LIMIT %s
    ) AS firsts) FROM simulations_round WHERE simulation_id = %s AND number BETWEEN %s AND %s
"""
JOINED = {"sqlite": "group_concat(client_id)", "postgresql": "string_agg(client_id::text, ',')"}


def starts_of(simulation: Simulation, span: tuple[int, int], most: int) -> dict[int, list[int]]:
    """The same, but no more than `most` of each; rows of clients are in the order of their numbers."""
    numbers = dict(simulation.clients.values_list("id", "number"))
    with connection.cursor() as cursor:
        cursor.execute(STARTS.format(joined=JOINED[connection.vendor]), [most, simulation.pk, *span])
        found = cursor.fetchall()
    return {number: sorted(numbers[int(row)] for row in (rows or "").split(",") if row) for number, rows in found}


def log_lines(simulation: Simulation) -> Iterator[str]:
    """Every event up to the row's newest as a JSON array, an event a line; so many in memory at a time."""
    rows = simulation.events.filter(sequence__lte=simulation.last_sequence).order_by("sequence")
    yield "["
    last, before = 0, "\n"
    while chunk := list(rows.filter(sequence__gt=last)[:EVENTS]):
        for event in chunk:
            yield before + json.dumps(event_json(event))
            before = ",\n"
        last = chunk[-1].sequence
    yield "\n]\n"


def of_events(happened: Iterable[events.Event]) -> dict[str, Any]:
    """The same of a run that was not recorded."""
    result: dict[str, Any] = {"id": None, "status": "running", "ledger_head": None, "failure": None}
    result |= {"scheme": SCHEME, "game": None, "manifests": [], "economies": [PAYING], "warning": None}
    result |= {"config": None, "config_sha256": None, "weights_sha256": None, "rounds": [], "clients": []}
    result["economy_sums"] = []
    for event in happened:
        OF_EVENT.get(type(event), lambda *_: None)(result, event)
    losses = [row["loss"] for row in result["rounds"] if row["loss"] is not None]
    result["warning"] = worse(result.pop("initial_loss", None), losses[-1] if losses else None) or None
    result["pool_microtokens"] = sum(row["pool_microtokens"] for row in result["rounds"])
    behaviours = {client["client"]: client["behaviour"] for client in result["clients"]}
    rewards = result.pop("rewards", [])
    for sums, of_economy in zip(result["economy_sums"], rewards, strict=True):
        sums |= _who_is_paid(of_economy, behaviours)
    result["duration_seconds"] = sum(row["duration_seconds"] for row in result["rounds"])
    return result


def _resolved(result: dict[str, Any], event: events.Resolved) -> None:
    result |= {"config": event.config, "config_sha256": event.config_sha256}
    result["economies"] = [PAYING, *(entry["label"] for entry in event.config["shadows"])]
    result |= {"game": event.config["game"], "manifests": [{"after_round": 0, **event.manifest}]}
    amounts = ("rounds_done", "pool_microtokens", "paid_microtokens", "burned_microtokens", "treasury_microtokens")
    amounts += ("slashed_microtokens",)
    result["economy_sums"] = [
        {"label": label, "ledger": None, "ledger_head": None, "specification": economy.to_dict(), "added_at": None}
        | dict.fromkeys(amounts, 0)
        for label, economy in SimulationConfig.from_record(event.config, SCHEME).economies
    ]
    result["rewards"] = [defaultdict(int) for _ in result["economy_sums"]]


def _started(result: dict[str, Any], event: events.Started) -> None:
    config = SimulationConfig.from_record(result["config"], SCHEME)
    stakes = config.members(is_paying=False).stakes(config.economies[0][1])
    result["initial_loss"] = event.loss
    result["clients"] = [
        {"client": share.client, "holder": share.holder, "num_examples": share.num_examples}
        | {"behaviour": share.behaviour, "contribution": 0.0, "reward_microtokens": 0}
        | {"stake_microtokens": stakes.get(share.client, 0), "slashed_microtokens": 0}
        for share in event.clients
    ]


def _round(result: dict[str, Any], event: events.Round) -> None:
    cohort = [part.client for part in event.clients]
    fields = {name: getattr(event, name) for name in ROUND_FIELDS}
    result["rounds"].append({"round": event.round_number, "cohort": cohort, "cohort_size": len(cohort)} | fields)
    result["weights_sha256"] = event.weights_sha256
    for part in event.clients:
        client = result["clients"][part.client - 1]
        client["contribution"] += part.contribution or 0.0
        client["reward_microtokens"] += part.reward_microtokens
        client["slashed_microtokens"] += part.slashed_microtokens or 0
        client["stake_microtokens"] -= part.slashed_microtokens or 0
    lost = [part.slashed_microtokens or 0 for part in event.clients]
    rewarded: list[tuple[int, events.Round | events.ShadowRound, Sequence[int], int]] = [
        (0, event, [part.reward_microtokens for part in event.clients], sum(lost))
    ]
    rewarded += [(own.number, own, own.rewards, sum(own.slashed or ())) for own in event.shadows]
    for place, own, amounts, slashed in rewarded:
        sums, paid = result["economy_sums"][place], sum(amounts)
        to_treasury = slashed if sums["specification"]["slashed_to"] == "treasury" else 0
        sums["rounds_done"] = event.round_number
        sums["pool_microtokens"] += own.pool_microtokens
        sums["paid_microtokens"] += paid
        sums["burned_microtokens"] += own.burned_microtokens
        sums["treasury_microtokens"] += own.minted_microtokens - own.burned_microtokens - paid + to_treasury
        sums["slashed_microtokens"] += slashed
        for number, amount in zip(cohort, amounts, strict=True):
            result["rewards"][place][number] += amount


def _completed(result: dict[str, Any], event: events.Completed) -> None:
    result["status"] = "completed"


def _failed(result: dict[str, Any], event: events.Failed) -> None:
    result |= {"status": "failed", "failure": event.message}


OF_EVENT: dict[type, Any] = {
    events.Resolved: _resolved,
    events.Started: _started,
    events.Round: _round,
    events.Completed: _completed,
    events.Failed: _failed,
}
