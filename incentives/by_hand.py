"""Rewards that somebody asks for by hand, on the ledger `manual`: who asked, how much in a day, and once for a key."""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Min, Sum
from django.utils import timezone

from incentives import ledger
from incentives.models import MINT, TREASURY, Ledger, RewardRequest, Transaction
from incentives.rewards import MICROTOKENS

MANUAL = "manual"  # the ledger's name
DAY = timedelta(days=1)
MOST_MICROTOKENS = 1_000 * MICROTOKENS  # that one address may ask for in a day


class AnotherReward(Exception):
    """The key came with another reward before."""


class TooMuch(Exception):
    """More than an address may have minted in a day; the text is a plain sentence."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"{MOST_MICROTOKENS // MICROTOKENS:,} tokens a day may be minted from one address")
        self.seconds = seconds  # until there is room again


@transaction.atomic
def pay(
    client: int,
    microtokens: int,
    terms: Mapping[str, str],
    *,
    actor: str = "",
    key: str | None = None,
    address: str | None = None,
) -> None:
    """Mint a reward and pay it, with its terms and its actor's user name in the hashed memo.

    A repeat under the same key pays nothing more; with other terms it is AnotherReward. That a key paid nothing is
    remembered for a day. Keys of two actors are two keys. Where an address is given, TooMuch says that it had its day's
    share. Raises LedgerError too.
    """
    book = ledger.open_ledger(MANUAL)
    Ledger.objects.select_for_update().get(pk=book.pk)  # one at a time: what follows looks, and then writes
    now = timezone.now()
    RewardRequest.objects.filter(asked_at__lt=now - DAY).delete()
    memo = {**terms, **({"actor": actor} if actor else {})}
    asked_sha256 = hashlib.sha256(json.dumps(memo, sort_keys=True).encode()).hexdigest()
    place = f"reward:{key or uuid.uuid4().hex}"
    if key and actor:
        before = Transaction.objects.filter(ledger=book, key=place).first()
        if before is not None and before.memo == terms:  # it was paid before actors were named
            return
        # No header holds a blank, so nobody's key is one of somebody else.
        place = f"reward {hashlib.sha256(actor.encode()).hexdigest()[:16]} {key}"
    asked = RewardRequest.objects.filter(key=place).first()
    is_paid = Transaction.objects.filter(ledger=book, key=place).exists()
    if (asked and asked.asked_sha256 != asked_sha256) or (is_paid and not microtokens):
        raise AnotherReward
    if asked is None and not is_paid:
        if address is not None:
            _refuse_too_much(address, microtokens, now)
        RewardRequest.objects.create(
            key=place, asked_sha256=asked_sha256, address=address or "", microtokens=microtokens, asked_at=now
        )
    if microtokens:
        entries = [
            ledger.Entry(MINT, TREASURY, microtokens, "pool"),
            ledger.Entry(TREASURY, ledger.client_account(client), microtokens, "reward"),
        ]
        try:
            ledger.post(book.pk, key=place, transfers=entries, description=f"Reward of client {client}", memo=memo)
        except ledger.KeyConflict:
            raise AnotherReward from None


def _refuse_too_much(address: str, microtokens: int, now: datetime) -> None:
    day = RewardRequest.objects.filter(address=address, asked_at__gt=now - DAY, microtokens__gt=0)
    had = day.aggregate(sum=Sum("microtokens"), first=Min("asked_at"))
    if (had["sum"] or 0) + microtokens > MOST_MICROTOKENS:
        room_at = (had["first"] or now) + DAY
        raise TooMuch(max(1, math.ceil((room_at - now).total_seconds())))
