"""Pages of the ledger: who holds what, every transfer, and whether the chains are what was posted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from itertools import islice
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.paginator import Paginator
from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils.module_loading import import_string
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

import kinds
from incentives import sight, verified
from incentives.export import FORMATS
from incentives.ledger import client_account, stake_account
from incentives.models import Transaction

TRANSFER_ROWS = 50
ACCOUNT_ROWS = 20
EXPORT_LINES = 500
CONTENT_TYPES = {"csv": "text/csv", "jsonl": "application/jsonl", "beancount": "text/plain"}


@never_cache
@require_safe
def state(request: HttpRequest) -> HttpResponse:
    """One line for the head of every page."""
    return render(request, "incentives/_state.html", {"state": verified.state(sight.ledgers(request))})


@never_cache
@require_safe
def ledger(request: HttpRequest) -> HttpResponse:
    name, client = request.GET.get("ledger", "").strip(), _client(request.GET.get("client", ""))
    accounts, transfers = sight.accounts(request), sight.transfers(request)
    if name:
        accounts = accounts.filter(ledger__name=name)
        transfers = transfers.filter(transaction__ledger__name=name)
    else:  # what shadows would have paid is nobody's
        accounts = accounts.filter(ledger__is_shadow=False)
        transfers = transfers.filter(transaction__ledger__is_shadow=False)
    if client is not None:
        own = Q(client=client) | Q(name=stake_account(client))
        accounts, holders = accounts.filter(own), sight.accounts(request).filter(own)
        transfers = transfers.filter(credit_account__in=holders) | transfers.filter(debit_account__in=holders)
    context = {
        "name": name,
        "client": "" if client is None else client,
        "names": sight.ledgers(request).order_by("-pk").values_list("name", flat=True)[:100],
        "state": verified.state(sight.ledgers(request)),
        "accounts": _accounts(accounts, request.GET.get("accounts")),
        "page": _transfers(transfers, request.GET.get("page")),
    }
    return render(request, "incentives/ledger.html", context)


def _client(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def _accounts(found, number):
    rows = found.select_related("ledger").order_by("-balance", "ledger_id", "pk")
    return Paginator(rows, ACCOUNT_ROWS).get_page(number)


def _transfers(found, number):
    rows = found.select_related("transaction__ledger", "debit_account", "credit_account")
    return Paginator(rows.order_by("-transaction_id", "position"), TRANSFER_ROWS).get_page(number)


@never_cache
@require_safe
def transaction(request: HttpRequest, name: str, sequence: int) -> HttpResponse:
    rows = sight.transactions(request).select_related("ledger", "reverses", "reversed_by")
    found = get_object_or_404(rows, ledger__name=name, sequence=sequence)
    transfers = found.transfers.select_related("debit_account", "credit_account").order_by("position")
    explain, client = import_string(settings.PAYMENTS_EXPLAINED_BY), request.GET.get("client")
    payment = explain(found, client, request.GET.get("shares"))
    context = {
        "transaction": found,
        "page": Paginator(transfers, TRANSFER_ROWS).get_page(request.GET.get("page")),
        "rule": _rule(found),
        "payment": payment,
        "client": _client(client or ""),
    }
    if payment and payment.get("client"):
        number = payment["client"]["number"]
        at_stake = stake_account(number)
        to_it = Q(credit_account__name__in=(client_account(number), at_stake))
        context["own_transfers"] = transfers.filter(to_it | Q(debit_account__name=at_stake))
    return render(request, "incentives/transaction.html", context)


def _rule(paid: Transaction) -> dict[str, Any] | None:
    """The rule that split a pool, as its memo names it; of a plug-in with its source."""
    name, _, version = str(paid.memo.get("rule") or "").rpartition("@")
    if not name:
        return None
    known, sha256 = kinds.family("rule").get(name), str(paid.memo.get("rule_source_sha256", ""))
    versions = {str(each) for each in (known.version, *known.older)} if known is not None else set()
    is_it = known is not None and version in versions and known.source_sha256 == sha256
    return {
        "name": name,
        "version": version,
        "help": known.help if known is not None and is_it else "",
        "sha256": sha256,
        "files": import_string(settings.PLUGIN_SOURCES)(sha256),
    }


@require_safe
def export(request: HttpRequest) -> StreamingHttpResponse:
    """Ledgers as a file: `?format=csv|jsonl|beancount`, and `?ledger=` for one alone."""
    format, name = request.GET.get("format", "csv"), request.GET.get("ledger", "")
    ledgers = list(sight.ledgers(request).filter(**{"name": name} if name else {}).order_by("pk"))
    if format not in FORMATS or (name and not ledgers):
        raise Http404("There is no such ledger or format")
    response = StreamingHttpResponse(
        pieces(FORMATS[format](ledgers)), content_type=f"{CONTENT_TYPES[format]}; charset=utf-8"
    )
    response["Content-Disposition"] = f'attachment; filename="{name or "ledger"}.{format}"'
    return response


async def pieces(lines: Iterator[str]) -> AsyncIterator[str]:
    """Lines in pieces, so that the server never holds the whole in memory nor blocks on the database."""
    take = sync_to_async(lambda: "".join(islice(lines, EXPORT_LINES)))
    while text := await take():
        yield text
