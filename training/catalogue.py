"""The kinds that training knows, by family. Standard library only: code is named here and imported where it runs.

Adding one is a function in its family's module and a `Kind` here.
"""

from __future__ import annotations

from dataclasses import dataclass

from kinds import Kind, clients, number, register, whole


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """The facts of a data set that a configuration can be checked against."""

    label: str
    shape: tuple[int, int, int]  # channels, height, width
    num_classes: int
    num_train: int
    num_test: int


DATASETS: dict[str, DatasetInfo] = {
    "mnist": DatasetInfo(label="MNIST", shape=(1, 28, 28), num_classes=10, num_train=60_000, num_test=10_000),
    "fashion_mnist": DatasetInfo(
        label="Fashion-MNIST", shape=(1, 28, 28), num_classes=10, num_train=60_000, num_test=10_000
    ),
    "cifar10": DatasetInfo(label="CIFAR-10", shape=(3, 32, 32), num_classes=10, num_train=50_000, num_test=10_000),
    "digits": DatasetInfo(label="digits", shape=(1, 8, 8), num_classes=10, num_train=1_437, num_test=360),
}

register(
    Kind(
        family="dataset",
        name="auto",
        label="automatic",
        help="MNIST where it can be had, else scikit-learn's digits",
    ),
    *(
        Kind(
            family="dataset",
            name=name,
            label=info.label,
            help=f"{info.num_train:,} images of {info.shape[2]} x {info.shape[1]} in {info.num_classes} classes",
        )
        for name, info in DATASETS.items()
    ),
)

ALPHA = number(
    0.5, "Dirichlet concentration: small values make clients more unlike", minimum=0.001, maximum=1_000_000.0
)
register(
    Kind(
        family="partition",
        name="iid",
        label="even (IID)",
        help="Shuffled and cut into parts whose sizes differ by at most one",
        source="McMahan et al. 2017, section 3",
        code="training.partitions:iid",
    ),
    Kind(
        family="partition",
        name="dirichlet",
        label="Dirichlet",
        help="Each class is divided over the clients by a draw of its own",
        source="Yurochkin et al. 2019, section 4",
        code="training.partitions:dirichlet",
        parameters={"alpha": ALPHA},
    ),
    Kind(
        family="partition",
        name="pathological",
        label="sorted shards",
        help="Sorted by label, cut into shards, so many shards to each client",
        source="McMahan et al. 2017, section 3",
        code="training.partitions:pathological",
        parameters={"labels_per_client": whole(2, "Sorted shards that each client gets", minimum=1, maximum=100)},
    ),
    Kind(
        family="partition",
        name="quantity",
        label="uneven sizes",
        help="Sizes from a Dirichlet draw, labels alike for all",
        source="Li et al. 2022, quantity skew",
        code="training.partitions:quantity",
        parameters={"alpha": ALPHA},
    ),
)

# Traits of models: `dense`, a chain of linear layers, so that all coalitions are evaluated together.
register(
    Kind(
        family="model",
        name="mlp",
        label="MLP, one hidden layer",
        help="128 hidden units",
        code="training.networks:mlp",
        traits=frozenset({"dense"}),
    ),
    Kind(
        family="model",
        name="2nn",
        label="2NN, two hidden layers",
        help="Two layers of 200 units",
        source="McMahan et al. 2017, section 3",
        code="training.networks:two_nn",
        traits=frozenset({"dense"}),
    ),
    Kind(
        family="model",
        name="cnn",
        label="CNN, two convolutions",
        help="Two 5 x 5 convolutions and 512 hidden units; for images from 8 x 8",
        source="McMahan et al. 2017, section 3",
        code="training.networks:cnn",
    ),
    Kind(
        family="model",
        name="logistic",
        label="logistic regression",
        help="One linear layer",
        code="training.networks:logistic",
        traits=frozenset({"dense"}),
    ),
)

register(
    Kind(
        family="sampler",
        name="uniform",
        help="Every client alike, without replacement",
        source="McMahan et al. 2017, algorithm 1",
        code="training.samplers:uniform",
    ),
    Kind(
        family="sampler",
        name="by_size",
        label="by size",
        help="Without replacement, each draw in proportion to the examples that a client holds",
        source="Li et al. 2020, section 3 (FedProx)",
        code="training.samplers:by_size",
    ),
    Kind(
        family="sampler",
        name="round_robin",
        help="In turn, in the order of their numbers",
        source="ours",
        code="training.samplers:round_robin",
    ),
    Kind(
        family="sampler",
        name="by_balance",
        label="by balance",
        help="Each draw in proportion to the tokens that a client has earned so far",
        source="ours",
        code="training.samplers:by_balance",
        parameters={"floor": number(1.0, "Tokens that everyone is taken to have besides", above=0.0, maximum=1e9)},
        traits=frozenset({"balances"}),
    ),
    Kind(
        family="sampler",
        name="by_stake",
        label="by stake",
        help="Each draw in proportion to the tokens that a client still has at stake; who has none left is excluded",
        source="ours",
        code="training.samplers:by_stake",
        parameters={
            "minimum": number(0.0, "Tokens at stake below which a client is excluded", minimum=0.0, maximum=1e9)
        },
        traits=frozenset({"stakes"}),
    ),
    Kind(
        family="sampler",
        name="by_reputation",
        label="by reputation",
        help="Each draw in proportion to a power of a client's reputation, as the rule reputation keeps it",
        source="ours",
        code="training.samplers:by_reputation",
        parameters={
            "power": number(1.0, "The power of the reputation", minimum=0.0, maximum=10.0),
            "minimum": number(0.0, "Reputation below which a client is excluded", minimum=0.0, maximum=1.0),
        },
        traits=frozenset({"reputation"}),
    ),
    Kind(
        family="sampler",
        name="listed",
        label="of a list",
        help="Uniformly among those that are named, or among all but those that are left out",
        source="ours",
        code="training.samplers:listed",
        parameters={
            "include": clients("Clients that may take part; empty: all"),
            "exclude": clients("Clients that never take part"),
        },
    ),
)

SERVER_LR = "Step size of the server"
MALICIOUS = whole(
    None,
    "Clients in a round that the server guards against; empty: a fifth of them",
    minimum=0,
    maximum=1_000_000,
)
# Traits of strategies: `mean`, it reads of the updates their weighted mean alone, so that no more than one need be in
# memory; `averaged`, what it makes is the model of plain federated averaging; `robust`, it is defined over the
# updates that arrive; `weighted_sum`, its step is a weighted sum of updates and of what it carries, and it
# tells the weights, so that coalitions are evaluated together.
register(
    Kind(
        family="strategy",
        name="fedavg",
        label="FedAvg",
        help="The mean of the updates, weighted by examples",
        source="McMahan et al. 2017, algorithm 1",
        code="training.strategies:FEDAVG",
        traits=frozenset({"mean", "averaged", "weighted_sum"}),
    ),
    Kind(
        family="strategy",
        name="fedavgm",
        label="FedAvgM, server momentum",
        help="FedAvg's mean, taken with momentum",
        source="Hsu et al. 2019, section 4",
        code="training.strategies:FEDAVGM",
        traits=frozenset({"mean", "weighted_sum"}),
        parameters={
            "server_lr": number(1.0, SERVER_LR, above=0.0, maximum=100.0),
            "server_momentum": number(
                0.9, "Share of the server's last step that it takes again; 0 is fedavg", minimum=0.0, below=1.0
            ),
        },
    ),
    Kind(
        family="strategy",
        name="fedadam",
        label="FedAdam",
        help="Adam on the server, over FedAvg's mean",
        source="Reddi et al. 2021, algorithm 2",
        code="training.strategies:FEDADAM",
        traits=frozenset({"mean"}),
        parameters={
            # 0.03: on MNIST, ten clients and rounds, better than the paper's 0.01, IID or not
            "server_lr": number(0.03, SERVER_LR, above=0.0, maximum=100.0),
            "beta_1": number(0.9, "Decay of the mean of past updates", minimum=0.0, below=1.0),
            "beta_2": number(0.99, "Decay of the mean of their squares", minimum=0.0, below=1.0),
            "tau": number(
                0.001,
                "Adaptivity: the larger, the more alike the steps of all weights are to plain ones",
                above=0.0,
                maximum=1000.0,
            ),
        },
    ),
    Kind(
        family="strategy",
        name="fedprox",
        label="FedProx",
        help="FedAvg of clients that are pulled back to the global weights",
        source="Li et al. 2020, equation 2",
        code="training.strategies:FEDPROX",
        traits=frozenset({"mean", "averaged", "weighted_sum"}),
        parameters={
            "proximal_mu": number(
                0.1, "Pull of each local step back to the global weights; 0 is fedavg", minimum=0.0, maximum=100.0
            )
        },
    ),
    Kind(
        family="strategy",
        name="trimmed_mean",
        help="The mean of each weight without its largest and smallest values",
        source="Yin et al. 2018, definition 2",
        code="training.strategies:TRIMMED_MEAN",
        traits=frozenset({"robust"}),
        parameters={"num_malicious_clients": MALICIOUS},
    ),
    Kind(
        family="strategy",
        name="median",
        label="coordinate-wise median",
        help="The median of each weight",
        source="Yin et al. 2018, definition 1",
        code="training.strategies:MEDIAN",
        traits=frozenset({"robust"}),
    ),
    Kind(
        family="strategy",
        name="multi_krum",
        label="multi-Krum",
        help="The mean of the updates that have many others near them",
        source="Blanchard et al. 2017",
        code="training.strategies:MULTI_KRUM",
        traits=frozenset({"robust", "weighted_sum"}),
        parameters={"num_malicious_clients": MALICIOUS},
    ),
    Kind(
        family="strategy",
        name="centred_clipping",
        help="A mean in which no update pulls further from the last step than a set distance",
        source="Karimireddy et al. 2021",
        code="training.strategies:CENTRED_CLIPPING",
        traits=frozenset({"robust", "weighted_sum"}),
        parameters={
            "clipping_norm": number(
                None,
                "Distance from the centre to which updates are cut; empty: the median of their norms",
                above=0.0,
                maximum=1_000_000.0,
            )
        },
    ),
)

SIGMA = "standard deviation of the noise in each weight"
IDENTITIES = whole(
    3, "identities, its own among them; the others are numbered after all clients", minimum=2, maximum=100
)
# Traits of behaviours: `untrained`, it sends something and costs no gradient; `conspires`, it sees the honest updates
# of the round, so that all of the cohort are in memory; `divided` and `copied`, who does so shows up under as many
# `identities`, each with a part of its examples or all with all of them, of whom one trains for all; `colludes`, all
# clients of a `group` send what the first of them finds.
register(
    Kind(family="behaviour", name="honest", help="Trains as it should", code="training.deviations:honest"),
    Kind(
        family="behaviour",
        name="free_rider",
        help="Takes the model, does nothing, sends nothing, and waits for its reward",
        source="ours",
        code="training.deviations:free_rider",
    ),
    Kind(
        family="behaviour",
        name="label_flip",
        help="Trains on the opposite labels, classes - 1 - y",
        source="Tolpegin et al. 2020",
        code="training.deviations:label_flip",
        parameters={"fraction": number(1.0, "share of its labels that it flips", minimum=0.0, maximum=1.0)},
    ),
    Kind(
        family="behaviour",
        name="sign_flip",
        help="Trains honestly and sends the opposite",
        source="Li et al. 2019 (RSA)",
        code="training.deviations:sign_flip",
        parameters={"scale": number(1.0, "how many times as large the reversed update is", minimum=0.0, maximum=100.0)},
    ),
    Kind(
        family="behaviour",
        name="low_effort",
        help="Stops after a share of its local steps; its update counts with all its examples",
        source="ours",
        code="training.deviations:low_effort",
        parameters={
            "fraction": number(0.2, "share of its local steps that it takes, at least one", minimum=0.0, maximum=1.0)
        },
    ),
    Kind(
        family="behaviour",
        name="dropout",
        help="Honest, but in some rounds nothing arrives from it",
        source="ours",
        code="training.deviations:dropout",
        parameters={
            "probability": number(
                0.5,
                "how likely it is to send nothing in a round: averaging strategies then count it as no change, at the "
                "full weight of its examples; robust ones are over the updates that arrived",
                minimum=0.0,
                maximum=1.0,
            )
        },
    ),
    Kind(
        family="behaviour",
        name="straggler",
        help="Has time for a few of its local epochs only; its update counts with all its examples",
        source="Li et al. 2020 (FedProx)",
        code="training.deviations:straggler",
        parameters={"epochs": whole(1, "local epochs that it has time for", minimum=1, maximum=100)},
    ),
    Kind(
        family="behaviour",
        name="less_data",
        help="Trains on a share of its examples and reports all of them",
        source="ours",
        code="training.deviations:less_data",
        parameters={
            "fraction": number(0.2, "share of its examples that it trains on, at least one", minimum=0.0, maximum=1.0)
        },
    ),
    Kind(
        family="behaviour",
        name="over_report",
        help="Trains honestly and reports more examples than it holds, which its update is weighted by",
        source="ours",
        code="training.deviations:over_report",
        parameters={
            "factor": number(2.0, "examples that it reports over those that it holds", above=0.0, maximum=1000.0)
        },
    ),
    Kind(
        family="behaviour",
        name="label_noise",
        help="Trains on random other labels",
        source="Ghorbani & Zou 2019",
        code="training.deviations:label_noise",
        parameters={"fraction": number(1.0, "share of its labels that are wrong", minimum=0.0, maximum=1.0)},
    ),
    Kind(
        family="behaviour",
        name="feature_noise",
        help="Trains on inputs with normal noise",
        source="Ghorbani & Zou 2019",
        code="training.deviations:feature_noise",
        parameters={"sigma": number(1.0, "standard deviation of the noise in each input", minimum=0.0, maximum=1000.0)},
    ),
    Kind(
        family="behaviour",
        name="noise",
        help="Sends uniform noise as long as the last global step, without training; a zero update in round 1",
        source="Lin et al. 2019, attack I",
        code="training.deviations:noise",
        traits=frozenset({"untrained"}),
    ),
    Kind(
        family="behaviour",
        name="replay",
        help="Sends the last global step again, without training; a zero update in round 1",
        source="Lin et al. 2019, attack II",
        code="training.deviations:replay",
        traits=frozenset({"untrained"}),
    ),
    Kind(
        family="behaviour",
        name="disguised_replay",
        help="Sends the last global step again with noise over it, without training; a zero update in round 1",
        source="Lin et al. 2019, attack III",
        code="training.deviations:disguised_replay",
        traits=frozenset({"untrained"}),
        parameters={"sigma": number(0.001, SIGMA, minimum=0.0, maximum=100.0)},
    ),
    Kind(
        family="behaviour",
        name="gaussian",
        help="Sends normal noise, without training",
        source="Blanchard et al. 2017",
        code="training.deviations:gaussian",
        traits=frozenset({"untrained"}),
        parameters={"sigma": number(0.01, SIGMA, minimum=0.0, maximum=100.0)},
    ),
    Kind(
        family="behaviour",
        name="scaled",
        help="Trains honestly and sends its update many times as large",
        source="Bagdasaryan et al. 2020",
        code="training.deviations:scaled",
        parameters={"scale": number(10.0, "how many times as large its update is", minimum=0.0, maximum=1000.0)},
    ),
    Kind(
        family="behaviour",
        name="alie",
        label="ALIE, a little is enough",
        help="Sends the mean of the honest updates less some of their standard deviations, so that it hides among them",
        source="Baruch et al. 2019",
        code="training.deviations:alie",
        traits=frozenset({"conspires"}),
        parameters={
            "z": number(
                None,
                "standard deviations; empty: the most that hides, by the numbers of honest and conspiring clients",
                minimum=0.0,
                maximum=1000.0,
            )
        },
    ),
    Kind(
        family="behaviour",
        name="ipm",
        label="IPM, inner product manipulation",
        help="Sends the opposite of the mean of the honest updates",
        source="Xie et al. 2020",
        code="training.deviations:ipm",
        traits=frozenset({"conspires"}),
        parameters={"tau": number(2.0, "how many times as large", minimum=0.0, maximum=1000.0)},
    ),
    Kind(
        family="behaviour",
        name="mimic",
        help="Sends what the first honest client sends, so that it counts twice",
        source="Karimireddy et al. 2022",
        code="training.deviations:mimic",
        traits=frozenset({"conspires"}),
    ),
    Kind(
        family="behaviour",
        name="sybil_split",
        label="sybils, split",
        help="Shows up under several identities, each with a part of its examples",
        source="Douceur 2002",
        code="training.deviations:sybil_split",
        traits=frozenset({"divided"}),
        parameters={"identities": IDENTITIES},
    ),
    Kind(
        family="behaviour",
        name="sybil_copy",
        label="sybils, copied",
        help="Shows up under several identities, trains once, and sends the same from each, at its full size",
        source="Douceur 2002",
        code="training.deviations:sybil_copy",
        traits=frozenset({"copied"}),
        parameters={"identities": IDENTITIES},
    ),
    Kind(
        family="behaviour",
        name="collusion",
        help="One of a group trains, and all of them send its update",
        source="Fung et al. 2020",
        code="training.deviations:collusion",
        traits=frozenset({"colludes"}),
        parameters={
            "group": clients(
                "the clients of the group, of whom the first trains; of a population: those that are drawn"
            )
        },
    ),
)
