"""Trimmed mean, median, multi-Krum and centred clipping on numbers worked by hand and beside NumPy and PyTorch."""

import numpy as np
import pytest
import torch

from training import products, strategies
from training.config import TrainingConfig
from training.strategies import coordinates, krum
from training.tests.updates import alike, drawn, joined


def stack(updates) -> torch.Tensor:
    return torch.stack([each.delta for each in updates])


def test_a_trimmed_mean_drops_the_extremes_of_each_weight():
    updates = alike([1.0, 50.0], [2.0, -3.0], [3.0, 0.0], [4.0, 6.0], [100.0, 3.0])
    weights, state = joined("trimmed_mean", updates, num_malicious_clients=1)
    assert weights.tolist() == [3.0, 3.0]  # (2 + 3 + 4) / 3 and (0 + 3 + 6) / 3
    assert state == {}
    assert joined("trimmed_mean", updates, num_malicious_clients=2)[0].tolist() == [3.0, 3.0]


def test_a_trimmed_mean_guards_against_a_fifth_unless_told():
    nine, ten = ([[float(value)] for value in range(count)] for count in (9, 10))
    nine[8] = ten[9] = [1e6]
    assert joined("trimmed_mean", alike(*nine))[0].item() == 4.0  # 1 to 7
    assert joined("trimmed_mean", alike(*ten))[0].item() == 4.5  # 2 to 7
    assert joined("trimmed_mean", alike([0.0], [0.0], [0.0], [8.0]))[0].item() == 2.0  # a fifth of 4 is nobody


@pytest.mark.parametrize(("deltas", "middle"), [([1.0, 9.0, 2.0], 2.0), ([1.0, 9.0, 2.0, 4.0], 3.0), ([7.0], 7.0)])
def test_a_median_is_the_middle_or_the_mean_of_both(deltas, middle):
    assert joined("median", alike(*([delta] for delta in deltas)))[0].item() == middle


@pytest.mark.parametrize("count", [4, 5, 10])
def test_a_median_is_numpys(count):
    updates = drawn(count, 200)
    expected = np.median(stack(updates).double().numpy(), axis=0).astype(np.float32)
    assert np.array_equal(joined("median", updates)[0].numpy(), expected)


def test_sorting_piece_by_piece_changes_nothing(monkeypatch):
    updates = drawn(6, 200)
    whole = [joined(strategy, updates)[0] for strategy in ("median", "trimmed_mean", "multi_krum")]
    monkeypatch.setattr(coordinates, "COLUMNS", 7)
    monkeypatch.setattr(products, "COLUMNS", 7)
    pieces = [joined(strategy, updates)[0] for strategy in ("median", "trimmed_mean", "multi_krum")]
    assert all(torch.equal(one, other) for one, other in zip(whole, pieces, strict=True))


def test_krum_scores_by_the_nearest_others():
    updates = alike([0.0], [1.0], [2.0], [4.0], [100.0])
    distances = krum.squared_distances([each.delta for each in updates])
    assert distances[3].tolist() == [16.0, 9.0, 4.0, 0.0, 9216.0]
    # f = 1, so two neighbours each: 1 + 4, 1 + 1, 1 + 4, 4 + 9, 96^2 + 98^2; four of five stay
    assert krum.scores([each.delta for each in updates], 1).tolist() == [5.0, 2.0, 5.0, 13.0, 18820.0]
    assert krum.selected([each.delta for each in updates], 1) == [0, 1, 2, 3]
    assert joined("multi_krum", updates, num_malicious_clients=1)[0].item() == 1.75


def test_krum_prefers_a_crowd_to_a_pair():
    """Two colluding attackers are nearest to each other, but with f = 2 of 7 three neighbours count."""
    updates = alike([9.0, 9.0], [0.0, 0.1], [9.0, 9.0], [0.1, 0.0], [0.0, 0.0], [-0.1, 0.0], [0.0, -0.1])
    assert krum.selected([each.delta for each in updates], 2) == [1, 3, 4, 5, 6]


def test_krum_averages_some_of_its_inputs():
    updates = drawn(9, 40)
    weights, _ = joined("multi_krum", updates, num_malicious_clients=3)
    places = krum.selected([each.delta for each in updates], 3)
    assert len(set(places)) == 6
    assert torch.allclose(weights, stack(updates)[places].mean(dim=0), rtol=0, atol=1e-7)


@pytest.mark.parametrize("malicious", [0, 1, 2, 3])
def test_krum_selects_as_its_definition_says(malicious):
    """Score for score, with plain loops over differences."""
    deltas = [each.delta.double().numpy() for each in drawn(9, 40, seed=malicious)]
    scores = []
    for i, one in enumerate(deltas):
        distances = sorted(float(((one - other) ** 2).sum()) for j, other in enumerate(deltas) if j != i)
        scores.append(sum(distances[: 9 - malicious - 2]))
    given = [torch.from_numpy(delta).float() for delta in deltas]
    assert krum.scores(given, malicious).tolist() == pytest.approx(scores, rel=1e-12)
    assert krum.selected(given, malicious) == sorted(np.argsort(scores)[: 9 - malicious].tolist())


def test_krum_measures_no_negative_distance_between_equals():
    same = [torch.full((1000,), 0.1)] * 4
    distances = krum.squared_distances(same)
    assert (distances >= 0).all()
    assert distances.max() < 1e-12


def test_clipping_shortens_what_is_too_long_and_nothing_else():
    updates = alike([3.0, 4.0], [0.0, 1.0], [0.0, 0.0], [-60.0, -80.0])  # lengths 5, 1, 0, 100
    weights, state = joined("centred_clipping", updates, clipping_norm=2.0)
    # (1.2, 1.6) + (0, 1) + (0, 0) + (-1.2, -1.6), over 4
    assert weights.tolist() == pytest.approx([0.0, 0.25])
    assert torch.equal(state["centre"], weights)


def test_clipping_starts_from_the_step_before():
    before = {"centre": torch.tensor([1.0])}
    # differences from 1: 3 clipped to 2, -1, -9 clipped to -2; 1 + (2 - 1 - 2) / 3
    weights, state = joined(
        "centred_clipping", alike([4.0], [0.0], [-8.0]), state=before, weights=torch.tensor([10.0]), clipping_norm=2.0
    )
    assert state["centre"].item() == pytest.approx(2 / 3)
    assert weights.item() == pytest.approx(10 + 2 / 3)


def test_clipping_takes_the_median_of_the_norms_for_its_radius():
    updates = alike([1.0], [3.0], [-100.0])
    assert joined("centred_clipping", updates)[0].item() == pytest.approx((1 + 3 - 3) / 3)
    # differences from 10: -9, -7 and -110, all cut to the median norm 3, whatever their own median is
    before = {"centre": torch.tensor([10.0])}
    assert joined("centred_clipping", updates, state=before)[0].item() == pytest.approx(10 - 3)


ROBUST = ("trimmed_mean", "median", "multi_krum", "centred_clipping")


@pytest.mark.parametrize("strategy", ROBUST)
@pytest.mark.parametrize("silent", [1, 6, 9])
def test_the_absent_have_no_vote(strategy, silent):
    """With 4 of 10 answering +1 the median was 0, and clipping repeated its step of the round before for ever."""
    came = alike(*[[1.0, -2.0]] * (10 - silent))
    weights, state = joined(strategy, [*came, *alike(*[None] * silent)])
    assert weights.tolist() == pytest.approx([1.0, -2.0])
    alone, state_alone = joined(strategy, came)
    assert (weights.tolist(), state.keys()) == (alone.tolist(), state_alone.keys())


@pytest.mark.parametrize("strategy", ROBUST)
def test_where_nobody_answers_the_model_stays(strategy):
    before = {"centre": torch.ones(2)} if strategy == "centred_clipping" else {}
    weights, state = joined(strategy, alike(None, None, None), state=before, weights=torch.tensor([3.0, 4.0]))
    assert weights.tolist() == [3.0, 4.0]
    assert state is before or state == before


def test_the_first_scheme_counts_the_absent_as_zero_votes():
    """Runs that it queued go on so."""

    def first(strategy: str, updates: list) -> list[float]:
        config, zero = TrainingConfig(strategy=strategy, scheme=1), torch.zeros(len(updates[0].delta))
        return strategies.join(config, zero, updates, len(updates), {})[0].tolist()

    votes = alike([1.0], [1.0], [1.0], [1.0], *[None] * 6)
    assert first("median", votes) == [0.0]
    assert joined("median", votes)[0].item() == 1.0
    assert first("centred_clipping", alike([1.0, 2.0], None, None)) == [0.0, 0.0]


@pytest.mark.parametrize(
    ("strategy", "malicious", "count", "most"), [("trimmed_mean", 3, 6, 2), ("multi_krum", 2, 6, 1)]
)
def test_few_arrivals_lower_how_many_are_guarded_against(strategy, malicious, count, most):
    """A configuration is checked against its own cohorts, but of a round fewer may arrive."""
    few = drawn(count, 20)
    guarded = joined(strategy, few, num_malicious_clients=malicious)[0]
    assert torch.equal(guarded, joined(strategy, few, num_malicious_clients=most)[0])
    for tiny in (1, 2):
        plain = torch.stack([each.delta for each in few[:tiny]]).double().mean(dim=0).float()
        assert torch.allclose(joined(strategy, few[:tiny], num_malicious_clients=malicious)[0], plain, atol=1e-7)


@pytest.mark.parametrize("cut", [0, 7, 49])
def test_how_many_weights_are_sorted_at_a_time_changes_no_bit(monkeypatch, cut):
    """Memory is bounded by fewer of them where clients are many."""
    deltas = torch.randn(100, 3000, generator=torch.Generator().manual_seed(0))
    whole = coordinates.middle_mean(list(deltas), cut)
    monkeypatch.setattr(coordinates, "VALUES", 100 * 37)
    assert torch.equal(coordinates.middle_mean(list(deltas), cut), whole)
