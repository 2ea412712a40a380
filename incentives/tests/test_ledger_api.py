"""The ledger as JSON."""

import re

import pytest
from django.test import Client

from incentives import ledger, verification, verified
from incentives.models import Ledger, Transaction
from incentives.tests.cast import balances, execute, pay, three_rounds, without_triggers

pytestmark = pytest.mark.django_db
HERE = "/api/incentives"
REWARD = {"user_id": 1, "previous_metric": 0.5, "current_metric": 0.4, "scaling_factor": 10.0}


@pytest.fixture
def api() -> Client:
    return Client(raise_request_exception=True)


def get(api: Client, path: str, **query) -> list | dict:
    response = api.get(f"{HERE}{path}", query)
    assert response.status_code == 200, response.content
    return response.json()


def reward(api: Client, payload: object, **headers: str):
    return api.post(f"{HERE}/reward", payload, content_type="application/json", headers=headers)


def test_it_lists_transfers_newest_first(api):
    opened = three_rounds()
    rows = get(api, "/ledger")
    assert [(row["sequence"], row["position"]) for row in rows][:3] == [(4, 2), (4, 1), (3, 3)]
    assert len(rows) == 12
    assert rows[0] | {"recorded_at": ""} == {
        "ledger": "simulation-1",
        "sequence": 4,
        "position": 2,
        "debit": "treasury",
        "credit": "client:1",
        "amount_microtokens": 7,
        "code": "reward",
        "key": "round:3",
        "description": "Reward of round:3",
        "recorded_at": "",
        "hash": opened.head,
    }
    assert rows[0]["recorded_at"].endswith("Z")


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ({"simulation_id": 1}, 12),
        ({"simulation_id": 3}, 0),
        ({"ledger": "manual"}, 3),
        ({"client": 3}, 1),
        ({"client": 2}, 4),
        ({"client": 2, "simulation_id": 1}, 3),
        ({"account": "mint"}, 5),
        ({"account": "mint", "ledger": "manual"}, 1),
        ({"account": "treasury", "client": 1}, 0),
        ({"ledger": "manual", "simulation_id": 1}, 0),
        ({"limit": 2}, 2),
    ],
)
def test_it_filters_transfers(api, query, count):
    three_rounds()
    pay(ledger.open_ledger("manual"), "k", 1, 1)
    assert len(get(api, "/ledger", **query)) == count


@pytest.mark.parametrize("path", ["/ledger", "/accounts/", "/verify/"])
def test_it_leads_through_pages_without_gap_or_repeat(api, path):
    for n in range(1, 6):
        three_rounds(f"simulation-{n}")
    whole = get(api, path, limit=1000)
    pages, url = [], f"http://testserver{HERE}{path}?limit=4"
    while url:
        response = api.get(url.removeprefix("http://testserver"))
        pages.append(response.json())
        link = response.headers.get("Link", "")
        url = match[1] if (match := re.fullmatch(r'<(http://testserver/\S+)>; rel="next"', link)) else None
    assert [len(page) for page in pages[:-1]] == [4] * (len(pages) - 1)
    assert [row for page in pages for row in page] == whole


def test_it_pages_with_a_few_queries(api, django_assert_max_num_queries):
    for n in range(1, 6):
        three_rounds(f"simulation-{n}")
    with django_assert_max_num_queries(2):
        assert len(get(api, "/ledger", client=1)) == 5 * 4


def test_it_lists_accounts(api):
    three_rounds()
    rows = get(api, "/accounts/", simulation_id=1)
    assert {row["account"]: row["balance_microtokens"] for row in rows} == balances(Ledger.objects.get())
    assert get(api, "/accounts/", client=3) == [
        {"ledger": "simulation-1", "account": "client:3", "client": 3, "balance_microtokens": 2}
    ]


def test_it_tells_the_state_of_the_chains(api):
    first, second = three_rounds("simulation-1"), three_rounds("simulation-2")
    assert [(row["ok"], row["transactions"], row["length"]) for row in get(api, "/verify/")] == [(None, 0, 4)] * 2
    verify(first), verify(second)
    good = {"ok": True, "transactions": 4, "transfers": 12, "head": first.head, "problem": None, "length": 4}
    rows = get(api, "/verify/")
    assert [row["ledger"] for row in rows] == ["simulation-2", "simulation-1"]
    assert [{name: row[name] for name in good} for row in rows] == [good, good]
    assert all(row["verified_at"] == row["complete_at"] for row in rows)
    without_triggers()
    execute(f"UPDATE incentives_ledger SET length = 3 WHERE id = {second.pk}")
    verify(second)
    assert [(row["ledger"], row["ok"]) for row in get(api, "/verify/")] == [
        ("simulation-2", False),
        ("simulation-1", True),
    ]


def verify(opened: Ledger) -> None:
    verified.look(opened, verification.nowhere, full=False)


@pytest.mark.parametrize(
    ("path", "query", "named"),
    [
        ("/ledger", {"limit": 0}, "limit"),
        ("/ledger", {"limit": 1001}, "limit"),
        ("/ledger", {"limit": "x"}, "limit"),
        ("/ledger", {"cursor": "x"}, "cursor"),
        ("/ledger", {"cursor": 0}, "cursor"),
        ("/ledger", {"cursor": "é"}, "cursor"),
        ("/ledger", {"client": -1}, "client"),
        ("/ledger", {"client": 2**63}, "client"),
        ("/ledger", {"simulation_id": 2**63}, "simulation_id"),
        ("/ledger", {"user_id": 1, "limit": 5}, "limit"),
        ("/ledger", {"user_id": 2**63}, "user_id"),
        ("/ledger", {"account": "x" * 65}, "account"),
        ("/ledger", {"user": 1}, "user"),
        ("/ledger", {"user_id": 1, "x": 1}, "x"),
        ("/accounts/", {"account": "mint"}, "account"),
        ("/verify/", {"client": 1}, "client"),
    ],
)
def test_it_names_a_bad_parameter(api, path, query, named):
    response = api.get(f"{HERE}{path}", query)
    assert response.status_code == 422
    assert response.json()["detail"].startswith(f"{named}: ")


def test_it_speaks_the_compatible_ledger(api):
    three_rounds()
    pay(ledger.open_ledger("manual"), "k", 1_250_000)
    answer = get(api, "/ledger", user_id=1)
    assert answer | {"transactions": None} == {"user_id": 1, "balance": 1.250012, "transactions": None}
    told = [(row["amount"], row["description"]) for row in answer["transactions"]]
    assert told == [
        (0.000005, "Reward of round:1"),
        (0.000001, "Reward of round:2"),
        (-0.000001, "paid by mistake"),
        (0.000007, "Reward of round:3"),
        (1.25, "Reward of k"),
    ]
    assert all(row["timestamp"].endswith("Z") for row in answer["transactions"])


def test_it_gives_an_unknown_user_nothing(api):
    assert get(api, "/ledger", user_id=99) == {"user_id": 99, "balance": 0, "transactions": []}
    assert get(api, "/ledger", user_id=2**63 - 1)["balance"] == 0


def test_it_rewards(api):
    response = reward(api, REWARD)
    assert (response.status_code, response.json()) == (200, {"user_id": 1, "reward": 1.0, "new_balance": 1.0})
    assert reward(api, REWARD).json()["new_balance"] == 2.0
    opened = Ledger.objects.get(name="manual")
    assert balances(opened) == {"mint": -2_000_000, "treasury": 0, "client:1": 2_000_000}
    assert ledger.verify(opened).ok


def test_it_adds_to_the_balance_over_all_ledgers(api):
    pay(three_rounds(), "more", 500_000)
    assert reward(api, REWARD).json()["new_balance"] == 1.500012


def test_it_rewards_once_for_an_idempotency_key(api):
    headers = {"Idempotency-Key": "a-key"}
    first, again = (reward(api, REWARD, **headers) for _ in range(2))
    assert first.json() == again.json()
    assert Transaction.objects.count() == 1
    other = reward(api, REWARD | {"current_metric": 0.3}, **headers)
    assert other.status_code == 409
    assert other.json()["detail"].startswith("Idempotency-Key: ")
    assert Transaction.objects.count() == 1


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "k"}])
def test_it_posts_nothing_for_no_improvement(api, headers):
    for _ in range(2):
        response = reward(api, REWARD | {"current_metric": 0.6}, **headers)
        assert response.json() == {"user_id": 1, "reward": 0.0, "new_balance": 0.0}
    assert Transaction.objects.count() == 0


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"user_id": 0}, "user_id"),
        ({"user_id": 2**63}, "user_id"),
        ({"user_id": True}, "user_id"),
        ({"user_id": "1"}, "user_id"),
        ({"user_id": 1.5}, "user_id"),
        ({"user_id": None}, "user_id"),
        ({"previous_metric": "0.5"}, "previous_metric"),
        ({"previous_metric": True}, "previous_metric"),
        ({"previous_metric": float("nan")}, "previous_metric"),
        ({"current_metric": float("-inf")}, "current_metric"),
        ({"current_metric": 1e7}, "current_metric"),
        ({"scaling_factor": -1}, "scaling_factor"),
        ({"scaling_factor": 10**400}, "scaling_factor"),
        ({"scaling_factor": []}, "scaling_factor"),
        ({"previous_metric": 1e6, "current_metric": -1e6, "scaling_factor": 1e6}, "scaling_factor"),
        ({"x": 1}, "x"),
    ],
)
def test_it_names_a_bad_field_and_posts_nothing(api, wrong, named):
    response = reward(api, REWARD | wrong)
    assert response.status_code == 422
    assert response.json()["detail"].startswith(f"{named}: "), response.content
    assert Ledger.objects.count() == 0


@pytest.mark.parametrize("missing", ["user_id", "previous_metric", "current_metric"])
def test_it_names_a_missing_field(api, missing):
    response = reward(api, {name: value for name, value in REWARD.items() if name != missing})
    assert response.status_code == 422
    assert response.json()["detail"].startswith(f"{missing}: ")


@pytest.mark.parametrize("key", ["", "a b", "x" * 101, "é"])
def test_it_names_a_bad_idempotency_key(api, key):
    response = reward(api, REWARD, **{"Idempotency-Key": key})
    assert response.status_code == 422
    assert response.json()["detail"].startswith("Idempotency-Key: ")


def test_it_counts_ten_for_a_scaling_factor_left_out(api):
    assert reward(api, {"user_id": 1, "previous_metric": 1, "current_metric": 0}).json()["reward"] == 10.0


def test_it_takes_a_whole_number_with_a_point(api):
    assert reward(api, REWARD | {"user_id": 1.0}).json()["user_id"] == 1
