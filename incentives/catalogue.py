"""The kinds by which contributions are measured and paid. Standard library only; see `kinds`.

Adding one is a function in its family's module and a `Kind` here.
"""

from __future__ import annotations

from kinds import Kind, number, register

# Traits of valuations: `no_game`, it asks no coalition what it is worth.
register(
    Kind(
        family="valuation",
        name="auto",
        label="automatic",
        help="Exact Shapley for dense models and at most 10 clients a round, else leave-one-out",
    ),
    Kind(
        family="valuation",
        name="shapley",
        label="Shapley, exact",
        help="A client's mean marginal worth over all orders in which a round's clients may join; to 16 of them",
        source="Shapley 1953; Ghorbani & Zou 2019",
        code="incentives.valuation:SHAPLEY",
        cost=lambda n: 2**n,
    ),
    Kind(
        family="valuation",
        name="leave_one_out",
        label="leave one out",
        help="What the whole round loses without the client",
        source="Cook 1977",
        code="incentives.valuation:LEAVE_ONE_OUT",
        cost=lambda n: n + 1,
    ),
    Kind(
        family="valuation",
        name="loss_improvement",
        help="What the client's update does alone",
        source="ours",
        code="incentives.valuation:LOSS_IMPROVEMENT",
        cost=lambda n: n + 1,
    ),
    Kind(
        family="valuation",
        name="data_size",
        help="The examples that it reports",
        source="ours",
        code="incentives.valuation:DATA_SIZE",
        cost=lambda n: 0,
        traits=frozenset({"no_game"}),
    ),
    Kind(
        family="valuation",
        name="equal",
        help="Everyone who sends something alike",
        source="ours",
        code="incentives.valuation:EQUAL",
        cost=lambda n: 0,
        traits=frozenset({"no_game"}),
    ),
    Kind(
        family="valuation",
        name="none",
        label="not measured",
        help="Nothing is measured or paid",
        cost=lambda n: 0,
        traits=frozenset({"no_game"}),
    ),
)

SCALING = number(10.0, "Tokens per unit of validation loss that a round gains", minimum=0.0, maximum=1_000_000.0)
register(
    Kind(
        family="pool",
        name="improvement",
        label="improvement on the best so far",
        help="By the drop of validation loss below the best so far",
        source="ours",
        code="incentives.pools:improvement",
        parameters={"scaling_factor": SCALING},
    ),
    Kind(
        family="pool",
        name="improvement_each_round",
        label="improvement each round",
        help="By the drop of validation loss below the round before, so that regained ground is paid again",
        source="ours",
        code="incentives.pools:improvement_each_round",
        parameters={"scaling_factor": SCALING},
    ),
    Kind(
        family="pool",
        name="fixed",
        help="The same in each round",
        source="ours",
        code="incentives.pools:fixed",
        parameters={"tokens": number(10.0, "Tokens a round", minimum=0.0, maximum=1_000_000.0)},
    ),
)

register(
    Kind(
        family="rule",
        name="proportional",
        help="In proportion to contributions above 0, to the unit by largest remainder",
        source="Balinski & Young 1982, chapter 3",
        code="incentives.rules:proportional",
    )
)
