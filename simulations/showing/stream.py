"""Server-Sent Events of a simulation: HTML for pages, JSON for programs, plain lines for the compatible front end.

A stream is the events after a number. `Last-Event-ID` (a reconnect) or `?after=` says where to go on; the last frame
of a finished simulation is `event: close`, and a reconnect after it gets 204, which stops the browser. A stream that
ends without that frame, as each does after some minutes, is to be taken up again. So does one whose viewer may no
longer look: coming back, he is refused.
"""

import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Hashable
from dataclasses import dataclass
from functools import partial
from weakref import WeakSet

from channels.db import database_sync_to_async
from django.conf import settings
from django.db import connections
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse

from simulations import logs, owners
from simulations.models import Event, Simulation
from simulations.showing import feed
from simulations.showing.fragments import render_update

log = logging.getLogger(__name__)
HEARTBEAT_SECONDS = 15.0
LIFETIME_SECONDS = 600.0  # then the viewer comes back, to another process perhaps, and must still be allowed to
RETRY_AFTER_SECONDS = 5
CLOSE = "event: close\ndata: closed\n\n"


@dataclass(frozen=True, kw_only=True)
class Format:
    """How events become frames."""

    name: str
    frames: Callable[[Simulation, list[Event]], str]
    greeting: Callable[[Simulation], str] = lambda simulation: "retry: 2000\n\n"


def event_json(event: Event) -> dict:
    """An event as programs see it."""
    own = {"kind": event.kind, "sequence": event.sequence, "at": timestamp(event.at), "message": event.message}
    return own | event.data


def timestamp(moment) -> str | None:
    """ISO 8601 UTC."""
    return moment and moment.isoformat().replace("+00:00", "Z")


def frame(data: str, *, id: str | int, event: str | None = None) -> str:
    """One frame; data may have many lines."""
    names = [f"id: {id}", *([f"event: {event}"] if event else [])]
    lines = [*names, *(f"data: {line}" for line in data.splitlines() or [""])]
    return "\n".join(lines) + "\n\n"


def html_frames(simulation: Simulation, events: list[Event], may_act: bool = True) -> str:
    update = render_update(simulation, events, may_act=may_act)
    return frame(update, id=events[-1].sequence, event="update")


def json_frames(simulation: Simulation, events: list[Event]) -> str:
    return "".join(frame(json.dumps(event_json(event)), id=event.sequence, event=event.kind) for event in events)


def plain_frames(simulation: Simulation, events: list[Event]) -> str:
    return "".join(frame(event.message, id=f"{simulation.pk}-{event.sequence}") for event in events)


def _plain_greeting(simulation: Simulation) -> str:
    return f"retry: 2000\nid: {simulation.pk}-0\n\n"


@dataclass(eq=False, kw_only=True)
class Slot:
    """One of the FEDSITE_MAX_STREAMS places of this process; free when its stream or its request has ended."""

    address: str
    person: int | None  # the user's, where somebody has signed in
    key: Hashable  # places of one key may stay together, or not at all
    may_stay: Callable[[], bool] = lambda: True  # asks the database
    is_over: bool = False


taken: WeakSet[Slot] = WeakSet()  # weak: of an answer to a test's client nobody says that it has ended
refused = 0  # streams, since this process started
taking = threading.Lock()  # requests have threads of their own

HTML = Format(name="html", frames=html_frames)
HTML_TO_LOOK = Format(name="html to look", frames=partial(html_frames, may_act=False))  # without buttons
JSON = Format(name="json", frames=json_frames)
PLAIN = Format(name="plain", frames=plain_frames, greeting=_plain_greeting)


async def respond(request: HttpRequest, simulation_id: int, format: Format) -> HttpResponse:
    """The stream of a simulation from where the request says. 204 where nothing will ever come, 404, or 400."""
    try:
        after = cursor(request)
    except ValueError as error:
        return JsonResponse({"detail": str(error)}, status=400)
    return await database_sync_to_async(_opened)(request, simulation_id, after, format)


def _opened(request: HttpRequest, simulation_id: int, after: int, format: Format) -> HttpResponse:
    simulation = owners.seen_by(request.user).filter(pk=simulation_id).first()
    if simulation is None:
        raise Http404(f"There is no simulation {simulation_id}")
    if simulation.is_finished and after >= simulation.last_sequence:
        return HttpResponse(status=204)
    if format is HTML and not owners.may_act(request.user, simulation):
        format = HTML_TO_LOOK
    return streaming(request, lambda: simulation, after, format)


def cursor(request: HttpRequest) -> int:
    """The number after which to go on; a reconnect knows better than the address. ValueError where one is none."""
    last, after = request.headers.get("Last-Event-ID"), request.GET.get("after", "0")
    for text in (last or "0", after):
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise ValueError(f"after: {text[:40]!r} is not the number of an event")
    return int(last or after)


def streaming(request: HttpRequest, find: Callable[[], Simulation], after: int, format: Format) -> HttpResponse:
    """The response that streams what is found, or started, once there is a place for its viewer. 503 where this process
    has as many streams as it may, 429 where the viewer has. To be called in the request's thread."""
    visitor, person = request.visitor, owners.person(request)
    place = Slot(address=request.address, person=person and person.pk, key=(visitor.key, format.name))
    if refusal := _refusal(place):
        return refusal
    if ends := getattr(request, "scope", {}).get("at_end"):
        ends.callback(taken.discard, place)
    simulation = find()

    def may_stay() -> bool:
        user = visitor.now()
        if user is None or not owners.seen_by(user).filter(pk=simulation.pk).exists():
            return False
        return format is not HTML or owners.may_act(user, simulation)

    place.may_stay = may_stay
    frames = _frames(simulation, after, format, place)
    response = StreamingHttpResponse(frames, content_type="text/event-stream; charset=utf-8")
    response["Cache-Control"] = "no-cache, no-transform"
    response["X-Accel-Buffering"] = "no"
    response["Content-Encoding"] = "identity"  # a compressing middleware or proxy would hold frames back
    return response


def _refusal(place: Slot) -> HttpResponse | None:
    """Take the place; or the reason why it is not to be had."""
    global refused
    with taking:
        others = list(taken)
        of_address = sum(other.address == place.address for other in others)
        of_person = sum(other.person == place.person for other in others if place.person)
        limits = (
            (503, len(others), settings.FEDSITE_MAX_STREAMS, "This server has"),  # a proxy asks the next one
            (429, of_address, settings.FEDSITE_MAX_STREAMS_PER_ADDRESS, "Your address has"),
            (429, of_person, settings.FEDSITE_MAX_STREAMS_PER_PERSON, "You have"),
        )
        for status, number, most, who in limits:
            if number >= most:
                refused += 1
                detail = f"{who} {number} streams open, and may have no more; try again in a few seconds"
                headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
                return JsonResponse({"detail": detail}, status=status, headers=headers)
        taken.add(place)
        return None


async def _frames(simulation: Simulation, after: int, format: Format, place: Slot) -> AsyncIterator[str]:
    """Greeting, everything after the number, what is new as it comes, and the closing frame. Under daphne an exception
    here would leave the browser waiting for ever, so it ends the stream and the browser comes back."""
    logs.about(simulation=simulation.pk)
    try:
        await database_sync_to_async(_let_go)()
        yield format.greeting(simulation)
        async for text in _follow(simulation, after, format, place):
            yield text
    except Exception:
        log.exception("The stream of simulation %s broke off", simulation.pk)
    finally:
        taken.discard(place)


def _let_go() -> None:
    """The request's thread has asked for rows, and would keep its connection for as long as the viewer watches."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()


async def _follow(simulation: Simulation, after: int, format: Format, place: Slot) -> AsyncIterator[str]:
    until = time.monotonic() + LIFETIME_SECONDS
    # The feed reads what is new. What there is already each viewer reads for himself, as fast as he takes it.
    async with feed.watching(simulation.pk, max(after, simulation.last_sequence), place) as source:
        while not (simulation.is_finished and after >= simulation.last_sequence):
            if time.monotonic() > until or place.is_over:
                return
            batch = await source.batch_after(after, HEARTBEAT_SECONDS, place)
            if batch is None:
                yield ": still here\n\n"
                continue
            yield await _frames_of(batch, after, format)
            simulation, after = batch.simulation, batch.last
    yield CLOSE


async def _frames_of(batch: feed.Batch, after: int, format: Format) -> str:
    """A batch, rendered once for all who need the whole of it."""
    fresh = [event for event in batch.events if event.sequence > after]
    if len(fresh) < len(batch.events):
        return await _render(format, batch.simulation, fresh)
    return await batch.render_once(format.name, lambda: _render(format, batch.simulation, fresh))


async def _render(format: Format, simulation: Simulation, events: list[Event]) -> str:
    return await feed.ask(format.frames, simulation, events)
