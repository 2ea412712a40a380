"""The ledger's pages: state of the chains, accounts, transfers, one transaction, and files."""

import re
import time

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import cache
from django.http import StreamingHttpResponse
from django.test import Client

from incentives import ledger, views
from incentives.tests.cast import execute, pay, three_rounds, without_triggers

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def nothing_remembered():
    cache.clear()
    yield
    cache.clear()


def get(address: str, status: int = 200) -> str:
    response = Client().get(address)
    assert response.status_code == status
    return response.content.decode()


def test_nothing_is_verified_too():
    assert "Chain verified · 0 transactions" in get("/ledger/state/")
    html = get("/ledger/")
    assert "No accounts yet." in html
    assert "No transfers yet." in html


def test_every_page_asks_for_the_state_when_it_has_loaded():
    assert re.search(r'hx-get="/ledger/state/" hx-trigger="load[",]', get("/ledger/"))


def test_it_counts_all_chains():
    three_rounds()
    pay(ledger.open_ledger("manual"), "one", 4)
    assert "Chain verified · 5 transactions" in get("/ledger/state/")
    assert re.search(r"Transfers</dt><dd>14</dd>", get("/ledger/"))


def test_a_broken_chain_is_named_in_red():
    three_rounds()
    without_triggers()
    execute(
        "UPDATE incentives_transfer SET amount = amount + 1 WHERE id = (SELECT MIN(id) + 1 FROM incentives_transfer)"
    )
    state, page = get("/ledger/state/"), get("/ledger/")
    assert "text-harm" in state
    assert "Chain broken · simulation-1, transaction 1" in state
    assert "A chain is broken" in page
    assert "1 of 1 ledgers is not what was posted" in page


def test_the_state_is_remembered_but_not_long(monkeypatch, django_assert_max_num_queries):
    opened = three_rounds()
    first = views.current_state()
    with django_assert_max_num_queries(1):
        assert views.current_state() == first
    without_triggers()
    execute("UPDATE incentives_transaction SET memo = '{}' WHERE sequence = 2")
    assert views.current_state().problem is None  # nothing was posted, so the old look still counts
    now = time.time() + views.MAX_AGE_SECONDS + 1
    monkeypatch.setattr(time, "time", lambda: now)
    assert "transaction 2" in views.current_state().problem
    assert opened.length == 4


def test_what_was_posted_shows_soon(monkeypatch):
    opened = three_rounds()
    first = views.current_state()
    pay(opened, "round:4", 1)
    now = first.checked_at + first.took_seconds / views.SHARE_OF_TIME + 1
    monkeypatch.setattr(time, "time", lambda: now)
    assert views.current_state().transactions == 5


def test_while_somebody_looks_the_last_look_counts(monkeypatch):
    three_rounds()
    first = views.current_state()
    cache.add("ledger-state-busy", True)
    now = time.time() + views.MAX_AGE_SECONDS + 1
    monkeypatch.setattr(time, "time", lambda: now)
    assert views.current_state() == first


def test_transfers_come_newest_first_and_filtered():
    three_rounds()
    pay(ledger.open_ledger("manual"), "one", 4, 6)
    assert amounts("/ledger/")[:3] == ["0.000010", "0.000004", "0.000006"]
    assert amounts("/ledger/?ledger=manual") == ["0.000010", "0.000004", "0.000006"]
    assert amounts("/ledger/?client=2&ledger=manual") == ["0.000006"]
    assert amounts("/ledger/?ledger=simulation-1&client=3") == ["0.000002"]
    assert amounts("/ledger/?ledger=nothing") == []
    assert "No transfer is like that." in get("/ledger/?ledger=nothing")
    assert len(amounts("/ledger/?client=nonsense")) == 15


def amounts(address: str) -> list[str]:
    body = get(address).partition('aria-labelledby="transfers-heading"')[2]
    return re.findall(r'<td class="number">([\d.,]+)</td>', body)


def test_long_ledgers_come_in_pages(django_assert_max_num_queries):
    opened = ledger.open_ledger("long")
    pay(opened, "round:1", *range(1, 121))
    assert len(amounts("/ledger/")) == views.TRANSFER_ROWS
    assert len(amounts("/ledger/?page=3&ledger=long")) == 121 - 2 * views.TRANSFER_ROWS
    assert 'href="?ledger=long&amp;page=3"' in get("/ledger/?ledger=long&page=2")
    with django_assert_max_num_queries(10):
        get("/ledger/")
    with django_assert_max_num_queries(4):
        get("/ledger/transactions/long/1/?page=2")


def test_a_transaction_shows_what_is_hashed():
    opened = three_rounds()
    posted = opened.transactions.get(sequence=2)
    html = get("/ledger/transactions/simulation-1/2/")
    for value in (posted.hash, posted.previous_hash, posted.content_sha256, posted.key, "0.000001"):
        assert value in html
    assert "It was taken back by" in html
    assert "It takes back" in get("/ledger/transactions/simulation-1/3/")
    get("/ledger/transactions/simulation-1/9/", 404)
    get("/ledger/transactions/nothing/1/", 404)
    get("/ledger/transactions/simulation-1/99999999999999999999/", 404)


@pytest.mark.parametrize(("format", "lines"), [("csv", 13), ("jsonl", 4)])
def test_it_streams_files(format, lines):
    three_rounds()
    response = Client().get(f"/ledger/export/?ledger=simulation-1&format={format}")
    assert response["Content-Disposition"] == f'attachment; filename="simulation-1.{format}"'
    assert len(async_to_sync(body)(response).splitlines()) == lines


async def body(response: StreamingHttpResponse) -> str:
    return b"".join([piece async for piece in response]).decode()


def test_there_are_no_other_files():
    get("/ledger/export/?ledger=nothing", 404)
    get("/ledger/export/?format=exe", 404)
