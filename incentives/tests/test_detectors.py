"""What each detector makes of updates that can be drawn on paper, and FoolsGold beside its published code."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import kinds
from incentives.detectors import foolsgold_weights, replication_discounts
from incentives.economy import DetectorFacts

DETECTORS = tuple(kinds.family("detector"))


def scores(detector, updates, *, sent=None, summed=None, before=1.0, alone=None, **beside):
    """Of updates [n, P], and the vectors beside them by name."""
    updates = np.asarray(updates, np.float64)
    n = len(updates)
    sent = [True] * n if sent is None else sent
    products = {"updates": updates @ updates.T, "squared_norms": (updates**2).sum(1)}
    summed = updates if summed is None else np.asarray(summed, np.float64)
    products |= {"summed": summed @ summed.T, "alone": np.ones(n) if alone is None else np.array(alone)}
    for name in ("step", "previous_step", "root_step"):
        vector = np.asarray(beside.get(name, np.zeros(updates.shape[1])), np.float64)
        products |= {name: updates @ vector, f"{name}.{name}": np.array(vector @ vector)}
    facts = DetectorFacts(
        round_number=3,
        clients=tuple(range(1, n + 1)),
        num_examples=(10,) * n,
        sent=tuple(sent),
        losses_before=(1.0,) * n,
        losses_after=(1.0,) * n,
        update_norms=tuple(np.sqrt((updates**2).sum(1)).tolist()),
        previous_validation_loss=before,
        products=products,
    )
    found, state = kinds.find("detector", detector).load()(facts, {})
    assert state == {}
    return found.tolist()


@pytest.mark.parametrize(
    ("detector", "updates", "beside", "expected"),
    [
        ("norm", [[1, 0], [0, 2], [0, 4], [0, 0]], {"sent": [1, 1, 1, 0]}, [0.5, 0.0, 0.5, 0.0]),
        ("norm", [[0, 0], [0, 0]], {}, [0.0, 0.0]),
        ("replay", [[2, 0], [0, 1], [-1, 0], [1, 1]], {"previous_step": [3, 0]}, [1.0, 0.0, 0.0, 0.5**0.5]),
        ("replay", [[2, 0], [0, 0]], {}, [0.0, 0.0]),  # in round 1 there is no step before
        ("fltrust", [[2, 0], [0, 1], [-1, 0]], {"root_step": [1, 0]}, [0.0, 1.0, 1.0]),
        ("direction", [[2, 0], [0, 1], [-1, 0]], {"step": [1, 0]}, [0.0, 0.5, 1.0]),
        ("loss_worsening", [[1], [1], [1]], {"before": 0.5, "alone": [0.4, 1.0, 2.0]}, [0.0, 0.5, 0.75]),
        ("spectral", [[3, 0], [-1, 0], [-1, 0], [-1, 0]], {}, [0.75, 1 / 12, 1 / 12, 1 / 12]),
        ("spectral", [[1, 1], [1, 1]], {}, [0.0, 0.0]),
        ("foolsgold", [[1, 0], [1, 0], [0, 1]], {}, [1.0, 1.0, 0.0]),
        ("foolsgold", [[1, 0]], {}, [0.0]),
    ],
)
def test_it_scores_what_the_drawing_says(detector, updates, beside, expected):
    np.testing.assert_allclose(scores(detector, updates, **beside), expected, atol=1e-12)


@pytest.mark.parametrize("detector", DETECTORS)
@given(updates=arrays(np.float64, (5, 3), elements=st.floats(-10, 10)), quiet=st.integers(0, 4))
@settings(max_examples=40, deadline=None)
def test_a_score_is_from_0_to_1_and_the_order_of_clients_does_not_matter(detector, updates, quiet):
    updates[quiet] = 0.0
    sent = np.arange(5) != quiet
    beside = {"step": updates.mean(0), "previous_step": [1, 2, 3], "root_step": [1, 0, 0]}
    found = np.array(scores(detector, updates, sent=sent, **beside))
    assert ((found >= 0) & (found <= 1)).all()
    if detector != "spectral":  # of equal principal components either may be taken
        order = np.array([3, 1, 4, 0, 2])
        again = scores(detector, updates[order], sent=sent[order], **beside)
        np.testing.assert_allclose(again, found[order], atol=1e-9)


def foolsgold_as_published(gradients):
    """The authors' own steps (github.com/DistributedML/FoolsGold, foolsgold.py), from their paper's algorithm 1."""
    n = len(gradients)
    lengths = np.linalg.norm(gradients, axis=1)
    cs = gradients @ gradients.T / np.outer(lengths, lengths) - np.eye(n)
    maxcs = cs.max(1)
    for i in range(n):
        for j in range(n):
            if i != j and maxcs[i] < maxcs[j]:
                cs[i][j] = cs[i][j] * maxcs[i] / maxcs[j]
    wv = 1 - cs.max(1)
    wv = np.clip(wv, 0, 1)
    wv = wv / wv.max()
    wv[wv == 1] = 0.99
    wv = np.log(wv / (1 - wv)) + 0.5
    return np.clip(wv, 0, 1)


def test_foolsgold_gives_what_the_published_one_gives():
    rng = np.random.default_rng(4)
    for _ in range(50):
        honest = np.abs(rng.standard_normal((6, 20)))
        sybil = np.abs(rng.standard_normal(20))
        gradients = np.vstack([honest, sybil + 0.01 * rng.standard_normal((3, 20))])
        found = foolsgold_weights(gradients @ gradients.T, np.ones(9, np.bool_))
        np.testing.assert_allclose(found, foolsgold_as_published(gradients), atol=1e-9)


def test_copies_share_what_one_would_get():
    """k equal updates among unlike ones: each has 2^-(k - 1) of its share, so k of them never more than one."""
    for k in (1, 2, 3, 5):
        updates = np.vstack([np.tile([1.0, 0, 0], (k, 1)), np.eye(3)[1:]])
        found = replication_discounts(updates @ updates.T, np.ones(k + 2, np.bool_))
        np.testing.assert_allclose(found, [2.0 ** -(k - 1)] * k + [1.0, 1.0])
        assert math.fsum(found[:k]) <= 1


def test_of_whom_nothing_came_nothing_is_said():
    updates = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    sent = np.array([True, False, True])
    assert replication_discounts(updates @ updates.T, sent).tolist() == [0.5, 0.0, 0.5]
    assert foolsgold_weights(updates @ updates.T, sent).tolist() == [0.0, 0.0, 0.0]
    assert foolsgold_weights(updates @ updates.T, np.array([True, False, False])).tolist() == [1.0, 0.0, 0.0]
