"""A pool that grows by a step with each round that sets a new best, and begins again after one that does not."""

from extensions import Kind, number

MICROTOKENS = 1_000_000


def streak(facts, state, *, tokens):
    before, now = facts.best_validation_loss, facts.validation_loss
    better = before is None or now is None or now < before
    length = state.get("length", 0) + 1 if better else 0
    return round(tokens * MICROTOKENS) * length, {"length": length}


KINDS = (
    Kind(
        family="pool",
        name="streak",
        help="More with each round in a row that sets a new best",
        source="ours",
        code=streak,
        parameters={"tokens": number(1.0, "Tokens for each round of the row", minimum=0.0, maximum=1000.0)},
    ),
)
