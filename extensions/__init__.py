"""Plug-ins: choices that the operator of a site adds. What a plug-in's file imports from here is this module's names.

    from extensions import Kind, Payment, largest_remainder, number

They are looked up when they are asked for, so that a plug-in of a family that needs no PyTorch loads none.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from kinds import Kind, choice, clients, flag, number, whole

if TYPE_CHECKING:
    from incentives.economy import Payment, Values
    from incentives.rewards import largest_remainder
    from training.clients import Behaviour
    from training.strategies import Strategy

__all__ = [
    "Behaviour",
    "Kind",
    "Payment",
    "Strategy",
    "Values",
    "choice",
    "clients",
    "flag",
    "largest_remainder",
    "number",
    "whole",
]
_WHERE = {
    "Behaviour": "training.clients",
    "Payment": "incentives.economy",
    "Strategy": "training.strategies",
    "Values": "incentives.economy",
    "largest_remainder": "incentives.rewards",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)
