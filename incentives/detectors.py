"""What points at clients that may not play fair. A detector is a function (facts, state, **parameters) -> (scores [n],
state): a score from 0, as usual, to 1, as far off as can be, for each client of the cohort.

They see how long updates are and how alike, never a weight (see incentives.products). Who sent nothing scores 0: there
is nothing to look at. A score is no verdict: honest clients of rare data are far from the others, too.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from incentives.economy import DetectorFacts, State
from incentives.products import cosines, cosines_with

Scores = tuple[NDArray[np.float64], State]


def norm(facts: DetectorFacts, state: State) -> Scores:
    """1 - the shorter over the longer of the update's norm and the median norm of those who sent something."""
    lengths, sent = np.asarray(facts.update_norms, np.float64), np.asarray(facts.sent, np.bool_)
    usual = float(np.median(lengths[sent])) if sent.any() else 0.0
    longer = np.maximum(lengths, usual)
    ratio = np.divide(np.minimum(lengths, usual), longer, out=np.ones_like(lengths), where=longer > 0)
    return np.where(sent, 1 - ratio, 0.0), state


def replay(facts: DetectorFacts, state: State) -> Scores:
    """The cosine of the update with the server's step of the round before, where it is above 0: whoever sends that step
    again has 1 (Lin et al. 2019, attack II, where the update has the other sign)."""
    return np.maximum(cosines_with(facts.products, "previous_step"), 0.0), state


def foolsgold(facts: DetectorFacts, state: State) -> Scores:
    """1 - the weight that FoolsGold gives it: 1 where the updates that it has sent so far point where another's do."""
    return 1 - foolsgold_weights(facts.products["summed"], np.asarray(facts.sent, np.bool_)), state


def fltrust(facts: DetectorFacts, state: State) -> Scores:
    """1 - the trust score of FLTrust: the cosine of the update with that of a model which the server has trained on its
    own examples, where it is above 0 (Cao et al. 2021, equation 2)."""
    trust = np.maximum(cosines_with(facts.products, "root_step"), 0.0)
    return np.where(facts.sent, 1 - trust, 0.0), state


def direction(facts: DetectorFacts, state: State) -> Scores:
    """(1 - the cosine of the update with the server's step) / 2: 1 where it points the opposite way."""
    return np.where(facts.sent, (1 - cosines_with(facts.products, "step")) / 2, 0.0), state


def loss_worsening(facts: DetectorFacts, state: State) -> Scores:
    """1 - the validation loss before the round over that with the client's update alone, where this is the larger."""
    before, alone = facts.previous_validation_loss, np.asarray(facts.products["alone"], np.float64)
    if before is None:
        raise ValueError("loss_worsening needs a validation set")
    worse = np.asarray(facts.sent, np.bool_) & (alone > before)
    return np.where(worse, 1 - before / np.where(worse, alone, 1.0), 0.0), state


def spectral(facts: DetectorFacts, state: State) -> Scores:
    """The client's share of the largest principal component of the updates around their mean: they sum to 1
    (Shejwalkar & Houmansadr 2021, section 5.2, of whole updates)."""
    sent, scores = np.flatnonzero(facts.sent), np.zeros(len(facts.clients))
    if len(sent) < 2:
        return scores, state
    products = facts.products["updates"][np.ix_(sent, sent)]
    centre = np.eye(len(sent)) - 1 / len(sent)
    values, vectors = np.linalg.eigh(centre @ products @ centre)
    if values[-1] > 1e-12 * max(1.0, float(np.trace(products))):
        scores[sent] = vectors[:, -1] ** 2
    return scores, state


def foolsgold_weights(products: NDArray[np.float64], sent: NDArray[np.bool_]) -> NDArray[np.float64]:
    """[n], from 0 to 1, of the Gram matrix of updates summed over the rounds so far; 0 where nothing was sent now. With
    confidence 1, over whole updates (Fung et al. 2020, algorithm 1).

    A logit is infinite where a cosine is 0 or 1; it is cut to 0 or 1 with all others.
    """
    weights, here = np.zeros(len(products)), np.flatnonzero(sent)
    if len(here) < 2:
        weights[here] = 1.0
        return weights
    alike = cosines(products[np.ix_(here, here)])
    np.fill_diagonal(alike, 0.0)
    most = alike.max(1)
    # pardoning: towards somebody who has been more suspicious it is less so
    pardon = most[:, None] / np.where(most > 0, most, 1.0)[None]
    pardoned = np.where(most[None] > most[:, None], alike * pardon, alike)
    found = np.clip(1 - pardoned.max(1), 0.0, 1.0)
    if found.max() > 0:
        found = found / found.max()
    weights[here] = [_cut_logit(each) for each in found.tolist()]
    return weights


def _cut_logit(weight: float) -> float:
    if weight in (0.0, 1.0):
        return weight
    return round(min(1.0, max(0.0, math.log(weight / (1 - weight)) + 0.5)), 12)


def replication_discounts(products: NDArray[np.float64], sent: NDArray[np.bool_]) -> NDArray[np.float64]:
    """[n], 2^-(sum of the cosines above 0 with all other updates): k equal updates get 2^-(k - 1) each, so that copies
    do not pay (Agarwal et al. 2019, section 4.3, with lambda = ln 2); 0 where nothing was sent."""
    alike = np.maximum(cosines(products), 0.0)
    np.fill_diagonal(alike, 0.0)
    alike[:, ~sent] = 0.0
    return np.where(sent, np.exp2(-alike.sum(1)), 0.0).round(12)
