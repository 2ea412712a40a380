"""Pages. Each view looks something up, calls one function and renders; what a page shows is decided in `fragments`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from django.core.paginator import Page, Paginator
from django.db.models import F, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST, require_safe

import kinds
from incentives.views import pieces
from simulations import estimates, owners, paces, plugins, repricing
from simulations.models import UNFINISHED, Client, Origin, Simulation, Status
from simulations.running import audits, leases, lifecycle
from simulations.running.folding import CannotFold, TookTooLong
from simulations.showing import (
    auditing,
    client_shown,
    detectors_shown,
    fragments,
    ledgers_shown,
    payments,
    planning,
    results,
    stream,
    waiting,
    wording,
)
from simulations.showing.forms import (
    EconomyForm,
    StartForm,
    behaviour_catalogue,
    detector_catalogue,
    economy_catalogue,
    threshold_catalogue,
)
from training.catalogue import DATASETS
from training.config import ConfigError

BUSY = "Others are having payments computed. Try again in some seconds."
RECENT = 10
PAGE_ROWS = 50
CLIENT_ROWS = 100
SORTS = {
    "newest": ("-id",),
    "accuracy": (F("accuracy").desc(nulls_last=True), "-id"),
    "tokens": ("-paid_microtokens", "-id"),
    "time": ("-duration_seconds", "-id"),
}
CLIENT_SORTS = {
    "number": ("number",),
    "contribution": ("-contribution", "number"),
    "tokens": ("-reward_microtokens", "number"),
    "examples": ("-num_examples", "number"),
}


@never_cache
@require_safe
def home(request: HttpRequest) -> HttpResponse:
    return _home(request, StartForm())


def _home(request: HttpRequest, form: StartForm, *, message: str = "", status: int = 200) -> HttpResponse:
    shown = _shown_at_home(request)
    context = {"form": form, "message": message, **_catalogues(), **_recent(request)}
    live = _page(request, shown) if shown else {}
    return render(request, "simulations/home.html", {**context, **live}, status=status)


def _catalogues() -> dict:
    """What rows of the form may choose, for the page's script."""
    return {
        "behaviours": behaviour_catalogue(),
        "detector_kinds": detector_catalogue(),
        "thresholds": threshold_catalogue(),
        "economy_fields": economy_catalogue(),
    }


def _shown_at_home(request: HttpRequest) -> Simulation | None:
    """The one that was started from this page, or else the newest that waits or runs."""
    text = request.GET.get("simulation", "")
    if text.isascii() and text.isdigit() and len(text) < 19:
        return owners.seen_by(request.user).filter(pk=int(text)).first()
    unfinished = owners.seen_by(request.user).filter(status__in=UNFINISHED, archived=False)
    return unfinished.exclude(lifecycle.interrupted(leases.now())).order_by("-id").first()


def _page(request: HttpRequest, simulation: Simulation) -> dict:
    return fragments.page(simulation, may_act=owners.may_act(request.user, simulation))


def found(request: HttpRequest, simulation_id: int) -> Simulation:
    """A simulation that the reader may see; else it is not there."""
    return get_object_or_404(owners.seen_by(request.user).select_related("owned_by"), pk=simulation_id)


def _recent(request: HttpRequest) -> dict:
    simulations = owners.seen_by(request.user).filter(archived=False)
    return {"recent": _rows(simulations.order_by("-id")[:RECENT]), "num_simulations": simulations.count()}


def _rows(simulations: QuerySet[Simulation] | Page) -> list[dict]:
    """What a table of simulations shows, with one more query for all of them."""
    rows = list(simulations)
    ginis = fragments.ginis(rows)
    return [
        {
            "simulation": row,
            "state": "interrupted" if lifecycle.is_interrupted(row) else row.status,
            "data_and_model": wording.data_and_model(row),
            "clients": wording.clients(row),
            "dishonest": wording.dishonest(row),
            "rule": wording.rule(row),
            "gini": ginis[row.pk],
            "percent": round(100 * row.rounds_done / row.num_rounds),
        }
        for row in rows
    ]


@never_cache
@require_safe
def recent(request: HttpRequest) -> HttpResponse:
    return render(request, "simulations/_recent.html", _recent(request))


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def simulations(request: HttpRequest) -> HttpResponse:
    return start(request) if request.method == "POST" else simulation_list(request)


def start(request: HttpRequest) -> HttpResponse:
    form = StartForm(request.POST)
    config = form.config()
    if config is None:
        return _refused(request, form, "", 422)
    try:
        simulation = lifecycle.queue(
            config, origin=Origin.PAGE, owned_by=owners.person(request), address=request.address
        )
    except ConfigError as error:  # no worker can bear it
        form.refuse(error)
        return _refused(request, form, "", 422)
    except lifecycle.QueueFull as error:
        return _refused(request, form, f"{error}.", 429)
    if not request.htmx:
        return redirect("simulations:simulation", simulation.pk)
    response = render(request, "simulations/_live_home.html", _page(request, simulation))
    response["HX-Push-Url"] = f"{reverse('simulations:home')}?simulation={simulation.pk}"
    response["HX-Trigger"] = "simulations-changed"
    return response


def _refused(request: HttpRequest, form: StartForm, message: str, status: int) -> HttpResponse:
    """The form again with what is wrong; with htmx in place of the old one."""
    if not request.htmx:
        return _home(request, form, message=message, status=status)
    response = render(request, "simulations/_form.html", {"form": form, "message": message}, status=status)
    response["HX-Retarget"] = "#start"
    response["HX-Reswap"] = "outerHTML show:top"
    return response


@never_cache
@require_POST
def estimate(request: HttpRequest) -> HttpResponse:
    """What the form as it is would take; a line of it."""
    form = StartForm(request.POST)
    config = form.config()
    if config is None:
        return render(request, "simulations/_estimate.html", {"wrong": len(form.errors)})
    found = estimates.estimate(config, paces.past())
    context = {
        "estimate": found,
        "duration": estimates.duration(found.seconds),
        "memory": wording.memory(found.memory_bytes),
        "tokens": wording.most_tokens(config, found.tokens),
        "refused": (planning.refusal(config) or {}).values(),
    }
    return render(request, "simulations/_estimate.html", context)


@never_cache
@require_POST
def split(request: HttpRequest) -> HttpResponse:
    """Who would hold which labels, as the form is."""
    from simulations.showing import splits  # numpy takes 13 MB, which a site does without until somebody looks

    config = StartForm(request.POST).config()
    why_not = {"why_not": "The split is shown once every field can be used as entered."}
    return render(request, "simulations/_split.html", splits.preview(config) if config else why_not)


def simulation_list(request: HttpRequest) -> HttpResponse:
    archived = request.GET.get("archived") == "1"
    found = owners.seen_by(request.user).filter(archived=archived)
    filters = {"status": Status.values, "dataset": ["auto", *DATASETS], "model": list(kinds.family("model"))}
    chosen = {name: request.GET.get(name, "") for name in filters if request.GET.get(name) in filters[name]}
    for name, value in chosen.items():
        of_model = Q(config__model=value) | Q(config__model__kind=value)  # older records hold the name alone
        found = found.filter(of_model if name == "model" else Q(**{name: value}))
    sort = request.GET.get("sort") if request.GET.get("sort") in SORTS else "newest"
    page = Paginator(found.order_by(*SORTS[sort]), PAGE_ROWS).get_page(request.GET.get("page"))
    selects = [
        {"name": name, "label": label, "choices": [(value, wording.short(value, name)) for value in filters[name]]}
        for name, label in (("status", "Status"), ("dataset", "Data"), ("model", "Model"))
    ]
    context = {"page": page, "rows": _rows(page), "selects": selects, "chosen": chosen, "sort": sort, "sorts": SORTS}
    return render(request, "simulations/list.html", context | {"archived": archived})


@never_cache
@require_safe
def simulation(request: HttpRequest, simulation_id: int) -> HttpResponse:
    return _simulation(request, found(request, simulation_id))


def _simulation(request: HttpRequest, shown: Simulation, message: str = "", status: int = 200) -> HttpResponse:
    context = {
        **_page(request, shown),
        "configuration": wording.configuration(shown),
        "machines": wording.machines(shown),
        "plugins": plugins.sources(shown.config),
        "message": message,
        "economy_fields": economy_catalogue(),
        **_economies(request, shown),
        **auditing.context(request, shown),
        **_detectors(request, shown),
    }
    return render(request, "simulations/simulation.html", context, status=status)


def _economies(request: HttpRequest, shown: Simulation, form: EconomyForm | None = None) -> dict:
    context = ledgers_shown.context(shown, _number(request.GET.get("flow")))
    may_price = shown.is_finished and bool(context["economies"]) and owners.may_act(request.user, shown)
    form = form or EconomyForm(place=len(context["economies"]))
    return {"simulation": shown, "can_reprice": may_price, "reprice_field": form.field, **context}


@never_cache
@require_safe
def economies(request: HttpRequest, simulation_id: int) -> HttpResponse:
    """The page's part about economies; with `?parts=1` only what changes as rounds are paid."""
    shown = found(request, simulation_id)
    context = _economies(request, shown)
    if not request.GET.get("parts"):
        return render(request, "simulations/_economies.html", context)
    if not context["economies"]:
        return HttpResponse(status=204)
    return render(request, "simulations/_economies_update.html", context)


def _detectors(request: HttpRequest, shown: Simulation) -> dict:
    return detectors_shown.context(shown, request.GET.get("watch"), request.GET.get("detector"))


@never_cache
@require_safe
def detectors(request: HttpRequest, simulation_id: int) -> HttpResponse:
    """The page's part about detectors and stakes; with `?parts=1` only what changes as rounds are paid."""
    shown = found(request, simulation_id)
    context = {"simulation": shown, **_detectors(request, shown)}
    if not request.GET.get("parts"):
        return render(request, "simulations/_detectors.html", context)
    if not context.get("is_watched"):
        return HttpResponse(status=204)
    return render(request, "simulations/_detectors_update.html", context)


@never_cache
@require_safe
def economies_clients(request: HttpRequest, simulation_id: int) -> HttpResponse:
    """What each economy gave to each client, a hundred of them at a time."""
    shown = found(request, simulation_id)
    page = ledgers_shown.clients_page(shown, request.GET.get("page"), request.GET.get("sort"))
    template = "simulations/_economies_clients.html" if request.htmx else "simulations/economies_clients.html"
    return render(request, template, {"simulation": shown, **page})


@require_POST
def reprice(request: HttpRequest, simulation_id: int) -> HttpResponse:
    """Another economy for a finished simulation, priced from what was recorded."""
    shown, form, message = found(request, simulation_id), EconomyForm(request.POST), ""
    command = f"python manage.py reprice {simulation_id} does it"
    try:
        owners.require(request.user, shown)
        entry = form.entry()
        if refusal := waiting.too_large(shown):
            message = f"{refusal}; {command}."
        elif entry is not None:
            with waiting.a_child() as may:
                if not may:
                    return _simulation(request, shown, message=BUSY, status=503)
                repricing.reprice(shown, form.label, entry, seconds=waiting.SECONDS)
            return _priced(request, shown, form.label)
    except owners.NotYours as error:
        return _simulation(request, shown, message=f"{error}.", status=403)
    except ConfigError as error:
        form.refuse(error)
    except TookTooLong as error:
        message = f"Nothing came of it: {error}; {command}."
    except CannotFold as error:
        message = f"It cannot be priced from what was recorded: {error}."
    if not request.htmx:
        return _simulation(request, shown, message=message or f"{form.error}.", status=422)
    context = _economies(request, shown, form) | {"reprice_message": message}
    return render(request, "simulations/_economies.html", context, status=422)


def _priced(request: HttpRequest, shown: Simulation, label: str) -> HttpResponse:
    if not request.htmx:
        return redirect(f"{reverse('simulations:simulation', args=[shown.pk])}#economies")
    return render(request, "simulations/_economies.html", _economies(request, shown) | {"said": f"{label} was priced."})


@never_cache
@require_POST
def recompute(request: HttpRequest, simulation_id: int) -> HttpResponse:
    """Whether the payments of a round follow from what was kept of it, as a sentence."""
    shown, number = found(request, simulation_id), _number(request.POST.get("round"))
    if not 1 <= number <= shown.rounds_done:
        return HttpResponse("There is no such round.", status=422, content_type="text/plain; charset=utf-8")
    with waiting.a_child() as may:
        if not may:
            return HttpResponse(BUSY, status=503, content_type="text/plain; charset=utf-8")
        context = payments.recomputed(shown, number)
    if request.htmx:
        return render(request, "simulations/_recomputed.html", context)
    return render(request, "simulations/recomputed.html", context | {"simulation": shown})


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def audit(request: HttpRequest, simulation_id: int) -> HttpResponse:
    """The page's part about audits; by POST one is asked for."""
    shown = found(request, simulation_id)
    if request.method != "POST":
        return render(request, "simulations/_audit.html", auditing.context(request, shown))
    ask = partial(audits.ask, asked_by=owners.person(request), address=request.address)
    return _audit(request, shown, lambda: ask(shown))


@require_POST
def cancel_audit(request: HttpRequest, simulation_id: int) -> HttpResponse:
    shown = found(request, simulation_id)
    return _audit(request, shown, lambda: auditing.cancelled(request, shown))


def _audit(request: HttpRequest, shown: Simulation, act: Callable[[], object]) -> HttpResponse:
    message, status = "", 200
    try:
        act()
    except owners.NotYours as error:
        message, status = f"{error}.", 403
    except lifecycle.Conflict as error:
        message, status = f"{error}.", 409
    except lifecycle.QueueFull as error:
        message, status = f"{error}.", 429
    if request.htmx:
        context = auditing.context(request, shown) | {"audit_message": message}
        return render(request, "simulations/_audit.html", context, status=status)
    if message:
        return _simulation(request, shown, message=message, status=status)
    return redirect(f"{reverse('simulations:simulation', args=[shown.pk])}#audit")


@never_cache
@require_safe
def marginals(request: HttpRequest, simulation_id: int) -> HttpResponse:
    """What a client added to each coalition of a round without it, where all of them were evaluated."""
    shown, numbers = found(request, simulation_id), [_number(request.GET.get(name)) for name in ("round", "client")]
    table = payments.marginals(shown, _number(request.GET.get("economy")), *numbers)
    template = "simulations/_marginals.html" if request.htmx else "simulations/marginals.html"
    return render(request, template, {"simulation": shown, "table": table})


def _number(text: str | None) -> int:
    """0 for what is no number."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else 0


@require_GET
async def live(request: HttpRequest, simulation_id: int) -> HttpResponse:
    """The stream that keeps a page up to date."""
    return await stream.respond(request, simulation_id, stream.HTML)


@never_cache
@require_safe
def events(request: HttpRequest, simulation_id: int) -> StreamingHttpResponse:
    """All events so far as one JSON array, however many. The API gives them in pages."""
    shown = found(request, simulation_id)
    response = StreamingHttpResponse(pieces(results.log_lines(shown)), content_type="application/json")
    response["Content-Disposition"] = f'attachment; filename="simulation-{simulation_id}-events.json"'
    return response


@never_cache
@require_safe
def place(request: HttpRequest, simulation_id: int) -> HttpResponse:
    """How many go before it; nothing once it runs, for the stream replaces the place then."""
    waiting = found(request, simulation_id)
    if waiting.status != Status.QUEUED or lifecycle.is_interrupted(waiting):
        return HttpResponse(status=204)
    return render(request, "simulations/_place.html", {"simulation": waiting, **fragments.place(waiting)})


@never_cache
@require_safe
def clients(request: HttpRequest, simulation_id: int) -> HttpResponse:
    """All clients of a simulation, sorted, a hundred at a time."""
    shown = found(request, simulation_id)
    sort = request.GET.get("sort") if request.GET.get("sort") in CLIENT_SORTS else "number"
    names = ("number", "holder", "behaviour", "num_examples", "rounds", "contribution", "reward_microtokens")
    ordered = shown.clients.order_by(*CLIENT_SORTS[sort]).values(*names)
    page = Paginator(ordered, CLIENT_ROWS).get_page(request.GET.get("page"))
    rows = [row | wording.behaviour(shown, row) for row in page]
    context = {"simulation": shown, "page": page, "rows": rows, "sort": sort, "sorts": CLIENT_SORTS}
    return render(request, "simulations/_clients_table.html" if request.htmx else "simulations/clients.html", context)


@never_cache
@require_safe
def client(request: HttpRequest, simulation_id: int, number: int) -> HttpResponse:
    simulation = found(request, simulation_id)
    shown = get_object_or_404(Client, simulation=simulation, number=number)
    shown.simulation = simulation
    told = client_shown.context(shown, _number(request.GET.get("economy")))
    if told is None:
        raise Http404("The simulation has no such economy")
    return render(request, "simulations/client.html", told)


@require_POST
def cancel(request: HttpRequest, simulation_id: int) -> HttpResponse:
    return _act(request, simulation_id, lifecycle.cancel)


@require_POST
def resume(request: HttpRequest, simulation_id: int) -> HttpResponse:
    return _act(request, simulation_id, partial(lifecycle.resume, address=request.address))


@require_POST
def archive(request: HttpRequest, simulation_id: int) -> HttpResponse:
    return _act(request, simulation_id, lifecycle.archive)


@require_POST
def unarchive(request: HttpRequest, simulation_id: int) -> HttpResponse:
    return _act(request, simulation_id, lifecycle.unarchive)


def _act(request: HttpRequest, simulation_id: int, action: Callable[[int], Simulation]) -> HttpResponse:
    shown = found(request, simulation_id)
    try:
        owners.require(request.user, shown)
        action(simulation_id)
    except owners.NotYours as error:
        return _simulation(request, shown, message=f"{error}.", status=403)
    except lifecycle.Conflict as error:
        return _simulation(request, shown, message=f"{error}.", status=409)
    except lifecycle.QueueFull as error:
        return _simulation(request, shown, message=f"{error}.", status=429)
    return redirect("simulations:simulation", simulation_id)


@require_POST
def again(request: HttpRequest, simulation_id: int) -> HttpResponse:
    """Queue the same configuration once more, as the reader's own."""
    shown = found(request, simulation_id)
    try:
        owner = owners.person(request)
        fresh, _ = lifecycle.run_again(shown, origin=Origin.PAGE, owned_by=owner, address=request.address)
    except lifecycle.QueueFull as error:
        return _simulation(request, shown, message=f"{error}.", status=429)
    except ConfigError as error:
        return _simulation(request, shown, message=f"This configuration can no longer be run: {error}.", status=422)
    return redirect("simulations:simulation", fresh.pk)
