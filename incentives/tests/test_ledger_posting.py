"""Posting and reversing."""

import pytest
from django.db import transaction

from incentives import errors, ledger
from incentives.ledger import Entry
from incentives.models import MAX_SUPPLY, Account, Ledger, Transaction, Transfer
from incentives.tests.cast import balances, pay, three_rounds

pytestmark = [pytest.mark.django_db, pytest.mark.database]


@pytest.fixture
def opened() -> Ledger:
    return ledger.open_ledger("simulation-1")


def test_it_opens_with_a_mint_and_a_treasury_and_the_genesis_head(opened):
    assert balances(opened) == {"mint": 0, "treasury": 0}
    assert (opened.head, opened.length) == (ledger.GENESIS, 0)


def test_it_opens_a_known_name_again(opened):
    pay(opened, "round:1", 5)
    again = ledger.open_ledger("simulation-1")
    assert (again.pk, again.length) == (opened.pk, 1)
    assert Account.objects.filter(ledger=opened).count() == 3


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", "a b", "a\n", "x" * 65, "é"])
def test_it_refuses_a_bad_ledger_name(name):
    with pytest.raises(errors.InvalidTransaction, match="ledger name"):
        ledger.open_ledger(name)


def test_it_moves_what_it_says(opened):
    posted = pay(opened, "round:1", 5, 3, 2)
    assert balances(opened) == {"mint": -10, "treasury": 0, "client:1": 5, "client:2": 3, "client:3": 2}
    assert [row.amount for row in posted.transfers.order_by("position")] == [10, 5, 3, 2]
    assert Account.objects.get(ledger=opened, name="client:3").client == 3


def test_it_links_each_transaction_to_the_one_before(opened):
    posted = [pay(opened, f"round:{n}", n) for n in (1, 2, 3)]
    opened.refresh_from_db()
    assert [row.sequence for row in posted] == [1, 2, 3]
    assert [row.previous_hash for row in posted] == [ledger.GENESIS, posted[0].hash, posted[1].hash]
    assert (opened.head, opened.length) == (posted[2].hash, 3)


def test_it_makes_accounts_before_they_are_paid(opened):
    ledger.ensure_accounts(opened, [2, 1, 2])
    ledger.ensure_accounts(opened, [2, 3])
    assert balances(opened) == {"mint": 0, "treasury": 0, "client:1": 0, "client:2": 0, "client:3": 0}


def test_it_posts_a_repeat_once(opened):
    first = pay(opened, "round:1", 5, 3)
    again = pay(opened, "round:1", 5, 3)
    assert (again.pk, again.hash) == (first.pk, first.hash)
    assert Transaction.objects.count() == 1
    assert balances(opened)["client:1"] == 5


@pytest.mark.parametrize(
    "other",
    [
        {"transfers": [Entry("mint", "treasury", 6, "pool")]},
        {"transfers": [Entry("mint", "client:1", 5, "pool")]},
        {"transfers": [Entry("mint", "treasury", 5, "fee")]},
        {"description": "other"},
        {"memo": {"round": 2}},
    ],
)
def test_it_refuses_a_known_key_with_other_content(opened, other):
    content = {"transfers": [Entry("mint", "treasury", 5, "pool")], "description": "x", "memo": {"round": 1}}
    ledger.post(opened.pk, key="k", **content)
    with pytest.raises(errors.KeyConflict, match="taken by transaction 1"):
        ledger.post(opened.pk, key="k", **content | other)
    assert Transaction.objects.count() == 1


def test_it_knows_a_key_per_ledger(opened):
    assert pay(opened, "round:1", 5).pk != pay(ledger.open_ledger("simulation-2"), "round:1", 6).pk


def test_it_refuses_an_overdraft_and_leaves_nothing_behind(opened):
    pay(opened, "round:1", 5)
    before = balances(opened)
    with pytest.raises(errors.InsufficientBalance, match="client:1 holds 5 micro-tokens and cannot give 6"):
        ledger.post(opened.pk, key="k", transfers=[Entry("client:1", "client:9", 6, "gift")])
    assert balances(opened) == before
    assert pay(opened, "round:2", 1).sequence == 2


def test_it_looks_at_balances_when_all_transfers_are_done(opened):
    transfers = [Entry("treasury", "client:1", 5, "reward"), Entry("mint", "treasury", 5, "pool")]
    ledger.post(opened.pk, key="k", transfers=transfers)
    assert balances(opened) == {"mint": -5, "treasury": 0, "client:1": 5}


def test_it_mints_no_more_than_json_numbers_count(opened):
    ledger.post(opened.pk, key="all", transfers=[Entry("mint", "treasury", MAX_SUPPLY, "pool")])
    with pytest.raises(errors.SupplyExhausted):
        pay(opened, "one more", 1)
    assert balances(opened) == {"mint": -MAX_SUPPLY, "treasury": MAX_SUPPLY}


GOOD = {"key": "k", "transfers": [Entry("mint", "treasury", 1, "pool")], "description": "", "memo": {}}


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"key": ""}, "key"),
        ({"key": "x" * 201}, "key"),
        ({"key": "a\nb"}, "key"),
        ({"key": "reverse:1"}, "key"),
        ({"description": "x" * 501}, "description"),
        ({"description": "\x00"}, "description"),
        ({"description": "\ud800"}, "description"),
        ({"description": None}, "description"),
        ({"memo": {"round": 1.0}}, "memo.round"),
        ({"memo": {"round": True}}, "memo.round"),
        ({"memo": {"round": 2**53}}, "memo.round"),
        ({"memo": {"Round": 1}}, "memo"),
        ({"transfers": [Entry("mint", "treasury", 1, "pool")] * 16_001}, "transfers"),
        ({"transfers": [Entry("mint", "treasury", 0, "pool")]}, "transfer 1: amount"),
        ({"transfers": [*GOOD["transfers"], Entry("mint", "treasury", -1, "pool")]}, "transfer 2: amount"),
        ({"transfers": [Entry("mint", "treasury", 1.0, "pool")]}, "transfer 1: amount"),
        ({"transfers": [Entry("mint", "treasury", True, "pool")]}, "transfer 1: amount"),
        ({"transfers": [Entry("mint", "treasury", 2**53, "pool")]}, "transfer 1: amount"),
        ({"transfers": [Entry("mint", "mint", 1, "pool")]}, "transfer 1: debit and credit"),
        ({"transfers": [Entry("mint", "client:0", 1, "pool")]}, "transfer 1: credit"),
        ({"transfers": [Entry("mint", f"client:{2**63}", 1, "pool")]}, "transfer 1: credit"),
        ({"transfers": [Entry("Mint", "treasury", 1, "pool")]}, "transfer 1: debit"),
        ({"transfers": [Entry("mint", "treasury", 1, "")]}, "transfer 1: code"),
    ],
)
def test_it_names_what_is_malformed(opened, wrong, named):
    with pytest.raises(errors.InvalidTransaction, match=f"^{named}"):
        ledger.post(opened.pk, **GOOD | wrong)
    assert Transaction.objects.count() == 0


def test_it_takes_the_largest_client_number(opened):
    ledger.post(opened.pk, key="k", transfers=[Entry("mint", f"client:{2**63 - 1}", 1, "pool")])
    assert Account.objects.get(ledger=opened, client=2**63 - 1).balance == 1


def test_it_goes_back_with_the_transaction_that_it_was_part_of(opened):
    with pytest.raises(RuntimeError), transaction.atomic():  # noqa: PT012
        pay(opened, "round:1", 5)
        raise RuntimeError
    assert balances(opened) == {"mint": 0, "treasury": 0}
    assert pay(opened, "round:1", 6).sequence == 1


def test_it_pays_a_thousand_clients_with_a_handful_of_queries(opened, django_assert_max_num_queries):
    with django_assert_max_num_queries(25):  # SQLite inserts in batches of a thousand parameters
        pay(opened, "round:1", *range(1, 1001))
    with django_assert_max_num_queries(20):
        pay(opened, "round:2", *range(1, 1001))
    assert balances(opened) | {} == {
        "mint": -1_001_000,
        "treasury": 0,
        **{f"client:{n}": 2 * n for n in range(1, 1001)},
    }
    assert ledger.verify(opened).transfers == 2002


def test_it_pays_ten_thousand_clients_at_once(opened):
    assert pay(opened, "round:1", *[1] * 10_000).transfers.count() == 10_001
    assert ledger.verify(opened).ok


def test_it_reverses_by_a_mirror_image():
    opened = three_rounds()
    original, mirror = opened.transactions.get(sequence=2), opened.transactions.get(sequence=3)
    assert mirror.reverses == original
    assert [(row.debit_account, row.credit_account, row.amount) for row in original.transfers.order_by("position")] == [
        (row.credit_account, row.debit_account, row.amount) for row in mirror.transfers.order_by("position")
    ]
    assert balances(opened) == {"mint": -17, "treasury": 0, "client:1": 12, "client:2": 3, "client:3": 2}


def test_it_reverses_once(opened):
    posted = pay(opened, "round:1", 5)
    first = ledger.reverse(posted, "wrong")
    assert ledger.reverse(posted, "wrong").pk == first.pk
    with pytest.raises(errors.AlreadyReversed):
        ledger.reverse(posted, "wrong in another way")
    assert Transaction.objects.count() == 2


def test_it_takes_nothing_back_that_was_spent(opened):
    posted = pay(opened, "round:1", 5)
    ledger.post(opened.pk, key="gift", transfers=[Entry("client:1", "client:2", 1, "gift")])
    with pytest.raises(errors.InsufficientBalance, match="client:1 holds 4"):
        ledger.reverse(posted, "wrong")


def test_it_reverses_a_reversal(opened):
    ledger.reverse(ledger.reverse(pay(opened, "round:1", 5), "wrong"), "right after all")
    assert balances(opened) == {"mint": -5, "treasury": 0, "client:1": 5}


@pytest.mark.parametrize("model", [Transaction, Transfer])
def test_it_has_rows_that_say_they_cannot_be_changed(opened, model):
    pay(opened, "round:1", 5)
    row = model.objects.first()
    with pytest.raises(errors.AppendOnly):
        row.save()
    with pytest.raises(errors.AppendOnly):
        row.delete()


def test_it_has_ledgers_and_accounts_that_say_they_cannot_be_deleted(opened):
    for row in (opened, opened.accounts.first()):
        with pytest.raises(errors.AppendOnly):
            row.delete()
