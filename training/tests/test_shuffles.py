import numpy as np
import pytest
import torch

from training.seeds import seed_for, seeds_for
from training.shuffles import SIDE_BY_SIDE, orders


def drawn(seed, size, epochs):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randperm(size, generator=generator).tolist() for _ in range(epochs)]


@pytest.mark.parametrize(("size", "epochs"), [(1, 1), (1, 3), (2, 1), (5, 1), (10, 7), (228, 1), (229, 1), (600, 2)])
def test_it_is_what_a_generator_for_each_client_draws(size, epochs):
    """Side by side and one by one, also at the last number that is worked out side by side."""
    seeds = seeds_for(7, "batches", 3, range(1, SIDE_BY_SIDE + 5))
    expected = [drawn(seed, size, epochs) for seed in seeds.tolist()]
    assert orders(seeds, size, epochs).tolist() == expected
    assert orders(seeds[:3], size, epochs).tolist() == expected[:3]


def test_the_seeds_of_many_clients_are_those_of_each():
    clients = [1, 2, 77, 100_000]
    seeds = seeds_for(5, "batches", 12, clients)
    assert seeds.dtype == np.uint64
    assert seeds.tolist() == [seed_for(5, "batches", 12, client) for client in clients]
    with pytest.raises(ValueError, match="'luck' is not a purpose"):
        seeds_for(5, "luck", 1, clients)
