"""Simulations in the admin: to look at, not to edit. What happened is written by the recorder alone."""

from django.contrib import admin
from django.http import HttpRequest

from simulations.models import Client, Event, Round, Simulation


class ReadOnly:
    """No adding, changing or deleting, whoever asks."""

    def has_add_permission(self, request: HttpRequest, obj=None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj=None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj=None) -> bool:
        return False


class Clients(ReadOnly, admin.TabularInline):
    model = Client
    fields = ("number", "behaviour", "num_examples", "rounds", "contribution", "reward_microtokens")
    ordering = ("number",)


@admin.register(Simulation)
class SimulationAdmin(ReadOnly, admin.ModelAdmin):
    list_display = (
        *("id", "status", "dataset", "num_clients", "num_rounds", "rounds_done", "accuracy"),
        *("pool_microtokens", "origin", "created_at"),
    )
    list_filter = ("status", "dataset", "origin", "archived")
    search_fields = ("=id", "config_sha256", "weights_sha256", "ledger_head")
    ordering = ("-id",)
    inlines = (Clients,)


@admin.register(Round)
class RoundAdmin(ReadOnly, admin.ModelAdmin):
    list_display = (
        *("id", "simulation", "number", "cohort_size", "loss", "accuracy"),
        *("pool_microtokens", "duration_seconds"),
    )
    list_filter = ("rule",)
    search_fields = ("=simulation__id", "weights_sha256", "evidence_sha256")
    exclude = ("evidence",)
    ordering = ("-id",)


@admin.register(Event)
class EventAdmin(ReadOnly, admin.ModelAdmin):
    list_display = ("id", "simulation", "sequence", "kind", "at", "message")
    list_filter = ("kind",)
    search_fields = ("=simulation__id",)
    ordering = ("-id",)
