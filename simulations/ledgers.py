"""What a ledger's files tell of the simulation that it belongs to. The ledger itself knows none; settings name us."""

from typing import Any

from django.db.models import Q

from simulations.models import Simulation


def manifests(ledger_id: int) -> list[dict[str, Any]]:
    """On what the run was trained that this ledger pays; nothing for a ledger of no run."""
    of_run = Q(ledger=ledger_id) | Q(shadows__ledger=ledger_id)
    return Simulation.objects.filter(of_run).values_list("manifests", flat=True).first() or []
