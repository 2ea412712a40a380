"""Tokens in the admin: to look at and to revoke. Users are in Django's own."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest

from people.models import Token


@admin.register(Token)
class TokenAdmin(admin.ModelAdmin):
    list_display = ("prefix", "name", "owner", "scope", "created_at", "expires_at", "last_used_at")
    list_filter = ("scope", "expires_at", "last_used_at")
    list_select_related = ("owner",)
    search_fields = ("prefix", "name", "owner__username", "owner__email")
    search_help_text = "beginning of the secret, name, or owner"
    ordering = ("-pk",)
    exclude = ("secret_sha256",)
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Only its owner may see a secret, so only its owner makes one."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Token | None = None) -> bool:
        return False
