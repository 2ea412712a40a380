"""Products as evidence: what was asked for is what is kept, and damage is named."""

import numpy as np
import pytest

from incentives.products import KeptProducts, NoProducts, RecordedProducts, cosines, cosines_with, pack, unpack
from incentives.valuation.evidence import EvidenceError

VECTORS = np.array([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [0.0, 0.0]])
STEP = np.array([1.0, 1.0])
PRODUCTS = {
    "updates": VECTORS @ VECTORS.T,
    "squared_norms": (VECTORS**2).sum(1),
    "step": VECTORS @ STEP,
    "step.step": np.array(STEP @ STEP),
}
COHORT = (2, 3, 7, 9)


def test_what_was_asked_for_comes_back():
    recorded = RecordedProducts(PRODUCTS)
    assert recorded.packed(COHORT) is None
    cosines_with(recorded, "step")
    blob = recorded.packed(COHORT)
    cohort, arrays = unpack(blob)
    assert cohort == COHORT
    assert sorted(arrays) == ["squared_norms", "step", "step.step"]
    assert all(np.array_equal(arrays[name], PRODUCTS[name]) for name in arrays)
    assert pack(cohort, arrays) == blob
    kept = KeptProducts(COHORT, [blob, pack(COHORT, {"updates": PRODUCTS["updates"]})])
    assert np.array_equal(cosines(kept["updates"]), cosines(PRODUCTS["updates"]))
    with pytest.raises(EvidenceError, match=r"the updates \(summed\) that no economy of this run asked for"):
        kept["summed"]


def test_the_layout_is_what_the_page_says():
    blob = pack((5,), {"b": np.array([2.0]), "a.a": np.array(-0.0)})
    assert blob[:-32].hex() == (
        "46454450524f4431" + "01000000" + "02000000" + "0500000000000000"
        "03000000" + "612e61" + "00000000" + "0000000000000000"
        "01000000" + "62" + "01000000" + "0000000000000040"
    )


def test_a_changed_byte_is_seen_and_so_is_another_cohort():
    blob = pack(COHORT, PRODUCTS)
    for place in range(0, len(blob), 7):
        with pytest.raises(EvidenceError):
            unpack(blob[:place] + bytes([blob[place] ^ 1]) + blob[place + 1 :])
    for end in (0, 8, 31, len(blob) - 1):
        with pytest.raises(EvidenceError):
            unpack(blob[:end])
    with pytest.raises(EvidenceError, match="another cohort"):
        KeptProducts((1, 2, 3, 4), [blob])
    with pytest.raises(EvidenceError, match=r"other products \(step\)"):
        KeptProducts(COHORT, [blob, pack(COHORT, {"step": np.ones(4)})])
    with pytest.raises(EvidenceError, match=r"products of the updates \(step\); none are made"):
        NoProducts("none are made here")["step"]
    with pytest.raises(ValueError, match=r"step: \[3\] is not of 4 clients"):
        pack(COHORT, {"step": np.ones(3)})


def test_cosines_by_hand():
    assert cosines(PRODUCTS["updates"]).tolist() == [
        [1.0, 0.0, -1.0, 0.0],
        [0.0, 1.0, 0.0, 0.0],
        [-1.0, 0.0, 1.0, 0.0],
        [0.0, 0.0, 0.0, 0.0],
    ]
    half = 0.5**0.5
    np.testing.assert_allclose(cosines_with(PRODUCTS, "step"), [half, half, -half, 0.0], rtol=1e-15)
