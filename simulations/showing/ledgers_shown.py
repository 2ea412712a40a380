"""What the economies of a simulation made of it, as its page shows them: who got what, when, how evenly, and which way
the tokens went.

A fixed number of queries, and no more rows of a table than fit a page, whatever the number of clients, rounds and
economies. Memory: a number for each client of each economy that is shown.
"""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Any

from django.core.cache import cache
from django.core.paginator import Paginator
from django.db.models import F, Sum

import kinds
from incentives.models import MINT, TREASURY, Account
from simulations.config import OF_AN_ECONOMY, PAYING
from simulations.economies import ledger_name
from simulations.models import Shadow, ShadowClient, ShadowRound, Simulation
from simulations.showing import fragments, wording

MOST_ECONOMIES = 24  # on a page; JSON has all of them
POINTS = 100  # of a curve over rounds
STEPS = 20  # of a Lorenz curve of many clients
LARGEST = 10  # accounts that a picture of the flow names
TABLE_ROWS = 100
REMEMBERED, REMEMBERED_SECONDS = 20_000, 600  # clients times economies
LINES = ("good", "second", "ink", "quiet")  # colours of the economies' lines, each with every dash in turn
DASHES = ("solid", "dashed", "dotted", "long", "dash-dot", "dash-dot-dot")  # of charts.js; all economies differ


@dataclass(frozen=True, kw_only=True)
class Economy:
    """One of a simulation's; money in micro-tokens, sums over rounds."""

    number: int  # 0: the paying one
    pk: int | None  # of its Shadow
    label: str
    says: str  # what it consists of, of a shadow what it does not take from the paying one
    added_at: datetime | None
    ledger: str
    pool: int
    paid: int
    burned: int
    treasury: int  # that it holds
    minted: int
    is_endowed: bool  # all that is for pools was minted before round 1
    slashed: int  # that stakes lost
    slashed_to: str
    at_stake: int  # that is left
    rewards: Mapping[int, int]  # by client; who got nothing may be missing

    @property
    def for_pools(self) -> int:
        """Of what was minted."""
        return self.minted - self.at_stake - self.slashed

    @property
    def colour(self) -> str:
        return LINES[self.number % len(LINES)]

    @property
    def dash(self) -> str:
        return DASHES[self.number // len(LINES) % len(DASHES)]


def context(simulation: Simulation, flow: int = 0) -> dict[str, Any]:
    """All that the page's part about economies shows; `flow`: of which one the way of its tokens. Of a crowd it is
    remembered until the next round, for whoever else looks."""
    shadows = list(simulation.shadows.order_by("number")[: MOST_ECONOMIES - 1])
    if simulation.num_clients * (1 + len(shadows)) < REMEMBERED:
        return _context(simulation, shadows, flow)
    state = (simulation.rounds_done, len(shadows), sum(each.rounds_done for each in shadows), flow)
    key = f"economies:{simulation.pk}:{':'.join(map(str, state))}"
    known: dict[str, Any] | None = cache.get(key)
    if known is None:
        known = _context(simulation, shadows, flow)
        cache.set(key, known, timeout=REMEMBERED_SECONDS)
    return known


def _context(simulation: Simulation, shadows: Sequence[Shadow], flow: int) -> dict[str, Any]:
    everyone = list(
        simulation.clients.order_by("number").values(
            "number", "holder", "behaviour", "reward_microtokens", "slashed_microtokens"
        )
    )
    if not everyone or not simulation.rounds_done or simulation.ledger_id is None:
        return {"economies": [], "waits": bool(shadows) or _pays(simulation)}
    found = _economies(simulation, shadows, everyone)
    if not shadows and not _pays(simulation):
        return {"economies": [], "waits": False}
    chosen = next((each for each in found if each.number == flow), found[0])
    places = _points(simulation.rounds_done)
    curves = _curves(simulation, found, places)
    there = simulation.shadows.count() + 1 if len(found) == MOST_ECONOMIES else len(found)
    shown = [dataclasses.replace(each, rewards={}) for each in found]  # which pages do not read
    return {
        "economies": shown,
        "left_out": there - len(found),
        "summary": [{"economy": small, **_evenness(each, everyone)} for small, each in zip(shown, found, strict=True)],
        "split": _who_got_what(simulation, found, everyone),
        "is_grouped": len(everyone) > fragments.ALL_CLIENTS,
        "num_clients": len(everyone),
        "over_rounds": [(number, [curve[place] for curve in curves]) for place, number in enumerate(places)],
        "is_sample": len(places) <= simulation.rounds_done,
        "lorenz": _lorenz_rows(found, len(everyone)),
        "flow_of": chosen.number,
        "flow": _flow(chosen),
        "is_staked": any(each.at_stake or each.slashed for each in found),
        "has_dishonest": any(client["behaviour"] != "honest" for client in everyone),
    }


def _pays(simulation: Simulation) -> bool:
    return simulation.configuration["valuation"]["kind"] != "none"


def _economies(
    simulation: Simulation, shadows: Sequence[Shadow], everyone: Sequence[Mapping[str, Any]]
) -> list[Economy]:
    """Three queries, two more where anything is at stake."""
    ledgers = [simulation.ledger_id, *(each.ledger_id for each in shadows)]
    held: dict[int, dict[str, int]] = defaultdict(dict)
    rows = Account.objects.filter(ledger__in=ledgers, name__in=(MINT, TREASURY, "burn"))
    for ledger, name, balance in rows.values_list("ledger", "name", "balance"):
        held[ledger][name] = balance
    rewards: dict[int, dict[int, int]] = defaultdict(dict)
    of_shadows = ShadowClient.objects.filter(shadow__in=[each.pk for each in shadows])
    parts = of_shadows.filter(reward_microtokens__gt=0)
    for shadow, client, reward in parts.values_list("shadow", "number", "reward_microtokens").iterator(10_000):
        rewards[shadow][client] = reward
    at_stake, slashed = {}, {}
    if any(each.get("stake") for each in (simulation.config, *(shadow.specification for shadow in shadows))):
        stakes = Account.objects.filter(ledger__in=ledgers, name__startswith="stake:").order_by().values("ledger")
        at_stake = dict(stakes.annotate(sum=Sum("balance")).values_list("ledger", "sum"))
        lost = of_shadows.order_by().values("shadow").annotate(sum=Sum("slashed_microtokens"))
        slashed = dict(lost.values_list("shadow", "sum"))
        slashed[None] = sum(client["slashed_microtokens"] for client in everyone)

    def economy(ledger_id: int, specification: Mapping[str, Any], **values: Any) -> Economy:
        burned, treasury, minted = (held[ledger_id].get(name, 0) for name in ("burn", TREASURY, MINT))
        known = kinds.family("pool").get(specification["pool"]["kind"])
        return Economy(
            burned=burned,
            treasury=treasury,
            minted=-minted,
            is_endowed=known is not None and "endowed" in known.traits,
            slashed=slashed.get(values["pk"], 0),
            slashed_to=specification.get("slashed_to", "treasury"),
            at_stake=at_stake.get(ledger_id, 0),
            **values,
        )

    paying = economy(
        simulation.ledger_id,
        simulation.configuration,
        number=0,
        pk=None,
        label=PAYING,
        says=wording.paying(simulation),
        added_at=None,
        ledger=f"simulation-{simulation.pk}",
        pool=simulation.pool_microtokens,
        paid=simulation.paid_microtokens,
        rewards={client["number"]: client["reward_microtokens"] for client in everyone},
    )
    return [paying] + [
        economy(
            each.ledger_id,
            each.specification,
            number=each.number,
            pk=each.pk,
            label=each.label,
            says=wording.economy(differences(simulation, each.specification)),
            added_at=each.added_at,
            ledger=ledger_name(simulation.pk, each.number),
            pool=each.pool_microtokens,
            paid=each.paid_microtokens,
            rewards=rewards[each.pk],
        )
        for each in shadows
    ]


def differences(simulation: Simulation, specification: Mapping[str, Any]) -> dict[str, Any]:
    """What an economy does not have in common with the paying one."""
    paying = simulation.configuration
    return {
        name: specification[name]
        for name in OF_AN_ECONOMY
        if name in specification and specification[name] != paying.get(name)
    }


# How even


def _evenness(economy: Economy, everyone: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    amounts = [economy.rewards.get(client["number"], 0) for client in everyone]
    dishonest = sum(amount for amount, client in zip(amounts, everyone, strict=True) if client["behaviour"] != "honest")
    total = sum(amounts)
    return {
        "num_paid": sum(amount > 0 for amount in amounts),
        "gini": fragments.gini(amounts),
        "jain": jain(amounts),
        "dishonest": dishonest / total if total else None,
    }


def jain(amounts: Sequence[int]) -> float | None:
    """Jain's index, (sum x)^2 / (n sum x^2): 1 where all have the same, 1/n where one has everything; None where nobody
    has any. Source: Jain, Chiu, Hawe 1984."""
    squares = sum(amount * amount for amount in amounts)
    return sum(amounts) ** 2 / (len(amounts) * squares) if squares else None


def lorenz(amounts: Iterable[int], steps: int) -> list[float]:
    """What share of all is held by those who hold least: of 0, 1/steps, ... 1 of them, linear in between. Zeros where
    nobody holds anything."""
    held = [0, *accumulate(sorted(amounts))]
    count, total = len(held) - 1, held[-1]
    if not total:
        return [0.0] * (steps + 1)
    found = []
    for step in range(steps + 1):
        whole, rest = divmod(step * count, steps)
        beyond = (held[whole + 1] - held[whole]) * rest / steps if rest else 0
        found.append((held[whole] + beyond) / total)
    return found


def _lorenz_rows(economies: Sequence[Economy], count: int) -> list[tuple[float, list[float]]]:
    """For a share of the clients, percent, what percentage they hold in each economy."""
    steps = min(count, STEPS)
    curves = [lorenz([*each.rewards.values(), *[0] * (count - len(each.rewards))], steps) for each in economies]
    return [(100 * step / steps, [100 * curve[step] for curve in curves]) for step in range(steps + 1)]


# Who got what


def _who_got_what(
    simulation: Simulation, economies: Sequence[Economy], everyone: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """A row for each client, of a crowd for each behaviour, with the share of each economy's tokens."""
    totals = [sum(each.rewards.values()) for each in economies]
    if len(everyone) <= fragments.ALL_CLIENTS:
        groups: dict[Any, list[int]] = {client["number"]: [client["number"]] for client in everyone}
        said = {client["number"]: wording.behaviour(simulation, dict(client)) for client in everyone}
    else:
        groups, said = defaultdict(list), {}
        for client in everyone:
            groups[client["behaviour"]].append(client["number"])
        for name in groups:
            said[name] = {"does": wording.kind("behaviour", name), "dishonest": name != "honest"}
    found = []
    for name, numbers in groups.items():
        held = [sum(each.rewards.get(number, 0) for number in numbers) for each in economies]
        cells = [
            {"economy": each.number, "tokens": amount, **_level(amount / total if total else None)}
            for each, amount, total in zip(economies, held, totals, strict=True)
        ]
        found.append({"name": name, "count": len(numbers), "cells": cells, **said[name]})
    return found


def _level(share: float | None) -> dict[str, Any]:
    if share is None:
        return {"share": None, "level": 0}
    return {"share": share, "level": math.ceil(fragments.HEAT_LEVELS * math.sqrt(share))}


def clients_page(simulation: Simulation, page: str | None, sort: str | None) -> dict[str, Any]:
    """Clients by economies, a hundred at a time: by number, or by what an economy, told by its number, gave them."""
    shadows = list(simulation.shadows.order_by("number")[: MOST_ECONOMIES - 1])
    by = next((each for each in shadows if str(each.number) == sort), None)
    if by is not None:
        rows: Any = ShadowClient.objects.filter(shadow=by).order_by("-reward_microtokens", "number")
        sort = str(by.number)
    else:
        sort = "0" if sort == "0" else ""
        rows = simulation.clients.order_by(*(["-reward_microtokens"] if sort else []), "number")
    shown = Paginator(rows.values_list("number", flat=True), TABLE_ROWS).get_page(page)
    numbers = list(shown)
    clients = {
        client["number"]: client
        for client in simulation.clients.filter(number__in=numbers).values(
            "number", "holder", "behaviour", "reward_microtokens"
        )
    }
    rewards = {(0, number): client["reward_microtokens"] for number, client in clients.items()}
    parts = ShadowClient.objects.filter(shadow__in=[each.pk for each in shadows], number__in=numbers)
    for place, number, reward in parts.values_list("shadow__number", "number", "reward_microtokens"):
        rewards[place, number] = reward
    columns = [(0, PAYING), *((each.number, each.label) for each in shadows)]
    return {
        "page": shown,
        "columns": columns,
        "sort": sort,
        "rows": [
            {
                "number": number,
                "rewards": [(place, rewards.get((place, number), 0)) for place, _ in columns],
                **wording.behaviour(simulation, dict(clients[number])),
            }
            for number in numbers
        ],
    }


# When


def _points(rounds_done: int) -> list[int]:
    """0, and at most POINTS rounds up to the newest."""
    step = max(1, math.ceil(rounds_done / POINTS))
    return [0, *range(step, rounds_done, step), rounds_done]


def _curves(simulation: Simulation, economies: Sequence[Economy], places: Sequence[int]) -> list[list[int | None]]:
    """What each economy has paid up to some rounds, micro-tokens; None where it has not come so far yet.

    A shadow keeps the sum of its pools, what its treasury holds and what stakes lost; what is gone of them was paid or
    burned.
    """
    span, last = (F("number") + places[1] - 1) / places[1], places[-1]
    paid = F("pool_microtokens") - F("treasury_microtokens") - F("burned_microtokens")
    of_rounds = simulation.rounds.filter(number__lte=last).order_by().annotate(span=span).values("span")
    paid_in = dict(of_rounds.annotate(paid=Sum(paid)).values_list("span", "paid"))
    found: list[list[int | None]] = [list(accumulate(paid_in.get(place, 0) for place in range(len(places))))]
    shadows = [each for each in economies if each.pk is not None]
    if not shadows:
        return found
    gone: dict[Any, dict[int, int]] = defaultdict(dict)
    rows = ShadowRound.objects.filter(shadow__in=[each.pk for each in shadows], number__in=places)
    money = ("economy_state__money__pools", "economy_state__money__treasury", "economy_state__money__lost")
    endowments = {each.pk: each.for_pools for each in shadows if each.is_endowed}
    to_treasury = {each.pk for each in shadows if each.slashed_to == "treasury"}
    for shadow, number, pools, treasury, lost in rows.values_list("shadow", "number", *money):
        from_stakes = sum((lost or {}).values()) if shadow in to_treasury else 0
        gone[shadow][number] = endowments.get(shadow, pools) + from_stakes - treasury
    burned_in: dict[Any, dict[int, int]] = defaultdict(dict)
    if burns := [each.pk for each in shadows if each.burned]:
        of_rounds = ShadowRound.objects.filter(shadow__in=burns, number__lte=last).order_by().annotate(span=span)
        burned = of_rounds.values("shadow", "span").annotate(burned=Sum("burned_microtokens"))
        for shadow, place, amount in burned.values_list("shadow", "span", "burned"):
            burned_in[shadow][place] = amount
    for each in shadows:
        burned_so_far = accumulate(burned_in[each.pk].get(place, 0) for place in range(len(places)))
        gone[each.pk][0] = 0
        found.append(
            [
                None if number not in gone[each.pk] else gone[each.pk][number] - burned
                for number, burned in zip(places, burned_so_far, strict=True)
            ]
        )
    return found


# Which way


def _flow(economy: Economy) -> list[dict[str, Any]]:
    """From whom to whom how many micro-tokens: the largest accounts by name, the others together."""
    largest = heapq.nsmallest(LARGEST, economy.rewards.items(), key=lambda each: (-each[1], each[0]))
    rest = sum(economy.rewards.values()) - sum(amount for _, amount in largest)
    others = sum(amount > 0 for amount in economy.rewards.values()) - len(largest)
    to_treasury = economy.slashed_to == "treasury"
    ways = [
        ("Mint", "Treasury", economy.for_pools),
        ("Mint", "Stakes", economy.at_stake + economy.slashed),
        ("Stakes", "Treasury" if to_treasury else "Burned", economy.slashed),
        ("Stakes", "Still at stake", economy.at_stake),
        *(("Treasury", f"Client {client}", amount) for client, amount in sorted(largest)),
        ("Treasury", f"{others:,} others", rest),
        ("Treasury", "Burned", economy.burned - (0 if to_treasury else economy.slashed)),
        ("Treasury", "Kept", economy.treasury),
    ]
    return [{"from": giver, "to": taker, "amount": amount} for giver, taker, amount in ways if amount > 0]
