"""A run's economies over JSON: what each paid, the evidence that a payment rests on, payments computed again, economies
priced after the run, and all of it as tables."""

import base64
import dataclasses
import math
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from types import MappingProxyType
from typing import Annotated, Any, Literal

from asgiref.sync import sync_to_async
from django.db.models import Prefetch, Sum
from django.db.models.functions import Length
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from ninja import Path, Query, Router, Schema
from ninja import Status as Answer
from ninja.errors import HttpError
from pydantic import Field

import kinds
from incentives.export import as_object
from incentives.models import Evidence, Ledger, Transaction, Transfer
from incentives.paging import Problem, link_next
from incentives.specification import STRUCTURED, Specification
from kinds import ConfigError
from simulations import detections, owners, records, repricing, tables
from simulations import economies as rows
from simulations.config import OF_AN_ECONOMY, PAYING, SimulationConfig
from simulations.models import Round, Shadow, ShadowClient, ShadowRound, Simulation
from simulations.running.folding import CannotFold, TookTooLong
from simulations.showing import waiting
from simulations.showing.api import MOST_OF_COHORT, SimulationId, body, field_schema, found

router = Router(tags=["economies"])
MOST = 2**31 - 1
MOST_NUMBERS = 100_000  # clients of all economies in an answer
MOST_LOSSES = 10_000  # of stakes in an answer
MOST_TABLE_BYTES = 64_000_000  # of all utilities in an answer

RoundNumber = Annotated[int, Path(ge=1, le=MOST)]


class ClientPaid(Schema):
    client: int
    holder: int = Field(description="whose identity it is, most often its own")
    contribution: float = Field(description="sum over rounds")
    contribution_error: float | None = Field(
        description="root of the sum of the squared standard errors of its rounds; null where nothing is estimated"
    )
    reward_microtokens: int = Field(description="sum over rounds")
    stake_microtokens: int = Field(description="what it had at stake from the start less what was lost")
    slashed_microtokens: int = Field(description="that its stake lost, sum over rounds")


class Economy(Schema):
    label: str = Field(description="`paying` is the configuration's own")
    ledger: str | None
    ledger_head: str | None
    specification: dict[str, Any] = Field(description="of what it consists; resolved once the run has started")
    added_at: datetime | None = Field(description="when it was priced after the run; null: it ran with it")
    rounds_done: int
    pool_microtokens: int = Field(description="sum over rounds")
    paid_microtokens: int = Field(description="what of the pools clients got")
    burned_microtokens: int


class EconomyWithClients(Economy):
    clients: list[ClientPaid] = Field(description="everyone of the run, in number order, of this page")


class ThresholdOut(Schema):
    """How well it tells, over the rounds below, that a score is above what costs stake."""

    above: float
    share: float = Field(description="of the stake that is lost each time")
    named: int = Field(description="times that a client that sent something scored above")
    found: int = Field(description="of them, times that it did not play fair")
    cheats: int = Field(description="times that a client that sent something did not play fair")
    precision: float | None = Field(description="found over named; null where nobody is named")
    recall: float | None = Field(description="found over cheats; null where nobody cheats")


class DetectorOut(Schema):
    detector: str
    auc: float | None = Field(
        description="how often a cheat scores above an honest client, 0.5 by chance; null where one of them is missing"
    )
    thresholds: list[ThresholdOut]


class WatchedOut(Schema):
    """Lists in the order of `cohort`."""

    round: int
    cohort: list[int] = Field(description="the first 100 clients, ascending")
    cohort_size: int
    sent: list[bool]
    cheats: list[bool] = Field(description="whose configured behaviour is in force")
    scores: dict[str, list[float]] = Field(description="by detector, from 0 to 1")
    auc: dict[str, float | None] = Field(description="by detector, of the whole cohort")


class ReasonOut(Schema):
    kind: str = Field(description="of the detector, or of the reward rule")
    microtokens: int = Field(description="that it takes; all together take no more than there is")
    contribution: float | None = Field(description="of a rule")
    score: float | None = Field(description="of a detector, as are the two below")
    above: float | None
    share: float | None


class LossOut(Schema):
    round: int
    client: int
    slashed_microtokens: int
    stake_microtokens: int = Field(description="before the round")
    reasons: list[ReasonOut]


class DetectorsOut(Schema):
    economy: str
    rounds_done: int
    detectors: list[DetectorOut]
    rounds: list[WatchedOut] = Field(description="the first 1,000, fewer where cohorts are large")
    losses: list[LossOut] = Field(description="of stakes in these rounds, by round and client; the first 10,000")


class FactsOut(Schema):
    """Lists in the order of `cohort`."""

    training_sha256: str
    round_number: int
    cohort: list[int]
    num_examples: list[int | None] = Field(description="that they report")
    true_examples: list[int] = Field(description="that they hold")
    effort: list[int | None] = Field(description="examples trained, each as often as it was in a batch")
    losses_before: list[float | None] = Field(description="of their own data; null: it did not train")
    losses_after: list[float | None]
    update_norms: list[float]
    previous_validation_loss: float | None
    validation_loss: float | None
    best_validation_loss: float | None = Field(description="of the rounds before")
    weights_sha256: str
    sent: list[bool] = Field([], description="whose update arrived; not there: of those who have losses")
    holders: list[int] = Field([], description="whose identity each is; not there: everybody its own")


class Utilities(Schema):
    sha256: str
    layout: str = Field(description="name and version, see incentives/valuation/evidence.py")
    bytes: int
    base64: str | None = Field(description="null where all tables of the round are more than 64 MB")


class EconomyOfRound(Schema):
    """Lists in the order of the facts' `cohort`; money in micro-tokens."""

    label: str
    ledger: str
    specification: dict[str, Any]
    hashed: dict[str, Any] = Field(description="of the specification what enters its hash: what is not at its default")
    contributions: list[float]
    errors: list[float] | None = Field(description="standard errors, where contributions are estimated")
    pool: int
    minted: int = Field(description="into the treasury")
    burned: int
    shares: list[int]
    state: dict[str, Any] = Field(description="what it keeps for the next round")
    utilities_sha256: str | None = Field(description="of the utilities that it asked for")
    slashed: list[int] | None = Field(description="that stakes lost; null where nobody has one")
    scores: dict[str, list[float]] = Field(description="by detector")
    products_sha256: str | None = Field(description="of the products of updates that it asked for")
    stakes: list[tuple[int, int]] = Field(description="in round 1: clients, and what each has at stake from the start")
    economy_sha256: str | None = Field(description="null before scheme 3, whose payments commit to less")
    transaction: dict[str, Any] | None = Field(description="as in the ledger's JSON Lines; null where none was posted")


class EvidenceOut(Schema):
    simulation: int
    round: int
    scheme: int
    facts: FactsOut
    facts_sha256: str | None = Field(description="null where a run of an older release did not write them down")
    economies: list[EconomyOfRound] = Field(description="that measure and pay; the paying one first")
    utilities: list[Utilities] = Field(description="each once, though several economies may have asked for it")
    products: list[Utilities] = Field(description="of updates, each once; see incentives/products.py")


class Computed(Schema):
    equal: bool
    payments: int = Field(description="that were computed again")
    economy: str | None = Field(None, description="of the first difference")
    round: int | None = Field(None, description="of the first difference")
    difference: str | None = Field(None, description="in words")


@dataclasses.dataclass(frozen=True)
class Shown:
    """An economy of a run as its rows know it; `shadow` is None for the paying one."""

    label: str
    shadow: Shadow | None
    economy: Specification
    values: dict[str, Any]


def economies_of(simulation: Simulation) -> list[Shown]:
    """The paying one first, then the shadows in their order. Three queries."""
    burned = simulation.rounds.aggregate(sum=Sum("burned_microtokens", default=0))["sum"]
    paying = SimulationConfig.from_record(simulation.config, simulation.scheme).economies[0][1]
    ledger = Ledger.objects.filter(pk=simulation.ledger_id).first()
    values = {
        "label": PAYING,
        "ledger": ledger and ledger.name,
        "ledger_head": simulation.ledger_head or None,
        "specification": paying.to_dict(),
        "added_at": None,
        "rounds_done": simulation.rounds_done,
        "pool_microtokens": simulation.pool_microtokens,
        "paid_microtokens": simulation.paid_microtokens,
        "burned_microtokens": burned,
    }
    of_shadow = ("label", "ledger_head", "specification", "added_at", "rounds_done")
    of_shadow += ("pool_microtokens", "paid_microtokens", "burned_microtokens")
    shadows = [
        Shown(
            each.label,
            each,
            Specification.from_dict(each.specification),
            {name: getattr(each, name) for name in of_shadow} | {"ledger": each.ledger.name},
        )
        for each in simulation.shadows.select_related("ledger").order_by("number")
    ]
    return [Shown(PAYING, None, paying, values), *shadows]


@router.get("/{simulation_id}/economies/", response={200: list[EconomyWithClients], 404: Problem})
def economies(
    request: HttpRequest,
    response: HttpResponse,
    simulation_id: SimulationId,
    cursor: Annotated[int, Query(ge=0, le=MOST, description="the number of the last client that was seen")] = 0,
    limit: Annotated[
        int, Query(ge=1, le=1000, description="clients of each economy; fewer where they are many")
    ] = 1000,
):
    """All economies of a run, `paying` first, each with the clients after the cursor. Link tells the next clients."""
    simulation = found(request, simulation_id)
    shown = economies_of(simulation)
    most = max(1, min(limit, MOST_NUMBERS // len(shown)))
    sums = ("number", "contribution", "contribution_variance", "reward_microtokens", "slashed_microtokens")
    everyone = simulation.clients.filter(number__gt=cursor).order_by("number")
    page = list(everyone.values_list(*sums)[: most + 1])
    holders = dict(everyone.exclude(holder=None).values_list("number", "holder")[: most + 1])
    if len(page) > most:
        link_next(request, response, limit=limit, cursor=page[most - 1][0])
    page = page[:most]
    span = (page[0][0], page[-1][0]) if page else (1, 0)
    of_shadows: dict[int, dict[int, tuple]] = {each.shadow.pk: {} for each in shown if each.shadow}
    held = ShadowClient.objects.filter(shadow__in=of_shadows, number__range=span)
    for pk, *row in held.values_list("shadow_id", *sums).iterator(10_000):
        of_shadows[pk][row[0]] = tuple(row)
    stakes = {each.label: rows.stakes_of(simulation, each.economy) for each in shown}
    nothing = (0.0, None, 0, 0)  # of a client that was in no cohort yet
    return [
        each.values
        | {
            "clients": [
                _client(
                    row if each.shadow is None else of_shadows[each.shadow.pk].get(row[0], (row[0], *nothing)),
                    stakes[each.label].get(row[0], 0),
                )
                | {"holder": holders.get(row[0], row[0])}
                for row in page
            ]
        }
        for each in shown
    ]


def _client(row: tuple, stake: int) -> dict[str, Any]:
    number, contribution, variance, reward, lost = row
    error = None if variance is None or not math.isfinite(variance) else math.sqrt(variance)
    return {
        "client": number,
        "contribution": contribution,
        "contribution_error": error,
        "reward_microtokens": reward,
        "stake_microtokens": stake - lost,
        "slashed_microtokens": lost,
    }


@router.get("/{simulation_id}/detectors/", response={200: DetectorsOut, 404: Problem})
def detectors(
    request: HttpRequest,
    simulation_id: SimulationId,
    economy: Annotated[str, Query(max_length=60, description="its label")] = PAYING,
):
    """What an economy's detectors said of whom in each round, how well that tells who does not play fair as the
    configuration knows it, and what stakes lost for it."""
    simulation = found(request, simulation_id)
    shadow = None if economy == PAYING else simulation.shadows.filter(label=economy).first()
    if economy != PAYING and shadow is None:
        raise HttpError(404, f"{simulation} has no economy {economy}")
    watch = detections.watch(simulation, shadow)
    return {
        "economy": watch.label,
        "rounds_done": shadow.rounds_done if shadow else simulation.rounds_done,
        "detectors": [dataclasses.asdict(each) | {"detector": each.name} for each in watch.detectors],
        "rounds": [
            {
                "round": each.number,
                "cohort": each.cohort[:MOST_OF_COHORT],
                "cohort_size": len(each.cohort),
                "sent": each.sent[:MOST_OF_COHORT],
                "cheats": each.cheats[:MOST_OF_COHORT],
                "scores": {name: scores[:MOST_OF_COHORT] for name, scores in each.scores.items()},
                "auc": {name: each.auc(name) for name in each.scores},
            }
            for each in watch.rounds
        ],
        "losses": [
            dataclasses.asdict(each)
            | {"round": each.round_number, "slashed_microtokens": each.microtokens, "stake_microtokens": each.stake}
            for each in islice(watch.losses(), MOST_LOSSES)
        ],
    }


@router.get(
    "/{simulation_id}/rounds/{number}/evidence/",
    response={200: EvidenceOut, 404: Problem, 409: Problem},
    exclude_unset=True,
)
def evidence(request: HttpRequest, simulation_id: SimulationId, number: RoundNumber):
    """All that the payments of a round rest on, with its hashes; docs/verify_payment.py derives them from it again."""
    simulation = found(request, simulation_id)
    row = simulation.rounds.filter(number=number).first()
    if row is None:
        raise HttpError(404, f"{simulation} has no round {number} yet; it has {simulation.rounds_done}")
    parts = records.parts_of(simulation, [number])[number]
    if len(parts) != row.cohort_size:
        raise HttpError(409, f"Who was in round {number} is no longer known: its details were let go of")
    facts = records.facts_of(simulation, row, parts)
    is_told = bool(simulation.training_sha256) and None not in facts.num_examples
    made = {
        each.shadow_id: each for each in ShadowRound.objects.filter(shadow__simulation=simulation, number=row.number)
    }
    posted = _posted(simulation, number)
    told = []
    for each in economies_of(simulation):
        economy = each.economy
        if each.shadow is None:
            paid, is_hashed, ledger = records.paid_of(row, parts), simulation.scheme >= 3, simulation.ledger_id
        elif each.shadow.pk in made:
            paid, is_hashed, ledger = rows.paid_by(made[each.shadow.pk]), True, each.shadow.ledger_id
        else:
            continue
        if economy.is_valued:
            told.append(
                {"label": each.label, "ledger": each.values["ledger"]}
                | {"specification": economy.to_dict(), "hashed": economy.hashed()}
                | {field.name: getattr(paid, field.name) for field in dataclasses.fields(paid)}
                | {"economy_sha256": paid.sha256(economy.hashed()) if is_hashed else None}
                | {"transaction": posted.get(ledger)}
                | {"stakes": list(rows.at_stake(simulation, economy).get("stakes", {}).items()) if number == 1 else []}
            )
    return {
        "simulation": simulation.pk,
        "round": row.number,
        "scheme": simulation.scheme,
        "facts": facts.to_dict(),
        "facts_sha256": facts.sha256() if is_told else None,
        "economies": told,
        "utilities": _utilities(row, {each["utilities_sha256"] for each in told} - {None}),
        "products": _kept({each["products_sha256"] for each in told} - {None}, "FEDPROD1"),
    }


def _posted(simulation: Simulation, number: int) -> dict[int, dict[str, Any]]:
    """By ledger, the transaction that paid a round."""
    transfers = Transfer.objects.order_by("position").select_related("debit_account", "credit_account")
    ledgers = [simulation.ledger_id, *simulation.shadows.values_list("ledger", flat=True)]
    found = Transaction.objects.filter(ledger__in=ledgers, key=rows.transaction_key(number)).select_related(
        "ledger", "reverses"
    )
    found = found.prefetch_related(Prefetch("transfers", transfers))
    return {each.ledger_id: as_object(each.ledger, each) for each in found}


def _utilities(row: Round, wanted: set[str]) -> list[dict[str, Any]]:
    """The tables of a round's economies; those of schemes 1 and 2 lie in the round's row."""
    return _kept(wanted, "FEDGAME3", {} if row.evidence is None else {row.evidence_sha256: bytes(row.evidence)})


def _kept(wanted: set[str], layout: str, known: Mapping[str, bytes] = MappingProxyType({})) -> list[dict[str, Any]]:
    """Evidence of this layout by its hashes; what is `known` is told too."""
    contents = dict(known)
    sizes = {sha256: len(content) for sha256, content in contents.items()}
    kept = Evidence.objects.filter(sha256__in=wanted - sizes.keys())
    sizes |= dict(kept.order_by("sha256").values_list("sha256", Length("content")))
    if sum(sizes.values()) <= MOST_TABLE_BYTES:
        contents |= {each.sha256: bytes(each.content) for each in kept}
    return [
        {
            "sha256": sha256,
            "layout": contents[sha256][:8].decode() if sha256 in contents else layout,
            "bytes": size,
            "base64": base64.b64encode(contents[sha256]).decode() if sha256 in contents else None,
        }
        for sha256, size in sizes.items()
    ]


LABEL = {"type": "string", "minLength": 1, "maxLength": 60, "description": "how it is called beside the others"}


def of_economy() -> dict[str, Any]:
    """An economy to be priced, as JSON schema."""
    fields = {"label": LABEL} | {name: field_schema(name) for name in OF_AN_ECONOMY}
    return {"type": "object", "required": ["label"], "additionalProperties": False, "properties": fields}


ROUND = kinds.whole(None, "Number of the round; without one all rounds, if they are not many", minimum=1, maximum=MOST)
OF_ROUND = {"type": "object", "additionalProperties": False, "properties": {"round": ROUND.schema()}}


def as_body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"content": {"application/json": {"schema": schema}}}}


PRICED = {201: Economy, 403: Problem, 404: Problem, 409: Problem, 422: Problem, 503: Problem}


@router.post("/{simulation_id}/reprice/", response=PRICED, openapi_extra=as_body(of_economy()))
def reprice(request: HttpRequest, response: HttpResponse, simulation_id: SimulationId):
    """Price a finished run by another economy, from its evidence: as if it had been in the configuration.

    Fields that are left out are those of the paying economy. A repeat is harmless. Its owner and operators may.
    """
    simulation = found(request, simulation_id)
    owners.require(request.user, simulation)
    label, values = checked_economy(body(request))
    if not simulation.is_finished or not simulation.rounds_done:
        raise HttpError(409, f"{simulation} is {simulation.status}; only a finished run with rounds is priced again")
    refuse_too_large(simulation, f"manage.py reprice {simulation.pk}")
    with a_child(response) as refusal:
        if refusal:
            return refusal
        try:
            shadow = repricing.reprice(simulation, label, values, seconds=waiting.SECONDS)
        except CannotFold as error:
            return _cannot(error, f"manage.py reprice {simulation.pk}")
    return Answer(201, next(each.values for each in economies_of(simulation) if each.label == shadow.label))


RECOMPUTED = {200: Computed, 404: Problem, 409: Problem, 422: Problem, 503: Problem}


@router.post("/{simulation_id}/recompute/", response=RECOMPUTED, openapi_extra=as_body(OF_ROUND))
def recompute(request: HttpRequest, response: HttpResponse, simulation_id: SimulationId):
    """Compute what a round's economies paid again from its evidence: contributions to 1e-9, payments to the unit."""
    simulation = found(request, simulation_id)
    given = body(request)
    try:
        number = ROUND.check(given.pop("round", None))
    except ValueError as error:
        raise ConfigError({"round": str(error)}) from None
    if given:
        raise ConfigError(dict.fromkeys(given, "there is no such field"))
    if number is not None and number > simulation.rounds_done:
        raise HttpError(409, f"{simulation} has no round {number} yet; it has {simulation.rounds_done}")
    command = f"manage.py recompute {simulation.pk}"
    refuse_too_large(simulation, command, number)
    payments = 0
    with a_child(response) as refusal:
        if refusal:
            return refusal
        try:
            for label, of_round, wrong in repricing.recompute(simulation, number, seconds=waiting.SECONDS):
                payments += 1
                if wrong:
                    where = {"economy": label, "round": of_round, "difference": wrong}
                    return {"equal": False, "payments": payments} | where
        except CannotFold as error:
            return _cannot(error, command)
    return {"equal": True, "payments": payments}


def checked_economy(given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Label and fields of an economy to be priced. ConfigError names each field that is wrong."""
    errors: dict[str, str] = {}
    label = given.pop("label", None)
    if not isinstance(label, str) or not 1 <= len(label.strip()) <= 60 or not label.isprintable():
        errors["label"] = "expected 1 to 60 characters"
    elif label.strip() == PAYING:
        errors["label"] = f"{PAYING} is how the configuration's own economy is called"
    for name, value in given.items():
        if name not in OF_AN_ECONOMY:
            errors[name] = f"an economy has no such field; it has {', '.join(OF_AN_ECONOMY)}"
            continue
        metadata = OF_AN_ECONOMY[name].metadata
        try:
            if name in STRUCTURED:
                STRUCTURED[name](value)
            elif metadata["family"]:
                kinds.checked(metadata["family"], value, name)
            else:
                metadata["parameter"].check(value)
        except ConfigError as error:
            errors |= error.errors
        except ValueError as error:
            errors[name] = str(error)
    if errors:
        raise ConfigError(errors)
    return label.strip(), given


def refuse_too_large(simulation: Simulation, command: str, number: int | None = None) -> None:
    """HttpError where a run, or one round of it, takes too long to compute for somebody who waits."""
    if refusal := waiting.too_large(simulation, number):
        raise HttpError(422, f"{refusal}: {command}")


@contextmanager
def a_child(response: HttpResponse) -> Iterator[Answer | None]:
    """The right to let a child of this process compute, or None and the answer that says when to come again."""
    with waiting.a_child() as may:
        if not may:
            response["Retry-After"] = "10"
        yield None if may else Answer(503, {"detail": "Others are having payments computed; try again in some seconds"})


def _cannot(error: CannotFold, command: str) -> Answer:
    if isinstance(error, TookTooLong):
        return Answer(422, {"detail": f"Nothing came of it: {error}. Use {command}"})
    return Answer(409, {"detail": str(error)})


ZIP = {"200": {"description": "OK", "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}}}


@router.get("/{simulation_id}/export/", response={404: Problem}, openapi_extra={"responses": ZIP})
def export(
    request: HttpRequest,
    simulation_id: SimulationId,
    format: Annotated[Literal["csv"], Query(description="of the tables in the zip")] = "csv",
):
    """A run as a zip of tidy tables, whatever its size: rounds, clients, updates, contributions, payments, pools."""
    simulation = found(request, simulation_id)
    response = StreamingHttpResponse(pieces(tables.zipped(simulation)), content_type="application/zip")
    response["Content-Disposition"] = f'attachment; filename="simulation-{simulation.pk}.zip"'
    return response


async def pieces(parts: Iterator[bytes]) -> AsyncIterator[bytes]:
    """One after the other, without holding the event loop up."""
    take = sync_to_async(lambda: next(parts, None))
    while (piece := await take()) is not None:
        yield piece
