import dataclasses

import pytest

from training import checkpoints
from training.config import TrainingConfig
from training.events import Log, RoundTrained, Started, TrainingError
from training.loop import run
from training.tests.timeless import timeless

CONFIG = TrainingConfig.of(
    dataset="digits",
    validation_size=137,
    num_clients=6,
    num_rounds=5,
    fraction_fit=0.5,
    momentum=0.5,
    lr=0.1,
    partition="dirichlet",
    evaluate_every=2,
    behaviours={1: {"kind": "free_rider"}, 4: {"kind": "label_flip", "fraction": 0.5}},
)


@pytest.fixture(scope="module")
def uninterrupted(digits, tmp_path_factory):
    """All events of a run, and the state after each round, read from its checkpoint while it was there."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    events, states = [], {}
    for event in run(CONFIG, digits, checkpoints=folder, config_sha256="this"):
        events.append(event)
        if isinstance(event, RoundTrained):
            states[event.round_number] = checkpoints.load(folder, event.round_number, event.checkpoint_sha256)
    return events, states


def after(events, round_number):
    """The events that follow a round."""
    rounds = [place for place, event in enumerate(events) if getattr(event, "round_number", None) == round_number]
    return events[rounds[0] + 1 :]


@pytest.mark.parametrize("round_number", [1, 2, 3, 4, 5])
def test_it_ends_as_if_it_had_never_stopped(digits, uninterrupted, tmp_path, round_number):
    events, states = uninterrupted
    resumed = list(run(CONFIG, digits, checkpoints=tmp_path, resume=states[round_number], config_sha256="this"))
    assert isinstance(resumed[0], Started)
    assert timeless(resumed) == timeless([events[0], *after(events, round_number)])


@pytest.mark.parametrize("replay_until", [0, 2, 3, 4, 5])
def test_it_leaves_out_lines_that_were_told(digits, uninterrupted, tmp_path, replay_until):
    """From the checkpoint of round 2, where the newest one was torn: later rounds are computed but not retold."""
    events, states = uninterrupted
    resumed = run(
        CONFIG, digits, checkpoints=tmp_path, resume=states[2], replay_until=replay_until, config_sha256="this"
    )
    untold = after(events, max(replay_until, 2))
    told = after(events, 2)[: -len(untold)]
    assert timeless(resumed) == timeless([events[0], *(event for event in told if not isinstance(event, Log)), *untold])


def test_it_replays_from_the_start_where_there_is_no_checkpoint(digits, uninterrupted, tmp_path):
    events, _ = uninterrupted
    resumed = run(CONFIG, digits, checkpoints=tmp_path, replay_until=5, config_sha256="this")
    assert timeless(resumed) == timeless([event for event in events if not isinstance(event, Log)])


def test_it_refuses_a_checkpoint_of_another_configuration(digits, uninterrupted):
    _, states = uninterrupted
    with pytest.raises(TrainingError, match="The checkpoint of round 3 belongs to another configuration"):
        next(run(CONFIG, digits, resume=states[3], config_sha256="that"))


def test_it_keeps_no_checkpoint_unless_asked(digits):
    config = dataclasses.replace(CONFIG, num_rounds=1)
    (trained,) = (event for event in run(config, digits) if isinstance(event, RoundTrained))
    assert trained.checkpoint_sha256 is None
