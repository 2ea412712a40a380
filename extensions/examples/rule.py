"""A wage for everyone who takes part, and the rest of the pool by contributions."""

from extensions import Kind, Payment, largest_remainder, number


def wage(facts, pool, state, *, share):
    n = len(facts.clients)
    wages = int(pool * share) if n else 0
    shares = largest_remainder([1] * n, wages) if n else []
    worth = [max(contribution, 0.0) for contribution in facts.contributions]
    if any(worth):
        scale = max(worth)  # whole weights, exact enough: no float is ever paid
        weights = [int(each / scale * 2**53) for each in worth]
        shares = [one + two for one, two in zip(shares, largest_remainder(weights, pool - wages), strict=True)]
    return Payment(shares=shares, state={"rounds": state.get("rounds", 0) + 1})


KINDS = (
    Kind(
        family="rule",
        name="wage",
        help="A wage for all, the rest by contributions",
        source="ours",
        code=wage,
        parameters={"share": number(0.2, "Share of the pool that is wage", minimum=0.0, maximum=1.0)},
    ),
)
