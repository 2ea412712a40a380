"""Whatever economies ride along: after every transaction what was minted is with clients, in the treasury or burned,
balances sum to zero, and only the mint is below it. And what rows give back hashes as what was written."""

import dataclasses
import hashlib
from functools import cache

import pytest
from django.db import transaction
from hypothesis import given, settings
from hypothesis import strategies as st

import kinds
from incentives.memo import Paid
from incentives.models import Account
from incentives.products import pack, unlike
from simulations import economies
from simulations.models import Client, Shadow, ShadowClient, ShadowRound, Simulation
from simulations.running import events, recorder, worker
from simulations.tests.cast import claimed, config, happened, queued
from simulations.tests.schedules import Inline
from simulations.tests.test_economies_api import verified
from training.config import SCHEME

pytestmark = [pytest.mark.django_db, pytest.mark.database]
TOKENS = st.sampled_from([0.0, 0.000001, 1.0, 2.5, 12.345678])
POOLS = st.one_of(
    st.fixed_dictionaries({"kind": st.just("fixed"), "tokens": TOKENS}),
    st.fixed_dictionaries({"kind": st.just("treasury"), "tokens": TOKENS, "rounds": st.integers(1, 4)}),
    st.fixed_dictionaries({"kind": st.just("halving"), "tokens": TOKENS, "rounds": st.integers(1, 2)}),
    st.fixed_dictionaries({"kind": st.just("improvement"), "scaling_factor": st.sampled_from([0.0, 0.3, 10.0, 777.7])}),
)
ECONOMIES = st.fixed_dictionaries(
    {
        "valuation": st.sampled_from(["shapley", "leave_one_out", "data_size", "equal"]),
        "reward_rule": st.sampled_from(sorted(kinds.family("rule"))),
        "pool": POOLS,
        "burn_share": st.sampled_from([0.0, 0.1, 1 / 3, 1.0]),
        "budget_tokens": st.sampled_from([None, 0.0, 3.000001]),
        "stake": st.sampled_from([0.000001, 0.333333, 5.0]),
        "slashing": st.lists(
            st.fixed_dictionaries(
                {
                    "detector": st.just("norm"),
                    "above": st.sampled_from([0.0, 0.01, 1.0]),
                    "share": st.sampled_from([0.1, 1 / 3, 1.0]),
                }
            ),
            max_size=2,
        ),
        "slashed_to": st.sampled_from(["treasury", "burn"]),
    }
)


@cache
def first_rounds() -> tuple[events.Event, ...]:
    """The first two rounds of a run, with the coalitions that it asked for."""
    return tuple(each for each in happened() if each.kind != "round" or each.round_number < 3)


def with_shadows(simulation: Simulation, event: events.Round, children: list[Inline]) -> events.Round:
    """The round with what each of these economies makes of it."""
    facts = dataclasses.asdict(recorder.facts_of_event(simulation, event))
    shadows, others = [], {}
    for number, child in enumerate(children, 1):
        cohort = tuple(part.client for part in event.clients)
        answer, evidence = child.priced(facts, [event.evidence], [pack(cohort, unlike(len(cohort)))])
        paid = Paid(**{name: tuple(each) if isinstance(each, list) else each for name, each in answer.items()})
        others |= {hashlib.sha256(each).hexdigest(): each for each in evidence}
        shadows.append(
            events.ShadowRound(
                number=number,
                contributions=paid.contributions,
                errors=paid.errors,
                rewards=paid.shares,
                pool_microtokens=paid.pool,
                minted_microtokens=paid.minted,
                burned_microtokens=paid.burned,
                evidence_sha256=paid.utilities_sha256,
                economy_state=dict(paid.state),
                slashed=paid.slashed,
                scores=dict(paid.scores),
                products_sha256=paid.products_sha256,
            )
        )
    return dataclasses.replace(event, shadows=tuple(shadows), others=tuple(others.values()))


def check(simulation: Simulation) -> None:
    simulation.refresh_from_db()
    for of, shadow in [(simulation, None), *((each, each) for each in simulation.shadows.all())]:
        balances = dict(Account.objects.filter(ledger=of.ledger_id).values_list("name", "balance"))
        minted = -balances.pop("mint")
        assert minted == sum(balances.values())
        assert min(balances.values()) >= 0
        of_clients = {name: balance for name, balance in balances.items() if name.startswith("client:") and balance}
        sums = ShadowClient.objects.filter(shadow=shadow) if shadow else Client.objects.filter(simulation=simulation)
        held = {f"client:{number}": sum_ for number, sum_ in sums.values_list("number", "reward_microtokens") if sum_}
        assert of_clients == held
        assert sum(held.values()) == of.paid_microtokens
        if shadow:
            rows = list(shadow.rounds.all())
            stake = round(shadow.specification["stake"] * 1_000_000) if rows else 0
            slashed = [sum(lost) for lost in zip(*(row.slashed for row in rows), strict=True)]
            for number, lost in enumerate(slashed, 1):  # everybody is in every round
                assert balances.get(f"stake:{number}", 0) == stake - lost >= 0
            assert minted == sum(row.minted_microtokens for row in rows) + 4 * stake
            burned = sum(slashed) if shadow.specification["slashed_to"] == "burn" else 0
            assert balances.get("burn", 0) == sum(row.burned_microtokens for row in rows) + burned
            assert of.burned_microtokens == sum(row.burned_microtokens for row in rows)
            assert of.pool_microtokens == sum(row.pool_microtokens for row in rows)
            budget = shadow.specification["budget_tokens"]
            assert budget is None or of.pool_microtokens <= round(budget * 1_000_000)
            assert all(row.burned_microtokens + sum(row.rewards) <= row.pool_microtokens for row in rows)


@settings(max_examples=20, deadline=None)
@given(st.lists(ECONOMIES, min_size=1, max_size=4))
def test_what_was_minted_is_somewhere(drawn):
    shadows = [{"label": f"economy {number}", **each} for number, each in enumerate(drawn)]
    resolved = config(shadows=shadows).resolved("digits")
    first_rounds()  # before a transaction stands idle meanwhile
    with transaction.atomic():
        claim = claimed(queued(shadows=shadows))
        simulation = Simulation.objects.get(pk=claim.simulation_id)
        strategy = simulation.configuration["strategy"]
        header = {"strategy": strategy, "scheme": SCHEME, "seed": 0, "plugins_dir": "", "plugins": [], "sources": {}}
        header["members"] = dataclasses.asdict(resolved.members(is_paying=False))
        children = [Inline(header | {"specification": each.to_dict()}) for _, each in resolved.economies[1:]]
        for event in first_rounds():
            if isinstance(event, events.Resolved):
                event = dataclasses.replace(event, config=resolved.to_dict(), config_sha256=resolved.sha256())
            if isinstance(event, events.Round):
                simulation.refresh_from_db()
                event = with_shadows(simulation, event, children)
            worker.write(claim, event)
            if isinstance(event, events.Round):
                check(simulation)
        code, text = verified()
        assert code == 0, text
        transaction.set_rollback(True)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
FLOATS = st.lists(st.floats(-1e300, 1e300), min_size=2, max_size=2)


@settings(max_examples=60, deadline=None)
@given(FLOATS, FLOATS, st.dictionaries(st.sampled_from("xyz"), JSON, max_size=3))
def test_what_rows_give_back_hashes_as_what_was_written(contributions, errors, state):
    """PostgreSQL's jsonb makes 10000000000000000 of 1e16, and 0.0 of -0.0."""
    paid = Paid(
        contributions=tuple(contributions),
        errors=tuple(errors),
        pool=3,
        minted=3,
        burned=0,
        shares=(1, 2),
        state=state,
    )
    with transaction.atomic():
        simulation = queued(shadows=[{"label": "x"}])
        economies.record([(Shadow.objects.get(simulation=simulation), paid)], 1, [1, 2])
        assert economies.paid_by(ShadowRound.objects.get()).sha256({}) == paid.sha256({})
        transaction.set_rollback(True)
