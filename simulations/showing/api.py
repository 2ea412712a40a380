"""Simulations over JSON, and their streams."""

import hashlib
import json
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import urlencode

from channels.db import database_sync_to_async
from django.http import HttpRequest, HttpResponse, QueryDict
from django.urls import reverse
from ninja import Header, Path, Query, Router, Schema
from ninja import Status as Created
from ninja.errors import HttpError
from pydantic import Field

import kinds
from incentives.paging import Problem, link_next, page
from incentives.specification import ABOVE, MOST_ENTRIES, SHARE
from simulations import owners, reading
from simulations.config import CHOICES, FIELDS, MOST_SHADOWS, OF_AN_ECONOMY, SimulationConfig
from simulations.models import Event, Origin, Simulation, Status
from simulations.origins import may_start_by_get
from simulations.running import lifecycle
from simulations.showing import results, stream
from training.behaviours import FROM_ROUND, MOST_SHARES, TO_ROUND
from training.config import ConfigError

router = Router(tags=["simulations"])
MOST = 2**63 - 1
MOST_ROUNDS = 1000  # that a simulation's own address holds
MOST_OF_COHORT = 100
MOST_NUMBERS = 100_000  # of clients in a page of rounds
SimulationId = Annotated[int, Path(ge=1, le=MOST)]
Limit = Annotated[int, Query(ge=1, le=1000)]
Position = Annotated[int, Query(ge=0, le=MOST)]
IdempotencyKey = Annotated[
    str | None, Header(alias="Idempotency-Key", min_length=1, max_length=200, pattern="^[!-~]+$")
]


class Record(Schema):
    id: int
    status: str
    interrupted: bool
    owner: str | None
    archived: bool
    pruned_at: datetime | None = Field(description="when log text and evidence were let go of; archived, also cohorts")
    num_rounds: int
    num_clients: int
    fraction_fit: float
    dataset: str
    model: str
    rounds_done: int
    loss: float | None
    accuracy: float | None
    pool_microtokens: int
    config_sha256: str | None
    weights_sha256: str | None
    ledger_head: str | None
    failure: str | None
    warning: str | None
    lacking: list[str] = Field(description="of a queued one: the plug-ins that it waits for, and what is here instead")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class Cloned(Record):
    changed: list[str]


class RoundRow(Schema):
    round: int
    cohort: list[int] = Field(description="client numbers, ascending")
    cohort_size: int
    loss: float | None
    accuracy: float | None
    pool_microtokens: int
    weights_sha256: str
    duration_seconds: float
    train_seconds: float
    evaluate_seconds: float
    valuation_seconds: float


class ClientRow(Schema):
    client: int
    holder: int = Field(description="whose identity it is, most often its own")
    num_examples: int = Field(description="that it holds")
    behaviour: str
    contribution: float
    reward_microtokens: int
    stake_microtokens: int = Field(description="what it had at stake from the start less what was lost")
    slashed_microtokens: int = Field(description="that its stake lost, sum over rounds")


class Result(Record):
    config: dict[str, Any]
    scheme: int = Field(description="under which meaning of the configuration it was queued")
    game: str = Field(description="to whose model contributions are measured")
    manifests: list[dict[str, Any]] = Field(description="on what it was trained: at its start, each time it went on")
    economies: list[str] = Field(description="labels, the paying one first; see economies/")
    rounds: list[RoundRow] = Field(description="the first 1,000, with the first 100 clients of each cohort")
    rounds_next: str | None = Field(description="where the other rounds are; null where there are none")
    clients: list[ClientRow]
    duration_seconds: float


def field_schema(name: str) -> dict[str, Any]:
    """A field of the configuration as JSON schema, from the same catalogue that validates it."""
    if name in SimulationConfig.FLAT:
        field, parameter = SimulationConfig.FLAT[name]
        having = [kind for kind in kinds.family(CHOICES[field]).values() if parameter in kind.parameters]
        schema = having[0].parameters[parameter].schema()
        types = schema["type"] if isinstance(schema["type"], list) else [schema["type"], "null"]
        names = " or ".join(kind.name for kind in having)
        help = f"Shorthand for {parameter} of the {field} {names}: {schema['description']}"
        return {key: each for key, each in schema.items() if key != "default"} | {"type": types, "description": help}
    metadata = FIELDS[name].metadata
    if name in CHOICES:
        return {
            "description": metadata["help"],
            "default": FIELDS[name].default,
            "oneOf": [{"type": "string", "enum": list(kinds.family(CHOICES[name]))}, of_kinds(CHOICES[name])],
        }
    if name == "behaviours":
        client = {"pattern": "^[0-9]*[1-9][0-9]*$", "maxLength": 9}
        schema = {"type": "object", "propertyNames": client, "additionalProperties": of_kinds("behaviour", BOUNDED)}
    elif name == "population":
        share = {"share": {"type": "number", "minimum": 0.0, "maximum": 1.0}}
        schema = {"type": "array", "maxItems": MOST_SHARES, "items": of_kinds("behaviour", BOUNDED | share, ["share"])}
    elif name == "detectors":
        schema = {"type": "array", "maxItems": MOST_ENTRIES, "items": a_detector()}
    elif name == "slashing":
        entry = {"detector": a_detector(), "above": ABOVE.schema(), "share": SHARE.schema()}
        entry = {"type": "object", "required": ["detector"], "additionalProperties": False, "properties": entry}
        schema = {"type": "array", "maxItems": MOST_ENTRIES, "items": entry}
    elif name == "shadows":
        fields = {each: field_schema(each) for each in OF_AN_ECONOMY}
        label = {"label": {"type": "string", "minLength": 1, "maxLength": 60}}
        entry = {"type": "object", "required": ["label"], "additionalProperties": False, "properties": label | fields}
        schema = {"type": "array", "maxItems": MOST_SHADOWS, "items": entry}
    else:
        return metadata["parameter"].schema()
    return {"description": metadata["help"], **schema}


def a_detector() -> dict[str, Any]:
    return {"oneOf": [{"type": "string", "enum": list(kinds.family("detector"))}, of_kinds("detector")]}


BOUNDED = {"from_round": FROM_ROUND.schema(), "to_round": TO_ROUND.schema()}


def of_kinds(family: str, beside: dict[str, Any] | None = None, required: Sequence[str] = ()) -> dict[str, Any]:
    """One of a family's kinds with its own parameters, told apart by `kind`."""
    schemas = [kind.schema() for kind in kinds.family(family).values()]
    for schema in schemas:
        schema["properties"] |= beside or {}
        schema["required"] = ["kind", *required]
    return {"oneOf": schemas}


CONFIGURATION: dict[str, Any] = {
    "title": "Configuration",
    "type": "object",
    "additionalProperties": False,
    "properties": {name: field_schema(name) for name in (*FIELDS, *SimulationConfig.FLAT)},
}


def describe_kinds() -> None:
    """Brings the document's schemas up to the catalogue of this moment: plug-ins come and go."""
    CONFIGURATION["properties"] |= {name: field_schema(name) for name in CONFIGURATION["properties"]}
    for parameter in AS_QUERY:
        parameter["schema"] = field_schema(parameter["name"])


AS_BODY = {"requestBody": {"content": {"application/json": {"schema": CONFIGURATION}}}}


def body(request: HttpRequest) -> dict[str, Any]:
    """The request's JSON object; an empty body is an empty object. Raises reading.Unreadable."""
    values = reading.value(request.body or b"{}")
    if not isinstance(values, dict):
        raise HttpError(422, "The body is not a JSON object")
    return values


def found(request: HttpRequest, simulation_id: int) -> Simulation:
    simulation = owners.seen_by(request.user).filter(pk=simulation_id).select_related("owned_by").first()
    if simulation is None:
        raise HttpError(404, f"There is no simulation {simulation_id}")
    return simulation


def mine(request: HttpRequest, simulation_id: int) -> int:
    """The number of a simulation that may be acted on; NotYours, or 404, otherwise."""
    simulation = found(request, simulation_id)
    owners.require(request.user, simulation)
    return simulation.pk


@router.get("/", response={200: list[Record], 422: Problem})
def simulations(
    request: HttpRequest,
    response: HttpResponse,
    limit: Limit = 100,
    cursor: Annotated[int | None, Query(ge=1, le=MOST)] = None,
    status: Status | None = None,
    archived: bool = False,
):
    """Newest first. The Link header tells the next page."""
    rows = owners.seen_by(request.user).filter(archived=archived).select_related("owned_by").order_by("-id")
    if status is not None:
        rows = rows.filter(status=status)
    return [results.record(found) for found in page(request, response, rows, limit=limit, cursor=cursor)]


STARTED = {201: Record, 400: Problem, 409: Problem, 422: Problem, 429: Problem}


@router.post("/", response=STARTED, openapi_extra=AS_BODY)
def start(
    request: HttpRequest,
    response: HttpResponse,
    idempotency_key: IdempotencyKey = None,
):
    """Queue a simulation. With an Idempotency-Key a repeat gives the same simulation."""
    config = SimulationConfig.from_dict(body(request))
    asked = hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode()).hexdigest()
    owner = owners.person(request)
    key = idempotency_key
    if key and owner:
        key = f"user:{owner.pk}:{key}"
    elif key and key.startswith("user:"):
        key = f" {key}"  # no header holds a blank, so nobody's key is a person's
    simulation = lifecycle.queue(
        config,
        origin=Origin.API,
        owned_by=owner,
        address=request.address,
        idempotency_key=key,
        request_sha256=asked,
    )
    return _created(response, simulation, asked)


def _created(response: HttpResponse, simulation: Simulation, asked: str) -> Created:
    if simulation.request_sha256 != asked:
        raise HttpError(409, f"Idempotency-Key: simulation {simulation.pk} has it, with another configuration")
    response["Location"] = reverse("api-1:simulation", args=[simulation.pk])
    return Created(201, results.record(simulation))


FRAME = {
    "type": "object",
    "required": ["data"],
    "properties": {part: {"type": "string"} for part in ("id", "event", "data")},
}
EVENTS = {"200": {"description": "OK", "content": {"text/event-stream": {"schema": FRAME}}}}
LAST = {"name": "Last-Event-ID", "in": "header", "schema": {"type": "string", "pattern": "^[0-9]{0,18}$"}}
AFTER = {"name": "after", "in": "query", "schema": {"type": "integer", "minimum": 0, "maximum": 10**18 - 1}}
AS_QUERY: list[dict[str, Any]] = [
    {"name": name, "in": "query", "schema": field_schema(name)}
    for name in (*FIELDS, *SimulationConfig.FLAT)
    if name not in ("behaviours", "population", "detectors", "slashing")
]
LAST_OF_ANY = LAST | {"schema": {"type": "string", "description": "simulation-event"}}


@router.api_operation(
    ["GET", "HEAD"],
    "/stream",
    response={204: None, 429: Problem, 503: Problem},
    openapi_extra={"responses": EVENTS, "parameters": [*AS_QUERY, LAST_OF_ANY]},
)
async def compatible_stream(request: HttpRequest):
    """Start a simulation and follow its log as plain lines, through a browser's EventSource.

    Takes fields of the configuration as query parameters, such as num_rounds, num_clients and fraction_fit.
    A reconnect carries Last-Event-ID and goes on with the same simulation. Accept must name text/event-stream.
    """
    last = request.headers.get("Last-Event-ID")
    if last and request.method == "GET":
        return await database_sync_to_async(_go_on)(request, last)
    _refuse_accidents(request)
    config = SimulationConfig.from_dict(_values(request.GET))
    return await database_sync_to_async(_queue_and_stream)(request, config)


def _queue_and_stream(request: HttpRequest, config: SimulationConfig) -> HttpResponse:
    return stream.streaming(request, lambda: _queue(request, config), 0, stream.PLAIN)


def _values(query: QueryDict) -> dict[str, Any]:
    """Fields by name; ConfigError that names what cannot be read, or is given twice."""
    values, errors = {}, {}
    for name, given in query.lists():
        try:
            values[name] = reading.value_or_text(given[0])
        except reading.Unreadable as error:
            errors[name] = str(error)
        if len(given) > 1:
            errors[name] = "is given twice"
    if errors:
        raise ConfigError(errors)
    return values


def _queue(request: HttpRequest, config: SimulationConfig) -> Simulation:
    return lifecycle.queue(config, origin=Origin.API, owned_by=owners.person(request), address=request.address)


def _refuse_accidents(request: HttpRequest) -> None:
    """A GET that starts something answers an EventSource of a site we trust, and nothing else: no picture, link or form
    asks for an event stream by its name, and no script of a page elsewhere may."""
    if not request.may_write:
        raise HttpError(403, "This starts a simulation, and this token may read only")
    asks = any(str(kind).partition(";")[0] == "text/event-stream" for kind in request.accepted_types)
    from_us = request.headers.get("Sec-Fetch-Mode") not in ("no-cors", "navigate")
    if request.method == "HEAD" or not asks or not from_us or not may_start_by_get(request):
        detail = "This starts a simulation; use EventSource from this site or one in CORS_ALLOWED_ORIGINS"
        raise HttpError(403, f"{detail}, or send Accept: text/event-stream")


def _go_on(request: HttpRequest, last: str) -> HttpResponse:
    match = re.fullmatch(r"([1-9][0-9]{0,17})-([0-9]{1,18})", last)
    simulation = owners.seen_by(request.user).filter(pk=int(match[1])).first() if match else None
    if simulation is None or (simulation.is_finished and int(match[2]) >= simulation.last_sequence):
        return HttpResponse(status=204)
    return stream.streaming(request, lambda: simulation, int(match[2]), stream.PLAIN)


@router.get("/{simulation_id}/", response={200: Result, 404: Problem})
def simulation(request: HttpRequest, simulation_id: SimulationId):
    """The record with its configuration, clients, and first rounds; of more rounds `rounds_next` is the address."""
    shown = found(request, simulation_id)
    result = results.of_simulation(shown, most_rounds=MOST_ROUNDS, most_of_cohort=MOST_OF_COHORT)
    last = result["rounds"][-1]["round"] if result["rounds"] else 0
    rest = f"{request.build_absolute_uri(request.path)}rounds/?{urlencode({'limit': MOST_ROUNDS, 'cursor': last})}"
    return result | {"rounds_next": rest if last < shown.rounds_done else None}


@router.get("/{simulation_id}/rounds/", response={200: list[RoundRow], 404: Problem})
def rounds(
    request: HttpRequest, response: HttpResponse, simulation_id: SimulationId, cursor: Position = 0, limit: Limit = 100
):
    """Rounds after the cursor with whole cohorts; fewer than `limit` where those are large. Link tells the next."""
    shown = found(request, simulation_id)
    rows = results.rounds(shown, after=cursor, most=limit, most_numbers=MOST_NUMBERS)
    if rows and rows[-1]["round"] < shown.rounds_done:
        link_next(request, response, limit=limit, cursor=rows[-1]["round"])
    return rows


ACTED = {200: Record, 403: Problem, 404: Problem, 409: Problem}


@router.post("/{simulation_id}/cancel/", response=ACTED)
def cancel(request: HttpRequest, simulation_id: SimulationId):
    """End a queued or running simulation. Its owner and operators may."""
    return results.record(lifecycle.cancel(mine(request, simulation_id)))


@router.post("/{simulation_id}/resume/", response={**ACTED, 429: Problem})
def resume(request: HttpRequest, simulation_id: SimulationId):
    """Let a failed, cancelled or interrupted simulation go on after its last round. Its owner and operators may."""
    return results.record(lifecycle.resume(mine(request, simulation_id), address=request.address))


@router.post("/{simulation_id}/archive/", response=ACTED)
def archive(request: HttpRequest, simulation_id: SimulationId):
    """Take a finished simulation off the lists; nothing is deleted. Its owner and operators may."""
    return results.record(lifecycle.archive(mine(request, simulation_id)))


@router.post("/{simulation_id}/unarchive/", response=ACTED)
def unarchive(request: HttpRequest, simulation_id: SimulationId):
    """Put it back on the lists. Its owner and operators may."""
    return results.record(lifecycle.unarchive(mine(request, simulation_id)))


@router.post("/{simulation_id}/clone/", response={201: Cloned, 404: Problem, 422: Problem, 429: Problem})
def clone(request: HttpRequest, response: HttpResponse, simulation_id: SimulationId):
    """Queue the same configuration once more, with the meaning that it had. What of that cannot be asked for any more
    is named in `changed`."""
    original = found(request, simulation_id)
    owner = owners.person(request)
    fresh, changed = lifecycle.run_again(original, origin=Origin.API, owned_by=owner, address=request.address)
    created = _created(response, fresh, "")
    return Created(201, created.value | {"changed": changed})


@router.get("/{simulation_id}/events/", response={200: list[dict[str, Any]], 404: Problem})
def events(
    request: HttpRequest, response: HttpResponse, simulation_id: SimulationId, after: Position = 0, limit: Limit = 100
):
    """Events after a number. The Link header tells the next page."""
    simulation = found(request, simulation_id)
    rows = Event.objects.filter(simulation=simulation, sequence__gt=after, sequence__lte=simulation.last_sequence)
    page = list(rows.order_by("sequence")[:limit])
    if page and page[-1].sequence < simulation.last_sequence:
        link_next(request, response, limit=limit, after=page[-1].sequence)
    return [stream.event_json(event) for event in page]


@router.get(
    "/{simulation_id}/stream/",
    response={204: None, 400: Problem, 404: Problem, 429: Problem, 503: Problem},
    openapi_extra={"responses": EVENTS, "parameters": [AFTER, LAST]},
)
async def json_stream(request: HttpRequest, simulation_id: SimulationId):
    """The events as Server-Sent Events: after ?after= or Last-Event-ID, live, until `event: close`."""
    return await stream.respond(request, simulation_id, stream.JSON)
