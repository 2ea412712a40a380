"""Whose a simulation is: who sees it, who acts on it, and how many of them one may have."""

import ast
import re
from collections.abc import Iterator

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import Permission, User
from django.http import HttpResponse
from django.test import Client as Browser
from django.urls import URLPattern, URLResolver, get_resolver

from fedsite.tests.machine import PROJECT
from incentives.tests.cast import execute, without_triggers
from simulations.models import Simulation, Status
from simulations.running import lifecycle, verifier
from simulations.showing import feed, stream
from simulations.tests.cast import config, queued, recorded

pytestmark = pytest.mark.django_db
API = "/api/simulations/"
ACTIONS = ("cancel", "resume", "archive", "unarchive")


@pytest.fixture(autouse=True)
def _login(settings):
    settings.FEDSITE_ACCESS = "login"


def signed_in(name: str, **fields) -> Browser:
    browser = Browser()
    browser.force_login(User.objects.get_or_create(username=name, defaults=fields)[0])
    return browser


def operator() -> Browser:
    """Staff who may change simulations."""
    browser = signed_in("operator", is_staff=True)
    user = User.objects.get(username="operator")
    user.user_permissions.add(Permission.objects.get(codename="change_simulation"))
    return browser


def owned(name: str = "ada", **fields) -> Simulation:
    owner, _ = User.objects.get_or_create(username=name)
    return lifecycle.queue(config(**fields), origin="page", owned_by=owner)


def done(name: str = "ada") -> Simulation:
    simulation = recorded()
    simulation.owned_by, _ = User.objects.get_or_create(username=name)
    simulation.save(update_fields=["owned_by"])
    return simulation


def post(browser: Browser, path: str, body: str = "{}", **headers):
    return browser.post(path, body, content_type="application/json", headers=headers)


def page(browser: Browser, address: str) -> str:
    return browser.get(address).content.decode()


def test_whoever_starts_one_owns_it():
    ada = signed_in("ada")
    ada.post("/simulations/", {"dataset": "digits", "num_rounds": "2"})
    post(ada, API)
    first = Simulation.objects.order_by("pk")[0]
    post(signed_in("ben"), f"{API}{first.pk}/clone/")
    signed_in("cora").post(f"/simulations/{first.pk}/again/")
    owners = Simulation.objects.order_by("pk").values_list("owned_by__username", flat=True)
    assert list(owners) == ["ada", "ada", "ben", "cora"]
    assert "by ada" in page(ada, f"/simulations/{first.pk}/")
    assert [row["owner"] for row in ada.get(API).json()] == ["cora", "ben", "ada", "ada"]


@pytest.mark.parametrize("access", ["open", "login"])
def test_in_open_access_it_is_owned_by_whoever_has_signed_in(settings, access):
    settings.FEDSITE_ACCESS = access
    assert post(signed_in("ada"), API).json()["owner"] == "ada"
    if access == "open":
        assert post(Browser(), API).json()["owner"] is None


@pytest.mark.parametrize("action", ACTIONS)
def test_others_look_but_do_not_touch(action):
    simulation, ben = owned(), signed_in("ben")
    before = Simulation.objects.values().get()
    assert ben.get(f"/simulations/{simulation.pk}/").status_code == 200
    refused = ben.post(f"/simulations/{simulation.pk}/{action}/")
    assert refused.status_code == 403
    assert f"Simulation {simulation.pk} is not yours; its owner and operators may do this." in refused.content.decode()
    assert post(ben, f"{API}{simulation.pk}/{action}/").status_code == 403
    assert Simulation.objects.values().get() == before


@pytest.mark.parametrize("name", ["ada", "root", "operator"])
def test_the_owner_and_operators_act(name):
    simulation, browser = (
        owned(),
        operator() if name == "operator" else signed_in(name, is_staff=name == "root", is_superuser=name == "root"),
    )
    address = f"{API}{simulation.pk}/"
    assert post(browser, f"{address}archive/").status_code == 409  # it is not finished
    assert post(browser, f"{address}cancel/").json()["status"] == "cancelled"
    assert post(browser, f"{address}archive/").json()["archived"] is True
    assert browser.get(API).json() == []
    assert [row["id"] for row in browser.get(f"{API}?archived=true").json()] == [simulation.pk]
    assert post(browser, f"{address}unarchive/").json()["archived"] is False
    assert post(browser, f"{address}resume/").json()["status"] == "queued"


def test_what_nobody_owns_is_for_operators():
    simulation = queued()
    for name, fields in (("ada", {}), ("staff", {"is_staff": True})):
        assert post(signed_in(name, **fields), f"{API}{simulation.pk}/cancel/").status_code == 403
    assert post(operator(), f"{API}{simulation.pk}/cancel/").status_code == 200


@pytest.mark.parametrize("action", ACTIONS)
def test_staff_may_by_page_and_api_what_they_may_in_the_admin(action):
    simulation, staff = owned(), signed_in("staff", is_staff=True)
    assert post(staff, f"{API}{simulation.pk}/{action}/").status_code == 403
    assert staff.post(f"/simulations/{simulation.pk}/{action}/").status_code == 403
    assert buttons(page(staff, f"/simulations/{simulation.pk}/")) == {"again"}
    assert staff.get(f"/simulations/{simulation.pk}/stream/").status_code == 200
    assert Simulation.objects.get().status == Status.QUEUED


def test_it_is_archived_and_brought_back_from_its_page():
    simulation, ada = done(), signed_in("ada")
    address = f"/simulations/{simulation.pk}/"
    assert ada.post(f"{address}archive/")["Location"] == address
    assert ">archived<" in page(ada, address)
    assert f'href="{address}"' not in page(ada, "/simulations/")
    assert f'href="{address}"' in page(ada, "/simulations/?archived=1")
    ada.post(f"{address}unarchive/")
    assert f'href="{address}"' in page(ada, "/simulations/")


def buttons(html: str) -> set[str]:
    return set(re.findall(r'formaction="/simulations/\d+/(\w+)/"', html))


def test_buttons_are_shown_to_those_who_may_press_them():
    waiting, finished = owned(), done()
    for browser, of_waiting, of_finished in (
        (signed_in("ada"), {"cancel", "again"}, {"archive", "again"}),
        (operator(), {"cancel", "again"}, {"archive", "again"}),
        (signed_in("staff", is_staff=True), {"again"}, {"again"}),
        (signed_in("ben"), {"again"}, {"again"}),
    ):
        assert buttons(page(browser, f"/simulations/{waiting.pk}/")) == of_waiting
        assert buttons(page(browser, f"/?simulation={waiting.pk}")) == of_waiting
        assert buttons(page(browser, f"/simulations/{finished.pk}/")) == of_finished


def test_the_stream_brings_no_buttons_to_those_who_may_not_press_them():
    simulation, events = feed.read_after(done().pk, 0)
    assert buttons(stream.HTML.frames(simulation, events)) == {"archive", "again"}
    assert buttons(stream.HTML_TO_LOOK.frames(simulation, events)) == {"again"}
    assert stream.HTML.name != stream.HTML_TO_LOOK.name  # frames are kept by the format's name


@pytest.mark.parametrize(("name", "format"), [("ada", stream.HTML), ("ben", stream.HTML_TO_LOOK)])
def test_the_stream_is_the_readers_own(monkeypatch, name, format):
    seen = []
    monkeypatch.setattr(stream, "streaming", lambda *arguments: seen.append(arguments[-1]) or HttpResponse())
    signed_in(name).get(f"/simulations/{owned().pk}/stream/")
    assert seen == [format]


# Where others may not even look


@pytest.fixture
def private(settings):
    settings.FEDSITE_OTHERS_MAY_LOOK = False


def addresses(patterns, prefix: str = "/") -> Iterator[tuple[str, str]]:
    """Every address of the site that names a simulation, with the name of its argument for a client's number."""
    for pattern in patterns:
        path = prefix + str(pattern.pattern).lstrip("^")
        if isinstance(pattern, URLResolver):
            yield from addresses(pattern.url_patterns, path)
        elif isinstance(pattern, URLPattern) and "simulation_id" in path:
            yield re.sub(r"<(?:\w+:)?simulation_id>", "{}", re.sub(r"<(?:\w+:)?number>", "1", path)), path


@pytest.mark.usefixtures("private")
def test_no_address_shows_what_is_somebody_elses():
    simulation = done()
    ada, ben, root = signed_in("ada"), signed_in("ben"), signed_in("root", is_staff=True)
    found = [address for address, _ in addresses(get_resolver().url_patterns)]
    assert len(found) > 15
    for address in found:
        address = address.format(simulation.pk)
        for method in (ben.get, ben.post):
            assert method(address).status_code in (404, 405), address
        for browser in (ada, root):
            answer = browser.get(f"{address}?after={simulation.last_sequence}")
            assert answer.status_code in (200, 204, 405), address
    assert Simulation.objects.get().archived is False


@pytest.mark.usefixtures("private")
def test_no_list_shows_what_is_somebody_elses():
    simulation, ben = done(), signed_in("ben")
    running = owned()
    for address in ("/", f"/?simulation={simulation.pk}", "/simulations/", "/simulations/recent/"):
        html = page(ben, address)
        for each in (simulation, running):
            assert f"/simulations/{each.pk}/" not in html, address
    assert ben.get(API).json() == []
    reconnect = ben.get(f"{API}stream", headers={"Last-Event-ID": f"{simulation.pk}-1"})
    assert reconnect.status_code == 204
    assert len(signed_in("ada").get(API).json()) == len(signed_in("root", is_staff=True).get(API).json()) == 2


QUERIES = (
    "",
    "?client=1",
    "?ledger=manual",
    "?ledger=simulation-{theirs}",
    "?simulation_id={theirs}",
    "?simulation_id={mine}",
    "?ledger=simulation-{mine}",
    "?ledger=",
    "?ledger=%20",
)


@pytest.mark.usefixtures("private")
@pytest.mark.database
@pytest.mark.parametrize("query", QUERIES)
def test_whatever_is_asked_for_ledgers_of_others_are_not_there(query):
    """Whoever has one of his own reads that one, and no other beside it."""
    theirs, mine, ben = done(), done("ben"), signed_in("ben")
    reward(signed_in("root", is_superuser=True, is_staff=True))
    query = query.format(theirs=theirs.pk, mine=mine.pk)
    shown = page(ben, f"/ledger/{query}")
    assert f"/ledger/transactions/simulation-{theirs.pk}/" not in shown
    assert "/ledger/transactions/manual/" not in shown
    assert f'<option value="simulation-{theirs.pk}">' not in shown
    assert f'<option value="simulation-{mine.pk}">' in shown
    file = ben.get(f"/ledger/export/{query}")
    names = {line.split(",")[0] for line in text_of(file).splitlines()[1:]} if file.status_code == 200 else set()
    assert names <= {f"simulation-{mine.pk}"}, file
    for name in ("ledger", "accounts/", "verify/"):
        answer = ben.get(f"/api/incentives/{name}{query}")
        if answer.status_code == 200:
            assert {row["ledger"] for row in answer.json()} <= {f"simulation-{mine.pk}"}
        else:
            assert answer.status_code == 422  # a query that this list does not know


def text_of(file) -> str:
    async def whole():
        return b"".join([piece async for piece in file.streaming_content])

    return async_to_sync(whole)().decode()


def reward(browser: Browser):
    body = '{"user_id": 1, "previous_metric": 0.5, "current_metric": 0.4}'
    return post(browser, "/api/incentives/reward", body)


@pytest.mark.usefixtures("private")
def test_counts_and_balances_are_those_of_ones_own_ledgers():
    theirs, mine, ben = done(), done("ben"), signed_in("ben")
    root = signed_in("root", is_superuser=True, is_staff=True)
    reward(root)
    own = mine.ledger.length
    verifier.look()
    assert f"{own} transactions" in page(ben, "/ledger/state/")
    assert f"{2 * own + 1} transactions" in page(root, "/ledger/state/")
    assert "<dt>Ledgers</dt><dd>1</dd>" in page(ben, "/ledger/")
    balance = mine.ledger.accounts.get(client=1).balance / 1_000_000
    everything = ben.get("/api/incentives/ledger?user_id=1").json()
    assert everything["balance"] == pytest.approx(balance)
    assert root.get("/api/incentives/ledger?user_id=1").json()["balance"] > 2 * balance
    assert ben.get(f"/ledger/transactions/simulation-{theirs.pk}/1/").status_code == 404
    assert ben.get(f"/ledger/transactions/simulation-{mine.pk}/1/").status_code == 200
    assert reward(ben).status_code == 403


@pytest.mark.usefixtures("private")
def test_a_broken_chain_is_told_to_those_who_see_it():
    theirs, ben, root = done(), signed_in("ben"), signed_in("root", is_staff=True)
    done("ben")
    without_triggers()
    execute(f"UPDATE incentives_ledger SET head = 'cut' WHERE name = 'simulation-{theirs.pk}'")
    verifier.look()
    assert f"Chain broken · simulation-{theirs.pk}" in page(root, "/ledger/state/")
    for address in ("/ledger/state/", "/ledger/"):
        assert f"simulation-{theirs.pk}" not in page(ben, address)


@pytest.mark.parametrize("file", ["api.py", "views.py"])
def test_pages_and_lists_of_ledgers_take_their_rows_from_one_place(file):
    """Whatever answers a request asks `sight`, never a table."""
    tree = ast.parse((PROJECT / "incentives" / file).read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    answering = [each for each in functions if "request" in [argument.arg for argument in each.args.args]]
    tables = [node.lineno for each in answering for node in ast.walk(each) if getattr(node, "attr", "") == "objects"]
    assert len(answering) >= 4
    assert tables == []


# How many


@pytest.mark.database
def test_one_person_has_a_bounded_number_under_way(settings):
    settings.FEDSITE_MAX_PER_USER = 2
    ada = signed_in("ada")
    first, _ = owned(), owned()
    full = post(ada, API)
    assert (full.status_code, "2 simulations of one user" in full.json()["detail"]) == (429, True)
    assert int(full["Retry-After"]) > 0
    assert ada.post("/simulations/", {"dataset": "digits"}).status_code == 429
    assert ada.post(f"/simulations/{first.pk}/again/").status_code == 429
    assert post(signed_in("ben"), API).status_code == 201
    lifecycle.cancel(first.pk)
    assert post(ada, API).status_code == 201
    assert post(ada, f"{API}{first.pk}/resume/").status_code == 429
    assert ada.post(f"/simulations/{first.pk}/resume/").status_code == 429
    assert Simulation.objects.get(pk=first.pk).status == Status.CANCELLED


def test_a_key_is_its_owners_own():
    first = post(signed_in("ada"), API, idempotency_key="once").json()
    assert post(signed_in("ada"), API, idempotency_key="once").json()["id"] == first["id"]
    other = post(signed_in("ben"), API, idempotency_key="once")
    assert (other.status_code, other.json()["owner"]) == (201, "ben")
    assert post(signed_in("ben"), API, idempotency_key="k" * 200).status_code == 201


def test_nobodys_key_is_one_of_a_person(settings):
    settings.FEDSITE_ACCESS = "open"
    theirs = post(signed_in("ada"), API, idempotency_key="x").json()
    spelled_alike = f"user:{User.objects.get(username='ada').pk}:x"
    first, again = (post(Browser(), API, idempotency_key=spelled_alike) for _ in range(2))
    assert (first.status_code, first.json()["owner"]) == (201, None)
    assert first.json()["id"] == again.json()["id"] != theirs["id"]
    assert post(signed_in("ada"), API, idempotency_key="x").json()["id"] == theirs["id"]


def test_what_somebody_left_behind_stays():
    simulation = owned()
    User.objects.get(username="ada").delete()
    assert Simulation.objects.get(pk=simulation.pk).owned_by is None
