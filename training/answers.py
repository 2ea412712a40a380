"""What those of a cohort send who do not send what training found: made up, another's, or agreed on in sight of the
honest ones.

It is made where the updates arrive and in the cohort's order, so that it has the same bits whoever trains.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from training.behaviours import acts
from training.clients import Behaviour, Honest, Seen, Task, Update, is_silent, loaded
from training.config import TrainingConfig
from training.events import TrainingError
from training.generators import torch_generator


@dataclass(frozen=True, kw_only=True, eq=False)
class Makers:
    """Of a cohort, by place in it, those whose updates are made; false where there is nobody."""

    config: TrainingConfig
    round_number: int
    odd: Mapping[int, Task]  # of all with a behaviour
    acting: set[int] = field(default_factory=set)  # of these, whose behaviour is in force; all others are honest
    copies: dict[int, int] = field(default_factory=dict)  # and the place of the one whose update it sends, before it
    senders: dict[int, Behaviour] = field(default_factory=dict)
    conspirators: dict[int, Behaviour] = field(default_factory=dict)

    @classmethod
    def of(cls, odd: Mapping[int, Task], config: TrainingConfig, round_number: int) -> Makers:
        makers = cls(config=config, round_number=round_number, odd=odd)
        place_of = {task.client: place for place, task in odd.items()}
        for place, task in odd.items():
            if not acts(task.behaviour, round_number):
                continue
            makers.acting.add(place)
            if task.copies is not None:
                makers.copies[place] = place_of[task.copies]
                continue
            behaviour = loaded(task.behaviour)
            if is_silent(behaviour, task, config, round_number):
                continue
            if behaviour.conspire is not None:
                makers.conspirators[place] = behaviour
            elif behaviour.send is not None:
                makers.senders[place] = behaviour
        return makers

    def __bool__(self) -> bool:
        return bool(self.copies or self.senders or self.conspirators)

    def sent(self, place: int, step: Tensor, own: Tensor | None) -> Tensor:
        """What a sender sends, [P]. `step` [P]: the last global one; `own` [P]: what it found, if it trains."""
        return self._made(self.senders[place], place, step, own, self.senders[place].send, Honest(step, ()))

    def agreed(self, place: int, step: Tensor, own: Tensor | None, honest: Honest) -> Tensor:
        """What a conspirator sends, [P]."""
        behaviour = self.conspirators[place]
        return self._made(behaviour, place, step, own, behaviour.conspire, honest)

    def _made(
        self,
        behaviour: Behaviour,
        place: int,
        step: Tensor,
        own: Tensor | None,
        make: Callable[[Seen], Tensor] | None,
        honest: Honest,
    ) -> Tensor:
        assert make is not None
        client = self.odd[place].client
        seen = Seen(
            round_number=self.round_number,
            generator=torch_generator(self.config.seed, "behaviour", self.round_number, client),
            step=step if behaviour.recalls else torch.zeros_like(step),
            own=own,
            honest=honest,
            num_conspiring=len(self.conspirators),
        )
        try:
            sent = make(seen)
            if not isinstance(sent, Tensor) or (sent.shape, sent.dtype) != (step.shape, step.dtype):
                raise TypeError(f"it gives no {str(step.dtype).removeprefix('torch.')} [{len(step)}]")
        except Exception as error:
            text = (
                f"Round {self.round_number}: what client {client} sends cannot be made: {type(error).__name__}: {error}"
            )
            raise TrainingError(text) from error
        return sent


def completed(updates: Iterator[Update], makers: Makers, step: Tensor) -> Iterator[Update]:
    """The cohort's updates in its order, each as it is sent. Where somebody conspires, all of them are in memory."""
    arriving = _with_senders(updates, makers, step)
    if not makers.conspirators:
        yield from arriving
        return
    everyone = list(arriving)
    seen = [
        update.delta for place, update in enumerate(everyone) if place not in makers.acting and update.delta is not None
    ]
    honest = Honest(step, seen)
    for place, update in enumerate(everyone):
        if place in makers.conspirators:
            update = dataclasses.replace(update, sent=makers.agreed(place, step, update.delta, honest))
        yield update


def _with_senders(updates: Iterator[Update], makers: Makers, step: Tensor) -> Iterator[Update]:
    """And with copies. Of an update that others send too, it is kept."""
    copied = set(makers.copies.values())
    kept: dict[int, Update] = {}
    for place, update in enumerate(updates):
        if place in copied:
            kept[place] = update
        if place in makers.copies:
            of = kept[makers.copies[place]]
            update = dataclasses.replace(update, sent=of.sent, loss_before=of.loss_before, loss_after=of.loss_after)
        elif place in makers.senders:
            update = dataclasses.replace(update, sent=makers.sent(place, step, update.delta))
        yield update
