"""A transaction taken back by an operator: its mirror image, and the simulation's copy of where the chain ends."""

from __future__ import annotations

from django import forms
from django.contrib import admin, messages
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from incentives import ledger
from incentives.admin import TransactionAdmin
from incentives.models import Ledger, Transaction
from simulations.models import Shadow, Simulation

MOST = 100  # at once


@transaction.atomic
def reverse(original: Transaction, reason: str, *, actor: str) -> Transaction:
    """Post the mirror image. Raises LedgerError where the ledger refuses, or its end is not the recorded one.

    The simulation's row is locked before the ledger's, as by whoever records a round.
    """
    rows = Shadow if original.ledger.is_shadow else Simulation
    recorded = (
        rows.objects.select_for_update().filter(ledger=original.ledger_id).values_list("ledger_head", flat=True).first()
    )
    chain = Ledger.objects.select_for_update().get(pk=original.ledger_id)
    if recorded not in (None, chain.head):  # a new copy of the head would hide it
        raise ledger.LedgerError("the chain does not end as its simulation's row says; run verify_ledger")
    posted = ledger.reverse(original, reason, actor=actor)
    chain.refresh_from_db()
    rows.objects.filter(ledger=chain).update(ledger_head=chain.head, ledger_length=chain.length)
    return posted


class Reason(forms.Form):
    reason = forms.CharField(max_length=500, widget=forms.TextInput({"size": 80, "autofocus": True}))


class ReversibleTransactionAdmin(TransactionAdmin):
    """Still nothing is added, changed or deleted by hand: a reversal is a transaction of its own."""

    actions = ("reverse",)

    def has_reverse_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("incentives.reverse_transaction")

    @admin.action(description="Reverse: post what takes them back", permissions=["reverse"])
    def reverse(self, request: HttpRequest, queryset: QuerySet[Transaction]) -> HttpResponse | None:
        chosen = list(queryset.select_related("ledger").order_by("pk")[: MOST + 1])
        if len(chosen) > MOST:
            self.message_user(request, f"At most {MOST} transactions at once.", messages.ERROR)
            return None
        form = Reason(request.POST if "confirmed" in request.POST else None)
        if not form.is_valid():
            return self._ask(request, chosen, form)
        for original in chosen:
            self._reverse(request, original, form.cleaned_data["reason"])
        return None

    def _ask(self, request: HttpRequest, chosen: list[Transaction], form: Reason) -> HttpResponse:
        context = {**self.admin_site.each_context(request), "title": "Reverse transactions", "opts": self.opts}
        context |= {"chosen": chosen, "form": form}
        return TemplateResponse(request, "admin/incentives/transaction/reverse.html", context)

    def _reverse(self, request: HttpRequest, original: Transaction, reason: str) -> None:
        name = f"{original} of {original.ledger}"
        try:
            posted = reverse(original, reason, actor=request.user.get_username())
        except ledger.LedgerError as error:
            self.message_user(request, f"{name} stands: {error}.", messages.ERROR)
            return
        self.log_change(request, original, f"Reversed by transaction {posted.sequence}: {reason}")
        self.message_user(request, f"{name} is taken back by transaction {posted.sequence}.", messages.SUCCESS)


admin.site.unregister(Transaction)
admin.site.register(Transaction, ReversibleTransactionAdmin)
