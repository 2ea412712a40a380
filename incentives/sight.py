"""Which ledgers a reader sees. Pages, lists, files, accounts, counts and verification all take their rows from here.

The ledger knows neither people nor simulations: settings.LEDGERS_SEEN_BY names the one function that decides, of a
user and the path from a row to its ledger's key. It gives a condition, which is empty for who sees everything.
"""

from __future__ import annotations

from django.conf import settings
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.module_loading import import_string

from incentives.models import Account, Ledger, Transaction, Transfer


def condition(request: HttpRequest, ledger: str) -> Q:
    return import_string(settings.LEDGERS_SEEN_BY)(request.user, ledger)


def ledgers(request: HttpRequest) -> QuerySet[Ledger]:
    return Ledger.objects.filter(condition(request, "pk"))


def accounts(request: HttpRequest) -> QuerySet[Account]:
    return Account.objects.filter(condition(request, "ledger"))


def transactions(request: HttpRequest) -> QuerySet[Transaction]:
    return Transaction.objects.filter(condition(request, "ledger"))


def transfers(request: HttpRequest) -> QuerySet[Transfer]:
    return Transfer.objects.filter(condition(request, "transaction__ledger"))
