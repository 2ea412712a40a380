"""On MNIST where FEDSITE_DATA_DIR has it, else on digits: does it learn, and do the dishonest do harm?"""

import dataclasses

import pytest

from training.config import TrainingConfig
from training.events import RoundTrained
from training.loop import run


@pytest.fixture(scope="module")
def few(real):
    """At most 2,300 training and 1,000 test images, so that a round is short."""
    return _first(real, 2300, 1000)


def _first(data, num_train: int, num_test: int):
    return dataclasses.replace(
        data,
        train_x=data.train_x[:num_train],
        train_y=data.train_y[:num_train],
        test_x=data.test_x[:num_test],
        test_y=data.test_y[:num_test],
    )


def rounds(data, **fields) -> list[RoundTrained]:
    small = {"num_rounds": 3, "batch_size": 10, "local_epochs": 2, "lr": 0.1, "validation_size": 140}
    config = TrainingConfig.of(**{**small, **fields}).resolved(data.name)
    return [event for event in run(config, data) if isinstance(event, RoundTrained)]


@pytest.mark.parametrize("model", ["mlp", "2nn", "logistic"])
def test_it_learns(few, model):
    events = rounds(few, model=model)
    assert events[-1].accuracy > 0.8
    assert events[-1].validation_loss < events[0].previous_validation_loss / 2
    assert all(report.loss_after < report.loss_before for report in events[0].reports)


def test_it_learns_with_a_convolutional_network(real):
    (event,) = rounds(_first(real, 1000, 500), model="cnn", num_clients=2, num_rounds=1)
    assert event.accuracy > 0.6


def test_it_learns_less_where_clients_hold_two_labels_each(few):
    alike, unlike = rounds(few)[-1], rounds(few, partition="pathological")[-1]
    assert 0.3 < unlike.accuracy < alike.accuracy


def test_it_suffers_from_the_dishonest(few):
    honest = rounds(few)[-1].accuracy
    flipped = {client: {"kind": "label_flip"} for client in range(1, 6)}
    reversed_signs = {client: {"kind": "sign_flip"} for client in range(1, 6)}
    assert rounds(few, behaviours=flipped)[-1].accuracy < honest - 0.05
    assert rounds(few, behaviours=reversed_signs)[-1].accuracy < 0.4
