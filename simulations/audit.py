"""A recorded run trained again: every hash, contribution and payment beside the recorded one."""

from __future__ import annotations

import dataclasses
from typing import Any

from simulations import economies, records
from simulations.config import PAYING
from simulations.models import ShadowRound, Simulation
from simulations.running import events, manifest
from simulations.running.recorder import paid_of_event


class Comparison:
    """Hears a second run's events one by one; `difference` is the first one, in words, and `failure` why it cannot go
    on. Of rounds whose payments `prune` let go of, the losses and weights alone are compared."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.difference = self.failure = ""
        self.rounds = self.payments = self.economies = 0
        self.elsewhere = ""  # where this is another kind of machine than the run's
        shadows = simulation.shadows.filter(added_at=None)
        self.shadows: dict[int, Any] = {shadow.number: shadow for shadow in shadows}

    @property
    def is_done(self) -> bool:
        return bool(self.difference or self.failure) or self.rounds == self.simulation.rounds_done

    def hear(self, event: events.Event) -> None:
        """May be repeated where the database did not answer."""
        if isinstance(event, events.Failed):
            self.failure = f"trained again, the run fails: {event.message}"
        elif isinstance(event, events.Resolved):
            if event.config_sha256 != self.simulation.config_sha256:
                self.difference = "the configuration is not the recorded one (configuration hash)"
            then = self.simulation.manifests[0] if self.simulation.manifests else None
            if then and not manifest.same_kind(then, event.manifest):
                self.elsewhere = f"; the run was made on another kind of machine ({manifest.in_words(then)})"
        elif isinstance(event, events.Round):
            if wrong := self._wrong(event):
                self.difference = f"round {event.round_number}: {wrong}{self.elsewhere}"
            else:
                self.rounds = event.round_number

    def _wrong(self, event: events.Round) -> str:
        """The first difference of a round, or an empty text."""
        row = self.simulation.rounds.get(number=event.round_number)
        parts = records.parts_of(self.simulation, [row.number])[row.number]
        is_pruned = bool(self.simulation.pruned_at and self.simulation.archived and not parts)  # who was in it
        if not is_pruned and [part["client__number"] for part in parts] != [part.client for part in event.clients]:
            return "other clients were in it"
        for name in ("weights_sha256", "validation_loss", "loss", "accuracy"):
            if getattr(row, name) != getattr(event, name):
                return f"{name.replace('_', ' ')} is {getattr(event, name)}, recorded {getattr(row, name)}"
        if is_pruned:
            return ""
        made = {
            each.shadow_id: each
            for each in ShadowRound.objects.filter(shadow__in=self.shadows.values(), number=row.number)
        }
        pairs = [(PAYING, paid_of_event(event), records.paid_of(row, parts) if row.rule else None)]
        for each in event.shadows:
            shadow = self.shadows[each.number]
            pairs.append((shadow.label, economies.paid_by(each), economies.paid_by(made[shadow.pk])))
        self.economies = max(self.economies, sum(now is not None for _, now, _ in pairs))
        for label, now, then in pairs:
            self.payments += now is not None
            if now == then:
                continue
            if now is None or then is None:
                return f"{label}: it paid only once"
            for field in dataclasses.fields(now):
                one, other = getattr(now, field.name), getattr(then, field.name)
                if one == other:
                    continue
                if isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other):
                    place = next(k for k, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1])
                    client = event.clients[place].client
                    return f"{label}: {field.name} of client {client} is {one[place]}, recorded {other[place]}"
                return f"{label}: {field.name} is {one}, recorded {other}"
        return ""
