"""One of several processes that post to a ledger at the same time: `python -m incentives.tests.poster STEP [NAME]`.

    fund    open the ledger and give client 1 a hundred
    race    wait for a line on standard input; then spend, repeat and post, as fast as it goes
    check   verify the ledger
Each prints one JSON object.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import django

LEDGER = "simulation-1"
SPENDERS, REPEATS, POSTS = 5, 10, 5  # a process's own tries to spend it all, shared keys, own transactions
REWARDS = 2  # by hand, besides one under a shared key
DUPLICATES = 125  # of one transaction, by each of eight processes


def fund(name: str) -> dict[str, Any]:
    from incentives import ledger

    opened = ledger.open_ledger(LEDGER)
    ledger.post(opened.pk, key="fund", transfers=[ledger.Entry("mint", "client:1", 100, "pool")])
    return {}


def race(name: str) -> dict[str, Any]:
    print("ready", flush=True)
    sys.stdin.readline()
    from incentives import ledger
    from incentives.models import Ledger

    known = Ledger.objects.get(name=LEDGER).pk
    spent = sum(_spend(known, f"spend:{name}:{n}") for n in range(SPENDERS))
    for n in range(REPEATS):
        ledger.post(known, key=f"shared:{n}", transfers=[ledger.Entry("mint", "client:3", 1, "pool")])
    for _ in range(DUPLICATES):
        ledger.post(known, key="duplicate", transfers=[ledger.Entry("mint", "client:4", 1, "pool")])
    for n in range(POSTS):  # all make the accounts that are missing
        entries = [ledger.Entry("mint", f"client:{10 + n}", 1, "pool")]
        ledger.post(known, key=f"own:{name}:{n}", transfers=entries)
    minted = sum(_mint(f"{name}:{n}") for n in range(REWARDS)) + _mint("shared")
    return {"spent": spent, "minted": minted, "other_ledger": ledger.open_ledger("manual").pk}


def _spend(known: int, key: str) -> bool:
    from incentives import ledger

    try:
        ledger.post(known, key=key, transfers=[ledger.Entry("client:1", "client:2", 100, "gift")])
    except ledger.InsufficientBalance:
        return False
    return True


def _mint(key: str) -> bool:
    """A tenth of what one address may have in a day."""
    from incentives import by_hand

    try:
        by_hand.pay(1, by_hand.MOST_MICROTOKENS // 10, {}, key=key, address="10.0.0.1")
    except by_hand.TooMuch:
        return False
    return True


def check(name: str) -> dict[str, Any]:
    import dataclasses

    from incentives import ledger
    from incentives.models import Account, Ledger

    opened = Ledger.objects.get(name=LEDGER)
    balances = dict(Account.objects.filter(ledger=opened).values_list("name", "balance"))
    manual = Ledger.objects.filter(name="manual").values_list("length", flat=True).first()
    return dataclasses.asdict(ledger.verify(opened)) | {"balances": balances, "rewards": manual}


STEPS: dict[str, Callable[[str], dict[str, Any]]] = {"fund": fund, "race": race, "check": check}

if __name__ == "__main__":
    django.setup()
    print(json.dumps(STEPS[sys.argv[1]](sys.argv[-1])))
