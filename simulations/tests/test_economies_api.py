"""A run's economies over JSON: lists, evidence with its hashes, payments computed again, tables."""

import csv
import dataclasses
import importlib.util
import io
import json
import math
import subprocess
import sys
import zipfile

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.http import StreamingHttpResponse
from django.test import Client as Browser

import kinds
from fedsite.tests.machine import PROJECT
from incentives import specification
from incentives.models import Account, Evidence
from simulations import repricing, tables
from simulations.config import SimulationConfig
from simulations.models import Client, Contribution, Round, Shadow, ShadowClient, ShadowRound, Simulation
from simulations.running import worker
from simulations.running.engine import simulate
from simulations.running.folding import Child, TookTooLong
from simulations.showing import economies, waiting
from simulations.tests.cast import NOWHERE, claimed, config, first_record, queued
from simulations.tests.cast import recorded as recorded_alone
from simulations.tests.test_economies import SHADOWS, recorded, with_shadows
from simulations.tests.test_verify_ledger import verify as verified

pytestmark = [pytest.mark.django_db, pytest.mark.database]
URL = "/api/simulations/"
ANOTHER = {"valuation": "leave_one_out", "utility_weights": "fixed"}


def post(client, path: str, values: dict | None = None):
    return client.post(path, json.dumps(values or {}), content_type="application/json")


def test_the_paying_economy_comes_first_and_each_has_everyone(client, django_assert_max_num_queries):
    simulation = recorded()
    with django_assert_max_num_queries(7):
        found = client.get(f"{URL}{simulation.pk}/economies/").json()
    assert [each["label"] for each in found] == ["paying", *(each["label"] for each in SHADOWS)]
    assert [each["ledger"] for each in found] == [simulation.ledger.name] + [
        f"simulation-{simulation.pk}-{k}" for k in (1, 2, 3, 4)
    ]
    assert found[0]["ledger_head"] == simulation.ledger_head
    shadow = simulation.shadows.get(label="wage")
    assert found[2]["ledger_head"] == shadow.ledger_head
    assert found[2]["specification"]["reward_rule"] == {"kind": "wage_bonus", "share": 0.5}
    for each in found:
        assert [row["client"] for row in each["clients"]] == [row["holder"] for row in each["clients"]] == [1, 2, 3, 4]
        assert sum(row["reward_microtokens"] for row in each["clients"]) == each["paid_microtokens"]
        assert each["added_at"] is None
    assert found[2]["burned_microtokens"] == shadow.burned_microtokens > 0
    assert found[0]["paid_microtokens"] == simulation.paid_microtokens


def test_errors_are_the_root_of_the_sum_of_squares():
    """3, 4 and nothing in three rounds are 5; whoever was in none of them has none."""
    claim = claimed(queued(shadows=SHADOWS[:1]))
    errors = {1: (3.0, 0.0, 1.0), 2: (4.0, 0.0, 1.0), 3: None}
    for event in with_shadows(1):
        if event.kind == "round":
            of_round = errors[event.round_number]
            clients = [
                dataclasses.replace(part, error=of_round and of_round[part.client - 1]) for part in event.clients[:3]
            ]
            (shadow,) = event.shadows
            lists = {"contributions": (0.0,) * 3, "rewards": (0,) * 3, "errors": of_round}
            shadow = dataclasses.replace(shadow, pool_microtokens=0, minted_microtokens=0, **lists)
            rest = {"pool_microtokens": 0, "minted_microtokens": 0, "treasury_microtokens": 0}
            clients = [dataclasses.replace(part, reward_microtokens=0) for part in clients]
            event = dataclasses.replace(event, clients=tuple(clients), shadows=(shadow,), **rest)
        worker.write(claim, event)
    found = Browser().get(f"{URL}{claim.simulation_id}/economies/").json()
    for economy in found:
        assert [row["contribution_error"] for row in economy["clients"]] == [5.0, 0.0, math.sqrt(2.0), None]
    assert verified()[0] == 0
    for model in (Client, ShadowClient):
        model.objects.filter(number=1).update(contribution_variance=24.0)
        assert "client 1 is said to be worth that with a variance of 24.0, not 25.0" in verified()[1]
        model.objects.filter(number=1).update(contribution_variance=25.0)


@pytest.fixture
def crowd() -> Simulation:
    """130 clients and 17 economies, of which everybody but client 7 has its sums."""
    simulation = queued(num_clients=130, shadows=[{"label": f"number {k}"} for k in range(1, 17)])
    shares = {"num_examples": 4, "label_counts": [4], "behaviour": "honest"}
    Client.objects.bulk_create(
        Client(simulation=simulation, number=n, reward_microtokens=n, **shares) for n in range(1, 131)
    )
    ShadowClient.objects.bulk_create(
        ShadowClient(shadow=shadow, number=n, reward_microtokens=shadow.number * n)
        for shadow in simulation.shadows.all()
        for n in range(1, 131)
        if n != 7
    )
    return simulation


def test_clients_come_by_pages(client, crowd, monkeypatch, django_assert_max_num_queries):
    seen, address, pages = [], f"{URL}{crowd.pk}/economies/?limit=60", 0
    while address:
        with django_assert_max_num_queries(7):
            answer = client.get(address)
        found = answer.json()
        assert len(found) == 17
        seen += [row["reward_microtokens"] for row in found[3]["clients"]]
        address = answer.headers.get("Link", "").partition("<")[2].partition(">")[0]
        pages += 1
    assert (seen, pages) == ([3 * n if n != 7 else 0 for n in range(1, 131)], 3)
    monkeypatch.setattr(economies, "MOST_NUMBERS", 170)
    assert len(client.get(f"{URL}{crowd.pk}/economies/").json()[0]["clients"]) == 10


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "cursor=-1", "cursor=x", "cursor=9999999999"])
def test_a_wrong_page_is_named(client, query):
    answer = client.get(f"{URL}{queued().pk}/economies/?{query}")
    assert answer.status_code == 422
    assert query.partition("=")[0] in answer.json()["detail"]


def verify(told: dict, tmp_path) -> subprocess.CompletedProcess[str]:
    (tmp_path / "evidence.json").write_text(json.dumps(told))
    command = [sys.executable, "-I", str(PROJECT / "docs/verify_payment.py"), str(tmp_path / "evidence.json")]
    return subprocess.run(command, capture_output=True, text=True)


def test_somebody_who_does_not_trust_us_derives_every_hash(client, tmp_path):
    simulation = recorded()
    repricing.reprice(simulation, "another", ANOTHER)
    answer = client.get(f"{URL}{simulation.pk}/rounds/2/evidence/")
    told = answer.json()
    assert [each["label"] for each in told["economies"]] == ["paying", *(each["label"] for each in SHADOWS), "another"]
    assert len(told["utilities"]) == len({each["utilities_sha256"] for each in told["economies"]} - {None}) == 2
    assert {each["layout"] for each in told["utilities"]} == {"FEDGAME3"}
    done = verify(told, tmp_path)
    found = (done.returncode, done.stdout.count("is so: "), done.stdout.count("not computed here: "))
    # three of the round, two tables, one of all ledgers; six of each economy; by size alone asks nobody
    assert found == (0, 3 + 2 + 1 + 6 * 6 + 5 + 5 + 5, 1 + 1), done.stdout + done.stderr
    spec = importlib.util.spec_from_file_location("verify_payment", PROJECT / "docs/verify_payment.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    def wrong(change) -> list[str]:
        doctored = json.loads(answer.content)
        change(doctored)
        return [claim for claim, is_so in script.check(doctored, (simulation.pk, 2)) if is_so is False]

    def of(told: dict, k: int) -> dict:
        return told["economies"][k]

    assert wrong(lambda told: None) == []
    assert wrong(lambda told: told["facts"]["effort"].__setitem__(0, 1)) == ["facts hash"]
    changed = wrong(lambda told: of(told, 0)["contributions"].__setitem__(0, 0.25))
    assert changed[:2] == ["economy hash of paying", "memo of paying"]
    assert changed[2:] == ["contributions of paying by shapley", "shares of paying by proportional"]
    changed = wrong(lambda told: of(told, 2)["specification"].update(burn_share=0.5) or of(told, 2)["hashed"].clear())
    assert changed == ["economy hash of wage", "memo of wage", "specification of wage"]
    assert "chain hash " in wrong(lambda told: of(told, 4)["transaction"].update(sequence=3))[0]
    assert wrong(lambda told: told["utilities"][0].update(base64="AAAA"))[0].startswith("utilities ")
    assert wrong(lambda told: told.update(facts_sha256=None))[0] == "facts hash"
    assert wrong(lambda told: of(told, 1).update(economy_sha256=None)) == ["economy hash of by size"]
    assert wrong(lambda told: told.update(economies=[])) == ["an economy paid"]
    lost = [f"utilities of {each['label']} are told, neither pruned nor too large" for each in told["economies"]]
    lost = [each for k, each in enumerate(lost) if told["economies"][k]["utilities_sha256"]]
    assert wrong(lambda told: told.update(utilities=[])) == lost
    assert wrong(lambda told: [each.update(base64=None) for each in told["utilities"]]) == lost
    assert wrong(lambda told: of(told, 3)["specification"].update(burn_share=0.25)) == ["specification of left out"]
    assert wrong(lambda told: of(told, 3)["specification"]["pool"].update(tokens=4.0)) == ["specification of left out"]
    changed = wrong(lambda told: of(told, 1).update(ledger="simulation-1-9"))
    assert changed == ["ledger of by size"]
    assert f"of simulation {simulation.pk}, round 2" in wrong(lambda told: told.update(simulation=simulation.pk + 1))


def test_the_script_knows_the_defaults_of_today():
    spec = importlib.util.spec_from_file_location("verify_payment", PROJECT / "docs/verify_payment.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    built_in = [kind for each in ("valuation", "pool", "rule") for kind in kinds.family(each).values()]
    built_in = [kind for kind in built_in if "/" not in kind.name]
    usual = {kind.name: {name: each.plain(each.default) for name, each in kind.parameters.items()} for kind in built_in}
    assert {name: each for name, each in usual.items() if each} == script.USUAL
    assert {kind.name: kind.version for kind in built_in if kind.version > 1} == script.VERSIONS
    assert specification.DEFAULTS == script.DEFAULTS


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Expected the address"),
        (("/nonexistent.json",), "tells nothing that could be checked"),
        (("nothing.json",), "is not a round's evidence: KeyError"),
        (("posted.json",), "Of paying no transaction is told"),
        (("http://127.0.0.1:9/api/simulations/1/rounds/1/evidence/",), "tells nothing that could be checked"),
    ],
)
def test_where_there_is_nothing_to_check_the_script_says_so_in_a_sentence(client, tmp_path, arguments, said):
    told = client.get(f"{URL}{recorded(0).pk}/rounds/2/evidence/").json()
    told["economies"][0]["transaction"] = None
    (tmp_path / "nothing.json").write_text("{}")
    (tmp_path / "posted.json").write_text(json.dumps(told))
    command = [sys.executable, "-I", str(PROJECT / "docs/verify_payment.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines()), said in done.stderr) == (2, 1, True), done.stderr


def of_first_scheme() -> Simulation:
    record = first_record(config())
    simulation = queued()
    Simulation.objects.filter(pk=simulation.pk).update(config=record, scheme=1)
    claim = claimed(Simulation.objects.get(pk=simulation.pk))
    for event in simulate(SimulationConfig.from_record(record, 1), data_dir=NOWHERE):
        worker.write(claim, event)
    return Simulation.objects.get(pk=simulation.pk)


def test_a_run_of_the_first_scheme_tells_what_it_has_and_is_priced_again(client, tmp_path):
    simulation = of_first_scheme()
    address = f"{URL}{simulation.pk}/rounds/1/evidence/"
    told = client.get(address).json()
    (paying,) = told["economies"]
    assert (told["scheme"], paying["economy_sha256"]) == (1, None)
    assert paying["transaction"]["memo"]["evidence_sha256"] == paying["utilities_sha256"]
    assert told["utilities"][0]["layout"] == "FEDGAME1"
    done = verify(told, tmp_path)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "IS NOT SO: economy hash of paying")
    answer = post(client, f"{URL}{simulation.pk}/reprice/", {"label": "equal", "reward_rule": "equal"})
    assert answer.status_code == 201, answer.json()
    told = client.get(address).json()
    assert [each["economy_sha256"] is None for each in told["economies"]] == [True, False]
    assert told["facts_sha256"] == told["economies"][1]["transaction"]["memo"]["facts_sha256"]
    done = verify(told, tmp_path)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "IS NOT SO: economy hash of paying")


def test_tables_that_are_too_large_are_told_by_their_size(client, monkeypatch):
    monkeypatch.setattr(economies, "MOST_TABLE_BYTES", 100)
    told = client.get(f"{URL}{recorded(0).pk}/rounds/1/evidence/").json()
    (table,) = told["utilities"]
    assert (table["base64"], table["layout"], table["bytes"] > 100) == (None, "FEDGAME3", True)


def test_rounds_that_are_not_there(client):
    simulation = recorded(0)
    answer = client.get(f"{URL}{simulation.pk}/rounds/4/evidence/")
    assert (answer.status_code, answer.json()["detail"]) == (404, f"{simulation} has no round 4 yet; it has 3")
    for path in ("economies/", "rounds/1/evidence/", "export/"):
        assert client.get(f"{URL}999999/{path}").status_code == 404
    for path in ("reprice/", "recompute/"):
        assert post(client, f"{URL}999999/{path}", {"label": "x"}).status_code == 404
    assert client.get(f"{URL}{simulation.pk}/rounds/0/evidence/").status_code == 422
    Contribution.objects.all().delete()
    answer = client.get(f"{URL}{simulation.pk}/rounds/1/evidence/")
    assert (answer.status_code, "let go of" in answer.json()["detail"]) == (409, True)
    answer = post(client, f"{URL}{simulation.pk}/recompute/", {"round": 1})
    assert (answer.status_code, "let go of" in answer.json()["detail"]) == (409, True)


def test_it_prices_a_run_again(client):
    simulation = recorded(0)
    address = f"{URL}{simulation.pk}/reprice/"
    answer = post(client, address, {"label": "wage", "reward_rule": {"kind": "wage_bonus", "share": 0.5}})
    assert answer.status_code == 201
    shadow = Shadow.objects.get()
    told = answer.json()
    assert (told["label"], told["ledger_head"]) == ("wage", shadow.ledger_head)
    assert (told["rounds_done"], told["paid_microtokens"]) == (3, shadow.paid_microtokens)
    again = post(client, address, {"label": "wage", "reward_rule": {"kind": "wage_bonus", "share": 0.5}})
    assert (again.status_code, again.json()) == (201, told)
    assert client.get(f"{URL}{simulation.pk}/economies/").json()[1]["label"] == "wage"


@pytest.mark.parametrize(
    ("values", "fields"),
    [
        ({}, ["label"]),
        ({"label": " "}, ["label"]),
        ({"label": 3}, ["label"]),
        ({"label": "paying"}, ["label"]),
        ({"label": "x", "seed": 3}, ["seed"]),
        ({"label": "x", "reward_rule": "unheard", "burn_share": 2}, ["burn_share", "reward_rule"]),
        ({"label": "x", "reward_rule": {"kind": "wage_bonus", "share": 3}}, ["reward_rule.share"]),
        ({"label": "x", "valuation": "none"}, ["valuation"]),
        ({"label": "x", "budget_tokens": "many"}, ["budget_tokens"]),
    ],
)
def test_what_is_no_economy_is_named_by_field(client, values, fields):
    answer = post(client, f"{URL}{recorded(0).pk}/reprice/", values)
    assert (answer.status_code, sorted(answer.json()["errors"])) == (422, fields)
    assert not Shadow.objects.exists()


def test_what_cannot_be_priced_says_what_is_missing(client):
    simulation = recorded(0, valuation="leave_one_out")
    answer = post(client, f"{URL}{simulation.pk}/reprice/", {"label": "exact", "valuation": "shapley"})
    assert answer.status_code == 409
    assert "round 1: 4 of the 8 coalitions that it asks for were not evaluated" in answer.json()["detail"]
    assert answer.json()["detail"].endswith("; run it again with this economy among its shadows")
    running = queued()
    answer = post(client, f"{URL}{running.pk}/reprice/", {"label": "x"})
    assert (answer.status_code, "only a finished run" in answer.json()["detail"]) == (409, True)


@pytest.mark.parametrize(("bound", "most"), [("MOST_ROUNDS", 2), ("MOST_UTILITIES", 20)])
def test_what_takes_too_long_is_for_the_command(client, monkeypatch, bound, most):
    simulation = recorded(0)
    monkeypatch.setattr(waiting, bound, most)
    for act in ("reprice", "recompute"):
        answer = post(client, f"{URL}{simulation.pk}/{act}/", {"label": "x"} if act == "reprice" else {})
        assert answer.status_code == 422
        assert answer.json()["detail"].endswith(f"while you wait: manage.py {act} {simulation.pk}")
    assert not Shadow.objects.exists()


def test_it_ends_a_child_that_takes_too_long(client, monkeypatch):
    simulation = recorded(0)
    monkeypatch.setattr(waiting, "SECONDS", 0.01)
    answer = post(client, f"{URL}{simulation.pk}/recompute/", {"round": 1})
    assert (answer.status_code, "more than 0.01 seconds" in answer.json()["detail"]) == (422, True)
    answer = post(client, f"{URL}{simulation.pk}/reprice/", {"label": "x"})
    assert (answer.status_code, f"Use manage.py reprice {simulation.pk}" in answer.json()["detail"]) == (422, True)
    assert not Shadow.objects.exists()
    with Child({"specification": {}}, 0.0) as child, pytest.raises(TookTooLong):
        child.priced({}, [], [])
    assert child.process.wait() == -9


def test_few_at_a_time(client):
    simulation = recorded(0)
    waiting.AT_ONCE.acquire()
    waiting.AT_ONCE.acquire()
    try:
        answer = post(client, f"{URL}{simulation.pk}/recompute/", {"round": 1})
        assert (answer.status_code, answer["Retry-After"]) == (503, "10")
    finally:
        waiting.AT_ONCE.release(2)
    assert post(client, f"{URL}{simulation.pk}/recompute/", {"round": 1}).json()["equal"]


def test_it_computes_again_and_says_where_not(client):
    simulation = recorded(1)
    address = f"{URL}{simulation.pk}/recompute/"
    nothing = {"economy": None, "round": None, "difference": None}
    assert post(client, address, {"round": 2}).json() == {"equal": True, "payments": 2} | nothing
    assert post(client, address).json() == {"equal": True, "payments": 6} | nothing
    row = ShadowRound.objects.get(number=2)
    row.rewards[0] += 1
    row.save()
    told = post(client, address, {"round": 2}).json()
    assert (told["equal"], told["economy"], told["round"]) == (False, "by size", 2)
    assert told["difference"].startswith("client 1 gets ")
    assert post(client, address, {"round": 4}).status_code == 409
    for wrong in ({"round": 0}, {"round": "1"}, {"round": True}, {"number": 1}):
        answer = post(client, address, wrong)
        assert (answer.status_code, list(answer.json()["errors"])) == (422, list(wrong))


def test_strangers_see_and_change_nothing(client, settings):
    settings.FEDSITE_ACCESS = "login"
    simulation = recorded(0)
    Simulation.objects.filter(pk=simulation.pk).update(owned_by=User.objects.create_user("ada"))
    reads = ("economies/", "rounds/1/evidence/", "export/")
    writes = ("reprice/", "recompute/")

    def statuses(browser: Browser) -> list[int]:
        return [browser.get(f"{URL}{simulation.pk}/{path}").status_code for path in reads] + [
            post(browser, f"{URL}{simulation.pk}/{path}", {"label": "x"} if path == "reprice/" else {}).status_code
            for path in writes
        ]

    assert statuses(client) == [401] * 5
    ben = Browser()
    ben.force_login(User.objects.create_user("ben"))
    settings.FEDSITE_OTHERS_MAY_LOOK = False
    assert statuses(ben) == [404] * 5
    settings.FEDSITE_OTHERS_MAY_LOOK = True
    assert statuses(ben) == [200, 200, 200, 403, 200]
    ada = Browser()
    ada.force_login(User.objects.get(username="ada"))
    assert statuses(ada) == [200, 200, 200, 201, 200]


def whole(response: StreamingHttpResponse) -> bytes:
    async def read() -> bytes:
        return b"".join([piece async for piece in response])

    return async_to_sync(read)()


def tables_of(content: bytes) -> dict[str, list[dict[str, str]]]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        return {
            info.filename: list(csv.DictReader(io.StringIO(archive.read(info).decode()))) for info in archive.infolist()
        }


def test_a_run_comes_as_tables(client, monkeypatch):
    simulation = recorded()
    repricing.reprice(simulation, "=another", ANOTHER)
    answer = client.get(f"{URL}{simulation.pk}/export/?format=csv")
    assert answer["Content-Type"] == "application/zip"
    content = whole(answer)
    found = tables_of(content)
    assert list(found) == [f"{name}.csv" for name in tables.COLUMNS]
    assert [row["round"] for row in found["rounds.csv"]] == ["1", "2", "3"]
    assert [float(row["validation_loss"]) for row in found["rounds.csv"]] == list(
        simulation.rounds.order_by("number").values_list("validation_loss", flat=True)
    )
    assert [row["behaviour"] for row in found["clients.csv"]] == ["honest", "free_rider", "honest", "honest"]
    assert len(found["updates.csv"]) == 12
    assert len(found["contributions.csv"]) == len(found["payments.csv"]) == 6 * 12
    labels = ["paying", *(each["label"] for each in SHADOWS), "'=another"]
    for label, shadow in zip(labels, [None, *simulation.shadows.order_by("number")], strict=True):
        paid = sum(int(row["reward_microtokens"]) for row in found["payments.csv"] if row["economy"] == label)
        pools = [row for row in found["pools.csv"] if row["economy"] == label]
        assert paid == (shadow or simulation).paid_microtokens == sum(int(row["paid_microtokens"]) for row in pools)
        assert sum(int(row["pool_microtokens"]) for row in pools) == (shadow or simulation).pool_microtokens
    monkeypatch.setattr(tables, "LINES", 1)
    monkeypatch.setattr(tables, "MOST_PARTS", 4)
    pieces = list(tables.zipped(simulation))
    assert tables_of(b"".join(pieces)) == found
    assert whole(client.get(f"{URL}{simulation.pk}/export/")) == b"".join(tables.zipped(simulation))
    assert client.get(f"{URL}{simulation.pk}/export/?format=xls").status_code == 422


def test_a_run_without_valuation_has_tables_of_what_there_is(client):
    simulation = recorded(0, valuation="none")
    found = tables_of(whole(client.get(f"{URL}{simulation.pk}/export/")))
    assert [len(rows) for rows in found.values()] == [3, 4, 12, 0, 0, 0, 0, 0]
    assert client.get(f"{URL}{simulation.pk}/rounds/1/evidence/").json()["economies"] == []


def test_what_shadows_would_have_paid_is_nobodys_balance(client):
    """In the compatible ledger, which the first system's front end shows."""
    simulation = recorded()
    paid = dict(Client.objects.values_list("number", "reward_microtokens"))
    for number in (1, 2, 3, 4):
        told = client.get("/api/incentives/ledger", {"user_id": number}).json()
        assert told["balance"] == paid[number] / 1_000_000
        assert (
            len(told["transactions"])
            == Contribution.objects.filter(client__number=number, reward_microtokens__gt=0).count()
        )
    assert Account.objects.filter(client=1, ledger__is_shadow=True, balance__gt=0).exists()
    answer = post(client, "/api/incentives/reward", {"user_id": 1, "previous_metric": 2.0, "current_metric": 1.0})
    assert answer.json()["new_balance"] == (10_000_000 + paid[1]) / 1_000_000
    transfers = client.get("/api/incentives/ledger", {"simulation_id": simulation.pk}).json()
    assert {row["ledger"] for row in transfers} == {simulation.ledger.name}
    transfers = client.get("/api/incentives/ledger", {"ledger": f"simulation-{simulation.pk}-1"}).json()
    assert len(transfers) > 0


def test_a_record_says_which_economies_it_has(client):
    simulation = recorded()
    told = client.get(f"{URL}{simulation.pk}/").json()
    assert told["economies"] == ["paying", *(each["label"] for each in SHADOWS)]
    assert recorded_alone().shadows.count() == 0
    assert (Round.objects.count(), Evidence.objects.count() > 0) == (6, True)
