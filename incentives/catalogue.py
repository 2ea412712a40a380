"""The kinds by which contributions are measured and paid. Standard library only; see `kinds`.

Adding one is a function in its family's module and a `Kind` here.
"""

from __future__ import annotations

from incentives import budgets
from kinds import Kind, choice, flag, number, register, whole

# Traits of valuations, rules and detectors: `products`, it asks for products of the round's updates (see
# incentives.products); besides, where these have to be kept from round to round: `summed`, `previous_step`.

# Traits of valuations: `no_game`, it asks no coalition what it is worth. Its `cost` is a ValueError for parameters that
# are too little for so many players.
EVALUATIONS = whole(
    None,
    "Coalitions that are evaluated in a round; empty: 24 for each client, at least 240; all of them where it can",
    minimum=2,
    maximum=budgets.MOST_EVALUATIONS,
)
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
        name="permutation",
        label="Shapley by random orders",
        help="Estimates Shapley values as mean marginal worth over random orders",
        source="Castro et al. 2009, section 3",
        code="incentives.valuation.sampling:permutation",
        parameters={"evaluations": EVALUATIONS},
        cost=budgets.of_orders,
    ),
    Kind(
        family="valuation",
        name="antithetic",
        label="Shapley by orders and their reverses",
        help="Estimates Shapley values from random orders, each with its reverse",
        source="Mitchell et al. 2022",
        code="incentives.valuation.sampling:antithetic",
        parameters={"evaluations": EVALUATIONS},
        cost=budgets.of_paired_orders,
    ),
    Kind(
        family="valuation",
        name="stratified",
        label="Shapley by balanced orders",
        help="Estimates Shapley values from orders in which everybody comes at each place equally often",
        source="Castro et al. 2017, section 3; the Latin squares are ours",
        code="incentives.valuation.sampling:stratified",
        parameters={"evaluations": EVALUATIONS},
        cost=budgets.of_orders,
    ),
    Kind(
        family="valuation",
        name="truncated_monte_carlo",
        label="truncated Monte Carlo Shapley",
        help="Estimates Shapley values from random orders, cut off where little is left to gain",
        source="Ghorbani & Zou 2019, algorithm 1",
        code="incentives.valuation.sampling:truncated_monte_carlo",
        parameters={
            "evaluations": EVALUATIONS,
            "tolerance": number(
                0.01, "What may be left of the round's gain where an order is cut off", minimum=0.0, maximum=1.0
            ),
        },
        cost=budgets.of_orders,
    ),
    Kind(
        family="valuation",
        name="gtg_shapley",
        label="GTG-Shapley",
        help="Estimates Shapley values from orders in which clients take turns to come first, cut off likewise",
        source="Liu et al. 2022, algorithm 1",
        code="incentives.valuation.sampling:gtg_shapley",
        parameters={
            "evaluations": EVALUATIONS,
            "round_tolerance": number(
                0.001, "A round that changes the utility by no more is worth nothing", minimum=0.0, maximum=1e6
            ),
            "tolerance": number(
                0.001, "Utility that may be left to gain where an order is cut off", minimum=0.0, maximum=1e6
            ),
        },
        cost=budgets.of_orders,
    ),
    Kind(
        family="valuation",
        name="complementary",
        label="Shapley by complementary contributions",
        help="Estimates Shapley values from coalitions, each against all who are not in it",
        source="Zhang et al. 2023, section 4",
        code="incentives.valuation.sampling:complementary",
        parameters={"evaluations": EVALUATIONS},
        cost=budgets.of_sizes,
    ),
    Kind(
        family="valuation",
        name="regression",
        label="Shapley by regression",
        help="Estimates Shapley values by regressing what coalitions are worth, less their size's mean, on who is in",
        source="ours, after Lundberg & Lee 2017, theorem 2, and Covert & Lee 2021, section 4",
        code="incentives.valuation.regression:regression",
        parameters={"evaluations": EVALUATIONS},
        cost=budgets.of_singles,
    ),
    Kind(
        family="valuation",
        name="banzhaf",
        label="Banzhaf",
        help="A client's mean marginal worth over all coalitions alike; estimated where they are too many",
        source="Wang & Jia 2023, section 4",
        code="incentives.valuation.semivalues:banzhaf",
        parameters={"evaluations": EVALUATIONS},
        cost=budgets.of_subsets,
    ),
    Kind(
        family="valuation",
        name="beta_shapley",
        label="Beta Shapley",
        help="Shapley values in which small coalitions count more, or large ones; estimated where they are too many",
        source="Kwon & Zou 2022, section 3",
        code="incentives.valuation.semivalues:beta_shapley",
        parameters={
            "evaluations": EVALUATIONS,
            "alpha": number(
                4.0, "Above beta: small coalitions count more; equal ones at 1: Shapley", minimum=0.1, maximum=100.0
            ),
            "beta": number(1.0, "Above alpha: large coalitions count more", minimum=0.1, maximum=100.0),
        },
        cost=budgets.of_orders,
    ),
    Kind(
        family="valuation",
        name="fedsv",
        label="FedSV",
        help="Federated Shapley values, by random orders; normalised, each round counts alike",
        source="Wang et al. 2020, algorithm 2",
        code="incentives.valuation.sampling:fedsv",
        parameters={
            "evaluations": EVALUATIONS,
            "normalised": flag(False, "Whether a round's values are divided by their Euclidean length"),
        },
        cost=budgets.of_orders,
    ),
    Kind(
        family="valuation",
        name="least_core",
        label="least core",
        help="What leaves coalitions the least reason to go on their own; of random ones where they are too many",
        source="Yan & Procaccia 2021, section 3",
        code="incentives.valuation.least_core:least_core",
        parameters={"evaluations": EVALUATIONS},
        cost=budgets.of_halves,
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
        name="first_order",
        label="first-order gradient value",
        help="How much of the validation loss the gradient says that the client's update takes away",
        source="Wang et al. 2024, section 4",
        code="incentives.valuation.directions:first_order",
        cost=lambda n: 0,
        traits=frozenset({"no_game", "products"}),
    ),
    Kind(
        family="valuation",
        name="cosine",
        label="cosine with the step",
        help="How much the direction of the client's update is that of the server's step",
        source="ours",
        code="incentives.valuation.directions:cosine",
        cost=lambda n: 0,
        traits=frozenset({"no_game", "products"}),
    ),
    Kind(
        family="valuation",
        name="cgsv",
        label="cosine gradient Shapley",
        help="How much the update's direction is that of all, each by its reputation",
        source="Xu et al. 2021, sections 3.2 and 4",
        code="incentives.valuation.directions:cgsv",
        parameters={
            "decay": number(0.95, "What of a reputation is left after a round", minimum=0.0, maximum=1.0),
        },
        cost=lambda n, **_: 0,
        traits=frozenset({"no_game", "products"}),
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

# Traits of pools: `scheduled`, what all rounds pay at most is known before the first; `endowed`, its `tokens` are
# minted into the treasury before round 1, and what it pays is paid out of the treasury.
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
        traits=frozenset({"scheduled"}),
    ),
    Kind(
        family="pool",
        name="halving",
        help="Half as much after every so many rounds",
        source="ours, after Bitcoin's block subsidy",
        code="incentives.pools:halving",
        parameters={
            "tokens": number(10.0, "Tokens of the first round", minimum=0.0, maximum=1_000_000.0),
            "rounds": whole(10, "Rounds after which it is halved", minimum=1, maximum=10_000),
        },
        traits=frozenset({"scheduled"}),
    ),
    Kind(
        family="pool",
        name="decay",
        label="geometric decay",
        help="In each round the same share of what the round before paid",
        source="ours",
        code="incentives.pools:decay",
        parameters={
            "tokens": number(10.0, "Tokens of the first round", minimum=0.0, maximum=1_000_000.0),
            "factor": number(0.9, "What a round pays over what the round before paid", minimum=0.0, maximum=1.0),
        },
        traits=frozenset({"scheduled"}),
    ),
    Kind(
        family="pool",
        name="treasury",
        help="Tokens minted before round 1, spread over the rounds; what a round leaves is spread over those to come",
        source="ours",
        code="incentives.pools:treasury",
        parameters={
            "tokens": number(100.0, "Tokens for all rounds", minimum=0.0, maximum=1_000_000_000.0),
            "rounds": whole(10, "Rounds over which they are spread", minimum=1, maximum=10_000),
        },
        traits=frozenset({"scheduled", "endowed"}),
    ),
)

register(
    Kind(
        family="rule",
        name="proportional",
        help="In proportion to contributions above 0, to the unit by largest remainder",
        source="Balinski & Young 1982, chapter 3",
        version=2,
        code="incentives.rules:proportional",
        older={1: "incentives.rules:proportional_1"},
    ),
    Kind(
        family="rule",
        name="equal",
        help="Everyone who sends something alike",
        source="ours",
        code="incentives.rules:equal",
    ),
    Kind(
        family="rule",
        name="wage_bonus",
        label="wage and bonus",
        help="A share of the pool to all who send something alike, the rest in proportion to contributions above 0",
        source="Liu et al. 2022, section 2",
        code="incentives.rules:wage_bonus",
        parameters={"share": number(0.2, "Share of the pool that is wage", minimum=0.0, maximum=1.0)},
    ),
    Kind(
        family="rule",
        name="top_k",
        label="the k largest",
        help="In proportion among the largest contributions above 0, and all that equal the last of them",
        source="ours",
        code="incentives.rules:top_k",
        parameters={"k": whole(3, "How many of the largest contributions", minimum=1, maximum=1_000_000)},
    ),
    Kind(
        family="rule",
        name="rank",
        label="by rank",
        help="By rank among n contributions above 0: n parts for the largest, 1 for the smallest; equal ones share",
        source="ours",
        code="incentives.rules:rank",
    ),
    Kind(
        family="rule",
        name="softmax",
        help="In proportion to exp(contribution / temperature), contributions being over the largest absolute one",
        source="ours",
        code="incentives.rules:softmax",
        parameters={
            "temperature": number(
                1.0, "Small: nearly all to the best; large: nearly alike", minimum=0.01, maximum=100.0
            )
        },
    ),
    Kind(
        family="rule",
        name="winner_takes_all",
        help="All to the largest contribution above 0; equal ones share it",
        source="ours",
        code="incentives.rules:winner_takes_all",
    ),
    Kind(
        family="rule",
        name="tullock",
        label="Tullock contest",
        help="In proportion to a power of contributions above 0; with 1 it is proportional",
        source="Tullock 1980",
        code="incentives.rules:tullock",
        parameters={"exponent": number(2.0, "The power; 0 is alike for all above 0", minimum=0.0, maximum=10.0)},
    ),
    Kind(
        family="rule",
        name="slashing",
        help="Proportional, and contributions below 0 cost stake, by the client's share of the examples",
        source="ours",
        code="incentives.rules:slashing",
        parameters={"rate": number(1.0, "What is lost over the client's share of the pool", minimum=0.0, maximum=1e6)},
    ),
    Kind(
        family="rule",
        name="reputation",
        help="In proportion to contributions above 0 times what the client was worth in earlier rounds",
        source="after Xu et al. 2021, section 4",
        code="incentives.rules:reputation",
        parameters={
            "decay": number(0.95, "What of a reputation is left after a round", minimum=0.0, maximum=1.0),
            "power": number(1.0, "The power of the reputation; 0 is proportional", minimum=0.0, maximum=10.0),
        },
    ),
    Kind(
        family="rule",
        name="sybil_discount",
        help="Proportional, less the more a client's updates are like another's; the rest stays in the treasury",
        source="Fung et al. 2020, algorithm 1; Agarwal et al. 2019, section 4.3",
        code="incentives.rules:sybil_discount",
        parameters={
            "by": choice(
                "replication",
                "replication: by how alike this round's updates are; foolsgold: all those sent so far",
                choices=("replication", "foolsgold"),
            )
        },
        traits=frozenset({"products", "summed"}),
    ),
)

register(
    Kind(
        family="detector",
        name="norm",
        help="How far an update's length is from the median length",
        source="ours",
        code="incentives.detectors:norm",
    ),
    Kind(
        family="detector",
        name="replay",
        help="How much an update is like the server's last step",
        source="Lin et al. 2019, attack II",
        code="incentives.detectors:replay",
        traits=frozenset({"products", "previous_step"}),
    ),
    Kind(
        family="detector",
        name="foolsgold",
        label="FoolsGold",
        help="How much the updates sent so far are like another's",
        source="Fung et al. 2020, algorithm 1",
        code="incentives.detectors:foolsgold",
        traits=frozenset({"products", "summed"}),
    ),
    Kind(
        family="detector",
        name="fltrust",
        label="FLTrust",
        help="How far an update's direction is from that of a model trained on the server's own examples",
        source="Cao et al. 2021, equation 2",
        code="incentives.detectors:fltrust",
        traits=frozenset({"products"}),
    ),
    Kind(
        family="detector",
        name="direction",
        help="How far an update's direction is from that of the server's step",
        source="ours",
        code="incentives.detectors:direction",
        traits=frozenset({"products"}),
    ),
    Kind(
        family="detector",
        name="loss_worsening",
        help="How much worse an update alone makes the model",
        source="ours",
        code="incentives.detectors:loss_worsening",
        traits=frozenset({"products"}),
    ),
    Kind(
        family="detector",
        name="spectral",
        help="A client's share of the updates' largest principal component",
        source="Shejwalkar & Houmansadr 2021, section 5.2",
        code="incentives.detectors:spectral",
        traits=frozenset({"products"}),
    ),
)
