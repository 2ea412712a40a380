"""Attacks against those of ByzFL (Gonzalez et al. 2025)."""

import byzfl
import pytest

from training.tests.test_deviations import X, agreed, behaviour


def test_conspirators_send_what_a_second_implementation_sends():
    for z in (0.0, 0.7, 1.5):
        assert agreed("alie", z=z) == pytest.approx(byzfl.ALittleIsEnough(-z)(X).tolist(), rel=1e-6)
    for tau in (0.5, 1.0, 2.0):
        assert agreed("ipm", tau=tau) == byzfl.InnerProductManipulation(tau)(X).tolist()
    assert agreed("ipm", tau=1.0) == byzfl.SignFlipping()(X).tolist()
    assert agreed("mimic") == byzfl.Mimic(0)(X).tolist()


def test_a_reversed_update_is_that_of_the_second_implementation():
    assert behaviour("sign_flip", scale=1.0).update(X[1]).tolist() == byzfl.SignFlipping()(X[1:2]).tolist()
