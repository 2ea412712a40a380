"""Ray actors to whom a round's blocks of clients are dealt. Whoever dies is replaced, and the block trained again."""

from __future__ import annotations

import heapq
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
from ray import ObjectRef
from ray.exceptions import RayError, RayTaskError

from training.backends.actor import Order, kind
from training.backends.batched import Answer
from training.clients import Task
from training.events import TrainingError
from training.threads import AHEAD

log = logging.getLogger(__name__)
Block = Sequence[Sequence[Task]]  # whole chunks: who shares one may show in the last bit

TRIES = 4  # actors that one block may cost before the run is given up
START_SECONDS = 300.0  # until the first actor has a processor and has loaded PyTorch; a busy cluster lets wait


class Crew:
    """The actors of one run, kept from round to round. Dropped, they end."""

    def __init__(self, hire: Callable[[], Any]) -> None:
        """`hire` makes an Actor's handle; Ray starts it where and when a processor is free."""
        self.hire = hire
        self.members: list[Member] = []

    def in_order(self, order: Order, blocks: Sequence[Block], places: int) -> Iterator[list[Answer]]:
        """What each block's clients answer, in the order of the blocks, by at most so many actors.

        Blocks are given out a little ahead of whoever iterates; those that have not begun when the iteration is given
        up are not trained.
        """
        dealing = Dealing(self, order, blocks, min(places, len(blocks)))
        try:
            for number in range(len(blocks)):
                yield dealing.answers(number)
        finally:
            dealing.give_up()


class Member:
    """An actor, and what it has been given and has not answered yet."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.introduction: ObjectRef[Any] | None = actor.kind.remote()  # None once it is there
        self.duties: deque[tuple[int, ObjectRef[Any]]] = deque()  # numbers of blocks, as it works them off

    @property
    def next_word(self) -> ObjectRef[Any] | None:
        return self.introduction or (self.duties[0][1] if self.duties else None)


class Dealing:
    """One round."""

    def __init__(self, crew: Crew, order: Order, blocks: Sequence[Block], places: int) -> None:
        self.crew, self.blocks, self.places = crew, blocks, places
        self.round_number = order.round_number
        self.order = ray.put(order)
        self.todo = list(range(len(blocks)))  # a heap: what comes back is next
        self.done: dict[int, list[Answer]] = {}
        self.losses: Counter[int] = Counter()

    def answers(self, number: int) -> list[Answer]:
        while number not in self.done:
            while len(self.crew.members) < self.places:
                self.crew.members.append(Member(self.crew.hire()))
            self._deal(number)
            self._listen()
        return self.done.pop(number)

    def give_up(self) -> None:
        """What has begun ends; its answer is not waited for."""
        for member in self.crew.members:
            for _, duty in [*member.duties][1:]:
                ray.cancel(duty)
            member.duties.clear()

    def _deal(self, first: int) -> None:
        """One block and those ahead to each, but none far ahead of the first that is waited for."""
        here = [member for member in self.crew.members if not member.introduction]
        end = first + (1 + AHEAD) * len(here)
        for held in range(1 + AHEAD):
            for member in here:
                if self.todo and self.todo[0] < end and self._may_take(member, self.todo[0], held):
                    number = heapq.heappop(self.todo)
                    duty = member.actor.train.remote([self.order], self.blocks[number])
                    member.duties.append((number, duty))

    def _may_take(self, member: Member, number: int, held: int) -> bool:
        """A block with which an actor was lost is given to one that has nothing else, so that we learn which it is."""
        lost = self.losses[number] or any(self.losses[each] for each, _ in member.duties)
        return len(member.duties) <= (0 if lost else held)

    def _listen(self) -> None:
        """To the next word of anybody."""
        speakers = {member.next_word: member for member in self.crew.members if member.next_word}
        words, _ = ray.wait([*speakers], timeout=START_SECONDS)
        if not words and all(member.introduction for member in self.crew.members):
            raise TrainingError(f"No actor has started on the Ray cluster within {START_SECONDS:.0f} seconds")
        for word in words:
            self._hear(speakers[word], word)

    def _hear(self, member: Member, word: ObjectRef[Any]) -> None:
        try:
            said = ray.get(word)
        except RayTaskError:  # of our own code, not of the cluster
            raise
        except RayError as error:
            self._lose(member, error)
            return
        if member.introduction:
            _refuse_another_kind(said)
            member.introduction = None
        else:
            self.done[member.duties.popleft()[0]] = said

    def _lose(self, member: Member, error: RayError) -> None:
        """It is replaced at the next look, and what it had is dealt again. Where none can start, none is tried."""
        self.crew.members.remove(member)
        ray.kill(member.actor)  # or it trains on, where only the way to it was lost
        log.warning("A Ray actor is lost: %s", _reason(error))
        if member.introduction:
            self.places -= 1
        if not self.places:
            raise TrainingError(f"No actor could start on the Ray cluster: {_reason(error)}") from error
        for number, _ in member.duties:
            heapq.heappush(self.todo, number)
            self.losses[number] += 1
            if self.losses[number] == TRIES:
                raise TrainingError(self._worn_out(self.blocks[number], error)) from error

    def _worn_out(self, block: Block, error: RayError) -> str:
        text = f"the Ray actor that trained {_named(block)} died, {TRIES} times: {_reason(error)}"
        return f"Round {self.round_number}: {text}"


def _refuse_another_kind(other: Any) -> None:
    """Equal configurations give equal runs, so it must not matter who trains whom."""
    own = kind()
    if other.pytorch != own.pytorch:
        text = f"has PyTorch {other.pytorch}, this machine {own.pytorch}"
    elif other.rounding != own.rounding:
        text = "has a processor that rounds otherwise than this machine's"
    else:
        return
    raise TrainingError(f"backend: a node of the Ray cluster {text}; the result would depend on who trains whom")


def _named(block: Block) -> str:
    first, last = block[0][0].client, block[-1][-1].client
    return f"client {first}" if first == last else f"clients {first} to {last}"


def _reason(error: RayError) -> str:
    """Ray's own words, which may be pages; the last line of a traceback says most."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
