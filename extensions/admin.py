"""Plug-ins in the admin: what is there and how it does, with a switch. Files are the machine's operator's to bring."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from extensions import catalogue
from extensions.models import Plugin, Source


@admin.register(Plugin)
class PluginAdmin(admin.ModelAdmin):
    """A row for each kind that was ever plugged in; above them the files that are broken, with their reasons."""

    list_display = ("id", "family", "state", "where", "is_enabled")
    list_editable = ("is_enabled",)
    list_display_links = ("id",)
    fields = ("id", "is_enabled", "family", "state", "where", "parameters", "checks", "source")
    readonly_fields = ("id", "family", "state", "where", "parameters", "checks", "source")
    ordering = ("id",)
    actions = None
    change_list_template = "admin/extensions/plugin/list.html"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Plugin]:
        self._found = {
            member.kind.name: (entry, member) for entry in catalogue.current.entries() for member in entry.members
        }
        return super().get_queryset(request)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        catalogue.current.look()
        entries = catalogue.current.entries()
        names = {member.kind.name for entry in entries for member in entry.members}
        known = set(Plugin.objects.filter(pk__in=names).values_list("pk", flat=True))
        Plugin.objects.bulk_create([Plugin(pk=name) for name in sorted(names - known)], ignore_conflicts=True)
        broken = [entry for entry in entries if entry.error or entry.is_waiting]
        return super().changelist_view(request, {**(extra_context or {}), "broken": broken})

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        catalogue.current.settle(catalogue.PATIENCE)

    @admin.display(description="family")
    def family(self, plugin: Plugin) -> str:
        return self._found[plugin.pk][1].kind.family if plugin.pk in self._found else "–"

    @admin.display(description="file")
    def where(self, plugin: Plugin) -> str:
        return self._found[plugin.pk][0].where if plugin.pk in self._found else "not here"

    @admin.display(description="state")
    def state(self, plugin: Plugin) -> str:
        if plugin.pk not in self._found:
            return "not here"
        member = self._found[plugin.pk][1]
        if member.refused:
            return f"refused: {member.refused}"
        kept = sum(result["status"] == "holds" for result in member.results)
        state = "offered" if plugin.is_enabled else "switched off"
        return f"{state}, {kept} of {len(member.results)} checks hold"

    @admin.display(description="parameters")
    def parameters(self, plugin: Plugin) -> SafeString | str:
        if plugin.pk not in self._found:
            return "–"
        parameters = self._found[plugin.pk][1].kind.parameters
        lines = ((name, each.plain(each.default), each.help) for name, each in parameters.items())
        return format_html_join("", "<p>{} ({}): {}</p>", lines) or "none"

    @admin.display(description="contract")
    def checks(self, plugin: Plugin) -> SafeString | str:
        if plugin.pk not in self._found:
            return "–"
        results = self._found[plugin.pk][1].results
        lines = ((each["status"], each["check"], each["says"], each["witness"]) for each in results)
        return format_html_join("", "<p><strong>{}</strong> {}: {}<br>{}</p>", lines)

    @admin.display(description="source")
    def source(self, plugin: Plugin) -> SafeString | str:
        if plugin.pk not in self._found:
            return "–"
        entry = self._found[plugin.pk][0]
        texts = format_html_join("", "<h3>{}</h3><pre>{}</pre>", sorted(entry.source.items()))
        return format_html("<p>SHA-256 {}</p>{}", entry.sha256, texts)


@admin.register(Source)
class SourceAdmin(admin.ModelAdmin):
    """The sources of plug-ins that runs were queued with."""

    list_display = ("sha256", "paths", "recorded_at")
    search_fields = ("^sha256",)
    ordering = ("-recorded_at",)
    fields = ("sha256", "recorded_at", "text")
    readonly_fields = ("sha256", "recorded_at", "text")
    actions = None

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.display(description="files")
    def paths(self, source: Source) -> str:
        return ", ".join(sorted(source.files))

    @admin.display(description="text")
    def text(self, source: Source) -> SafeString:
        return format_html_join("", "<h3>{}</h3><pre>{}</pre>", sorted(source.files.items()))
