"""The economies of a simulation: the paying one in the simulation's own rows, each shadow in rows and a ledger of its
own.

How a round's payment becomes a transaction is the same for all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from django.db.models import Case, CharField, F, PositiveIntegerField, Value, When

from incentives import ledger
from incentives.ledger import Posting
from incentives.memo import Paid
from incentives.models import Evidence, Transaction
from incentives.specification import Specification
from simulations.config import SimulationConfig
from simulations.models import Round, Shadow, ShadowRound, Simulation
from simulations.running import events


def ledger_name(simulation_id: int, number: int) -> str:
    """Of a shadow's ledger."""
    return f"simulation-{simulation_id}-{number}"


def keep(evidence: Iterable[bytes]) -> None:
    """Evidence by its hash; what is there already is locked, so that `prune` waits for whoever needs it."""
    rows = [Evidence(sha256=hashlib.sha256(each).hexdigest(), content=each) for each in evidence]
    if rows:
        Evidence.objects.bulk_create(
            {row.sha256: row for row in rows}.values(),
            update_conflicts=True,
            unique_fields=["sha256"],
            update_fields=["content"],
        )


def transaction_key(number: int) -> str:
    """Of a round's payment, in any economy's ledger."""
    return f"round:{number}:reward"


def memo(number: int, facts_sha256: str, economy: Specification, paid: Paid) -> dict[str, int | str]:
    """What a round's transaction commits to, from scheme 3 on."""
    return {"round": number, "facts_sha256": facts_sha256, "economy_sha256": paid.sha256(economy.hashed())}


def at_stake(simulation: Simulation, economy: Specification) -> dict[str, Any]:
    """What `posting` is told of an economy's stakes."""
    if not economy.stake:
        return {}
    config = SimulationConfig.from_record(simulation.config, simulation.scheme)
    return {"stakes": config.members(is_paying=False).stakes(economy), "slashed_to": economy.slashed_to}


def stakes_of(simulation: Simulation, economy: Specification | None = None) -> dict[int, int]:
    """By client, micro-tokens that each has at stake from the start, in the paying economy unless another is given;
    empty where nothing is at stake."""
    if economy is None:
        if not simulation.config.get("stake"):
            return {}
        economy = SimulationConfig.from_record(simulation.config, simulation.scheme).economies[0][1]
    found: dict[int, int] = at_stake(simulation, economy).get("stakes", {})
    return found


def posting(
    ledger_id: int,
    number: int,
    clients: Sequence[int],
    paid: Paid,
    memo: Mapping[str, int | str],
    *,
    stakes: Mapping[int, int] = MappingProxyType({}),
    slashed_to: str = "treasury",
) -> Posting:
    """A round's transaction: what is minted goes into the treasury, which burns and pays, and stakes lose what they
    lose; one without transfers where there is nothing to move. `stakes`: by client, what each has from the start; in
    the first round it is minted to the client and put at stake."""
    endowed = stakes.items() if number == 1 else ()
    moved = [
        *(
            ledger.Entry(debit="mint", credit=ledger.client_account(client), amount=amount, code="endowment")
            for client, amount in endowed
        ),
        *(
            ledger.Entry(
                debit=ledger.client_account(client), credit=ledger.stake_account(client), amount=amount, code="stake"
            )
            for client, amount in endowed
        ),
        ledger.Entry(debit="mint", credit="treasury", amount=paid.minted, code="pool"),
        ledger.Entry(debit="treasury", credit="burn", amount=paid.burned, code="burn"),
        *(
            ledger.Entry(debit="treasury", credit=ledger.client_account(client), amount=amount, code="reward")
            for client, amount in zip(clients, paid.shares, strict=True)
        ),
        *(
            ledger.Entry(debit=ledger.stake_account(client), credit=slashed_to, amount=amount, code="slash")
            for client, amount in zip(clients, paid.slashed or (), strict=paid.slashed is not None)
        ),
    ]
    return Posting(
        ledger_id=ledger_id,
        key=transaction_key(number),
        transfers=[entry for entry in moved if entry.amount],
        description=f"Reward of round {number}",
        memo=memo,
    )


def paid_by(made: events.ShadowRound | ShadowRound) -> Paid:
    """What a shadow made of a round, from its event or its row, where JSON may have made large floats whole."""
    return Paid(
        contributions=tuple(map(float, made.contributions)),
        errors=None if made.errors is None else tuple(map(float, made.errors)),
        pool=made.pool_microtokens,
        minted=made.minted_microtokens,
        burned=made.burned_microtokens,
        shares=tuple(made.rewards),
        utilities_sha256=made.evidence_sha256 or None,
        state=made.economy_state,
        slashed=None if made.slashed is None else tuple(made.slashed),
        scores={name: tuple(map(float, scores)) for name, scores in made.scores.items()},
        products_sha256=made.products_sha256 or None,
    )


def states_after(simulation: Simulation, round: Round) -> list[dict[str, Any]]:
    """Of the paying economy and of each shadow of the configuration, what they keep after a recorded round."""
    rows = ShadowRound.objects.filter(shadow__simulation=simulation, shadow__added_at=None, number=round.number)
    kept = dict(rows.values_list("shadow__number", "economy_state"))
    shadows = simulation.shadows.filter(added_at=None).order_by("number").values_list("number", flat=True)
    return [round.economy_state, *(kept.get(number, {}) for number in shadows)]


def open_shadow(simulation_id: int, number: int, label: str, specification: Mapping[str, Any], **values: Any) -> Shadow:
    """A shadow with its ledger, before its first round."""
    own = ledger.open_ledger(ledger_name(simulation_id, number), is_shadow=True)
    return Shadow.objects.create(
        simulation_id=simulation_id,
        number=number,
        label=label,
        specification=dict(specification),
        ledger=own,
        ledger_head=own.head,
        **values,
    )


def record(made: Sequence[tuple[Shadow, Paid]], number: int, clients: Sequence[int]) -> None:
    """The rows of what shadows made of a round, and their sums."""
    ShadowRound.objects.bulk_create(
        ShadowRound(
            shadow=shadow,
            number=number,
            contributions=list(paid.contributions),
            errors=None if paid.errors is None else list(paid.errors),
            rewards=list(paid.shares),
            pool_microtokens=paid.pool,
            minted_microtokens=paid.minted,
            burned_microtokens=paid.burned,
            evidence_sha256=paid.utilities_sha256 or "",
            economy_state=dict(paid.state),
            slashed=None if paid.slashed is None else list(paid.slashed),
            scores={name: list(scores) for name, scores in paid.scores.items()},
            products_sha256=paid.products_sha256 or "",
        )
        for shadow, paid in made
    )
    parts = [
        part
        for shadow, paid in made
        for client, worth, error, share, lost in zip(
            clients,
            paid.contributions,
            paid.errors or [None] * len(clients),
            paid.shares,
            paid.slashed or [0] * len(clients),
            strict=True,
        )
        for part in (shadow.pk, client, worth, None if error is None else error * error, share, lost)
    ]
    width = 6 * 2_000  # of SQLite's 32,766 parameters
    for batch in (parts[start : start + width] for start in range(0, len(parts), width)):
        rows = ", ".join(["(%s, %s, %s, %s, %s, %s)"] * (len(batch) // 6))
        ledger.query(
            "INSERT INTO simulations_shadowclient "
            "(shadow_id, number, contribution, contribution_variance, reward_microtokens, slashed_microtokens) "
            f"VALUES {rows} "
            "ON CONFLICT (shadow_id, number) DO UPDATE SET "
            "contribution = simulations_shadowclient.contribution + excluded.contribution, "
            "contribution_variance = coalesce(simulations_shadowclient.contribution_variance "
            "+ excluded.contribution_variance, simulations_shadowclient.contribution_variance, "
            "excluded.contribution_variance), "
            "reward_microtokens = simulations_shadowclient.reward_microtokens + excluded.reward_microtokens, "
            "slashed_microtokens = simulations_shadowclient.slashed_microtokens + excluded.slashed_microtokens",
            *batch,
        )
    for shadow, paid in made:
        Shadow.objects.filter(pk=shadow.pk).update(
            rounds_done=number,
            pool_microtokens=F("pool_microtokens") + paid.pool,
            paid_microtokens=F("paid_microtokens") + sum(paid.shares),
            burned_microtokens=F("burned_microtokens") + paid.burned,
        )


def note(posted: Mapping[int, Transaction]) -> None:
    """The second copies of where shadows' ledgers end, by ledger."""
    if posted:
        Shadow.objects.filter(ledger__in=posted).update(
            ledger_head=Case(
                *(When(ledger=pk, then=Value(each.hash)) for pk, each in posted.items()), output_field=CharField()
            ),
            ledger_length=Case(
                *(When(ledger=pk, then=Value(each.sequence)) for pk, each in posted.items()),
                output_field=PositiveIntegerField(),
            ),
        )
