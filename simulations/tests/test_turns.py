"""Whose turn it is: people start in turn, however many simulations each has waiting, and nobody fills the queue."""

import pytest
from django.contrib.auth import get_user_model

from fedsite.tests import servers
from incentives.tests.test_ledger_concurrency import scratch  # noqa: F401  # a fixture
from simulations.models import Origin, Simulation, Starter
from simulations.running import lifecycle, turns
from simulations.tests.cast import FIELDS, config

pytestmark = [pytest.mark.django_db, pytest.mark.database]

HERE, THERE, ELSEWHERE = "192.0.2.1", "192.0.2.2", "2001:db8::/64"


def queue(address: str = "", owned_by=None, number: int = 1) -> list[int]:
    """The numbers of so many simulations of one person."""
    return [lifecycle.queue(config(), origin=Origin.API, address=address, owned_by=owned_by).pk for _ in range(number)]


def start(number: int = 1, end: bool = True) -> list[int]:
    """The numbers of the next ones that start, each once the one before has ended."""
    started = []
    for _ in range(number):
        claim = lifecycle.claim_next()
        started.append(claim.simulation_id)
        if end:
            lifecycle.complete(claim, "done")
    return started


@pytest.fixture
def room(settings):
    settings.FEDSITE_MAX_QUEUED = settings.FEDSITE_MAX_PER_USER = settings.FEDSITE_MAX_PER_ADDRESS = 1000


@pytest.mark.parametrize("has_run", ["nothing", "one, which runs", "one, which has ended"])
@pytest.mark.parametrize("by_account", [False, True])
def test_the_first_of_another_starts_next_behind_any_number_of_somebodys(room, has_run, by_account):
    people = [get_user_model().objects.create(username=name) for name in ("ada", "bob")] if by_account else [None] * 2
    many = queue(HERE, people[0], 100)
    if has_run != "nothing":
        assert start(end=has_run != "one, which runs") == many[:1]
    first = queue(THERE, people[1])
    first_in_line = many[:1] if has_run == "nothing" else []
    assert turns.place_in_queue(Simulation.objects.get(pk=first[0])) == len(first_in_line)
    assert start(len(first_in_line) + 1) == first_in_line + first


def test_those_who_wait_start_in_turn(room):
    ada, bob = queue(HERE, number=4), queue(THERE, number=3)
    eve = queue(ELSEWHERE)
    assert start(8) == [ada[0], bob[0], eve[0], ada[1], bob[1], ada[2], bob[2], ada[3]]


def test_whoever_comes_back_again_and_again_does_not_hold_up_those_who_wait(room):
    """Each time as if he were new, since of an address nothing is kept that others do not wait for."""
    waiting = queue(HERE, number=4)
    assert start() == waiting[:1]
    order = []
    for _ in range(3):
        comes_back = queue(THERE)
        order += start(2)
        assert comes_back[0] in order
    assert [number for number in order if number in waiting] == waiting[1:]


def test_one_that_goes_on_takes_a_new_turn_and_one_that_is_given_back_keeps_its_own(room):
    ada, bob = queue(HERE, number=3), queue(THERE, number=2)
    claim = lifecycle.claim_next()
    lifecycle.release(claim)
    assert lifecycle.claim_next().simulation_id == ada[0]
    lifecycle.cancel(ada[0])
    lifecycle.resume(ada[0], address=HERE)
    assert start(5) == [bob[0], ada[1], bob[1], ada[2], ada[0]]


def test_an_address_is_kept_apart_as_a_hash_and_forgotten_when_its_runs_have_ended(room):
    ends = [start, lambda: lifecycle.cancel(queue_one[0]), lambda: lifecycle.fail(lifecycle.claim_next(), "broken", "")]
    for end in ends:
        queue_one = queue(HERE)
        assert Starter.objects.count() == 1
        assert HERE not in str(list(Starter.objects.values())) + str(list(Simulation.objects.values()))
        end()
        assert not Simulation.objects.exclude(starter=None).exists()
        turns.forget()  # as each end does once it is committed
        assert not Starter.objects.exists()


def test_nothing_of_who_started_it_is_shown(client, settings):
    client.post("/api/simulations/", FIELDS, content_type="application/json")
    who = Starter.objects.get().who
    number = Simulation.objects.get().pk
    for address in ("/api/simulations/", f"/api/simulations/{number}/", f"/api/simulations/{number}/events/"):
        text = client.get(address).content.decode()
        assert not [secret for secret in ("127.0.0.1", who, "starter") if secret in text]


def test_limits_count_all_that_waits_also_what_was_resumed(settings):
    settings.FEDSITE_MAX_QUEUED, settings.FEDSITE_MAX_PER_ADDRESS = 4, 3
    mine = queue(HERE, number=3)
    with pytest.raises(lifecycle.QueueFull, match="3 simulations from one address"):
        queue(HERE)
    assert start(end=False) == mine[:1]
    with pytest.raises(lifecycle.QueueFull, match="one address"):  # what runs counts too
        queue(HERE)
    lifecycle.cancel(mine[0])
    again = queue(HERE)
    with pytest.raises(lifecycle.QueueFull, match="one address"):
        lifecycle.resume(mine[0], address=HERE)
    lifecycle.resume(mine[0], address=THERE)
    lifecycle.cancel(again[0])
    queue(HERE)
    with pytest.raises(lifecycle.QueueFull, match="4 simulations are waiting"):
        lifecycle.resume(again[0], address=ELSEWHERE)
    assert lifecycle.claim_next() is not None
    lifecycle.resume(again[0], address=ELSEWHERE)


def test_a_shells_run_that_is_resumed_counts_against_the_queue(settings):
    settings.FEDSITE_MAX_QUEUED = 1
    shells = lifecycle.queue(config(), origin=Origin.SHELL)
    queue(HERE)
    with pytest.raises(lifecycle.QueueFull, match="1 simulations are waiting"):
        lifecycle.resume(shells.pk, address=THERE)
    lifecycle.resume(shells.pk, by_shell=True)


CROWD = """
import threading
from django.db import connection
from simulations.models import Simulation
from simulations.running import lifecycle
from simulations.config import SimulationConfig
config, ready, ids = SimulationConfig.from_dict({fields}), threading.Barrier(12), []
old = [lifecycle.cancel(lifecycle.queue(config, origin="api", address="a").pk).pk for _ in range(4)]
def act(place):
    ready.wait()
    try:
        if place < 4:
            lifecycle.resume(old[place], address="a")
        else:
            lifecycle.queue(config, origin="api", address="a" if place < 8 else str(place))
    except lifecycle.QueueFull:
        pass
    finally:
        connection.close()
threads = [threading.Thread(target=act, args=[place]) for place in range(12)]
[thread.start() for thread in threads], [thread.join() for thread in threads]
waiting = Simulation.objects.filter(status="queued")
print(waiting.count())
"""


@pytest.mark.parametrize(("queued", "each", "expected"), [(5, 100, 5), (100, 3, 7)])
def test_limits_hold_exactly_however_many_start_at_the_same_moment(scratch, queued, each, expected):  # noqa: F811
    limits = {"FEDSITE_MAX_QUEUED": str(queued), "FEDSITE_MAX_PER_ADDRESS": str(each)}
    code = CROWD.format(fields=FIELDS)
    done = servers.run_manage("shell", "-v0", "-c", code, environment=scratch | limits)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) == expected
