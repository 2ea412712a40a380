"""JSON before a start: what there is to choose from, and what a configuration would take."""

from typing import Any

from django.http import HttpRequest
from ninja import Field, Router, Schema

import kinds
from incentives.paging import Problem
from kinds import ConfigError
from simulations import estimates, paces
from simulations.config import CHOICES, SimulationConfig
from simulations.running import lifecycle
from simulations.showing.api import AS_BODY, body

router = Router(tags=["planning"])


class Family(Schema):
    family: str
    help: str
    field: str | None = Field(description="of the configuration, that chooses from it; null for behaviours")
    kinds: list[dict[str, Any]]


class Estimated(Schema):
    seconds: float
    paced_by: int = Field(description="runs from which this machine's pace is known")
    memory_bytes: int
    rows: int = Field(description="of the database, at most")
    coalitions: int = Field(description="that are evaluated over all rounds, at most")
    tokens: float | None = Field(
        description="that all rounds pay: at most, of an improvement about; null where not known"
    )
    refused: dict[str, str] | None = Field(description="by field, why it would not be started; null where it would")


@router.get("/catalogue/", response=list[Family])
def catalogue(request: HttpRequest):
    """Families and their kinds, each with its parameters, their bounds and defaults; plug-ins too."""
    fields = {family: name for name, family in CHOICES.items()}
    return [
        {
            "family": family,
            "help": help,
            "field": fields.get(family),
            "kinds": [kind.to_dict() for kind in kinds.family(family).values()],
        }
        for family, help in kinds.FAMILIES.items()
    ]


@router.post("/estimate/", response={200: Estimated, 422: Problem}, openapi_extra=AS_BODY)
def estimate(request: HttpRequest):
    """What a configuration would take, without starting anything."""
    config = SimulationConfig.from_dict(body(request))
    return estimates.estimate(config, paces.past()).to_dict() | {"refused": refusal(config)}


def refusal(config: SimulationConfig) -> dict[str, str] | None:
    """By field, why a configuration that is well formed would not be started here."""
    try:
        lifecycle.refuse_what_is_too_much(config)
    except ConfigError as error:
        return error.errors
    return None
