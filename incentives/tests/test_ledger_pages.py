"""The ledger's pages: state of the chains, accounts, transfers, one transaction, and files."""

import re

import pytest
from asgiref.sync import async_to_sync
from django.http import StreamingHttpResponse
from django.test import Client

from incentives import ledger, verification, verified, views
from incentives.models import Ledger, Verified
from incentives.tests.cast import execute, pay, three_rounds, without_triggers

pytestmark = pytest.mark.django_db


def verify() -> None:
    """What happens in the background."""
    for opened in Ledger.objects.order_by("pk"):
        verified.look(opened, verification.nowhere, full=False)


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


def test_a_transfer_to_a_client_leads_to_the_payment_of_that_client():
    three_rounds()
    html = get("/ledger/")
    for client in (1, 2):
        rows = [row for row in html.split("<tr>") if f"<td>treasury</td><td>client:{client}</td>" in row]
        assert rows
        assert all(f'?client={client}"' in row for row in rows)
    minted = [row for row in html.split("<tr>") if "<td>mint</td><td>treasury</td>" in row]
    assert minted
    assert not any("?client=" in row for row in minted)


def test_it_counts_all_chains_and_says_since_when():
    three_rounds()
    pay(ledger.open_ledger("manual"), "one", 4)
    assert "Chain not verified yet" in get("/ledger/state/")
    assert "not verified yet" in get("/ledger/")
    verify()
    moment = Verified.objects.earliest("complete_at").complete_at
    state, page = get("/ledger/state/"), get("/ledger/")
    assert "Chain verified · 5 transactions" in state
    assert f"since {moment:%-d %b %H:%M}" in state
    assert re.search(r"Transfers</dt><dd>14</dd>", page)
    assert re.search(r"Newest look</dt><dd>0\.\d s ago</dd>", page)
    pay(ledger.open_ledger("manual"), "two", 4)
    assert "Chain verified · 5 transactions, 1 to go" in get("/ledger/state/")


def test_a_broken_chain_is_named_in_red():
    three_rounds()
    without_triggers()
    execute(
        "UPDATE incentives_transfer SET amount = amount + 1 WHERE id = (SELECT MIN(id) + 1 FROM incentives_transfer)"
    )
    verify()
    state, page = get("/ledger/state/"), get("/ledger/")
    assert "text-harm" in state
    assert "Chain broken · simulation-1, transaction 1" in state
    assert "A chain is broken" in page
    assert "1 of 1 ledgers is not what was posted" in page


def test_a_page_costs_the_same_with_many_ledgers(django_assert_num_queries):
    three_rounds()
    verify()
    with django_assert_num_queries(1):
        get("/ledger/state/")
    for number in range(200):
        pay(ledger.open_ledger(f"simulation-{number}"), "one", 4)
    with django_assert_num_queries(1):
        assert "Chain verified · 4 transactions, 200 to go" in get("/ledger/state/")


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


@pytest.mark.parametrize(("version", "is_told"), [("1", True), ("2", True), ("3", False)])
def test_the_rule_that_paid_is_told_where_the_version_is_one_of_ours(version, is_told):
    pay(ledger.open_ledger("simulation-1"), "round:1", 4, memo={"round": 1, "rule": f"proportional@{version}"})
    html = get("/ledger/transactions/simulation-1/1/")
    assert f"proportional, version {version}" in html
    assert ("In proportion to contributions above 0" in html) == is_told
