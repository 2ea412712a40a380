"""Counters: what is let through in a minute, shared where there is a Redis, and still there without it."""

import pytest
from django.core.cache.backends.redis import RedisCache
from redis.backoff import NoBackoff
from redis.retry import Retry

from people import limits
from people.tests.cast import Clock

OPTIONS = {"OPTIONS": {"socket_timeout": 1, "socket_connect_timeout": 1, "retry": Retry(NoBackoff(), 1)}}


def test_so_many_a_minute_are_let_through(monkeypatch):
    clock = Clock(monkeypatch)
    clock.now = 600.0
    assert [limits.seconds_over("ada", 3) for _ in range(5)] == [0, 0, 0, 60, 60]
    assert limits.seconds_over("ben", 3) == 0
    clock.wait(50)
    assert limits.seconds_over("ada", 3) == 10
    clock.wait(10)
    assert limits.seconds_over("ada", 3) == 0


@pytest.mark.parametrize(
    ("told", "address"),
    [
        ("10.0.0.9", "10.0.0.9"),
        ("10.0.0.9:61234", "10.0.0.9"),
        ("::ffff:10.0.0.9", "10.0.0.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2::9]:443", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::9", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix:", "unix:"),
        ("x" * 99, "x" * 64),
        ("", ""),
    ],
)
def test_an_address_is_what_one_customer_has(rf, settings, told, address):
    assert limits.address(rf.get("/", REMOTE_ADDR=told)) == address
    settings.FEDSITE_PROXIES = 1
    if told:
        assert limits.address(rf.get("/", REMOTE_ADDR="127.0.0.1", HTTP_X_FORWARDED_FOR=f"6.6.6.6, {told}")) == address


def test_no_limit_counts_nothing(monkeypatch):
    monkeypatch.setattr(limits, "_count", None)
    assert limits.seconds_over("ada", 0) == 0


def test_a_count_is_not_washed_out_by_others():
    """Django's own cache keeps 300."""
    assert limits.seconds_over("ada", 1) == 0
    for n in range(400):
        limits.seconds_over(f"user-{n}", 1)
    assert limits.seconds_over("ada", 1) > 0


@pytest.fixture
def use(monkeypatch):
    """Count in the Redis at this address from now on, on connections of one's own, as another process would."""
    used = []

    def count_in(url: str) -> None:
        used.append(RedisCache(url, OPTIONS))
        monkeypatch.setattr(limits, "shared", lambda: used[-1])

    yield count_in
    for cache in used:
        for pool in cache._cache._pools.values():
            pool.disconnect()


def test_processes_share_their_counters_through_redis(redis_server, use):
    answers = []
    for _ in range(4):
        use(redis_server)
        answers.append(limits.seconds_over("ada", 2) > 0)
    assert answers == [False, False, True, True]


def test_without_its_redis_a_process_counts_for_itself(use, caplog):
    use("redis://127.0.0.1:9/0")
    assert [limits.seconds_over("ada", 2) > 0 for _ in range(4)] == [False, False, True, True]
    assert "this process counts for itself" in caplog.text
