"""Server-Sent Events of a simulation: HTML for pages, JSON for programs, plain lines for the compatible front end.

A stream is the events after a number. `Last-Event-ID` (a reconnect) or `?after=` says where to go on; the last frame
of a finished simulation is `event: close`, and a reconnect after it gets 204, which stops the browser. A stream that
ends without that frame, as each does after some minutes, is to be taken up again.
"""

import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from weakref import WeakSet

from channels.db import database_sync_to_async
from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse

from simulations import logs, owners
from simulations.models import Event, Simulation
from simulations.running.patience import insist
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


class Place:
    """One of the FEDSITE_MAX_STREAMS places of this process; free when nobody holds it any more."""


taken: WeakSet[Place] = WeakSet()  # weak: a viewer who leaves before the first frame frees his place too
refused = 0  # streams, since this process started
# The request's thread has asked for rows; on PostgreSQL its connection would be held as long as the viewer watches.
let_go_of_connection = database_sync_to_async(lambda: None)

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
    simulation = await owners.seen_by(request.user).filter(pk=simulation_id).afirst()
    if simulation is None:
        raise Http404(f"There is no simulation {simulation_id}")
    if simulation.is_finished and after >= simulation.last_sequence:
        return HttpResponse(status=204)
    if format is HTML and not await database_sync_to_async(owners.may_act)(request.user, simulation):
        format = HTML_TO_LOOK
    return streaming(simulation, after, format)


def cursor(request: HttpRequest) -> int:
    """The number after which to go on; a reconnect knows better than the address. ValueError where one is none."""
    last, after = request.headers.get("Last-Event-ID"), request.GET.get("after", "0")
    for text in (last or "0", after):
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise ValueError(f"after: {text[:40]!r} is not the number of an event")
    return int(last or after)


def streaming(simulation: Simulation, after: int, format: Format) -> HttpResponse | StreamingHttpResponse:
    """The response that streams; 503 where this process has as many streams as it may."""
    if len(taken) >= settings.FEDSITE_MAX_STREAMS:
        return _full()
    place = Place()
    taken.add(place)
    frames = _frames(simulation, after, format, place)
    response = StreamingHttpResponse(frames, content_type="text/event-stream; charset=utf-8")
    response["Cache-Control"] = "no-cache, no-transform"
    response["X-Accel-Buffering"] = "no"
    response["Content-Encoding"] = "identity"  # a compressing middleware or proxy would hold frames back
    return response


def _full() -> HttpResponse:
    global refused
    refused += 1
    detail = f"This server has {settings.FEDSITE_MAX_STREAMS} streams open; try again in a few seconds"
    return JsonResponse({"detail": detail}, status=503, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})


async def _frames(simulation: Simulation, after: int, format: Format, place: Place) -> AsyncIterator[str]:
    """Greeting, everything after the number, what is new as it comes, and the closing frame. Under daphne an exception
    here would leave the browser waiting for ever, so it ends the stream and the browser comes back."""
    logs.about(simulation=simulation.pk)
    try:
        await let_go_of_connection()
        yield format.greeting(simulation)
        async for text in _follow(simulation, after, format):
            yield text
    except Exception:
        log.exception("The stream of simulation %s broke off", simulation.pk)
    finally:
        taken.discard(place)


async def _follow(simulation: Simulation, after: int, format: Format) -> AsyncIterator[str]:
    until = time.monotonic() + LIFETIME_SECONDS
    # The feed reads what is new. What there is already each viewer reads for himself, as fast as he takes it.
    async with feed.watching(simulation.pk, max(after, simulation.last_sequence)) as source:
        while not (simulation.is_finished and after >= simulation.last_sequence):
            if time.monotonic() > until:
                return
            batch = await source.batch_after(after, HEARTBEAT_SECONDS)
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
    return await insist(format.frames, simulation, events)
