import hashlib

import pytest

from training.generators import torch_generator
from training.seeds import numpy_generator, seed_for


def test_it_takes_the_first_63_bits_of_sha256():
    digest = hashlib.sha256(b"7/batches/3/5").hexdigest()
    assert seed_for(7, "batches", 3, 5) == int(digest[:16], 16) // 2


def test_it_differs_in_every_part():
    seeds = {
        seed_for(0, "batches", 1, 2),
        seed_for(1, "batches", 1, 2),
        seed_for(0, "sample", 1, 2),
        seed_for(0, "batches", 2, 2),
        seed_for(0, "batches", 1, 3),
        seed_for(0, "batches", 2, 1),
    }
    assert len(seeds) == 6


def test_it_refuses_a_purpose_that_is_not_listed():
    with pytest.raises(ValueError, match="'luck' is not a purpose"):
        seed_for(0, "luck")


def test_it_makes_equal_generators_for_equal_arguments():
    assert torch_generator(1, "sample", 2).initial_seed() == seed_for(1, "sample", 2)
    first, second = (numpy_generator(1, "sample", 2).random(5).tolist() for _ in range(2))
    assert first == second
