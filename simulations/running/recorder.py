"""The only writer of what happened. One short transaction per event, ledger transfers included: an event is recorded
and paid once or not at all. A writer whose claim is stale changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import F

from incentives import ledger
from incentives.errors import SupplyExhausted
from incentives.memo import Facts, Paid
from incentives.specification import Specification
from simulations import economies, plugins
from simulations.config import SimulationConfig, kind_in
from simulations.models import Client, Contribution, Event, Round, Shadow, Simulation, Status
from simulations.running import events, manifest
from training import failpoints


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The right to write about a simulation, until somebody holds a newer fence."""

    simulation_id: int
    fence: int


class StaleClaim(Exception):
    """The simulation was cancelled or taken over; nothing was written."""


class Diverged(Exception):
    """A round trained again is not the recorded one."""


class Unpayable(Diverged):
    """The ledger's supply does not hold a round's pool."""


def append(simulation_id: int, kind: str, message: str, data: dict[str, Any] | None = None) -> Event:
    """One event at the end of the log. Call it in the transaction that makes it true."""
    sequence = _returned(
        "UPDATE simulations_simulation SET last_sequence = last_sequence + 1 WHERE id = %s RETURNING last_sequence",
        simulation_id,
    )
    return Event.objects.create(
        simulation_id=simulation_id, sequence=sequence, kind=kind, message=message, data=data or {}
    )


def change(claim: Claim, **values: Any) -> None:
    """A conditional UPDATE that also locks the row. Raises StaleClaim where the claim no longer holds."""
    mine = Simulation.objects.filter(pk=claim.simulation_id, fence=claim.fence, status=Status.RUNNING)
    if not mine.update(fence=claim.fence, **values):
        raise StaleClaim(f"simulation {claim.simulation_id} was cancelled or taken over")


def held(claim: Claim) -> int:
    """Locks the row. The number of the newest event in the simulation's log; StaleClaim where the claim is."""
    number: int | None = _returned(
        "UPDATE simulations_simulation SET fence = fence WHERE id = %s AND fence = %s AND status = %s "
        "RETURNING last_sequence",
        *(claim.simulation_id, claim.fence, Status.RUNNING),
    )
    if number is None:
        raise StaleClaim(f"simulation {claim.simulation_id} was cancelled or taken over")
    return number


def _returned(statement: str, *values: Any) -> Any:
    """Every event costs these statements; in SQL they cost a fraction of what the ORM takes to write them."""
    rows = ledger.query(statement, *values)
    return rows[0][0] if rows else None


def record(claim: Claim, event: events.Event, after: int | None = None, lines: Sequence[events.Log] = ()) -> int:
    """Write down one event of a run, with the lines that came before it; the number of the newest event then.

    `after` is that number as the writer knows it. Nobody else writes under a claim, so where the log has gone on all of
    this is there already, and a repeat writes nothing: a connection lost at COMMIT does not tell whether it was done.
    Raises StaleClaim, or Diverged.
    """
    if isinstance(event, events.Log):
        lines = [*lines, event]
    with transaction.atomic():
        number = held(claim)
        if after is None or number == after:
            number = _log(claim, lines, number)
            if not isinstance(event, events.Log):
                WRITERS[type(event)](claim, event)
                number = held(claim)
    if isinstance(event, events.Round):
        failpoints.reach("round_committed")
    return number


def _log(claim: Claim, lines: Sequence[events.Log], number: int) -> int:
    """The lines after that number, in two statements however many there are. The number of the last one."""
    if not lines:
        return number
    Simulation.objects.filter(pk=claim.simulation_id).update(last_sequence=number + len(lines))
    Event.objects.bulk_create(
        Event(
            simulation_id=claim.simulation_id,
            sequence=sequence,
            kind="log",
            message=line.message,
            data={"level": line.level},
        )
        for sequence, line in enumerate(lines, number + 1)
    )
    failpoints.reach("lines_written")
    return number + len(lines)


def _resolved(claim: Claim, event: events.Resolved) -> None:
    config, seen = (
        event.config,
        Simulation.objects.only("manifests", "rounds_done", "scheme").get(pk=claim.simulation_id),
    )
    manifests = _with_manifest(seen, event.manifest)
    dataset = kind_in(config, "dataset")
    hashes = {"config_sha256": event.config_sha256, "training_sha256": event.training_sha256}
    change(claim, config=config, dataset=dataset, manifests=manifests, **hashes)
    for shadow in Shadow.objects.filter(simulation_id=claim.simulation_id, added_at=None):
        shadow.specification = SimulationConfig.from_record(config, seen.scheme).economies[shadow.number][1].to_dict()
        shadow.save(update_fields=["specification"])
    if not _said_before(claim, "resolved"):
        data = {"config_sha256": event.config_sha256, "dataset": dataset, "manifest": event.manifest}
        append(claim.simulation_id, "resolved", event.message, data)
    elif seen.manifests and not manifest.same_kind(seen.manifests[-1], event.manifest):
        text = f"Going on where sums may round otherwise: {manifest.in_words(event.manifest)}"
        append(claim.simulation_id, "log", text, {"level": "warning"})


def _with_manifest(seen: Simulation, now: dict[str, Any]) -> list[dict[str, Any]]:
    """The run's manifests and that of now; one for each round after which something else than before has gone on."""
    entry = {"after_round": seen.rounds_done, **now}
    return seen.manifests if seen.manifests and seen.manifests[-1] == entry else [*seen.manifests, entry]


def _started(claim: Claim, event: events.Started) -> None:
    """The clients and what each holds. A run that goes on has them already."""
    change(
        claim,
        num_parameters=event.num_parameters,
        initial_loss=event.loss,
        initial_accuracy=event.accuracy,
    )
    if _said_before(claim, "started"):
        return
    Client.objects.bulk_create(
        Client(
            simulation_id=claim.simulation_id,
            number=share.client,
            holder=None if share.holder == share.client else share.holder,
            num_examples=share.num_examples,
            label_counts=list(share.label_counts),
            behaviour=share.behaviour,
        )
        for share in event.clients
    )
    names = ("dataset", "num_parameters", "num_validation", "num_test", "weights_sha256", "loss", "accuracy")
    data = {name: getattr(event, name) for name in names}
    append(claim.simulation_id, "started", event.message, {**data, "num_clients": len(event.clients)})


def _said_before(claim: Claim, kind: str) -> bool:
    return Event.objects.filter(simulation_id=claim.simulation_id, kind=kind).exists()


def _round(claim: Claim, event: events.Round) -> None:
    recorded = Round.objects.filter(simulation_id=claim.simulation_id, number=event.round_number).first()
    if recorded:
        _compare(recorded, event)
        return
    simulation = Simulation.objects.select_related("ledger").get(pk=claim.simulation_id)
    if event.round_number != simulation.rounds_done + 1:
        raise Diverged(f"round {event.round_number} came after round {simulation.rounds_done}")
    if simulation.ledger.head != simulation.ledger_head:  # a new copy of the head would hide it
        raise Diverged("The ledger does not end where this run left it: somebody else has written; run verify_ledger")
    if simulation.scheme >= 3:
        economies.keep(each for each in (event.evidence, *event.others) if each is not None)
    _contributions(_round_row(simulation, event), event)
    failpoints.reach("contributions_written")
    _pay(simulation, event)
    failpoints.reach("reward_posted")
    _sums(simulation, event)
    append(claim.simulation_id, "round", event.message, _round_data(event))
    failpoints.reach("round_written")


def _compare(recorded: Round, event: events.Round) -> None:
    """A round trained again, for want of a checkpoint, must be the one that was paid."""
    same = (recorded.weights_sha256, recorded.evidence_sha256) == (event.weights_sha256, event.evidence_sha256 or "")
    if not same:
        text = (
            f"Round {event.round_number} was trained again without its checkpoint and gave other weights than recorded"
        )
        manifests = recorded.simulation.manifests
        if len(manifests) > 1 and not manifest.same_kind(manifests[0], manifests[-1]):
            text += (
                f". The run began on another kind of machine ({manifest.in_words(manifests[0])}), which rounds "
                f"otherwise: go on there with run_simulation --resume {recorded.simulation_id}"
            )
        raise Diverged(text)
    if event.checkpoint_sha256 and event.checkpoint_sha256 != recorded.checkpoint_sha256:
        recorded.checkpoint_sha256 = event.checkpoint_sha256
        recorded.save(update_fields=["checkpoint_sha256"])


def _round_row(simulation: Simulation, event: events.Round) -> Round:
    return Round.objects.create(
        simulation=simulation,
        number=event.round_number,
        cohort_size=len(event.clients),
        loss=event.loss,
        accuracy=event.accuracy,
        previous_validation_loss=event.previous_validation_loss,
        validation_loss=event.validation_loss,
        best_validation_loss=event.best_validation_loss,
        carried=event.carried,
        pool_microtokens=event.pool_microtokens,
        minted_microtokens=event.minted_microtokens,
        burned_microtokens=event.burned_microtokens,
        treasury_microtokens=event.treasury_microtokens,
        rule=event.rule or "",
        evidence=event.evidence if simulation.scheme < 3 else None,
        evidence_sha256=event.evidence_sha256 or "",
        economy_state=event.economy_state,
        scores={name: list(scores) for name, scores in event.scores.items()},
        products_sha256=event.products_sha256 or "",
        weights_sha256=event.weights_sha256,
        checkpoint_sha256=event.checkpoint_sha256 or "",
        train_seconds=event.train_seconds,
        evaluate_seconds=event.evaluate_seconds,
        valuation_seconds=event.valuation_seconds,
        duration_seconds=event.duration_seconds,
    )


def _contributions(row: Round, event: events.Round) -> None:
    """A row per client of the cohort, and the clients' sums."""
    numbers = [part.client for part in event.clients]
    clients = {client.number: client for client in row.simulation.clients.filter(number__in=numbers)}
    for part in event.clients:
        client = clients[part.client]
        client.rounds += 1
        client.contribution += part.contribution or 0.0
        if part.error is not None:
            client.contribution_variance = (client.contribution_variance or 0.0) + part.error * part.error
        client.reward_microtokens += part.reward_microtokens
        client.slashed_microtokens += part.slashed_microtokens or 0
    sums = ["rounds", "contribution", "contribution_variance", "reward_microtokens", "slashed_microtokens"]
    Client.objects.bulk_update(clients.values(), sums, batch_size=200)
    Contribution.objects.bulk_create(
        Contribution(
            round=row,
            client=clients[part.client],
            num_examples=part.num_examples,
            held=None if part.true_examples == clients[part.client].num_examples else part.true_examples,
            effort=part.effort,
            untrained=part.untrained,
            value=part.contribution,
            error=part.error,
            reward_microtokens=part.reward_microtokens,
            slashed_microtokens=part.slashed_microtokens,
            loss_before=part.loss_before,
            loss_after=part.loss_after,
            update_norm=part.update_norm,
        )
        for part in event.clients
    )


def paid_of_event(event: events.Round) -> Paid | None:
    """What the paying economy made of the round; None where it measures nothing."""
    if event.rule is None:
        return None
    errors = tuple(part.error for part in event.clients if part.error is not None)
    slashed = tuple(part.slashed_microtokens for part in event.clients if part.slashed_microtokens is not None)
    return Paid(
        contributions=tuple(part.contribution or 0.0 for part in event.clients),
        errors=errors or None,
        pool=event.pool_microtokens,
        minted=event.minted_microtokens,
        burned=event.burned_microtokens,
        shares=tuple(part.reward_microtokens for part in event.clients),
        utilities_sha256=event.evidence_sha256,
        state=event.economy_state,
        slashed=slashed or None,
        scores=event.scores,
        products_sha256=event.products_sha256,
    )


def _pay(simulation: Simulation, event: events.Round) -> None:
    """What is minted goes into the treasury, which pays the clients and burns: a ledger for the paying economy and one
    for each shadow, all of them or none. The rows keep a second copy of each ledger's head and length."""
    clients, number = [part.client for part in event.clients], event.round_number
    postings, paid = [], paid_of_event(event)
    if simulation.scheme < 3:
        if paid is not None and paid.pool:
            memo: dict[str, Any] = {
                "round": number,
                "rule": event.rule,
                **({"rule_source_sha256": source} if (source := plugins.rule_source(simulation.config)) else {}),
                "evidence_sha256": event.evidence_sha256,
                "weights_sha256": event.weights_sha256,
            }
            postings.append(economies.posting(simulation.ledger_id, number, clients, paid, memo))
    else:
        facts_sha256 = facts_of_event(simulation, event).sha256()
        if paid is not None:
            economy = Specification.from_dict(simulation.config)
            memo = economies.memo(number, facts_sha256, economy, paid)
            at_stake = economies.at_stake(simulation, economy)
            postings.append(economies.posting(simulation.ledger_id, number, clients, paid, memo, **at_stake))
        if event.shadows:
            shadows = {
                each.number: each
                for each in Shadow.objects.filter(simulation=simulation, added_at=None).select_related("ledger")
            }
            made = [(shadows[each.number], economies.paid_by(each)) for each in event.shadows]
            for shadow, of_shadow in made:
                if shadow.ledger.head != shadow.ledger_head:
                    raise Diverged(
                        f"The ledger of {shadow.label} does not end where this run left it: run verify_ledger"
                    )
                economy = Specification.from_dict(shadow.specification)
                memo = economies.memo(number, facts_sha256, economy, of_shadow)
                at_stake = economies.at_stake(simulation, economy)
                postings.append(economies.posting(shadow.ledger_id, number, clients, of_shadow, memo, **at_stake))
            economies.record(made, number, clients)
    try:
        posted = {each.ledger_id: each for each in ledger.post_together(postings)} if postings else {}
    except SupplyExhausted as error:
        text = f"Reward of round {number}: {error}; a smaller scaling_factor or fewer tokens mint less"
        raise Unpayable(text) from None
    if own := posted.pop(simulation.ledger_id, None):
        Simulation.objects.filter(pk=simulation.pk).update(ledger_head=own.hash, ledger_length=own.sequence)
    economies.note(posted)


def facts_of_event(simulation: Simulation, event: events.Round) -> Facts:
    return Facts.of(simulation.training_sha256, event.round_number, event, event.clients)


def _sums(simulation: Simulation, event: events.Round) -> None:
    evaluated = {} if event.loss is None else {"loss": event.loss, "accuracy": event.accuracy}
    Simulation.objects.filter(pk=simulation.pk).update(
        rounds_done=event.round_number,
        pool_microtokens=F("pool_microtokens") + event.pool_microtokens,
        paid_microtokens=F("paid_microtokens") + sum(part.reward_microtokens for part in event.clients),
        duration_seconds=F("duration_seconds") + event.duration_seconds,
        weights_sha256=event.weights_sha256,
        lost_leases=0,  # it gets on, so earlier losses no longer count against it
        **evaluated,
    )


def _round_data(event: events.Round) -> dict[str, Any]:
    """What a round's event tells a program; of the same size whatever the cohort."""
    names = (
        *("loss", "accuracy", "validation_loss", "pool_microtokens", "treasury_microtokens", "weights_sha256"),
        *("train_seconds", "evaluate_seconds", "valuation_seconds", "duration_seconds"),
    )
    paid = sum(part.reward_microtokens for part in event.clients)
    data = {name: getattr(event, name) for name in names}
    return {"round": event.round_number, "cohort_size": len(event.clients), "paid_microtokens": paid, **data}


WRITERS: dict[type, Any] = {
    events.Resolved: _resolved,
    events.Started: _started,
    events.Round: _round,
}
