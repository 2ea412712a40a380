"""The ledger in the admin: everything to be seen, nothing to be done."""

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from incentives import ledger
from incentives.models import Account, Ledger, Transaction
from incentives.tests.cast import pay, three_rounds

pytestmark = pytest.mark.django_db
MODELS = (Ledger, Account, Transaction)


@pytest.fixture
def superuser() -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("admin"))
    return client


def page(model, name: str, *args: int) -> str:
    return reverse(f"admin:incentives_{model._meta.model_name}_{name}", args=args)


@pytest.mark.parametrize("model", MODELS)
def test_it_shows_lists_and_rows_without_a_form(superuser, model):
    three_rounds()
    listed = superuser.get(page(model, "changelist"))
    assert listed.status_code == 200
    assert (b'name="action"' in listed.content) is (model is Transaction)  # it can be reversed
    shown = superuser.get(page(model, "change", model.objects.first().pk))
    assert shown.status_code == 200
    assert b'name="_save"' not in shown.content


@pytest.mark.parametrize("model", MODELS)
def test_it_refuses_a_superuser_to_add_change_or_delete(superuser, model):
    three_rounds()
    before = list(model.objects.order_by("pk").values())
    row = model.objects.first().pk
    for method in (superuser.get, superuser.post):
        assert method(page(model, "add")).status_code == 403
        assert method(page(model, "delete", row)).status_code == 403
    assert superuser.post(page(model, "change", row), {"balance": 5}).status_code == 403
    chosen = {"action": "delete_selected", "_selected_action": [row], "post": "yes"}
    superuser.post(page(model, "changelist"), chosen)
    assert list(model.objects.order_by("pk").values()) == before


def test_it_shows_the_transfers_of_a_transaction(superuser):
    opened = three_rounds()
    text = superuser.get(page(Transaction, "change", opened.transactions.get(sequence=1).pk)).content.decode()
    for part in ("treasury", "client:3", "pool", "reward", "Reward of round:1", opened.transactions.first().hash):
        assert part in text


@pytest.mark.parametrize(
    ("model", "word", "found"),
    [
        (Ledger, "manual", 1),
        (Account, "client:1", 2),
        (Account, "manual", 4),
        (Transaction, "mistake", 1),
        (Transaction, "manual", 1),
    ],
)
def test_it_searches(superuser, model, word, found):
    three_rounds()
    pay(ledger.open_ledger("manual"), "k", 1, 1)
    response = superuser.get(page(model, "changelist"), {"q": word})
    assert response.context["cl"].result_count == found


@pytest.mark.parametrize("model", MODELS)
def test_it_asks_as_many_questions_for_many_rows_as_for_one(superuser, model, django_assert_max_num_queries):
    for n in range(1, 8):
        three_rounds(f"simulation-{n}")
    with django_assert_max_num_queries(8):
        superuser.get(page(model, "changelist"))


def test_it_asks_few_questions_for_many_transfers(superuser, django_assert_max_num_queries):
    posted = pay(ledger.open_ledger("simulation-1"), "round:1", *[1] * 60)
    with django_assert_max_num_queries(10):
        assert superuser.get(page(Transaction, "change", posted.pk)).status_code == 200
