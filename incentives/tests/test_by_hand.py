"""Rewards by hand: who may mint, who did, how much in a day, and once for a key."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from incentives import by_hand, ledger
from incentives.models import Account, Ledger, RewardRequest, Transaction

pytestmark = [pytest.mark.django_db, pytest.mark.database]
TERMS = {"user_id": 1, "previous_metric": 0.5, "current_metric": 0.4, "scaling_factor": 10.0}  # one token


def ask(who: Client, key: str = "", address: str = "10.0.0.1", **terms: float):
    headers = {"Idempotency-Key": key} if key else {}
    body = TERMS | terms
    return who.post(
        "/api/incentives/reward", body, content_type="application/json", headers=headers, REMOTE_ADDR=address
    )


def person(name: str, *, may_mint: bool = True, **fields: bool) -> Client:
    user, _ = User.objects.get_or_create(username=name, **fields)
    if may_mint:
        user.user_permissions.add(Permission.objects.get(codename="reward_by_hand"))
    browser = Client()
    browser.force_login(user)
    return browser


def paid() -> int:
    """Tokens that client 1 has been paid."""
    return sum(Account.objects.filter(client=1).values_list("balance", flat=True)) // 1_000_000


@pytest.fixture
def closed(settings) -> None:
    settings.FEDSITE_ACCESS = "login"


@pytest.mark.usefixtures("closed")
def test_it_takes_a_right_of_its_own():
    refused = ask(person("ada", may_mint=False))
    assert (refused.status_code, list(refused.json())) == (403, ["detail"])
    assert ask(person("sue", may_mint=False, is_staff=True)).status_code == 403
    assert ask(Client()).status_code == 401
    assert Transaction.objects.count() == 0
    assert ask(person("ben")).status_code == ask(person("root", may_mint=False, is_superuser=True)).status_code == 200


@pytest.mark.usefixtures("closed")
def test_the_ledger_keeps_who_did_it_by_name_alone():
    ask(person("ada"), address="10.9.8.7")
    posted = Transaction.objects.get()
    assert posted.memo == {name: repr(value) for name, value in TERMS.items()} | {"actor": "ada"}
    assert ledger.verify(posted.ledger).ok
    told = Client().get("/ledger/transactions/manual/1/")
    assert told.status_code == 302
    assert "10.9.8.7" not in str(RewardRequest.objects.values())
    page = person("ada").get("/ledger/transactions/manual/1/").content.decode()
    assert '<dt class="note">actor</dt><dd class="wrap-anywhere">ada</dd>' in page


@pytest.mark.usefixtures("closed")
def test_who_has_the_right_has_no_cap():
    assert ask(person("ada"), scaling_factor=1e6).json()["reward"] == 100_000


def test_in_open_access_nobody_is_named_and_the_hash_is_the_first_versions():
    ask(Client(), key="k")
    posted = Transaction.objects.get()
    assert (posted.key, posted.memo) == ("reward:k", {name: repr(value) for name, value in TERMS.items()})
    assert posted.hash == "089315f2cdaf4822986b23af1408c06b17763c5ca855b5d5b42935ac5e9965cc"


def test_in_open_access_an_address_has_a_thousand_tokens_a_day(monkeypatch):
    somebody = Client()
    for n in range(9):
        assert ask(somebody, scaling_factor=1000, key=f"k{n}").status_code == 200
    assert ask(somebody, scaling_factor=1000, key="k0").status_code == 200  # a repeat, which mints nothing
    refused = ask(person("ada"), scaling_factor=1010)
    assert refused.status_code == 429
    assert refused.json()["detail"].startswith("1,000 tokens a day may be minted from one address; go on in ")
    assert 86_000 < int(refused["Retry-After"]) <= 86_400
    assert ask(somebody, scaling_factor=1000).status_code == 200
    assert ask(somebody).status_code == 429
    assert paid() == 1000
    assert ask(somebody, current_metric=0.6).status_code == 200  # nothing is always to be had
    assert ask(somebody, address="10.0.0.2").status_code == 200
    RewardRequest.objects.update(asked_at=by_hand.timezone.now() - timedelta(days=1))
    assert ask(somebody).status_code == 200


def test_in_open_access_a_64_of_ipv6_is_one_address():
    assert ask(Client(), scaling_factor=10_000, address="2001:db8::1").status_code == 200
    assert ask(Client(), address="2001:db8::2").status_code == 429
    assert ask(Client(), address="2001:db8:0:1::1").status_code == 200


def test_in_open_access_more_than_a_day_has_is_refused_by_its_field():
    refused = ask(Client(), scaling_factor=10_001)
    assert refused.status_code == 422
    assert refused.json()["detail"].startswith("scaling_factor: 1,000 tokens a day may be minted from one address")


@pytest.mark.parametrize("access", ["open", "login"])
def test_a_key_means_one_reward_also_where_it_was_of_nothing(settings, access):
    settings.FEDSITE_ACCESS = access
    ada = person("ada")
    assert ask(ada, key="k", current_metric=0.6).json()["reward"] == 0
    assert ask(ada, key="k", current_metric=0.6).json()["reward"] == 0
    assert ask(ada, key="k").status_code == ask(ada, key="k", current_metric=0.7).status_code == 409
    assert ask(ada, key="l").status_code == ask(ada, key="l").status_code == 200
    assert ask(ada, key="l", current_metric=0.6).status_code == 409
    assert paid() == 1
    RewardRequest.objects.all().delete()  # a day later the ledger itself knows
    assert ask(ada, key="l").status_code == 200
    assert ask(ada, key="l", current_metric=0.6).status_code == 409
    assert paid() == 1


def test_a_key_is_its_owners_own():
    """And nobody can spell the key that the ledger has for another."""
    for who in (person("ada"), person("ben"), Client()):
        assert ask(who, key="k").status_code == ask(who, key="k").status_code == 200
    assert paid() == Transaction.objects.count() == 3
    for key in Transaction.objects.filter(memo__has_key="actor").values_list("key", flat=True):
        assert ask(Client(), key=key.removeprefix("reward ")).status_code == 422
    assert paid() == 3


@pytest.mark.usefixtures("closed")
def test_what_was_paid_before_actors_were_named_is_not_paid_again():
    before = ledger.open_ledger("manual")
    memo = {name: repr(value) for name, value in TERMS.items()}
    entries = [ledger.Entry("mint", "treasury", 1_000_000, "pool"),
               ledger.Entry("treasury", "client:1", 1_000_000, "reward")]  # fmt: skip
    ledger.post(before.pk, key="reward:k", transfers=entries, description="Reward of client 1", memo=memo)
    assert ask(person("ada"), key="k").json()["new_balance"] == 1
    assert Transaction.objects.count() == 1


@pytest.mark.usefixtures("closed")
def test_who_may_mint_and_not_look_is_told_no_balance(settings):
    settings.FEDSITE_OTHERS_MAY_LOOK = False
    assert ask(person("ada")).json() == {"user_id": 1, "reward": 1.0, "new_balance": None}
    assert ask(person("ada"), current_metric=0.6).json() == {"user_id": 1, "reward": 0.0, "new_balance": None}
    assert ask(person("root", is_superuser=True, is_staff=True)).json()["new_balance"] == 2.0
    settings.FEDSITE_OTHERS_MAY_LOOK = True
    assert ask(person("ada")).json()["new_balance"] == 3.0


def test_requests_are_forgotten_after_a_day():
    ask(Client(), key="k")
    RewardRequest.objects.update(asked_at=by_hand.timezone.now() - timedelta(days=1, seconds=1))
    ask(Client(), key="l")
    assert list(RewardRequest.objects.values_list("key", "address")) == [("reward:l", "10.0.0.1")]
    assert Ledger.objects.get().length == 2
