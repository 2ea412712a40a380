"""The operator's admin: everything to be seen at a bounded cost, acted on through the lifecycle, nothing edited."""

from datetime import timedelta
from importlib import import_module

import pytest
from django.apps import apps
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.core.management import call_command
from django.test import Client as Browser
from django.urls import reverse
from django.utils import timezone

from incentives.models import Account, Ledger, Transaction, Transfer
from people.models import Token
from simulations.models import Client, Contribution, Event, Round, Simulation, Status, Worker
from simulations.running import turns, workers
from simulations.tests.cast import claimed, queued, recorded

pytestmark = pytest.mark.django_db
MANY = 10_000
LIST = "/admin/simulations/simulation/"


@pytest.fixture
def root() -> Browser:
    browser = Browser()
    browser.force_login(User.objects.create_superuser("root"))
    return browser


def staff(*permissions: str) -> Browser:
    user, _ = User.objects.get_or_create(username="staff", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    browser = Browser()
    browser.force_login(user)
    return browser


def act(browser: Browser, action: str, *simulations: Simulation, **more: str):
    chosen = {"action": action, "_selected_action": [one.pk for one in simulations], **more}
    return browser.post(LIST, chosen, follow=True)


def said(response) -> list[str]:
    return [str(message) for message in response.context["messages"]]


# Actions


@pytest.mark.database
def test_it_cancels_resumes_and_archives_with_a_word_on_each(root):
    waiting, finished = queued(), recorded()
    answer = act(root, "cancel", waiting, finished)
    assert said(answer) == [
        f"Simulation {waiting.pk} is cancelled.",
        f"Simulation {finished.pk} stays as it is: Simulation {finished.pk} is completed; "
        "only a queued or running one can be cancelled.",
    ]
    assert said(act(root, "archive", waiting, finished)) == [
        f"Simulation {waiting.pk} is archived.",
        f"Simulation {finished.pk} is archived.",
    ]
    assert Simulation.objects.filter(archived=True).count() == 2
    act(root, "unarchive", waiting)
    assert said(act(root, "resume", waiting)) == [f"Simulation {waiting.pk} is queued again."]
    waiting.refresh_from_db()
    assert (waiting.status, waiting.archived) == (Status.QUEUED, False)
    assert set(LogEntry.objects.values_list("object_id", "change_message")) == {
        (str(waiting.pk), text) for text in ("Cancelled", "Archived", "Back on the lists", "Queued again")
    } | {(str(finished.pk), "Archived")}


def test_it_runs_again_as_the_operators_own(root):
    finished = recorded()
    answer = act(root, "run_again", finished)
    fresh = Simulation.objects.latest("pk")
    assert said(answer) == [f"Simulation {finished.pk} is run again as simulation {fresh.pk}."]
    assert (fresh.config, fresh.owned_by.username) == (finished.config, "root")
    Simulation.objects.filter(pk=finished.pk).update(config=finished.config | {"model": "gone"})
    assert "stays as it is: model" in said(act(root, "run_again", finished))[0]


def test_it_does_not_act_on_a_whole_table_at_once(root, monkeypatch):
    monkeypatch.setattr("simulations.admin.MOST", 1)
    assert said(act(root, "cancel", queued(), queued())) == ["At most 1 simulations at once."]
    assert not Simulation.objects.filter(status=Status.CANCELLED).exists()


def test_acting_needs_the_permission_to():
    simulation = queued()
    looker = staff("view_simulation")
    assert looker.get(LIST).status_code == 200
    act(looker, "cancel", simulation)
    assert Simulation.objects.get().status == Status.QUEUED
    User.objects.all().delete()
    act(staff("view_simulation", "change_simulation"), "cancel", simulation)
    assert Simulation.objects.get().status == Status.CANCELLED


@pytest.mark.parametrize("model", [Simulation, Client, Round, Contribution, Event, Token])
def test_nothing_is_added_or_changed_by_hand(root, model):
    recorded()
    Token.objects.create(owner=User.objects.get(), name="lab")
    name, row = model._meta.label_lower.replace(".", "_"), model.objects.first().pk
    assert root.post(reverse(f"admin:{name}_add")).status_code == 403
    assert root.post(reverse(f"admin:{name}_change", args=[row]), {"status": "completed"}).status_code == 403
    deleted = root.post(reverse(f"admin:{name}_delete", args=[row]), {"post": "yes"})
    assert deleted.status_code == (302 if model is Token else 403)  # which is how it is revoked
    assert model.objects.exists() is (model is not Token)


# What it shows


@pytest.mark.database
def test_a_simulations_page_shows_what_happened(root):
    simulation = recorded()
    html = root.get(f"{LIST}{simulation.pk}/change/").content.decode()
    for part in ("free_rider", simulation.weights_sha256, "Contributions to the newest round", "completed"):
        assert part in html
    assert html.count('<td class="field-sequence">') == min(20, simulation.last_sequence)
    for kind in ("client", "round", "event"):
        assert f"/admin/simulations/{kind}/?simulation__id__exact={simulation.pk}" in html


@pytest.mark.parametrize("page", ["", "simulations/simulation/", "auth/user/add/"])
def test_every_page_names_its_icon(root, page):
    """Or each browser asks for one that is not there."""
    assert b'rel="icon"' in root.get(f"/admin/{page}").content


@pytest.mark.database
def test_its_links_lead_to_its_rows(root):
    simulation, _ = recorded(), recorded()
    for kind, key, count in (
        ("client", "simulation__id__exact", 4),
        ("round", "simulation__id__exact", 3),
        ("contribution", "round__simulation__id__exact", 12),
        ("event", "simulation__id__exact", simulation.last_sequence),
    ):
        page = root.get(f"/admin/simulations/{kind}/?{key}={simulation.pk}")
        assert (page.status_code, page.context["cl"].result_count) == (200, count)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("q=ada", 1),
        ("q=weights", 1),
        ("status__exact=queued", 1),
        ("archived__exact=1", 0),
        ("q=nothing", 0),
        ("q=near", 1),
    ],
)
def test_it_is_searched_and_filtered(root, query, found):
    Simulation.objects.filter(pk=queued().pk).update(
        owned_by=User.objects.create_user("ada"), weights_sha256="weights", claimed_by="near:7:a"
    )
    recorded()
    page = root.get(f"{LIST}?{query}")
    assert page.context["cl"].result_count == found


@pytest.mark.database
def test_it_is_found_by_its_number(root):
    simulation = queued()
    assert root.get(f"{LIST}?q={simulation.pk}").context["cl"].result_count == 1
    assert root.get(f"{LIST}?q={'9' * 40}").context["cl"].result_count == 0


# Workers


@pytest.mark.database
def test_workers_are_shown_with_what_they_run(root):
    first, second, waiting = queued(), queued(), queued()
    claimed(first), claimed(second)
    Simulation.objects.filter(pk=first.pk).update(claimed_by="near:7:a")
    Simulation.objects.filter(pk=second.pk).update(
        claimed_by="far:8:b", lease_expires_at=timezone.now() - timedelta(seconds=1)
    )
    now = timezone.now()
    there = {"near:7": 2, "idle:9": 3, "silent:1": 600, "forgotten:1": 3601}  # seconds since it was heard of
    for name, seconds in there.items():
        long_ago = now - timedelta(hours=2)
        Worker.objects.create(name=name, started_at=long_ago, seen_at=now - timedelta(seconds=seconds))
    far, idle, near, silent = workers.everybody()
    assert (far.host, far.process, far.started_at, far.is_lost) == ("far", "8", None, True)
    assert [run.simulation.pk for run in far.runs] == [second.pk]
    assert (idle.host, idle.is_lost, idle.runs) == ("idle", False, [])
    assert 3 <= idle.silent_seconds < 60
    assert (near.host, near.is_lost, [run.simulation.pk for run in near.runs]) == ("near", False, [first.pk])
    assert near.started_at == long_ago
    assert near.runs[0].since is not None
    assert (silent.host, silent.is_lost) == ("silent", True)
    html = root.get(f"{LIST}workers/").content.decode()
    for part in ("near", "far", "idle", "nothing now", "lost", f"Simulation {first.pk}", "1 simulation in the queue"):
        assert part in html
    assert f"Simulation {waiting.pk}<" not in html
    assert 'href="/admin/simulations/simulation/workers/"' in root.get(LIST).content.decode()


@pytest.mark.database
def test_many_workers_cost_no_more_queries(root, django_assert_max_num_queries):
    now = timezone.now()
    Worker.objects.bulk_create(Worker(name=f"h:{n}", started_at=now, seen_at=now) for n in range(100))
    for n in range(10):
        Simulation.objects.filter(pk=claimed().simulation_id).update(claimed_by=f"h:{n}:t")
    with django_assert_max_num_queries(8):  # session and user, clock, workers, runs, claims, two of the queue
        assert root.get(f"{LIST}workers/").content.count(b"nothing now") == 90


def test_workers_are_for_those_who_may_see_simulations():
    assert staff().get(f"{LIST}workers/").status_code == 403
    assert Browser().get(f"{LIST}workers/").status_code == 302


# Reversals

TRANSACTIONS = "/admin/incentives/transaction/"


def ask_to_reverse(browser: Browser, *chosen: Transaction, **more: str):
    values = {"action": "reverse", "_selected_action": [one.pk for one in chosen], **more}
    return browser.post(TRANSACTIONS, values, follow=True)


def test_a_reversal_asks_for_its_reason_first(root):
    recorded()
    original = Transaction.objects.get(sequence=2)
    asked = ask_to_reverse(root, original)
    assert "Reason, which the ledger keeps for ever" in asked.content.decode()
    assert f"{original} of {original.ledger}: {original.description}" in asked.content.decode()
    for reason in ("", "   ", "x" * 501):
        again = ask_to_reverse(root, original, confirmed="yes", reason=reason)
        assert "errorlist" in again.content.decode()
    assert not Transaction.objects.filter(reverses__isnull=False).exists()


@pytest.mark.database
def test_a_reversal_is_a_new_transaction_and_the_ledger_still_verifies(root, capsys):
    simulation = recorded()
    original = Transaction.objects.get(sequence=3)
    answer = ask_to_reverse(root, original, confirmed="yes", reason="Paid by mistake")
    assert said(answer) == [f"Transaction 3 of {simulation.ledger} is taken back by transaction 4."]
    posted = Transaction.objects.get(reverses=original)
    assert (posted.sequence, posted.description, posted.memo) == (4, "Paid by mistake", {"actor": "root"})
    simulation.refresh_from_db()
    assert (simulation.ledger_head, simulation.ledger_length) == (posted.hash, 4)
    call_command("verify_ledger")
    assert "Verified 1 ledgers: 4 transactions" in capsys.readouterr().out
    assert LogEntry.objects.get().change_message == "Reversed by transaction 4: Paid by mistake"


@pytest.mark.database
def test_a_reversal_that_is_repeated_changes_nothing_more(root):
    simulation = recorded()
    first, last = Transaction.objects.get(sequence=1), Transaction.objects.get(sequence=3)
    for original in (last, first, last):
        ask_to_reverse(root, original, confirmed="yes", reason="Mistake")
    simulation.refresh_from_db()
    assert (simulation.ledger_length, Transaction.objects.count()) == (5, 5)
    assert simulation.ledger_head == Transaction.objects.get(sequence=5).hash
    assert "reversed already" in said(ask_to_reverse(root, last, confirmed="yes", reason="Another"))[0]


def test_a_reversal_does_not_hide_that_a_chain_was_cut(root):
    simulation = recorded()
    Simulation.objects.update(ledger_head="0" * 64, ledger_length=9)
    answer = ask_to_reverse(root, Transaction.objects.get(sequence=1), confirmed="yes", reason="Mistake")
    assert "does not end as its simulation's row says" in said(answer)[0]
    assert Transaction.objects.filter(ledger=simulation.ledger).count() == 3


def test_reversing_needs_the_permission_to():
    recorded()
    original = Transaction.objects.get(sequence=1)
    ask_to_reverse(staff("view_transaction", "add_transaction"), original, confirmed="yes", reason="Mistake")
    assert Transaction.objects.count() == 3
    ask_to_reverse(staff("view_transaction", "reverse_transaction"), original, confirmed="yes", reason="Mistake")
    assert Transaction.objects.count() == 4


def test_who_could_reverse_before_there_was_a_permission_still_can():
    ann, reviewers = User.objects.create_user("ann", is_staff=True), Group.objects.create(name="reviewers")
    add, reverse = (Permission.objects.get(codename=f"{word}_transaction") for word in ("add", "reverse"))
    ann.user_permissions.add(add), reviewers.permissions.add(add)
    import_module("incentives.migrations.0004_rewards_by_hand").carry_over(apps, None)
    assert (list(reverse.user_set.all()), list(reverse.group_set.all())) == ([ann], [reviewers])


# Ten thousand of everything


@pytest.fixture
def crowded() -> Simulation:
    """A simulation with 10,000 clients, rounds, contributions, events, transactions; as many of everything else."""
    simulation = recorded()
    Simulation.objects.filter(pk=simulation.pk).update(num_clients=MANY, rounds_done=MANY, last_sequence=MANY)
    numbers = range(1001, 1001 + MANY)
    clients = Client.objects.bulk_create(
        Client(simulation=simulation, number=n, num_examples=1, label_counts=[], behaviour="honest") for n in numbers
    )
    like = Round.objects.filter(simulation=simulation).values().first() | {"id": None}
    rounds = Round.objects.bulk_create(Round(**like | {"number": n}) for n in numbers)
    pairs = [(rounds[0], client) for client in clients] + [(each, clients[0]) for each in rounds[1:]]
    same = {"value": 0.1, "reward_microtokens": 1, "update_norm": 1}
    Contribution.objects.bulk_create(Contribution(round=round, client=client, **same) for round, client in pairs)
    Event.objects.bulk_create(Event(simulation=simulation, sequence=n, kind="log", message="x") for n in numbers)
    transactions = Transaction.objects.bulk_create(
        Transaction(ledger=simulation.ledger, sequence=n, key=str(n), description="x") for n in numbers
    )
    debit, credit = Account.objects.filter(ledger=simulation.ledger)[:2]
    same = {"transaction": transactions[0], "debit_account": debit, "credit_account": credit, "amount": 1, "code": "x"}
    Transfer.objects.bulk_create(Transfer(position=n, **same) for n in range(1, 1 + MANY))
    Ledger.objects.bulk_create(Ledger(name=f"ledger-{n}", head="0") for n in numbers)
    Account.objects.bulk_create(Account(ledger=simulation.ledger, name=f"client:{n}", client=n) for n in numbers)
    users = User.objects.bulk_create(User(username=f"user-{n}") for n in numbers)
    Token.objects.bulk_create(Token(owner=user, name="lab", secret_sha256=f"{user.pk}") for user in users)
    return simulation


def test_no_page_asks_more_than_15_questions_of_ten_thousand(root, crowded, django_assert_max_num_queries):
    running = {"status": Status.RUNNING, "claimed_by": "h:1:x", "lease_expires_at": timezone.now()}
    Simulation.objects.filter(pk=crowded.pk).update(**running)
    pages = ["/admin/", f"{LIST}workers/"]
    models = (Simulation, Client, Round, Contribution, Event, Ledger, Account, Transaction, Token, User)
    for model in models:
        name, middle = model._meta.label_lower.replace(".", "_"), model.objects.count() // 2
        pages.append(reverse(f"admin:{name}_changelist"))
        pages.append(reverse(f"admin:{name}_change", args=[model.objects.order_by("pk")[middle].pk]))
    busiest = {"round": Round, "client": Client}
    for kind, model in busiest.items():
        row = Contribution.objects.filter(**{f"{kind}__number": 1001}).first()
        pages.append(reverse(f"admin:simulations_{kind}_change", args=[getattr(row, f"{model._meta.model_name}_id")]))
    pages.append(reverse("admin:incentives_transaction_change", args=[Transfer.objects.latest("pk").transaction_id]))
    pages += [f"/admin/simulations/{kind}/?simulation__id__exact={crowded.pk}" for kind in ("client", "round", "event")]
    for address in pages:
        with django_assert_max_num_queries(15, info=address):
            answer = root.get(address)
        assert answer.status_code == 200, address
        assert len(answer.content) < 400_000, (address, len(answer.content))


def test_a_list_of_many_simulations_asks_no_more(root, django_assert_max_num_queries):
    simulation = queued()
    simulation.owned_by = User.objects.create_user("ada")
    row = {name: getattr(simulation, name) for name in ("origin", "config", "dataset", "num_clients", "num_rounds")}
    Simulation.objects.bulk_create(
        Simulation(**row, fraction_fit=1.0, owned_by=simulation.owned_by, status=Status.COMPLETED) for _ in range(MANY)
    )
    for address in (LIST, f"{LIST}?q=ada", f"{LIST}?p=50", "/admin/"):
        with django_assert_max_num_queries(15, info=address):
            assert root.get(address).status_code == 200
    assert turns.waiting().count() == 1
