"""Many economies on one training: ledgers of their own, the same heads whenever they are priced, and every byte of what
a payment rests on covered by its hash."""

import dataclasses
import re
from functools import cache
from io import StringIO

import numpy as np
import pytest
import torch
from django.core.management import CommandError, call_command
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from incentives import rewards
from incentives.models import Account, Evidence, Ledger, Transaction, Transfer, Verified
from incentives.tests.cast import without_triggers
from kinds import ConfigError
from simulations import repricing
from simulations.config import SimulationConfig
from simulations.models import Client, Contribution, Round, Shadow, ShadowClient, ShadowRound, Simulation
from simulations.running import recorder, worker
from simulations.running.engine import simulate
from simulations.running.events import Event
from simulations.running.folding import CannotFold
from simulations.tests.cast import NOWHERE, claimed, config, first_record, queued
from simulations.tests.test_verify_ledger import unguarded, verify  # noqa: F401

pytestmark = [pytest.mark.django_db, pytest.mark.database]
SHADOWS = [
    {"label": "by size", "valuation": "data_size"},
    {"label": "wage", "reward_rule": {"kind": "wage_bonus", "share": 0.5}, "burn_share": 0.1},
    {"label": "left out", "valuation": "leave_one_out", "pool": {"kind": "fixed", "tokens": 3.0}, "budget_tokens": 7.0},
    {"label": "treasury", "pool": {"kind": "treasury", "tokens": 9.0, "rounds": 3}},
]


@cache
def with_shadows(shadows: int = len(SHADOWS), **fields) -> tuple[Event, ...]:
    torch.set_num_threads(1)
    return tuple(simulate(config(shadows=SHADOWS[:shadows], **fields), data_dir=NOWHERE))


def recorded(shadows: int = len(SHADOWS), **fields) -> Simulation:
    happenings = with_shadows(shadows, **fields)  # first: the database ends transactions that stand idle for long
    claim = claimed(queued(shadows=SHADOWS[:shadows], **fields))
    for event in happenings:
        worker.write(claim, event)
    return Simulation.objects.get(pk=claim.simulation_id)


def command(name: str, *arguments) -> tuple[int, str]:
    out, errors = StringIO(), StringIO()
    try:
        call_command(name, *map(str, arguments), stdout=out, stderr=errors)
    except SystemExit as ended:
        return ended.code, errors.getvalue()
    except CommandError as error:
        return error.returncode, str(error)
    return 0, out.getvalue()


def heads(simulation: Simulation) -> dict[str, str]:
    return dict(simulation.shadows.values_list("label", "ledger_head"))


def test_each_has_a_ledger_of_its_own_that_pays_nobody():
    simulation = recorded()
    shadows = {each.label: each for each in simulation.shadows.select_related("ledger").order_by("number")}
    assert [each.ledger.name for each in shadows.values()] == [f"simulation-{simulation.pk}-{k}" for k in (1, 2, 3, 4)]
    assert all(each.ledger.is_shadow for each in shadows.values())
    assert {each.ledger.length for each in shadows.values()} == {3}
    assert shadows["left out"].pool_microtokens == 7_000_000
    assert shadows["treasury"].pool_microtokens == 9_000_000
    minted = Account.objects.get(ledger=shadows["treasury"].ledger, name="mint").balance
    assert minted == -9_000_000
    wage = shadows["wage"]
    burned = Account.objects.get(ledger=wage.ledger, name="burn").balance
    assert (
        burned == wage.burned_microtokens == round(simulation.pool_microtokens / 10)
        or burned == wage.burned_microtokens
    )
    for each in shadows.values():
        clients = Account.objects.filter(ledger=each.ledger, client__isnull=False)
        held = dict(clients.values_list("client", "balance"))
        sums = ShadowClient.objects.filter(shadow=each, reward_microtokens__gt=0)
        assert held == dict(sums.values_list("number", "reward_microtokens"))
        assert held.get(2, 0) == 0, "client 2 sends nothing"
    assert verify()[0] == 0


def test_shadows_move_neither_the_training_nor_the_paying_head():
    alone, beside = recorded(0), recorded()
    assert (alone.ledger_head, alone.weights_sha256) == (beside.ledger_head, beside.weights_sha256)
    assert alone.training_sha256 == beside.training_sha256
    assert alone.config_sha256 != beside.config_sha256


def test_an_economy_that_is_the_paying_one_has_its_head():
    simulation = recorded(0)
    again = repricing.reprice(simulation, "again", {})
    assert again.ledger_head == simulation.ledger_head


@pytest.mark.parametrize("entry", SHADOWS, ids=[each["label"] for each in SHADOWS])
def test_priced_later_it_is_as_if_it_had_been_there(entry):
    carried, simulation = recorded(), recorded(0)
    values = {name: value for name, value in entry.items() if name != "label"}
    shadow = repricing.reprice(simulation, "later", values)
    assert shadow.ledger_head == heads(carried)[entry["label"]]
    assert shadow.added_at is not None
    same = carried.shadows.get(label=entry["label"])
    names = ("contributions", "errors", "rewards", "evidence_sha256", "economy_state")
    assert list(shadow.rounds.order_by("number").values(*names)) == list(same.rounds.order_by("number").values(*names))
    names = ("number", "contribution", "reward_microtokens")
    assert list(shadow.clients.order_by("number").values(*names)) == list(
        same.clients.order_by("number").values(*names)
    )
    simulation.refresh_from_db()
    assert simulation.config["shadows"] == []
    assert verify()[0] == 0


def test_pricing_that_was_cut_off_goes_on(monkeypatch):
    simulation = recorded(0)
    monkeypatch.setattr(repricing, "ROUNDS", 1)
    write, calls = repricing._write, []

    def cut(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return write(*arguments)

    monkeypatch.setattr(repricing, "_write", cut)
    with pytest.raises(KeyboardInterrupt):
        repricing.reprice(simulation, "later", {"valuation": "leave_one_out"})
    assert Shadow.objects.get().rounds_done == 1
    with pytest.raises(ConfigError, match="has an economy later already"):
        repricing.reprice(simulation, "later", {"valuation": "data_size"})
    shadow = repricing.reprice(simulation, "later", {"valuation": "leave_one_out"})
    assert (shadow.rounds_done, shadow.ledger_length) == (3, 3)
    assert shadow.ledger_head == repricing.reprice(recorded(0), "whole", {"valuation": "leave_one_out"}).ledger_head


def test_what_was_not_evaluated_is_named_and_nothing_is_written():
    simulation = recorded(0, valuation="leave_one_out")
    with pytest.raises(CannotFold, match=r"round 1: 4 of the 8 coalitions that it asks for were not evaluated"):
        repricing.reprice(simulation, "exact", {"valuation": "shapley"})
    with pytest.raises(CannotFold, match=r"round 1: no economy of this run measured accuracy \(game server"):
        repricing.reprice(simulation, "other", {"utility": "accuracy"})
    assert not Shadow.objects.exists()
    code, text = command("reprice", simulation.pk, "--label", "exact", "--set", "valuation=shapley")
    assert (code, "4 of the 8 coalitions" in text) == (1, True)
    Evidence.objects.all().delete()
    with pytest.raises(CannotFold, match="round 1: what coalitions were worth is no longer kept; run it again with"):
        repricing.reprice(simulation, "other", {"reward_rule": "equal"})


@pytest.mark.parametrize(
    ("label", "values", "named"),
    [
        ("", {}, "label"),
        ("paying", {}, "top-level"),
        ("x", {"valuation": "none"}, "measures nothing"),
        ("x", {"reward_rule": "unheard"}, "reward_rule"),
        ("x", {"seed": 3}, "an economy has no 'seed'"),
    ],
)
def test_what_is_no_economy_is_refused(label, values, named):
    with pytest.raises(ConfigError, match=named):
        repricing.reprice(recorded(0), label, values)
    assert not Shadow.objects.exists()


def test_a_run_that_goes_on_is_not_priced_again():
    simulation = queued()
    with pytest.raises(ConfigError, match="only a finished run"):
        repricing.reprice(simulation, "x", {})


def test_the_command_prints_what_its_clients_would_have_got():
    simulation = recorded(0)
    code, printed = command("reprice", simulation.pk, "--label", "alike", "--set", "reward_rule=equal")
    lines = [line.split() for line in printed.splitlines()]
    assert (code, lines[0]) == (0, ["Client", "Behaviour", "Examples", "Contribution", "Tokens"])
    rewards = dict(ShadowClient.objects.values_list("number", "reward_microtokens"))
    assert [line[-1] for line in lines[1:5]] == [f"{rewards[number] / 1e6:,.3f}" for number in (1, 2, 3, 4)]
    assert printed.splitlines()[-1].startswith("alike: ")


def test_every_payment_follows_when_it_is_computed_again():
    simulation = recorded()
    assert command("recompute", simulation.pk) == (0, "Equal: 15 payments of 5 economies, computed again\n")
    assert command("recompute", simulation.pk, "--round", 2)[1] == "Equal: 5 payments of 5 economies, computed again\n"
    assert command("recompute", simulation.pk, "--round", 4)[0] == 2
    part = Contribution.objects.filter(round__number=2, client__number=1)
    part.update(value=F("value") + 1e-6)
    code, text = command("recompute", simulation.pk)
    assert (code, text.startswith("paying, round 2: client 1 is worth")) == (1, True)
    part.update(value=F("value") - 1e-6, reward_microtokens=F("reward_microtokens") + 1)
    assert "client 1 gets" in command("recompute", simulation.pk)[1]


@cache
def of_a_scheme(scheme: int, **fields) -> tuple[dict, tuple[Event, ...]]:
    torch.set_num_threads(1)
    today = config(**fields)
    record = first_record(today) if scheme == 1 else today.to_dict()
    return record, tuple(simulate(SimulationConfig.from_record(record, scheme), data_dir=NOWHERE))


def as_an_older_release_left_it(scheme: int, rounds: int, **fields) -> Simulation:
    """So many rounds written before there were losses before a round and sizes by round, the others since."""
    record, events = of_a_scheme(scheme, **fields)
    simulation = queued(**fields)
    Simulation.objects.filter(pk=simulation.pk).update(config=record, scheme=scheme)
    claim = claimed(simulation)
    for event in events:
        worker.write(claim, event)
    old = Round.objects.filter(simulation=simulation, number__lte=rounds)
    Contribution.objects.filter(round__in=old).update(num_examples=None, effort=None)
    old.update(previous_validation_loss=None, best_validation_loss=None, carried=None, minted_microtokens=None)
    if rounds == 3:
        Simulation.objects.filter(pk=simulation.pk).update(training_sha256="")
    return Simulation.objects.get(pk=simulation.pk)


@pytest.mark.parametrize(
    ("scheme", "valuation", "rounds"),
    [(1, "shapley", 3), (1, "data_size", 2), (2, "shapley", 2), (2, "data_size", 3)],
)
def test_older_runs_are_computed_again_and_priced_again(scheme, valuation, rounds):
    """Also where a later release has added rounds; the loss before the first one follows from evidence or pool."""
    simulation = as_an_older_release_left_it(scheme, rounds, valuation=valuation)
    first = simulation.rounds.get(number=1)
    assert command("recompute", simulation.pk) == (0, "Equal: 3 payments of 1 economies, computed again\n")
    before = next(event for event in of_a_scheme(scheme, valuation=valuation)[1] if event.kind == "round")
    first.refresh_from_db()
    assert first.previous_validation_loss == pytest.approx(before.previous_validation_loss, abs=1e-6)
    shadow = repricing.reprice(simulation, "alike", {"reward_rule": "equal"})
    assert shadow.pool_microtokens == simulation.pool_microtokens
    assert verify()[0] == 0
    assert command("recompute", simulation.pk)[0] == 0


def test_the_pool_of_the_first_round_settles_the_last_bits_of_the_loss_before_it():
    """The empty coalition, evaluated beside others, may differ from the model alone by more than a micro-token; one
    that differs by more than float32 does is a difference."""
    simulation = as_an_older_release_left_it(2, 3)
    rows = simulation.rounds.filter(number=1)
    rows.update(pool_microtokens=F("pool_microtokens") + 1)
    assert "client" in command("recompute", simulation.pk, "--round", 1)[1], "one more was paid, nobody has it"
    first = rows.get()
    assert rewards.improvement_pool(first.previous_validation_loss, first.validation_loss, 10) == first.pool_microtokens
    rows.update(pool_microtokens=F("pool_microtokens") + 1_000, previous_validation_loss=None)
    assert command("recompute", simulation.pk)[0] == 1
    first.refresh_from_db()
    assert rewards.improvement_pool(first.previous_validation_loss, first.validation_loss, 10) != first.pool_microtokens


def change_a_byte():
    evidence = Evidence.objects.order_by("sha256").first()
    content = bytearray(evidence.content)
    content[60] ^= 1
    Evidence.objects.filter(pk=evidence.pk).update(content=bytes(content))


CHANGED = {
    "evidence": (change_a_byte, r"the evidence of round \d was changed"),
    "evidence lost": (lambda: Evidence.objects.all().delete(), r"the evidence of round 1 is missing"),
    "contribution": (
        lambda: Contribution.objects.filter(round__number=2, client__number=1).update(
            value=F("value") * (1 + 1e-15) + 1e-17
        ),
        r"transaction 2: the contributions of round 2.*economy hash",
    ),
    "payment": (
        lambda: Contribution.objects.filter(round__number=2, client__number=1).update(reward_microtokens=1),
        r"transaction 2: the record of round 2 gives client:1 1 micro-tokens, the transfers client:1",
    ),
    "loss of a client": (
        lambda: Contribution.objects.filter(round__number=3, client__number=1).update(loss_after=0.5),
        r"transaction 3: the facts of round 3",
    ),
    "effort": (
        lambda: Contribution.objects.filter(round__number=3, client__number=1).update(effort=1),
        r"transaction 3: the facts of round 3",
    ),
    "reported size": (
        lambda: Contribution.objects.filter(round__number=1, client__number=1).update(num_examples=1),
        r"transaction 1: the facts of round 1",
    ),
    "true size": (
        lambda: Client.objects.filter(number=1).update(num_examples=1),
        r"transaction 1: the facts of round 1",
    ),
    "weights": (lambda: Round.objects.filter(number=1).update(weights_sha256="0" * 64), "the facts of round 1"),
    "what it keeps": (
        lambda: Round.objects.filter(number=2).update(economy_state={}),
        r"transaction 2: the contributions of round 2, or what its economy is or keeps",
    ),
    "what the economy is": (
        lambda: Simulation.objects.update(config={**Simulation.objects.get().config, "burn_share": 0.5}),
        r"transaction 1: the contributions of round 1, or what its economy is",
    ),
    "the rule's name": (
        lambda: Round.objects.filter(number=1).update(rule="equal@1"),
        r"the rule of round 1 is said to be",
    ),
    "burned": (
        lambda: Round.objects.filter(number=1).update(burned_microtokens=5),
        r"transaction 1: the record of round 1",
    ),
    "sum of a client": (
        lambda: Client.objects.filter(number=3).update(reward_microtokens=F("reward_microtokens") + 1),
        r"client 3 is said to have .* its rounds make",
    ),
    "worth of a client": (
        lambda: Client.objects.filter(number=3).update(contribution=1.0),
        r"client 3 is said to be worth 1.0, its rounds make",
    ),
    "sum of the simulation": (
        lambda: Simulation.objects.update(pool_microtokens=1),
        r"the pools of simulation \d+ are said",
    ),
    "paid by the simulation": (
        lambda: Simulation.objects.update(paid_microtokens=1),
        r"simulation \d+ is said to have paid 1",
    ),
    "final accuracy": (
        lambda: Simulation.objects.update(accuracy=0.9999),
        r"the accuracy of simulation \d+ is said to be 0.99",
    ),
    "test loss of the last round": (lambda: Round.objects.filter(number=3).update(loss=0.1), "the loss of simulation"),
    "last weights": (lambda: Simulation.objects.update(weights_sha256="0" * 64), "the weights of simulation"),
    "configuration": (
        lambda: Simulation.objects.update(config={**Simulation.objects.get().config, "lr": 0.2}),
        r"the configuration of simulation \d+ is not the one of its hash",
    ),
    "hash of the configuration": (lambda: Simulation.objects.update(config_sha256="0" * 64), "not the one of its hash"),
    "behaviour": (
        lambda: Client.objects.filter(number=2).update(behaviour="honest"),
        "client 2 is said to be honest, by the configuration it is free_rider",
    ),
    "a round": (
        lambda: (Contribution.objects.filter(round__number=3).delete(), Round.objects.filter(number=3).delete()),
        r"transaction 3: there is no record of round 3",
    ),
    "a shadow's contribution": (
        lambda: ShadowRound.objects.filter(shadow__number=2, number=1).update(contributions=[1.0, 0.0, 0.0, 0.0]),
        r"simulation-\d+-2, transaction 1: the contributions of round 1",
    ),
    "a shadow's payment": (
        lambda: ShadowRound.objects.filter(shadow__number=1, number=2).update(rewards=[0, 0, 0, 1]),
        r"simulation-\d+-1, transaction 2: the record of round 2",
    ),
    "a shadow's sum": (
        lambda: ShadowClient.objects.filter(shadow__number=3, number=1).update(reward_microtokens=1),
        r"simulation-\d+-3, after transaction 3: client 1 is said to have 1",
    ),
    "a shadow's specification": (
        lambda: Shadow.objects.filter(number=1).update(
            specification={**Shadow.objects.get(number=1).specification, "game": "fedavg"}
        ),
        r"simulation-\d+-1, transaction 1: the contributions of round 1, or what its economy is",
    ),
    "left in the treasury": (
        lambda: Round.objects.filter(number=1).update(treasury_microtokens=1),
        r"transaction 1: the record of round 1 leaves 1 micro-tokens in the treasury",
    ),
    "burned by a shadow": (
        lambda: Shadow.objects.filter(number=2).update(burned_microtokens=1),
        r"simulation-\d+-2, after transaction 3: shadow wage is said to have burned 1 ",
    ),
    "a client of a shadow": (
        lambda: ShadowClient.objects.filter(shadow__number=3, number=1).delete(),
        r"simulation-\d+-3, after transaction 3: client 1 has no sums",
    ),
    "a shadow that would pay": (
        lambda: (without_triggers(), Ledger.objects.filter(name__endswith="-1").update(is_shadow=False)),
        r"simulation-\d+-1, after transaction 3: it pays nobody, and is not marked so",
    ),
    "a ledger that would not pay": (
        lambda: (without_triggers(), Ledger.objects.filter(is_shadow=False).update(is_shadow=True)),
        r"simulation-\d+, after transaction 3: marked as paying nobody, and no shadow has it",
    ),
    "a shadow": (
        lambda: (
            ShadowRound.objects.filter(shadow__number=4).delete(),
            ShadowClient.objects.filter(shadow__number=4).delete(),
            Shadow.objects.filter(number=4).delete(),
        ),
        r"simulation-\d+, after transaction 3: shadow 4 of simulation \d+, treasury, is gone",
    ),
    "a shadow with its ledger": (
        lambda: without_a_trace(Shadow.objects.get(number=4)),
        r"simulation-\d+, after transaction 3: shadow 4 of simulation \d+, treasury, is gone",
    ),
    "a shadow's label": (
        lambda: Shadow.objects.filter(number=1).update(label="by merit"),
        r"simulation-\d+, after transaction 3: shadow 1 of simulation \d+ is said to be by merit, .* by size",
    ),
    "a shadow's time": (
        lambda: Shadow.objects.filter(number=2).update(added_at=timezone.now()),
        r"simulation-\d+, after transaction 3: shadow 2 of simulation \d+ is said to be priced later",
    ),
    "a shadow's number": (
        lambda: Shadow.objects.filter(number=4).update(number=7),
        r"simulation-\d+, after transaction 3: shadow 4 of simulation \d+, treasury, is gone",
    ),
    "a shadow's head": (
        lambda: Shadow.objects.filter(number=1).update(ledger_length=2),
        r"simulation-\d+-1, transaction 2",
    ),
}


def without_a_trace(shadow: Shadow) -> None:
    """As somebody with all rights over the database can."""
    without_triggers()
    gone = Transaction.objects.filter(ledger=shadow.ledger_id)
    Transfer.objects.filter(transaction__in=gone)._raw_delete("default")
    gone._raw_delete("default")
    for rows in (Account, Verified):
        rows.objects.filter(ledger=shadow.ledger_id)._raw_delete("default")
    for of_shadow in (ShadowRound, ShadowClient):
        of_shadow.objects.filter(shadow=shadow).delete()
    shadow.delete()
    Ledger.objects.filter(pk=shadow.ledger_id)._raw_delete("default")


def test_verify_names_what_was_changed():
    recorded()
    assert verify()[0] == 0
    for change, (doctor, named) in CHANGED.items():
        with transaction.atomic():
            doctor()
            code, text = verify()
            transaction.set_rollback(True)
        assert (code, bool(re.search(named, text))) == (1, True), (change, text)
    assert verify()[0] == 0


def test_a_round_without_tokens_is_posted_without_transfers():
    simulation = recorded(0, budget_tokens=0.0)
    assert list(Transaction.objects.filter(ledger=simulation.ledger).values_list("transfers", flat=True)) == [None] * 3
    assert verify()[0] == 0


def test_a_second_writer_of_a_shadow_stops_the_run():
    """As of the paying ledger: a round is not paid on a chain whose head is not the run's own copy."""
    events = list(with_shadows())
    claim = claimed(queued(shadows=SHADOWS))
    first = next(place for place, event in enumerate(events) if event.kind == "round")
    for event in events[: first + 1]:
        worker.write(claim, event)
    Shadow.objects.filter(number=1).update(ledger_head="0" * 64)
    second = next(event for event in events[first + 1 :] if event.kind == "round")
    with pytest.raises(recorder.Diverged, match="The ledger of by size does not end where this run left it"):
        worker.write(claim, second)
    assert Simulation.objects.get().rounds_done == 1


def test_a_run_that_goes_on_has_each_economys_state():
    """Folded from the states that the rows hold, the last round is what it was in the run that went through."""
    simulation = recorded()
    row = simulation.rounds.get(number=2)
    states = worker.economies.states_after(simulation, row)
    assert len(states) == 5
    assert states[3]["money"]["pools"] == 6_000_000
    assert states[4]["money"]["treasury"] >= 3_000_000


def test_the_fold_of_the_events_is_the_fold_of_the_rows():
    """Everything that a payment rests on survives the trip through pipe and rows to the last bit."""
    simulation = recorded()
    made = [event for event in with_shadows() if event.kind == "round"]
    for kept, event in zip(repricing.rounds(simulation), made, strict=True):
        assert recorder.facts_of_event(simulation, event) == kept.facts
        assert np.array_equal(kept.paid["paying"].contributions, [part.contribution for part in event.clients])
        assert dataclasses.asdict(kept.paid["wage"])["shares"] == event.shadows[1].rewards
