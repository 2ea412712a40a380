"""A simulation as one JSON object: what `--json` prints and the API answers."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from simulations.models import Contribution, Simulation
from simulations.running import events, lifecycle
from simulations.showing.stream import timestamp

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
        "num_rounds": simulation.num_rounds,
        "num_clients": simulation.num_clients,
        "fraction_fit": simulation.fraction_fit,
        "dataset": simulation.dataset,
        "model": simulation.config["model"],
        "rounds_done": simulation.rounds_done,
        "loss": simulation.loss,
        "accuracy": simulation.accuracy,
        "pool_microtokens": simulation.pool_microtokens,
        "config_sha256": simulation.config_sha256 or None,
        "weights_sha256": simulation.weights_sha256 or None,
        "ledger_head": simulation.ledger_head or None,
        "failure": simulation.failure or None,
        "created_at": timestamp(simulation.created_at),
        "started_at": timestamp(simulation.started_at),
        "finished_at": timestamp(simulation.finished_at),
    }


def of_simulation(simulation: Simulation) -> dict[str, Any]:
    """A recorded simulation with its rounds and clients: a fixed number of queries."""
    cohorts = cohorts_of(simulation)
    return record(simulation) | {
        "config": simulation.config,
        "rounds": [
            {"round": row["number"], "cohort": cohorts[row["number"]]} | {name: row[name] for name in ROUND_FIELDS}
            for row in simulation.rounds.order_by("number").values("number", *ROUND_FIELDS)
        ],
        "clients": [
            {
                "client": client.number,
                "num_examples": client.num_examples,
                "behaviour": client.behaviour,
                "contribution": client.contribution,
                "reward_microtokens": client.reward_microtokens,
            }
            for client in simulation.clients.order_by("number")
        ],
        "duration_seconds": simulation.duration_seconds,
    }


def cohorts_of(simulation: Simulation) -> dict[int, list[int]]:
    """Each round's clients, ascending. Plain values: a long run of a crowd has a million of them."""
    cohorts: dict[int, list[int]] = defaultdict(list)
    parts = Contribution.objects.filter(round__simulation=simulation).order_by("client__number")
    for round_number, client in parts.values_list("round__number", "client__number").iterator(10_000):
        cohorts[round_number].append(client)
    return cohorts


def of_events(happened: Iterable[events.Event]) -> dict[str, Any]:
    """The same of a run that was not recorded."""
    result: dict[str, Any] = {"id": None, "status": "running", "ledger_head": None, "failure": None}
    result |= {"config": None, "config_sha256": None, "weights_sha256": None, "rounds": [], "clients": []}
    for event in happened:
        OF_EVENT.get(type(event), lambda *_: None)(result, event)
    result["pool_microtokens"] = sum(row["pool_microtokens"] for row in result["rounds"])
    result["duration_seconds"] = sum(row["duration_seconds"] for row in result["rounds"])
    return result


def _resolved(result: dict[str, Any], event: events.Resolved) -> None:
    result |= {"config": event.config, "config_sha256": event.config_sha256}


def _started(result: dict[str, Any], event: events.Started) -> None:
    result["clients"] = [
        {"client": share.client, "num_examples": share.num_examples, "behaviour": share.behaviour}
        | {"contribution": 0.0, "reward_microtokens": 0}
        for share in event.clients
    ]


def _round(result: dict[str, Any], event: events.Round) -> None:
    cohort = [part.client for part in event.clients]
    fields = {name: getattr(event, name) for name in ROUND_FIELDS}
    result["rounds"].append({"round": event.round_number, "cohort": cohort} | fields)
    result["weights_sha256"] = event.weights_sha256
    for part in event.clients:
        client = result["clients"][part.client - 1]
        client["contribution"] += part.contribution or 0.0
        client["reward_microtokens"] += part.reward_microtokens


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
