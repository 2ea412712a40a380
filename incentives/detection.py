"""How well scores tell those who do not play fair from those who do, where that is known. Standard library only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def auc(scores: Sequence[float], truth: Sequence[bool]) -> float | None:
    """The area under the ROC curve: how often one of whom `truth` says yes scores above one of whom it says no, equal
    scores counting half. None where one of the two is missing. By ranks, as the Mann-Whitney statistic over the number
    of pairs (Hanley & McNeil 1982)."""
    everyone, guilty = Counter(scores), Counter(score for score, is_so in zip(scores, truth, strict=True) if is_so)
    num_guilty = guilty.total()
    pairs = num_guilty * (len(scores) - num_guilty)
    if not pairs:
        return None
    twice, below = 0, 0  # twice the pairs in the right order, so that halves are whole; innocent ones that score less
    for score in sorted(everyone):
        innocent = everyone[score] - guilty[score]
        twice += guilty[score] * (2 * below + innocent)
        below += innocent
    return twice / (2 * pairs)


def precision_recall(scores: Sequence[float], truth: Sequence[bool], above: float) -> tuple[float | None, float | None]:
    """Of those who score above, the share of whom `truth` says yes; and of these all, the share that scores above. None
    where there is nobody to take a share of."""
    named = [is_so for score, is_so in zip(scores, truth, strict=True) if score > above]
    found, guilty = sum(named), sum(truth)
    return found / len(named) if named else None, found / guilty if guilty else None
