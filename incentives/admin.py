"""The ledger in the admin: to look at. Nobody adds, changes or deletes; corrections are posted by `ledger.reverse`."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from incentives.models import Account, Ledger, Transaction, Transfer

SHOWN = 100  # transfers on a transaction's page


class LookOnly:
    """No permission but to view, for superusers too."""

    actions = None
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Ledger)
class LedgerAdmin(LookOnly, admin.ModelAdmin):
    list_display = ("name", "length", "num_accounts", "short_head", "created_at")
    list_filter = ("created_at",)
    search_fields = ("name", "head")
    ordering = ("-pk",)
    readonly_fields = ("created_at",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Ledger]:
        return super().get_queryset(request).annotate(num_accounts=Count("accounts"))

    @admin.display(description="accounts", ordering="num_accounts")
    def num_accounts(self, ledger: Any) -> int:
        return ledger.num_accounts

    @admin.display(description="head")
    def short_head(self, ledger: Ledger) -> str:
        return ledger.head[:12]


@admin.register(Account)
class AccountAdmin(LookOnly, admin.ModelAdmin):
    list_display = ("name", "ledger", "client", "balance")
    list_select_related = ("ledger",)
    search_fields = ("name", "ledger__name")
    search_help_text = "account or ledger"
    ordering = ("-ledger", "pk")


class TransferInline(LookOnly, admin.TabularInline):
    """The first transfers; the ledger's own page of the transaction has them all."""

    model = Transfer
    verbose_name_plural = f"Transfers, the first {SHOWN}"
    fields = ("position", "debit_account", "credit_account", "amount", "code")
    ordering = ("position",)
    extra = 0

    def get_queryset(self, request: HttpRequest) -> QuerySet[Transfer]:
        first = super().get_queryset(request).filter(position__lte=SHOWN)
        return first.select_related("debit_account", "credit_account")


@admin.register(Transaction)
class TransactionAdmin(LookOnly, admin.ModelAdmin):
    list_display = ("ledger", "sequence", "key", "description", "reverses", "recorded_at")
    list_display_links = ("sequence", "key")
    list_select_related = ("ledger", "reverses")
    list_filter = (("reverses", admin.EmptyFieldListFilter), "recorded_at")
    search_fields = ("key", "description", "ledger__name", "hash")
    search_help_text = "key, description, ledger or hash"
    ordering = ("-pk",)
    readonly_fields = ("recorded_at", "all_of_it")
    inlines = (TransferInline,)

    @admin.display(description="all transfers")
    def all_of_it(self, transaction: Transaction) -> SafeString:
        address = reverse("ledger:transaction", args=[transaction.ledger.name, transaction.sequence])
        return format_html('<a href="{}">its page</a>', address)
