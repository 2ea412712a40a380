"""Random histories against a dictionary."""

from __future__ import annotations

import pytest
from django.db import transaction
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from incentives import errors, ledger
from incentives.ledger import Entry
from incentives.tests.cast import balances

NAMES = ("mint", "treasury", "client:1", "client:2", "client:3")
ENTRIES = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES), st.integers(1, 1000)).filter(lambda e: e[0] != e[1]),
    min_size=1,
    max_size=4,
)


class Histories(RuleBasedStateMachine):
    """The dictionary posts what its balances allow; the ledger must agree about every answer."""

    def __init__(self) -> None:
        super().__init__()
        self.rollback = transaction.atomic()
        self.rollback.__enter__()
        self.ledger = ledger.open_ledger("simulation-1")
        self.balances = {"mint": 0, "treasury": 0}
        self.posted: list[tuple[str, list[Entry]]] = []
        self.reversed: set[int] = set()

    def teardown(self) -> None:
        transaction.set_rollback(True)
        self.rollback.__exit__(None, None, None)

    def after(self, entries: list[Entry]) -> dict[str, int] | None:
        """The balances that the dictionary would have; None where somebody cannot pay."""
        balances = dict(self.balances)
        for entry in entries:
            balances[entry.debit] = balances.get(entry.debit, 0) - entry.amount
            balances[entry.credit] = balances.get(entry.credit, 0) + entry.amount
        return balances if all(held >= 0 or name == "mint" for name, held in balances.items()) else None

    def expect(self, key: str, entries: list[Entry], act) -> None:
        after = self.after(entries)
        if after is None:
            with pytest.raises(errors.InsufficientBalance):
                act()
            return
        act()
        self.balances = after
        self.posted.append((key, entries))

    @rule(entries=ENTRIES)
    def post(self, entries):
        key = f"key:{len(self.posted)}"
        entries = [Entry(*entry, "move") for entry in entries]
        self.expect(key, entries, lambda: ledger.post(self.ledger.pk, key=key, transfers=entries))

    @precondition(lambda self: self.posted)
    @rule(data=st.data())
    def repeat(self, data):
        key, entries = data.draw(st.sampled_from(self.posted))
        if not key.startswith("reverse:"):
            assert ledger.post(self.ledger.pk, key=key, transfers=entries).key == key

    @precondition(lambda self: self.posted)
    @rule(data=st.data())
    def conflict(self, data):
        key, entries = data.draw(st.sampled_from(self.posted))
        if not key.startswith("reverse:"):
            with pytest.raises(errors.KeyConflict):
                ledger.post(self.ledger.pk, key=key, transfers=[*entries, entries[0]])

    @precondition(lambda self: self.posted)
    @rule(data=st.data())
    def reverse(self, data):
        sequence = data.draw(st.integers(1, len(self.posted)))
        original = self.ledger.transactions.get(sequence=sequence)
        if sequence in self.reversed:
            with pytest.raises(errors.AlreadyReversed):
                ledger.reverse(original, "again")
            return
        entries = [Entry(entry.credit, entry.debit, entry.amount, "") for entry in self.posted[sequence - 1][1]]
        before = len(self.posted)
        self.expect(f"reverse:{sequence}", entries, lambda: ledger.reverse(original, "once"))
        if len(self.posted) > before:
            self.reversed.add(sequence)

    @invariant()
    def it_agrees_with_the_dictionary(self):
        held = balances(self.ledger)
        assert {name: held.get(name, 0) for name in self.balances} == self.balances
        assert sum(held.values()) == 0
        found = ledger.verify(self.ledger)
        assert (found.problem, found.transactions) == (None, len(self.posted))


@pytest.mark.django_db
@pytest.mark.database
def test_it_agrees_with_a_dictionary_over_any_history():
    options = settings(max_examples=15, stateful_step_count=25, deadline=None, derandomize=True, database=None)
    run_state_machine_as_test(Histories, settings=options)
