"""Whose a simulation is: who sees it, and who may cancel, resume and archive it.

With open access there is nobody to tell apart, and everybody may do everything.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db.models import Q, QuerySet
from django.http import HttpRequest

from simulations.models import Simulation


class NotYours(Exception):
    """The text is a plain sentence."""


def person(request: HttpRequest) -> Any | None:
    """Who asks, where somebody has signed in. Asks the data base, in open access."""
    return request.user if request.user.is_authenticated else None


def seen_by(user: Any) -> QuerySet[Simulation]:
    """The simulations that a user may look at."""
    everything = settings.FEDSITE_ACCESS == "open" or settings.FEDSITE_OTHERS_MAY_LOOK or user.is_staff
    return Simulation.objects.filter(Q() if everything else Q(owned_by=user))


def may_act(user: Any, simulation: Simulation) -> bool:
    """Whether a user may cancel, resume and archive it."""
    return settings.FEDSITE_ACCESS == "open" or user.is_staff or simulation.owned_by_id == user.pk


def require(user: Any, simulation: Simulation) -> None:
    """NotYours where the user may not act on it."""
    if not may_act(user, simulation):
        raise NotYours(f"Simulation {simulation.pk} is not yours; its owner and staff may do this")
