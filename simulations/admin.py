"""Simulations in the admin: to look at and to act on, not to edit. What happened is written by the recorder alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

import kinds
from incentives.admin import LookOnly
from simulations import (
    disk,
    reversals,  # noqa: F401  # its admin of transactions takes the ledger's place
)
from simulations.config import CHOICES
from simulations.models import Audit, Client, Contribution, Event, Origin, Round, Simulation
from simulations.running import lifecycle, workers
from simulations.showing import wording
from training.config import ConfigError

SHOWN = 20  # rows of each kind on a simulation's page; a link leads to all of them
MOST = 100  # simulations that an action takes at once


class FirstRows(LookOnly, admin.TabularInline):
    """A few rows, however many there are: the first ones in `ordering`."""

    of = "simulation"
    extra = 0
    show_change_link = True

    def get_queryset(self, request: HttpRequest) -> QuerySet[Model]:
        shown = unquote(request.resolver_match.kwargs["object_id"])
        some = self.model._default_manager.filter(**{self.of: shown}).order_by(*self.ordering)[:SHOWN]
        return super().get_queryset(request).filter(pk__in=some.values("pk"))


class FirstClients(FirstRows):
    model = Client
    verbose_name_plural = f"Clients, the first {SHOWN}"
    fields = readonly_fields = ("number", "behaviour", "num_examples", "rounds", "contribution", "reward_microtokens")
    ordering = ("number",)


class NewestRounds(FirstRows):
    model = Round
    verbose_name_plural = f"Rounds, the newest {SHOWN}"
    fields = readonly_fields = (
        *("number", "cohort_size", "loss", "accuracy", "pool_microtokens", "treasury_microtokens"),
        *("duration_seconds", "weights_sha256"),
    )
    ordering = ("-number",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Model]:
        return super().get_queryset(request).defer("evidence")


class NewestEvents(FirstRows):
    model = Event
    verbose_name_plural = f"Events, the newest {SHOWN}"
    fields = readonly_fields = ("sequence", "kind", "at", "message")
    ordering = ("-sequence",)


class ContributionsOfRound(FirstRows):
    model = Contribution
    of = "round"
    verbose_name_plural = f"Contributions, the first {SHOWN}"
    fields = readonly_fields = ("client", "value", "reward_microtokens", "loss_before", "loss_after", "update_norm")
    ordering = ("client",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Model]:
        return super().get_queryset(request).select_related("client")


class ContributionsOfClient(FirstRows):
    model = Contribution
    of = "client"
    verbose_name_plural = f"Contributions, the newest {SHOWN}"
    fields = readonly_fields = ("round", "value", "reward_microtokens", "loss_before", "loss_after", "update_norm")
    ordering = ("-round",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Model]:
        return super().get_queryset(request).select_related("round").defer("round__evidence")


def everything(model: type[Model], label: str, **where: int) -> SafeString:
    """A link to the list of all rows that belong to something."""
    query = "&".join(f"{name}={value}" for name, value in where.items())
    address = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
    return format_html('<a href="{}?{}">{}</a>', address, query, label)


def of_kind(name: str) -> type[admin.SimpleListFilter]:
    """A filter by the kind that a field of the configuration chose; its kinds are the catalogue's of this moment."""

    class KindFilter(admin.SimpleListFilter):
        title, parameter_name = wording.label(name).lower(), name

        def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
            return [
                (kind.name, wording.kind(CHOICES[name], kind.name)) for kind in kinds.family(CHOICES[name]).values()
            ]

        def queryset(self, request: HttpRequest, queryset: QuerySet[Model]) -> QuerySet[Model]:
            if self.value() is None:
                return queryset
            chosen = {f"config__{name}": self.value()}, {f"config__{name}__kind": self.value()}  # old records, today's
            return queryset.filter(Q(**chosen[0]) | Q(**chosen[1]))

    return KindFilter


@admin.register(Simulation)
class SimulationAdmin(LookOnly, admin.ModelAdmin):
    list_display = (
        *("id", "status", "owned_by", "dataset", "num_clients", "num_rounds", "rounds_done", "accuracy"),
        *("paid_microtokens", "origin", "created_at"),
    )
    list_filter = (
        *("status", "archived", "origin", "dataset", "created_at"),
        *map(of_kind, ("model", "strategy", "valuation", "pool", "reward_rule")),
    )
    list_select_related = ("owned_by",)
    search_fields = (
        *("=id", "=owned_by__username", "^config_sha256", "^weights_sha256", "^ledger_head"),
        *("^claimed_by", "failure"),
    )
    search_help_text = "number, user, beginning of a hash or of a worker's host, words of a failure"
    ordering = ("-id",)
    readonly_fields = ("all_of_it", "newest_contributions")
    inlines = (FirstClients, NewestRounds, NewestEvents)
    actions = ("cancel", "resume", "run_again", "archive", "unarchive")

    @admin.display(description="all of it")
    def all_of_it(self, simulation: Simulation) -> SafeString:
        one = {"simulation__id__exact": simulation.pk}
        links = [
            everything(Client, f"{simulation.num_clients:,} clients", **one),
            everything(Round, f"{simulation.rounds_done:,} rounds", **one),
            everything(Contribution, "contributions", round__simulation__id__exact=simulation.pk),
            everything(Event, f"{simulation.last_sequence:,} events", **one),
            format_html('<a href="{}">its page</a>', reverse("simulations:simulation", args=[simulation.pk])),
        ]
        return format_html_join(", ", "{}", ((link,) for link in links))

    @admin.display(description="contributions to the newest round")
    def newest_contributions(self, simulation: Simulation) -> SafeString | str:
        newest = Contribution.objects.filter(round__simulation=simulation, round__number=simulation.rounds_done)
        rows = newest.order_by("client__number").values_list("client__number", "value", "reward_microtokens")[:SHOWN]
        lines = format_html_join("", "<tr><td>{}</td><td>{}</td><td>{}</td></tr>", rows)
        head = SafeString("<tr><th>client</th><th>contribution</th><th>reward microtokens</th></tr>")
        return format_html("<table>{}{}</table>", head, lines) if lines else "none yet"

    # Actions, each through the lifecycle

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("simulations.change_simulation")

    @admin.action(description="Cancel", permissions=["operate"])
    def cancel(self, request: HttpRequest, queryset: QuerySet[Simulation]) -> None:
        self._each(request, queryset, "cancelled", lambda one: lifecycle.cancel(one.pk))

    @admin.action(description="Resume", permissions=["operate"])
    def resume(self, request: HttpRequest, queryset: QuerySet[Simulation]) -> None:
        self._each(request, queryset, "queued again", lambda one: lifecycle.resume(one.pk, address=request.address))

    @admin.action(description="Run again, as your own", permissions=["operate"])
    def run_again(self, request: HttpRequest, queryset: QuerySet[Simulation]) -> None:
        def again(one: Simulation) -> Simulation:
            return lifecycle.run_again(one, origin=Origin.PAGE, owned_by=request.user)[0]

        self._each(request, queryset, "run again as simulation {}", again)

    @admin.action(description="Archive", permissions=["operate"])
    def archive(self, request: HttpRequest, queryset: QuerySet[Simulation]) -> None:
        self._each(request, queryset, "archived", lambda one: lifecycle.archive(one.pk))

    @admin.action(description="Unarchive", permissions=["operate"])
    def unarchive(self, request: HttpRequest, queryset: QuerySet[Simulation]) -> None:
        self._each(request, queryset, "back on the lists", lambda one: lifecycle.unarchive(one.pk))

    def _each(
        self,
        request: HttpRequest,
        queryset: QuerySet[Simulation],
        became: str,
        act: Callable[[Simulation], Simulation],
    ) -> None:
        chosen = list(queryset.order_by("pk")[: MOST + 1])
        if len(chosen) > MOST:
            self.message_user(request, f"At most {MOST} simulations at once.", messages.ERROR)
            return
        for one in chosen:
            try:
                result = act(one)
            except (lifecycle.Conflict, lifecycle.QueueFull, ConfigError) as error:
                self.message_user(request, f"Simulation {one.pk} stays as it is: {error}.", messages.WARNING)
                continue
            text = became.format(result.pk)
            self.log_change(request, one, text.capitalize())
            self.message_user(request, f"Simulation {one.pk} is {text}.", messages.SUCCESS)

    # Workers

    def get_urls(self) -> list[Any]:
        workers = path("workers/", self.admin_site.admin_view(self.workers), name="workers")
        return [workers, path("disk/", self.admin_site.admin_view(self.disk), name="disk"), *super().get_urls()]

    def disk(self, request: HttpRequest) -> HttpResponse:
        """What database, checkpoints and data take, and what is left."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = {**self.admin_site.each_context(request), "title": "Disk", "opts": self.opts, "uses": disk.use()}
        return TemplateResponse(request, "admin/simulations/simulation/disk.html", context)

    def workers(self, request: HttpRequest) -> HttpResponse:
        """Who is there, what each runs, and since when."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = {**self.admin_site.each_context(request), "title": "Workers", "opts": self.opts}
        context |= {"workers": workers.everybody(), **workers.queue()}
        return TemplateResponse(request, "admin/simulations/simulation/workers.html", context)


class OfSimulation(LookOnly):
    """Reached from its simulation's page, or by the simulation's number."""

    search_help_text = "number of the simulation"

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        of_simulation = lookup == "round__simulation__id__exact"
        return of_simulation or super().lookup_allowed(lookup, value, request)


@admin.register(Client)
class ClientAdmin(OfSimulation, admin.ModelAdmin):
    list_display = (
        "id",
        "simulation",
        "number",
        "behaviour",
        "num_examples",
        "rounds",
        "contribution",
        "reward_microtokens",
    )
    list_filter = ("behaviour",)
    list_select_related = ("simulation",)
    search_fields = ("=simulation__id",)
    ordering = ("-id",)
    inlines = (ContributionsOfClient,)


@admin.register(Round)
class RoundAdmin(OfSimulation, admin.ModelAdmin):
    list_display = (
        *("id", "simulation", "number", "cohort_size", "loss", "accuracy"),
        *("pool_microtokens", "duration_seconds"),
    )
    list_filter = ("rule",)
    list_select_related = ("simulation",)
    search_fields = ("=simulation__id", "weights_sha256", "evidence_sha256")
    search_help_text = "number of the simulation, or a hash"
    exclude = ("evidence",)
    ordering = ("-id",)
    inlines = (ContributionsOfRound,)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Round]:
        return super().get_queryset(request).defer("evidence")


@admin.register(Contribution)
class ContributionAdmin(OfSimulation, admin.ModelAdmin):
    list_display = ("id", "round", "client", "value", "reward_microtokens", "loss_before", "loss_after", "update_norm")
    search_fields = ("=round__simulation__id",)
    ordering = ("-id",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Contribution]:
        return super().get_queryset(request).select_related("round", "client").defer("round__evidence")


@admin.register(Audit)
class AuditAdmin(OfSimulation, admin.ModelAdmin):
    list_display = ("id", "simulation", "status", "rounds", "payments", "asked_by", "asked_at", "ended_at")
    list_filter = ("status", "asked_at")
    list_select_related = ("simulation", "asked_by")
    search_fields = ("=simulation__id", "problem")
    search_help_text = "number of the simulation, or words of what was found"
    ordering = ("-id",)


@admin.register(Event)
class EventAdmin(OfSimulation, admin.ModelAdmin):
    list_display = ("id", "simulation", "sequence", "kind", "at", "message")
    list_filter = ("kind", "at")
    list_select_related = ("simulation",)
    search_fields = ("=simulation__id", "message")
    search_help_text = "number of the simulation, or words of the message"
    ordering = ("-id",)
