"""Workers on a virtual clock, with faults drawn from a seed: `python -m simulations.tests.schedules FIRST COUNT`.

A schedule is one or two simulations, two or three workers as generators, now and then a shell with a run of its own, a
user who cancels and resumes, another who prices runs again, and what goes wrong: workers killed (also within a
transaction), stopped and woken, told to end, the clock set wrong, trainers dead, checkpoints torn, re-pricing cut off,
the database silent before or after a commit. Every run has two shadows. Lifecycle, recorder, re-pricing and ledger are
the real ones, on the database that Django has; only the trainer is played back from a run that happened. At the end
nothing may be missing and nothing may be there twice. A seed gives the same schedule again.
"""

from __future__ import annotations

import base64
import dataclasses
import heapq
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import count
from typing import Any
from unittest.mock import patch

Pause = Generator[float, None, Any]  # yields seconds to sleep
FAULTS_END = 60.0  # virtual seconds; then all that is left must come to its end
PATIENCE = 600.0
SHADOWS = [
    {"label": "by size", "valuation": "data_size", "pool": "fixed"},
    {"label": "wage", "reward_rule": {"kind": "wage_bonus", "share": 0.5}, "burn_share": 0.1, "slashed_to": "burn"},
]
STAKE = {"stake": 2.0, "slashing": [{"detector": "norm", "above": 0.001, "share": 0.25}], "detectors": ["foolsgold"]}
LATER: dict[str, Any] = {"reward_rule": "equal", "pool": {"kind": "treasury", "tokens": 3.0, "rounds": 2}}
SMALL = {"num_clients": 2, "num_rounds": 2, "behaviours": {}, "shadows": SHADOWS, **STAKE}
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


class Killed(BaseException):
    """The worker's process is gone, in the middle of whatever it did."""


class ToldToEnd(BaseException):
    """SIGTERM."""


@dataclass
class World:
    """What is outside of the database, and what goes wrong how often."""

    seed: int
    random: random.Random = field(init=False)
    seconds: float = 0.0
    skew: float = 0.0  # of the clock that all share
    checkpoints: dict[tuple[int, int], str] = field(default_factory=dict)  # simulation, round -> SHA-256
    rates: dict[str, float] = field(init=False)
    is_done: bool = False

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        kinds = (
            "kill",
            "kill_inside",
            "stop",
            "end",
            "clock",
            "trainer",
            "tear",
            "silent_before",
            "silent_after",
            "user",
            "price",
            "price_inside",
        )
        self.rates = {kind: self.random.choice((0.0, 0.01, 0.05)) for kind in kinds}
        self.rates["tear"] *= 10  # there are few checkpoints, and two must be torn for a run to begin again
        self.rates["price"] *= 6  # it strikes only while somebody prices
        self.rates["price_inside"] *= 6

    def strikes(self, kind: str) -> bool:
        return self.seconds < FAULTS_END and self.random.random() < self.rates.get(kind, 0.0)

    def now(self) -> datetime:
        return BEGINNING + timedelta(seconds=self.seconds + self.skew)

    def reach(self, name: str) -> None:
        if name != "queued" and self.strikes("kill_inside"):
            raise Killed

    def ask(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Call with the database, whose answer may be lost before or after it has done its part."""
        from django.db import OperationalError

        if self.strikes("silent_before"):
            raise OperationalError("server closed the connection")
        answer = call(*arguments)
        if self.strikes("silent_after"):
            raise OperationalError("server closed the connection after COMMIT")
        return answer


def worker(world: World) -> Pause:
    from django.db import OperationalError

    from simulations.running import lifecycle

    while True:
        try:
            claim = world.ask(lifecycle.claim_next)
        except OperationalError:
            claim = None
        if claim is None:
            yield world.random.uniform(1, 5)
        else:
            yield from run(world, claim)


def shell(world: World, simulation_id: int) -> Pause:
    """As the command does it: its own run, until it has ended, whoever ended it."""
    from django.db import OperationalError

    from simulations.management.commands.run_simulation import take_if_free
    from simulations.models import Simulation

    while not (simulation := Simulation.objects.get(pk=simulation_id)).is_finished:
        try:
            claim = world.ask(take_if_free, simulation)
        except OperationalError:
            claim = None
        if claim:
            yield from run(world, claim)
        else:
            yield 0.5


def run(world: World, claim: Any) -> Pause:
    """As worker.run does it."""
    from simulations.running import lifecycle, recorder
    from simulations.running import worker as real
    from simulations.running.events import Completed, Log

    try:
        number = yield from insist(world, recorder.held, claim)
        assignment = yield from insist(world, real.assignment_for, claim)
        yield from training(world, claim, 2.0)
        lines: list[Log] = []
        for event in trainer(world, claim.simulation_id, assignment):
            yield from training(world, claim, world.random.choice((0.0, 0.2, 2.0)))
            if isinstance(event, Log) and world.random.random() < 0.7:
                lines.append(event)  # it waits for what comes after it, and is lost where the worker is
                continue
            number = yield from insist(world, real.write, claim, event, number, tuple(lines))
            lines.clear()
            if isinstance(event, Completed):
                return
        number = yield from insist(world, real.write, claim, Log(message="The trainer ended"), number, tuple(lines))
        yield from insist(world, lifecycle.lose, claim)
    except recorder.StaleClaim:
        return
    except ToldToEnd:
        release(world, claim)
        raise


def release(world: World, claim: Any) -> None:
    from django.db import OperationalError

    from simulations.running import lifecycle, recorder

    with suppress(OperationalError, recorder.StaleClaim):
        world.ask(lifecycle.release, claim)


def insist(world: World, call: Callable[..., Any], *arguments: Any) -> Pause:
    from django.db import OperationalError

    while True:
        try:
            return world.ask(call, *arguments)
        except OperationalError:
            yield 1.0


def training(world: World, claim: Any, seconds: float) -> Pause:
    """Time passes, and the lease is renewed meanwhile."""
    from simulations.running import lifecycle

    while seconds >= 2.0:
        yield 1.0
        seconds -= 1.0
        yield from insist(world, lifecycle.heartbeat, claim)
    yield seconds


def trainer(world: World, simulation_id: int, assignment: Any) -> Iterator[Any]:
    """What a trainer with this assignment would say: from the newest whole checkpoint on."""
    from simulations.running.events import Round

    whole = (n for n, sha256, _ in assignment.checkpoints if world.checkpoints.get((simulation_id, n)) == sha256)
    begin, current = next(whole, 0), 1
    for event in played():
        if current <= begin and isinstance(event, Round):
            current += 1
        elif world.strikes("trainer"):
            return
        elif isinstance(event, Round):
            save(world, simulation_id, event)
            yield event
            current += 1
        elif event.kind != "log" or current > max(begin, assignment.recorded_rounds):
            yield event


def save(world: World, simulation_id: int, event: Any) -> None:
    world.checkpoints[simulation_id, event.round_number] = event.checkpoint_sha256
    world.checkpoints.pop((simulation_id, event.round_number - 2), None)
    if world.strikes("tear"):
        world.checkpoints[simulation_id, event.round_number] = "torn"


@cache
def played() -> tuple[Any, ...]:
    """A run that happened, with one line a round."""
    from simulations.running.engine import simulate
    from simulations.running.events import Round
    from simulations.tests.cast import NOWHERE, config

    happened = simulate(config(**SMALL), data_dir=NOWHERE)
    kept = [event for event in happened if event.kind != "log" or event.level == "reward"]
    saved = {"checkpoint_sha256": "5" * 64}
    return tuple(dataclasses.replace(event, **saved) if isinstance(event, Round) else event for event in kept)


def user(world: World) -> Pause:
    """Cancels now and then, and wants everything to be done at the end."""
    from simulations.models import Simulation, Status
    from simulations.running import lifecycle

    while simulations := list(Simulation.objects.exclude(status=Status.COMPLETED).order_by("id")):
        for simulation in simulations:
            if simulation.status == Status.FAILED and "times in a row" not in simulation.failure:
                raise AssertionError(f"{simulation} failed: {simulation.failure}")
            is_over = simulation.status in (Status.FAILED, Status.CANCELLED)
            if is_over or (lifecycle.is_interrupted(simulation) and world.random.random() < 0.5):
                lifecycle.resume(simulation.pk)
            elif world.strikes("user"):
                lifecycle.cancel(simulation.pk)
        yield world.random.uniform(2, 8)
    world.is_done = True
    yield 0.0


def pricer(world: World) -> Pause:
    """Prices finished runs again at random moments, cancelled ones too, and is cut off now and then."""
    from django.db import OperationalError

    from simulations.models import Simulation

    while True:
        yield world.random.uniform(2, 12)
        for simulation in Simulation.objects.exclude(rounds_done=0).order_by("id"):
            if simulation.is_finished and world.random.random() < 0.7:
                with suppress(Killed, OperationalError):
                    world.ask(price, simulation)


def price(simulation: Any) -> None:
    from simulations import repricing

    repricing.reprice(simulation, "later", LATER)


class Inline:
    """In place of simulations.running.folding.Child: the same answers, without a process."""

    waited = 0.0

    def __init__(self, header: Any, seconds: float | None = None) -> None:
        from simulations.running import folding

        self.answers = folding._answers(json.loads(json.dumps(header)))
        next(self.answers)

    def __enter__(self) -> Inline:
        return self

    def __exit__(self, *error: object) -> None: ...

    def priced(self, facts: Any, tables: Any, products: Any) -> tuple[Any, list[bytes]]:
        answer = self.ask(facts, tables, products)
        return answer["paid"], [base64.b64decode(each) for each in answer["evidence"]]

    def checked(self, facts: Any, tables: Any, products: Any, state: Any, paid: Any) -> str:
        return str(self.ask(facts, tables, products, state=state, paid=paid)["wrong"])

    def ask(self, facts: Any, tables: Any, products: Any, **more: Any) -> Any:
        from simulations.running.folding import CannotFold, _text

        question = {"facts": facts, "tables": _text(tables), "products": _text(products), **more}
        answer = json.loads(json.dumps(self.answers.send(json.loads(json.dumps(question)))))
        if "error" in answer:
            raise CannotFold(answer["error"])
        return answer


@dataclass(order=True)
class Actor:
    wakes: float
    turn: int
    life: Pause = field(compare=False)
    is_worker: bool = field(default=True, compare=False)


def play(seed: int) -> None:
    """One schedule. AssertionError says what is wrong at its end."""
    from simulations.models import Origin
    from simulations.running import lifecycle
    from simulations.tests.cast import config, queued

    world = World(seed)
    undisturbed()  # once, before anything can go wrong
    with faults(world):
        for _ in range(world.random.choice((1, 1, 2))):
            queued(**SMALL)
        turns = count()
        actors = [Actor(0.0, next(turns), worker(world)) for _ in range(world.random.choice((2, 2, 3)))]
        if world.random.random() < 0.3:
            own = lifecycle.queue(config(**SMALL), origin=Origin.SHELL)
            actors.append(Actor(0.0, next(turns), shell(world, own.pk)))
        actors.append(Actor(0.5, next(turns), user(world), is_worker=False))
        actors.append(Actor(0.6, next(turns), pricer(world), is_worker=False))
        while not world.is_done:
            actor = heapq.heappop(actors)
            world.seconds = actor.wakes
            assert world.seconds < PATIENCE, "it does not come to its end"
            heapq.heappush(actors, step(world, actor, next(turns)))
        world.rates.clear()  # what is still to be priced is priced without a fault
        check()


@contextmanager
def faults(world: World) -> Iterator[None]:
    """The world's clock and its deaths in place of real ones; the database as it was before, afterwards."""
    from django.db import transaction

    from simulations import repricing
    from simulations.running import bell, leases
    from training import failpoints

    write = repricing._write

    def written(*arguments: Any) -> None:
        with transaction.atomic():
            write(*arguments)
            if world.strikes("price_inside"):
                raise Killed
        if world.strikes("price"):
            raise Killed

    with ExitStack() as stack:
        stack.enter_context(transaction.atomic())
        stack.enter_context(patch.object(repricing, "Child", Inline))
        stack.enter_context(patch.object(repricing, "ROUNDS", 1))
        stack.enter_context(patch.object(repricing, "_write", written))
        stack.enter_context(patch.object(leases, "now", world.now))
        stack.enter_context(patch.object(failpoints, "reach", world.reach))
        stack.enter_context(patch.object(bell, "ring", lambda simulation_id: None))
        yield
        transaction.set_rollback(True)


def step(world: World, actor: Actor, turn: int) -> Actor:
    """The actor's next step, or what becomes of it instead; whoever dies has a successor."""
    try:
        if actor.is_worker and world.strikes("kill"):
            raise Killed
        if actor.is_worker and world.strikes("end"):
            actor.life.throw(ToldToEnd)
        pause = next(actor.life)
    except (Killed, ToldToEnd, StopIteration):
        return Actor(world.seconds + world.random.uniform(0, 10), turn, worker(world))
    if world.strikes("clock"):
        world.skew = world.random.uniform(-3600, 3600)
    if actor.is_worker and world.strikes("stop"):
        pause += world.random.uniform(10, 40)
    return dataclasses.replace(actor, wakes=world.seconds + pause, turn=turn)


def check() -> None:
    """Each simulation is what an undisturbed one would be, and its log has no gap and no repeat."""
    from simulations.models import Simulation

    for simulation in Simulation.objects.select_related("ledger"):
        price(simulation)
        assert outcome(simulation) == undisturbed()
        check_log(list(simulation.events.order_by("sequence").values_list("sequence", "kind", "message")))


def outcome(simulation: Any) -> tuple[Any, ...]:
    from incentives import ledger
    from simulations import records
    from simulations.models import Contribution
    from simulations.running import verifier

    shadows = list(simulation.shadows.select_related("ledger").order_by("number"))
    for each in (simulation, *shadows):
        found = ledger.verify(each.ledger, verifier.noted, records.wrong)
        assert found.ok, found.problem
        held: Counter[str] = Counter()
        for name, balance in each.ledger.accounts.values_list("name", "balance"):
            held[name.partition(":")[0]] += balance
        assert -held["mint"] == held["client"] + held["stake"] + held["treasury"] + held["burn"]
        assert held["stake"] < 4_000_000 or each.rounds_done == 0, "nobody lost a stake, so nothing is shown"
    of_shadow = ("label", "ledger_head", "ledger_length", "rounds_done", "pool_microtokens", "paid_microtokens")
    return (
        *(getattr(shadow, name) for shadow in shadows for name in of_shadow),
        *(row for each in shadows for row in each.clients.order_by("number").values_list("number", "contribution")),
        *(simulation.ledger_head, simulation.ledger_length, simulation.weights_sha256, simulation.rounds_done),
        *(simulation.pool_microtokens, simulation.paid_microtokens),
        *simulation.rounds.order_by("number").values_list("number", "weights_sha256", "evidence_sha256"),
        *simulation.clients.order_by("number").values_list("number", "rounds", "contribution", "reward_microtokens"),
        *simulation.clients.order_by("number").values_list("number", "slashed_microtokens"),
        Contribution.objects.filter(round__simulation=simulation).count(),
    )


@cache
def undisturbed() -> tuple[Any, ...]:
    from django.db import transaction

    from simulations import repricing
    from simulations.models import Simulation
    from simulations.running import worker as real
    from simulations.tests.cast import claimed, queued

    with transaction.atomic():
        claim = claimed(queued(**SMALL))
        for event in played():
            real.write(claim, event)
        with patch.object(repricing, "Child", Inline):
            price(Simulation.objects.get(pk=claim.simulation_id))
        found = outcome(Simulation.objects.get(pk=claim.simulation_id))
        transaction.set_rollback(True)
    return found


def check_log(lines: list[tuple[int, str, str]]) -> None:
    assert [sequence for sequence, _, _ in lines] == list(range(1, len(lines) + 1))
    once = [message for _, kind, message in lines if kind in ("resolved", "started", "round", "completed")]
    assert len(once) == len(set(once)) == 3 + sum(event.kind == "round" for event in played())
    assert {event.message for event in played()} <= {message for _, _, message in lines}, "something was not told"
    told: set[str] = set()
    for _, kind, message in lines:
        if kind in ("starting", "resumed"):
            told.clear()
        assert kind != "log" or message not in told, f"{message!r} is told twice by one trainer"
        told.add(message)


def play_all(seeds: range) -> None:
    for seed in seeds:
        try:
            play(seed)
        except Exception as error:
            raise AssertionError(f"Seed {seed}: {error or type(error).__name__}") from error


def main(first: int, number: int) -> None:
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)
    begin = time.monotonic()
    play_all(range(first, first + number))
    print(f"Schedules {first:,} to {first + number - 1:,}: all as undisturbed, {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    own = {
        "SECRET_KEY": "only-for-tests-only-for-tests-only-for-tests",
        "DEBUG": "0",
        "DATABASE_URL": "sqlite://:memory:",
        "FAILPOINT": "",
    }
    os.environ.update(own, DJANGO_SETTINGS_MODULE="fedsite.settings", FEDSITE_ENV_FILE=os.devnull)
    main(int(sys.argv[1]), int(sys.argv[2]))
