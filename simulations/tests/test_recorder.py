"""What is written down of a run: all of a round or nothing, once."""

import dataclasses

import pytest
from django.db import connection
from django.db.models import Sum
from django.test.utils import CaptureQueriesContext

from incentives import ledger
from incentives.models import Account, Transaction
from simulations.models import Client, Contribution, Event, Round, Simulation
from simulations.running import recorder, worker
from simulations.running.events import Log
from simulations.tests.cast import claimed, happened, recorded, rounds

pytestmark = [pytest.mark.django_db, pytest.mark.database]


def test_it_records_a_whole_run():
    simulation = recorded()
    assert simulation.rounds_done == simulation.rounds.count() == 3
    assert simulation.weights_sha256 == rounds()[-1].weights_sha256
    assert (simulation.loss, simulation.accuracy) == (rounds()[-1].loss, rounds()[-1].accuracy)
    assert simulation.pool_microtokens == sum(done.pool_microtokens for done in rounds())
    assert Contribution.objects.filter(round__simulation=simulation).count() == 12


def test_the_log_has_no_gap_and_ends_with_the_record_and_the_end():
    simulation = recorded()
    lines = list(simulation.events.order_by("sequence").values_list("sequence", "kind", "message"))
    assert [line[0] for line in lines] == list(range(1, simulation.last_sequence + 1))
    assert len(lines) == len(happened()) + 3  # queued, starting, record saved
    assert lines[-2][2] == f"Simulation record saved with ID: {simulation.pk}"
    assert [line[1] for line in lines[:4]] == ["queued", "starting", "resolved", "started"]
    assert lines[-1][1] == "completed"


def test_a_pool_beyond_the_ledgers_supply_ends_the_run_with_a_sentence():
    """A pool by the round before may pay more in all than there can be."""
    claim = claimed()
    *before, first = happened()[: 1 + [event.kind for event in happened()].index("round")]
    for event in before:
        worker.write(claim, event)
    most = dict.fromkeys(("pool_microtokens", "minted_microtokens", "treasury_microtokens"), 2**53 - 1)
    second = dataclasses.replace(first, round_number=2, **most)
    worker.write(claim, first)
    with pytest.raises(recorder.Unpayable, match=r"Reward of round 2: .* pass the supply .* a smaller scaling_factor"):
        worker.write(claim, dataclasses.replace(second, clients=()))
    assert Simulation.objects.get(pk=claim.simulation_id).rounds_done == 1


def test_clients_carry_the_sums_of_their_rounds():
    simulation = recorded()
    for client in simulation.clients.all():
        parts = [part for done in rounds() for part in done.clients if part.client == client.number]
        assert client.rounds == len(parts) == 3
        assert client.contribution == sum(part.contribution for part in parts)
        assert client.reward_microtokens == sum(part.reward_microtokens for part in parts)
        account = Account.objects.filter(ledger=simulation.ledger, client=client.number).first()
        assert (account.balance if account else 0) == client.reward_microtokens


def test_the_ledger_holds_a_transaction_a_round_and_the_row_its_head():
    simulation = recorded()
    posted = Transaction.objects.filter(ledger=simulation.ledger).order_by("sequence")
    assert [row.key for row in posted] == ["round:1:reward", "round:2:reward", "round:3:reward"]
    assert (simulation.ledger_head, simulation.ledger_length) == (posted[2].hash, 3)
    assert [{*row.memo} for row in posted] == [{"round", "facts_sha256", "economy_sha256"}] * 3
    assert ledger.verify(simulation.ledger, lambda _: (simulation.ledger_head, 3)).ok
    assert Account.objects.filter(ledger=simulation.ledger).aggregate(Sum("balance"))["balance__sum"] == 0


def test_equal_runs_have_equal_heads_whatever_else_was_posted():
    first = recorded()
    recorded(until=8)
    assert recorded().ledger_head == first.ledger_head


def state() -> list:
    models = (Simulation, Client, Round, Contribution, Event, Transaction, Account)
    return [list(model.objects.order_by("pk").values()) for model in models]


def test_a_round_that_cannot_be_paid_is_not_recorded_either(monkeypatch):
    claim = claimed()
    for event in happened()[: happened().index(rounds()[0])]:
        worker.write(claim, event)
    before = state()

    def broken(*arguments, **named):
        raise ledger.LedgerError("out of ink")

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "post_together", broken)
        with pytest.raises(ledger.LedgerError):
            worker.write(claim, rounds()[0])
    assert state() == before
    worker.write(claim, rounds()[0])
    assert Round.objects.count() == 1


def test_a_round_trained_again_is_compared_and_not_paid_again():
    simulation = recorded(until=happened().index(rounds()[1]) + 1)
    claim = recorder.Claim(simulation_id=simulation.pk, fence=simulation.fence)
    before = state()[1:]
    recorder.record(claim, rounds()[0])
    assert state()[1:] == before
    with pytest.raises(recorder.Diverged, match="Round 1"):
        recorder.record(claim, dataclasses.replace(rounds()[0], weights_sha256="0" * 64))
    with pytest.raises(recorder.Diverged, match="round 4"):
        recorder.record(claim, dataclasses.replace(rounds()[2], round_number=4))
    assert state()[1:] == before


def test_a_round_that_another_kind_of_machine_computes_otherwise_names_where_the_run_began():
    simulation = recorded()
    manifests = simulation.manifests
    Simulation.objects.filter(pk=simulation.pk).update(
        manifests=[manifests[0] | {"processor": "An Older One"}, manifests[-1]]
    )
    row = Round.objects.get(simulation=simulation.pk, number=1)
    other = dataclasses.replace(rounds()[0], weights_sha256="0" * 64)
    with pytest.raises(recorder.Diverged, match=r"began on another kind of machine .*An Older One.* --resume"):
        recorder._compare(row, other)


def test_nothing_is_paid_on_a_chain_that_others_went_on_with():
    """The new round would make their transaction part of a ledger that verifies."""
    simulation = recorded(until=happened().index(rounds()[0]) + 1)
    entry = ledger.Entry(debit="mint", credit="client:1", amount=5, code="gift")
    ledger.post(simulation.ledger_id, key="not-a-round", transfers=[entry])
    claim, before = recorder.Claim(simulation_id=simulation.pk, fence=simulation.fence), state()
    with pytest.raises(recorder.Diverged, match="somebody else has written"):
        recorder.record(claim, rounds()[1])
    assert state() == before


def test_a_run_that_goes_on_does_not_introduce_itself_twice():
    simulation = recorded(until=happened().index(rounds()[0]) + 1)
    claim = recorder.Claim(simulation_id=simulation.pk, fence=simulation.fence)
    for event in happened()[:2]:
        recorder.record(claim, event)
    assert simulation.clients.count() == 4
    assert [simulation.events.filter(kind=kind).count() for kind in ("resolved", "started")] == [1, 1]


def test_a_large_cohort_costs_a_handful_of_queries(django_assert_max_num_queries):
    simulation = recorded(until=happened().index(rounds()[0]))
    claim = recorder.Claim(simulation_id=simulation.pk, fence=simulation.fence)
    Client.objects.bulk_create(
        Client(simulation=simulation, number=number, num_examples=1, label_counts=[], behaviour="honest")
        for number in range(5, 301)
    )
    like = rounds()[0].clients[0]
    crowd = tuple(dataclasses.replace(like, client=number, reward_microtokens=1) for number in range(1, 301))
    large = dataclasses.replace(rounds()[0], clients=crowd, pool_microtokens=300)
    with django_assert_max_num_queries(32):
        recorder.record(claim, large)


def lines(number: int) -> list[Log]:
    return [Log(message=f"Line {each} of {number}") for each in range(number)]


def statements(call) -> int:
    with CaptureQueriesContext(connection) as context:
        call()
    return len(context)


def test_lines_cost_two_statements_however_many_they_are():
    simulation = recorded(until=happened().index(rounds()[0]))
    claim = recorder.Claim(simulation_id=simulation.pk, fence=simulation.fence)
    recorder.record(claim, rounds()[0])  # it opens the accounts
    alone = statements(lambda: recorder.record(claim, rounds()[1]))
    assert statements(lambda: recorder.record(claim, rounds()[2], lines=lines(40))) == alone + 2
    assert statements(lambda: recorder.record(claim, lines(1)[0])) <= 5  # two of them are the transaction
    assert statements(lambda: recorder.record(claim, Log(message="last"), lines=lines(40))) <= 5


def test_an_event_and_the_lines_before_it_are_recorded_once_and_in_their_order():
    simulation = recorded(until=happened().index(rounds()[0]))
    claim = recorder.Claim(simulation_id=simulation.pk, fence=simulation.fence)
    before = simulation.last_sequence
    for write in (worker.write, recorder.record):  # the second as where the answer to a COMMIT was lost
        number = write(claim, rounds()[0], before, lines(3))
        assert number == before + 4
    told = list(simulation.events.filter(sequence__gt=before).order_by("sequence").values_list("sequence", "message"))
    expected = [*(line.message for line in lines(3)), rounds()[0].message]
    assert told == list(enumerate(expected, before + 1))


def test_lines_are_recorded_with_the_end_once():
    simulation = recorded(until=len(happened()) - 1)
    claim = recorder.Claim(simulation_id=simulation.pk, fence=simulation.fence)
    worker.write(claim, happened()[-1], simulation.last_sequence, lines(2))
    with pytest.raises(recorder.StaleClaim):
        worker.write(claim, happened()[-1], simulation.last_sequence, lines(2))
    messages = list(simulation.events.filter(sequence__gt=simulation.last_sequence).values_list("message", flat=True))
    assert messages[:2] == [line.message for line in lines(2)]
    assert len(messages) == 4


def test_where_a_round_cannot_be_recorded_its_lines_are_not_either():
    simulation = recorded(until=happened().index(rounds()[0]))
    claim, before = recorder.Claim(simulation_id=simulation.pk, fence=simulation.fence), state()
    with pytest.raises(recorder.Diverged):
        recorder.record(claim, rounds()[2], lines=lines(3))
    assert state() == before


def test_the_size_of_a_rounds_event_does_not_depend_on_the_cohort():
    simulation = recorded()
    data = simulation.events.filter(kind="round").first().data
    assert data["cohort_size"] == 4
    assert not any(isinstance(value, list | dict) for value in data.values())
