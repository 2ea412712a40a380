import dataclasses

import pytest
import torch

import kinds
from training import clients
from training.clients import Task
from training.config import TrainingConfig


def behaviour(kind: str, **parameters) -> clients.Behaviour:
    return clients.behaviour_of(Task(client=1, indices=torch.arange(3), behaviour={"kind": kind, **parameters}), 1)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(4)


@pytest.mark.parametrize("kind", sorted(set(kinds.family("behaviour")) - {"honest"}))
def test_it_takes_the_parameters_that_the_configuration_fills_in(kind):
    group = {"group": [2]} if kind == "collusion" else {}  # which is of more than one
    config = TrainingConfig.of(behaviours={1: {"kind": kind, **group}})
    task = Task(client=1, indices=torch.arange(3), behaviour=config.behaviours[1])
    assert isinstance(clients.behaviour_of(task, 1), clients.Behaviour)


def test_it_is_honest_by_default():
    task = Task(client=1, indices=torch.arange(3))
    honest = clients.behaviour_of(task, 1)
    delta = torch.tensor([1.0, -2.0])
    assert (honest.silence, honest.effort) == (0.0, 1.0)
    assert honest.labels is None
    assert torch.equal(honest.update(delta), delta)
    with pytest.raises(dataclasses.FrozenInstanceError):
        task.client = 2


def test_it_flips_all_labels_by_default_and_leaves_the_originals():
    labels = torch.tensor([0, 5, 9])
    flipped = behaviour("label_flip", fraction=1.0).labels(labels, 10, generator())
    assert flipped.tolist() == [9, 4, 0]
    assert labels.tolist() == [0, 5, 9]


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.5])
def test_it_flips_the_wanted_share_and_the_same_examples_each_time(fraction):
    labels = torch.arange(100) % 10
    flip = behaviour("label_flip", fraction=fraction).labels
    flipped = flip(labels, 10, generator())
    changed = (flipped != labels).nonzero().flatten()
    assert len(changed) == round(100 * fraction)
    assert torch.equal(flipped[changed], 9 - labels[changed])
    assert torch.equal(flip(labels, 10, generator()), flipped)


def test_it_reverses_and_scales_an_update():
    assert behaviour("sign_flip", scale=2.5).update(torch.tensor([1.0, -2.0])).tolist() == [-2.5, 5.0]


def test_only_free_riders_and_dropouts_are_silent():
    assert behaviour("free_rider").silence == 1.0
    assert behaviour("dropout", probability=0.25).silence == 0.25
    loud = [behaviour("honest"), behaviour("sign_flip", scale=1.0), behaviour("low_effort", fraction=0.5)]
    assert [each.silence for each in loud] == [0.0] * 3
