"""Whose a simulation is: who sees it, and who may cancel, resume and archive it.

With open access there is nobody to tell apart, and everybody may do everything.
"""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db.models import Q, QuerySet
from django.http import HttpRequest

from simulations.models import Shadow, Simulation


class NotYours(Exception):
    """The text is a plain sentence."""


def person(request: HttpRequest) -> Any | None:
    """Who asks, where somebody has signed in. Asks the database, in open access."""
    return request.user if request.user.is_authenticated else None


def sees_everything(user: Any) -> bool:
    return settings.FEDSITE_ACCESS == "open" or settings.FEDSITE_OTHERS_MAY_LOOK or user.is_staff


def seen_by(user: Any) -> QuerySet[Simulation]:
    """The simulations that a user may look at."""
    return Simulation.objects.filter(Q() if sees_everything(user) else Q(owned_by=user))


def ledgers_seen_by(user: Any, path: str) -> Q:
    """The condition on rows whose ledger a user may look at; `path` leads from a row to its ledger's key.

    Ledgers of his simulations; those that belong to no simulation, as `manual`, are for who sees everything.
    """
    if sees_everything(user):
        return Q()
    mine = seen_by(user)
    shadows = Shadow.objects.filter(simulation__in=mine)
    paying = mine.filter(ledger__isnull=False)
    return Q(**{f"{path}__in": paying.values("ledger")}) | Q(**{f"{path}__in": shadows.values("ledger")})


def may_act(user: Any, simulation: Simulation) -> bool:
    """Whether a user may cancel, resume and archive it: its owner, and whoever may in the admin."""
    if settings.FEDSITE_ACCESS == "open" or simulation.owned_by_id == user.pk:
        return True
    return user.is_staff and user.has_perm("simulations.change_simulation")


def require(user: Any, simulation: Simulation) -> None:
    """NotYours where the user may not act on it."""
    if not may_act(user, simulation):
        raise NotYours(f"Simulation {simulation.pk} is not yours; its owner and operators may do this")
