"""The rounds of a long run over JSON: the first ones with the simulation, all of them by pages."""

import pytest

from simulations.models import Client, Contribution, Round, Simulation
from simulations.showing import api, results
from simulations.tests.cast import queued

pytestmark = [pytest.mark.django_db, pytest.mark.database]
LARGE = {1: 150, 2: 40, 1004: 120}  # cohorts; all others have one client


@pytest.fixture
def long_run() -> Simulation:
    simulation = queued(num_rounds=1004, num_clients=150)
    shares = {"num_examples": 4, "label_counts": [4], "behaviour": "honest"}
    clients = Client.objects.bulk_create(Client(simulation=simulation, number=n, **shares) for n in range(1, 151))
    figures = ("train_seconds", "evaluate_seconds", "valuation_seconds", "duration_seconds")
    figures = dict.fromkeys(figures, 0.5) | {"pool_microtokens": 0, "treasury_microtokens": 0, "weights_sha256": "a"}
    rounds = Round.objects.bulk_create(
        Round(simulation=simulation, number=n, cohort_size=LARGE.get(n, 1), **figures) for n in range(1, 1005)
    )
    Contribution.objects.bulk_create(
        Contribution(round=row, client=client, reward_microtokens=0, update_norm=1.0)
        for row in rounds
        for client in (reversed(clients[: LARGE[row.number]]) if row.number in LARGE else [clients[7]])
    )
    Simulation.objects.filter(pk=simulation.pk).update(rounds_done=1004)
    simulation.refresh_from_db()
    return simulation


def test_the_record_holds_the_first_rounds_and_says_where_the_others_are(
    client, long_run, django_assert_max_num_queries
):
    with django_assert_max_num_queries(7):
        record = client.get(f"/api/simulations/{long_run.pk}/").json()
    assert [row["round"] for row in record["rounds"]] == list(range(1, 1001))
    first, second, third = record["rounds"][:3]
    assert (first["cohort"], first["cohort_size"]) == (list(range(1, 101)), 150)
    assert (second["cohort"], third["cohort"]) == (list(range(1, 41)), [8])
    rest = client.get(record["rounds_next"])
    assert [row["round"] for row in rest.json()] == [1001, 1002, 1003, 1004]
    assert rest.json()[-1]["cohort"] == list(range(1, 121))
    assert "Link" not in rest


def test_a_short_run_is_whole(client):
    short = queued()
    assert client.get(f"/api/simulations/{short.pk}/").json()["rounds_next"] is None
    assert client.get(f"/api/simulations/{short.pk}/rounds/").json() == []


def test_all_rounds_come_by_pages(client, long_run, monkeypatch):
    found, address, pages = [], f"/api/simulations/{long_run.pk}/rounds/?limit=400", 0
    while address:
        answer = client.get(address)
        found += answer.json()
        address = answer.headers.get("Link", "").partition("<")[2].partition(">")[0]
        pages += 1
    assert (found, pages) == (results.rounds(long_run), 3)
    monkeypatch.setattr(api, "MOST_NUMBERS", 100)
    address = f"/api/simulations/{long_run.pk}/rounds/?limit=2"
    assert [len(row["cohort"]) for row in client.get(address).json()] == [150]  # one at least
    assert [row["round"] for row in client.get(f"{address}&cursor=1").json()] == [2, 3]


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "cursor=-1", "cursor=x"])
def test_a_wrong_page_is_named(client, long_run, query):
    answer = client.get(f"/api/simulations/{long_run.pk}/rounds/?{query}")
    assert answer.status_code == 422
    assert query.partition("=")[0] in answer.json()["detail"]


def test_the_shell_has_everything(long_run):
    whole = results.of_simulation(long_run)["rounds"]
    assert len(whole) == 1004
    assert whole[0]["cohort"] == list(range(1, 151))
