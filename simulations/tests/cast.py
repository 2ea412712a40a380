"""A small cast for tests: one configuration, its events, and simulations in any state."""

from functools import cache
from pathlib import Path

import torch

from simulations.config import CHOICES, FIRST_DEFAULTS, FIRST_FIELDS, SimulationConfig
from simulations.models import Origin, Simulation
from simulations.running import lifecycle, worker
from simulations.running.engine import simulate
from simulations.running.events import Event, Round
from simulations.running.recorder import Claim

NOWHERE = Path("/nonexistent")  # digits come with scikit-learn
FIELDS = {
    "dataset": "digits",
    "num_clients": 4,
    "num_rounds": 3,
    "lr": 0.1,
    "behaviours": {"2": {"kind": "free_rider"}},
}


def config(**fields) -> SimulationConfig:
    return SimulationConfig.from_dict(FIELDS | fields)


def first_record(config: SimulationConfig) -> dict:
    """As the first release would have kept it: every one of its fields, flat."""
    values = config.to_dict()
    flat = {name: values[name]["kind"] if name in CHOICES else values[name] for name in values}
    given = {
        name: values[of_choice][parameter]
        for name, (of_choice, parameter) in SimulationConfig.FLAT.items()
        if parameter in values[of_choice]
    }
    return {name: (FIRST_DEFAULTS | flat | given)[name] for name in FIRST_FIELDS}


@cache
def happened(num_rounds: int = 3) -> tuple[Event, ...]:
    """What happens in a real run of the configuration."""
    torch.set_num_threads(1)  # as the trainer does: sums depend on it
    return tuple(simulate(config(num_rounds=num_rounds), data_dir=NOWHERE))


def rounds(events=None) -> list[Round]:
    return [event for event in events or happened() if isinstance(event, Round)]


def queued(**fields) -> Simulation:
    return lifecycle.queue(config(**fields), origin=Origin.API)


def claimed(simulation: Simulation | None = None) -> Claim:
    claim = lifecycle.take(simulation or queued())
    assert claim is not None
    return claim


def recorded(until: int | None = None, num_rounds: int = 3) -> Simulation:
    """A simulation with the first `until` events of the run recorded; all of them by default."""
    events = happened(num_rounds)[:until]  # first: PostgreSQL ends transactions that stand idle for long
    claim = claimed(queued(num_rounds=num_rounds))
    for event in events:
        worker.write(claim, event)
    return Simulation.objects.get(pk=claim.simulation_id)
