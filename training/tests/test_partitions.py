import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kinds
from training import partitions
from training.config import TrainingConfig


def config_for(**fields) -> TrainingConfig:
    """Of what `fields` hold, what the partition takes."""
    taken = kinds.family("partition")[fields.get("partition", "iid")].parameters
    kept = {name: value for name, value in fields.items() if name not in TrainingConfig.FLAT or name in taken}
    return TrainingConfig.of(**{"dataset": "mnist", "validation_size": 0, **kept})


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def labels_of(count: int, classes: int = 10) -> np.ndarray:
    return rng(99).integers(0, classes, count)


@settings(max_examples=200, deadline=None)
@given(
    partition=st.sampled_from(sorted(kinds.family("partition"))),
    num_clients=st.integers(1, 60),
    spare=st.integers(0, 400),
    classes=st.integers(1, 12),
    labels_per_client=st.integers(1, 4),
    alpha=st.sampled_from([0.001, 0.01, 0.1, 0.5, 1.0, 100.0, 1e6]),
    seed=st.integers(0, 1000),
)
def test_it_gives_every_example_to_exactly_one_client(
    partition, num_clients, spare, classes, labels_per_client, alpha, seed
):
    config = config_for(partition=partition, num_clients=num_clients, alpha=alpha, labels_per_client=labels_per_client)
    labels = rng(seed).integers(0, classes, num_clients * labels_per_client + spare)
    parts = partitions.split(config, labels, rng(seed))
    assert len(parts) == num_clients
    assert min(len(part) for part in parts) >= 1
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))
    assert all((np.diff(part) > 0).all() for part in parts)
    again = partitions.split(config, labels, rng(seed))
    assert all(np.array_equal(one, two) for one, two in zip(parts, again, strict=True))


@pytest.mark.parametrize("partition", ["dirichlet", "quantity"])
def test_it_copes_with_the_smallest_alpha_and_ten_thousand_clients(partition):
    labels = labels_of(59_000)
    config = config_for(partition=partition, alpha=0.001, num_clients=10_000)
    sizes = [len(part) for part in partitions.split(config, labels, rng())]
    assert min(sizes) == 1
    assert sum(sizes) == 59_000


def test_it_makes_iid_parts_of_equal_size_with_like_labels():
    labels = labels_of(10_000)
    parts = partitions.split(config_for(num_clients=7), labels, rng())
    assert {len(part) for part in parts} == {10_000 // 7, 10_000 // 7 + 1}
    assert all(np.bincount(labels[part], minlength=10).min() > 90 for part in parts)


def test_it_deals_sorted_shards_so_that_a_client_sees_few_labels():
    labels = np.repeat(np.arange(10), 600)
    config = config_for(partition="pathological", num_clients=100, labels_per_client=2)
    parts = partitions.split(config, labels, rng())
    assert {len(part) for part in parts} == {60}
    # 200 shards of 30: no shard crosses a border between labels, so nobody holds more than two.
    assert {len(np.unique(labels[part])) for part in parts} == {1, 2}


def test_it_is_more_skewed_for_smaller_alpha():
    labels = labels_of(20_000)

    def largest_share(alpha: float) -> float:
        parts = partitions.split(config_for(partition="dirichlet", alpha=alpha), labels, rng())
        return float(np.mean([np.bincount(labels[part], minlength=10).max() / len(part) for part in parts]))

    assert largest_share(0.05) > 0.5 > largest_share(0.5) > largest_share(1000.0) > 0.1


def test_it_keeps_labels_alike_when_only_quantities_differ():
    labels = labels_of(50_000)
    parts = partitions.split(config_for(partition="quantity", alpha=1.0), labels, rng())
    sizes = [len(part) for part in parts]
    assert max(sizes) > 3 * min(sizes)
    for part in parts:
        if len(part) > 2000:
            assert np.bincount(labels[part], minlength=10).max() / len(part) < 0.15


@pytest.mark.parametrize("alpha", [0.001, 0.5, 3.0, 1e6])
def test_it_draws_from_the_dirichlet_distribution(alpha):
    draws = np.array([partitions._dirichlet(alpha, 4, generator) for generator in [rng(5)] for _ in range(4000)])
    assert np.allclose(draws.sum(axis=1), 1.0)
    assert np.allclose(draws.mean(axis=0), 0.25, atol=0.03)
    # Var = a (A - a) / (A^2 (A + 1)) with A = 4 a
    assert np.allclose(draws.var(axis=0), 0.1875 / (4 * alpha + 1), atol=0.01)


def test_it_fills_an_empty_client_from_the_largest():
    parts = [np.array([0, 1]), np.array([], dtype=np.int64), np.array([2, 3, 4]), np.array([], dtype=np.int64)]
    filled = partitions._without_empty(parts)
    assert [part.tolist() for part in filled] == [[0], [4], [2, 3], [1]]


def test_it_refuses_more_clients_than_examples():
    with pytest.raises(ValueError, match="num_clients: 9 examples are too few for 10 clients"):
        partitions.split(config_for(num_clients=10), labels_of(9), rng())


def test_it_holds_validation_examples_out_of_every_clients_hands():
    labels = labels_of(1000)
    config = config_for(validation_size=100)
    dealt = partitions.deal(config, labels)
    held = np.concatenate([dealt.validation, *dealt.clients])
    assert len(dealt.validation) == 100
    assert np.array_equal(np.sort(held), np.arange(1000))


def test_it_deals_by_the_seed():
    def deal(seed: int, data_seed: int | None = None) -> list[list[int]]:
        dealt = partitions.deal(config_for(validation_size=10, seed=seed, data_seed=data_seed), labels_of(500))
        return [dealt.validation.tolist(), *(part.tolist() for part in dealt.clients)]

    assert deal(0) == deal(0) != deal(1)
    assert deal(0) == deal(1, data_seed=0) != deal(0, data_seed=1) == deal(1)
