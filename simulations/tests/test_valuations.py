"""Every kind of valuation in a real run: one never disturbs another's draws nor the training's, a run that goes on
gives the same, and what was measured can be computed again."""

from functools import cache

import pytest
import torch

import kinds
from kinds import ConfigError
from simulations.config import SimulationConfig
from simulations.durations import coalitions
from simulations.models import Simulation
from simulations.running import worker
from simulations.running.engine import simulate
from simulations.tests.cast import NOWHERE, claimed, config, queued, rounds
from simulations.tests.test_economies import command

MOST = 28  # evaluations of a game that has 32 coalitions, so that it is sampled
NAMES = tuple(name for name in kinds.family("valuation") if name not in ("auto", "none"))
FIELDS = {"num_clients": 5, "num_rounds": 2, "behaviours": {}, "pool": "fixed"}


def choice(name: str) -> dict:
    return {"kind": name} | ({"evaluations": MOST} if "evaluations" in kinds.find("valuation", name).parameters else {})


SHADOWS = [{"label": name, "valuation": choice(name)} for name in NAMES if name != "shapley"]


@cache
def with_all(shadows: int = 16, first: int = 0):
    torch.set_num_threads(1)
    several = config(**FIELDS, valuation="shapley", shadows=SHADOWS[first : first + shadows])
    return tuple(simulate(several, data_dir=NOWHERE))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "shapley"])
def test_its_values_are_the_same_beside_others_and_alone(name):
    first = [each["label"] for each in SHADOWS].index(name) // 16 * 16
    place = [each["label"] for each in SHADOWS].index(name) - first
    alone = rounds(list(simulate(config(**FIELDS, valuation=choice(name)), data_dir=NOWHERE)))
    for one, beside in zip(alone, rounds(with_all(first=first)), strict=True):
        assert [part.contribution for part in one.clients] == list(beside.shadows[place].contributions)
        assert one.weights_sha256 == beside.weights_sha256


def test_a_run_that_goes_on_gives_the_same(tmp_path):
    for first in range(0, len(SHADOWS), 16):
        several = config(**FIELDS, valuation="shapley", shadows=SHADOWS[first : first + 16])
        whole = rounds(list(simulate(several, data_dir=NOWHERE, checkpoint_dir=tmp_path)))
        states = [whole[0].economy_state, *(each.economy_state for each in whole[0].shadows)]
        kept = [(1, whole[0].checkpoint_sha256, states)]
        rest = simulate(several, data_dir=NOWHERE, checkpoint_dir=tmp_path, recorded_rounds=1, checkpoints=kept)
        (again,) = rounds(list(rest))
        assert [each.contributions for each in again.shadows] == [each.contributions for each in whole[1].shadows]


@pytest.mark.django_db
@pytest.mark.database
def test_every_contribution_follows_when_it_is_computed_again():
    happenings = with_all()
    claim = claimed(queued(**FIELDS, valuation="shapley", shadows=SHADOWS[:16]))
    for event in happenings:
        worker.write(claim, event)
    simulation = Simulation.objects.get(pk=claim.simulation_id)
    several = 1 + len(SHADOWS[:16])
    assert command("recompute", simulation.pk) == (
        0,
        f"Equal: {2 * several} payments of {several} economies, computed again\n",
    )


def test_evaluations_that_are_too_few_are_an_error_at_their_field():
    with pytest.raises(ConfigError) as found:
        SimulationConfig.from_dict({"valuation": {"kind": "permutation", "evaluations": 10}})
    assert found.value.errors == {
        "valuation.evaluations": "10 evaluations are too few; 10 clients take at least 11",
    }
    shadow = {"label": "few", "valuation": {"kind": "permutation", "evaluations": 10}}
    with pytest.raises(ConfigError, match=r"few: valuation\.evaluations: 10 evaluations"):
        SimulationConfig.from_dict({"shadows": [shadow]})


def test_what_it_may_evaluate_is_in_the_estimate():
    assert coalitions(SimulationConfig.of(num_clients=20, valuation="permutation")) == 480
    assert coalitions(SimulationConfig.of(num_clients=20, valuation={"kind": "permutation", "evaluations": 100})) == 100
