"""Area under the curve, precision and recall: by hand, and against scikit-learn."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import precision_score, recall_score, roc_auc_score

from incentives.detection import auc, precision_recall

YES, NO = True, False
scored = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]), st.booleans()), max_size=40)


def test_worked_by_hand():
    scores, truth = [0.1, 0.4, 0.35, 0.8], [NO, NO, YES, YES]
    assert auc(scores, truth) == 0.75  # of four pairs, 0.35 is below 0.4 alone
    assert auc([0.5, 0.5, 0.5], [YES, NO, NO]) == 0.5
    assert auc([0.5, 0.5, 0.2], [YES, NO, NO]) == 0.75
    assert auc([1.0, 0.0], [NO, YES]) == 0.0
    assert precision_recall(scores, truth, 0.35) == (0.5, 0.5)  # not whoever is at it
    assert precision_recall(scores, truth, 0.3) == (2 / 3, 1.0)


def test_of_nobody_there_is_no_share():
    assert auc([], []) is auc([0.3], [YES]) is auc([0.3, 0.4], [NO, NO]) is None
    assert precision_recall([0.3], [YES], 0.9) == (None, 0.0)
    assert precision_recall([0.3], [NO], 0.1) == (0.0, None)


def test_each_score_has_its_truth():
    with pytest.raises(ValueError, match="zip"):
        auc([0.1], [])
    with pytest.raises(ValueError, match="zip"):
        precision_recall([0.1], [YES, NO], 0.5)


@given(scored)
def test_a_second_implementation_says_the_same(pairs):
    scores, truth = [score for score, _ in pairs], [is_so for _, is_so in pairs]
    if any(truth) and not all(truth):
        assert auc(scores, truth) == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    for above in (0.0, 0.3, 0.5):
        named = [score > above for score in scores]
        precision, recall = precision_recall(scores, truth, above)
        assert precision == (precision_score(truth, named) if any(named) else None)
        assert recall == (recall_score(truth, named) if any(truth) else None)
