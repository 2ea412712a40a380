"""Federated averaging in which no update is longer than a set norm (McMahan et al. 2018, section 3)."""

import numpy as np
import torch

from extensions import Kind, Strategy, number


def capped(weights, updates, total_examples, state, *, norm):
    step = torch.zeros_like(weights, dtype=torch.float64)
    for update in updates:
        if update.delta is not None:  # who sends nothing counts as no change
            length = float(torch.linalg.vector_norm(update.delta))
            cut = min(1.0, norm / length) if length > 0 else 1.0
            step += update.delta * (cut * update.num_examples / total_examples)
    return (weights + step).to(torch.float32), state


def coefficients(members, sizes, products, state, *, norm):
    cut = norm / np.maximum(np.sqrt(products.squared_norms), norm)
    return 0.0, members * cut * sizes / sizes.sum()


KINDS = (
    Kind(
        family="strategy",
        name="capped",
        help="The mean of updates that are cut to a norm",
        source="McMahan et al. 2018, section 3",
        code=Strategy(
            capped,
            coefficients=coefficients,
        ),
        traits=frozenset({"weighted_sum"}),  # claimed, and so checked
        parameters={"norm": number(1.0, "Norm that an update is cut to", above=0.0, maximum=1000.0)},
    ),
)
