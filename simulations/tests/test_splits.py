"""The split that is shown before a start is the one that the run then records."""

import pytest

from simulations.running.engine import simulate
from simulations.showing import splits
from simulations.tests.cast import NOWHERE, config
from training.events import Started

KINDS = ["iid", {"kind": "dirichlet", "alpha": 0.1}, {"kind": "pathological", "labels_per_client": 3}, "quantity"]


@pytest.fixture(autouse=True)
def folders(settings, tmp_path):
    settings.FEDSITE_DATA_DIR = settings.FEDSITE_CHECKPOINT_DIR = tmp_path


def counts(shown: dict) -> list[tuple[int, ...]]:
    return [tuple(row["label_counts"]) for row in shown["heat"]]


@pytest.mark.parametrize("partition", KINDS)
@pytest.mark.parametrize("seeds", [{}, {"seed": 3}, {"seed": 3, "data_seed": 5}, {"validation_size": 20}])
def test_it_is_what_the_run_records(partition, seeds):
    of = config(num_clients=7, behaviours={}, partition=partition, **seeds)
    started = next(event for event in simulate(of, data_dir=NOWHERE) if isinstance(event, Started))
    shown = splits.preview(of)
    assert counts(shown) == [client.label_counts for client in started.clients]
    assert [row["num_examples"] for row in shown["heat"]] == [client.num_examples for client in started.clients]


def test_a_seed_of_its_own_fixes_the_split():
    one, other = (splits.preview(config(seed=seed, data_seed=9)) for seed in (1, 2))
    assert counts(one) == counts(other) != counts(splits.preview(config(seed=1)))


def test_of_many_clients_the_first_are_shown():
    shown = splits.preview(config(num_clients=60))
    assert (len(shown["heat"]), shown["everyone"]) == (50, 60)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"dataset": "mnist"}, "MNIST is not on this machine yet."),
        ({"dataset": "auto"}, "it is downloaded when the run starts, or digits take its place."),
        ({"dataset": "mnist", "num_clients": 10_001}, "The split of more than 10,000 clients is computed when"),
    ],
)
def test_what_cannot_be_shown_is_said(fields, says):
    assert says in splits.preview(config(**fields))["why_not"]


def test_a_damaged_file_is_said(tmp_path):
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    (tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte").write_bytes(b"not labels")
    assert "is damaged" in splits.preview(config(dataset="mnist"))["why_not"]
