"""Behaviours in a round's work and in whole runs: who stays away when, and who does how much."""

import dataclasses

import pytest
import torch

from training import clients
from training.clients import Task
from training.config import TrainingConfig
from training.events import Log, RoundTrained
from training.loop import run

CONFIG = TrainingConfig.of(dataset="digits", validation_size=0, model="logistic", batch_size=8, local_epochs=2)


def work(digits, kind: str, *, client: int = 1, round_number: int = 1, seed: int = 0, **parameters):
    task = Task(client=client, indices=torch.arange(100, 150), behaviour={"kind": kind, **parameters})
    return clients.work(task, digits, dataclasses.replace(CONFIG, seed=seed), round_number)


def presence(digits, probability: float, **fields) -> list[bool]:
    rounds = range(1, 201)
    return [work(digits, "dropout", probability=probability, round_number=n, **fields) is not None for n in rounds]


def test_an_honest_client_takes_all_its_steps(digits):
    batches = work(digits, "honest").batches
    assert [len(batch) for batch in batches] == [8, 8, 8, 8, 8, 8, 2] * 2
    assert torch.cat(batches[:7]).sort().values.tolist() == list(range(50))


@pytest.mark.parametrize(("fraction", "steps"), [(0.0, 1), (0.05, 1), (0.5, 7), (0.75, 10), (1.0, 14)])
def test_low_effort_takes_the_first_of_its_steps(digits, fraction, steps):
    lazy, honest = work(digits, "low_effort", fraction=fraction), work(digits, "honest")
    assert len(lazy.batches) == steps
    assert all(torch.equal(one, other) for one, other in zip(lazy.batches, honest.batches, strict=False))
    assert torch.equal(lazy.labels, honest.labels)


def test_dropout_comes_as_often_as_told(digits):
    assert presence(digits, 0.0) == [True] * 200
    assert presence(digits, 1.0) == [False] * 200
    assert 0.6 < sum(presence(digits, 0.3)) / 200 < 0.8


def test_dropout_is_drawn_from_seed_round_and_client_alone(digits):
    assert presence(digits, 0.5) == presence(digits, 0.5)
    assert presence(digits, 0.5) != presence(digits, 0.5, client=2)
    assert presence(digits, 0.5) != presence(digits, 0.5, seed=1)


def test_a_client_that_is_there_works_as_an_honest_one(digits):
    here, honest = work(digits, "dropout", probability=0.0), work(digits, "honest")
    assert all(torch.equal(one, other) for one, other in zip(here.batches, honest.batches, strict=True))
    assert torch.equal(here.labels, honest.labels)


def test_it_never_hears_of_a_free_rider(digits):
    assert all(work(digits, "free_rider", round_number=number) is None for number in range(1, 20))


def test_a_run_shows_who_stayed_away(digits):
    config = dataclasses.replace(
        CONFIG, batch_size=60_000, num_clients=4, num_rounds=12, behaviours={2: {"kind": "dropout", "probability": 0.5}}
    )
    events = list(run(config, digits))
    rounds = [event for event in events if isinstance(event, RoundTrained)]
    away = [event.reports[1].loss_before is None for event in rounds]
    expected = [
        clients.work(Task(client=2, indices=torch.arange(9), behaviour=config.behaviours[2]), digits, config, n) is None
        for n in range(1, 13)
    ]
    assert away == expected
    assert 0 < sum(away) < 12
    said = [event.message for event in events if isinstance(event, Log) and "Client 2 sent no update" in event.message]
    assert len(said) == sum(away)


def test_a_run_shows_who_did_little(digits):
    config = dataclasses.replace(
        CONFIG, num_clients=4, num_rounds=1, behaviours={3: {"kind": "low_effort", "fraction": 0.1}}
    )
    (first,) = (event for event in run(config, digits) if isinstance(event, RoundTrained))
    norms = [report.update_norm for report in first.reports]
    assert norms[2] < 0.5 * min(norms[:2] + norms[3:])
    assert first.reports[2].num_examples in (359, 360)  # its update counts with all its examples
