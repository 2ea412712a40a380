"""Models as weighted sums, many at a time, and the same bits for each whatever is beside it."""

import numpy as np
import pytest
import torch

from training import mixtures, networks, scores
from training.layers import dense_layers
from training.mixtures import Mixtures, shapes
from training.networks import build
from training.tests.test_game import INFO


def drawn(model, n, samples, *, carries=False, fixed=True, **fields):
    """Mixtures of n random updates, and the rows of FedAvg's coalitions."""
    generator = torch.Generator().manual_seed(3)
    network = build(model, INFO, generator)
    weights = networks.flatten(network)
    sizes = 10 + 7 * np.arange(n) % 50

    def rows(coalitions):
        total = sizes.sum() if fixed else np.maximum(coalitions @ sizes, 1)[:, None]
        return np.column_stack([np.full(len(coalitions), 0.9 * carries), coalitions * sizes / total])

    values = {
        "network": network,
        "weights": weights,
        "deltas": 0.05 * torch.randn(n, len(weights), generator=generator),
        "carried": 0.05 * torch.randn(len(weights), generator=generator) if carries else None,
        "everyone": rows(np.ones((1, n), np.bool_))[0],
        "x": torch.randn(samples, *INFO.shape, generator=generator),
        "y": torch.randint(INFO.num_classes, (samples,), generator=generator),
        "utility": "loss",
    }
    return Mixtures(**(values | fields)), rows


def naive(mixed, rows):
    """One model after another, mixed in float64."""
    found = []
    for row in rows:
        step = torch.from_numpy(row[1:]) @ mixed.deltas.double()
        if mixed.carried is not None:
            step = step + row[0] * mixed.carried.double()
        weights = (mixed.weights.double() + step).float()
        score = networks.evaluate(mixed.network, weights, mixed.x, mixed.y)
        found.append(-score.loss if mixed.utility == "loss" else score.accuracy)
    return np.array(found)


def leaving_one_out(n):
    return np.vstack([np.ones((1, n), np.bool_), ~np.eye(n, dtype=np.bool_)])


def some_of(n, count, seed=0):
    generator = np.random.default_rng(seed)
    return generator.random((count, n)) < generator.random((count, 1))


@pytest.mark.parametrize("utility", ["loss", "accuracy"])
@pytest.mark.parametrize("carries", [False, True])
@pytest.mark.parametrize("n", [1, 4, 40])
@pytest.mark.parametrize("model", ["mlp", "2nn", "logistic", "cnn"])
def test_it_equals_one_model_at_a_time(model, n, carries, utility):
    mixed, rows = drawn(model, n, 37, carries=carries, fixed=False, utility=utility)
    some = rows(np.vstack([leaving_one_out(n)[:6], np.eye(n, dtype=np.bool_)[:3], some_of(n, 6)]))
    some[0, 0] += 0.3 * carries
    np.testing.assert_allclose(mixed([some[:4], some[4:]]), naive(mixed, some), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("model", "n"),
    [
        *((model, n) for model in ("mlp", "2nn", "logistic") for n in (1, 2, 3, 5, 8, 16, 31, 32, 33, 64, 100, 300)),
        *(("cnn", n) for n in (2, 5, 33)),  # one row at a time
    ],
)
@pytest.mark.parametrize("fixed", [True, False])
def test_a_row_has_the_same_bits_whatever_is_beside_it(model, n, fixed):
    """Leave-one-out alone, in disorder beside singles and random coalitions, and each of some coalitions by itself."""
    most = 6 if model == "cnn" else 40
    samples = 20 if model == "cnn" else 9 if n in (1, 3, 8, 33) else 85  # of 9, products differ that are not filled up
    mixed, rows = drawn(model, n, samples, carries=n % 2 == 1, fixed=fixed)
    apart = leaving_one_out(n)[:most]
    beside = np.vstack([np.eye(n, dtype=np.bool_)[:most], some_of(n, most)])
    both = rows(np.vstack([apart, beside]))
    order = np.random.default_rng(2).permutation(len(both))
    together = np.empty(len(both))
    together[order] = mixed([both[order]])
    assert mixed([rows(apart)]).tobytes() == together[: len(apart)].tobytes()
    for number in order[:5]:
        assert mixed([both[[number]]])[0] == together[number]


def test_it_leaves_out_whom_a_row_does_not_differ_in(monkeypatch):
    """Leaving one of a hundred out adds one update to everyone's step; nothing is multiplied with all of them."""
    monkeypatch.setattr(mixtures, "_Many", None)
    for fixed in (True, False):
        mixed, rows = drawn("logistic", 100, 20, fixed=fixed)
        some = rows(leaving_one_out(100))
        np.testing.assert_allclose(mixed([some]), naive(mixed, some), atol=1e-6, rtol=0)


def test_it_does_not_take_small_sums_as_differences_of_large_ones():
    """The model of the three largest clients, with renormalised weights, is not everyone's less 197 others."""
    mixed, rows = drawn("logistic", 200, 37, fixed=False)
    three = np.zeros((1, 200), np.bool_)
    three[0, np.argsort(-mixed.everyone[1:], kind="stable")[:3]] = True
    reference, rest = mixtures._apart(rows(three), mixed.everyone)
    assert (reference[0], np.count_nonzero(rest)) == (0.0, 3)
    np.testing.assert_allclose(mixed([rows(three)]), naive(mixed, rows(three)), atol=6e-7, rtol=0)


@pytest.mark.parametrize("n", [4, 40])
@pytest.mark.parametrize("model", ["mlp", "2nn", "logistic"])
def test_it_adds_up_over_tiles_and_chunks(model, n, monkeypatch):
    monkeypatch.setattr(scores, "MAX_TILE", 16)
    monkeypatch.setattr(scores, "CHUNK_BYTES", 4 * 200 * 16 * 9)
    mixed, rows = drawn(model, n, 37)
    some = rows(np.vstack([leaving_one_out(n), some_of(n, 20)]))
    np.testing.assert_allclose(mixed([some]), naive(mixed, some), atol=1e-6, rtol=0)


@pytest.mark.parametrize("n", [5, 40])
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_it_gives_the_same_bits_with_any_number_of_workers(model, n):
    some = leaving_one_out(n)[:7]
    one, *others = (
        mixed([rows(some)]) for mixed, rows in (drawn(model, n, 37, workers=workers) for workers in (1, 2, 4))
    )
    for other in others:
        assert other.tobytes() == one.tobytes()


@pytest.mark.parametrize("num_samples", [1, 37, 360, 1000, 50_000])
@pytest.mark.parametrize("n", [1, 10, 100, 10_000])
@pytest.mark.parametrize("model", ["logistic", "mlp", "2nn"])
def test_its_pieces_fill_registers(model, n, num_samples):
    tile, rows = shapes(n, num_samples, dense_layers(build(model, INFO, torch.Generator())))
    assert tile % mixtures.ALIGNED == 0
    assert rows == 1 or rows >= mixtures.FEWEST_ROWS


def test_it_shows_what_is_not_finite():
    mixed, rows = drawn("mlp", 4, 37)
    mixed.deltas[1] = torch.nan
    assert np.isnan(mixed([rows(np.ones((1, 4), np.bool_))])[0])
