"""A cohort in which hardly anybody plays fair."""

from training.config import TrainingConfig


def config_for(**fields) -> TrainingConfig:
    given = {
        "dataset": "digits",
        "validation_size": 100,
        "num_clients": 6,
        "num_rounds": 3,
        "batch_size": 16,
        "lr": 0.1,
    }
    return TrainingConfig.of(**given | fields)


EVERYBODY = {
    2: {"kind": "noise"},
    3: {"kind": "replay"},
    4: {"kind": "disguised_replay"},
    5: {"kind": "gaussian", "sigma": 0.001},
    6: {"kind": "less_data", "fraction": 0.5},
    7: {"kind": "label_noise", "fraction": 0.5},
    8: {"kind": "feature_noise"},
    9: {"kind": "over_report", "factor": 3.0},
    10: {"kind": "scaled", "scale": 2.0},
    11: {"kind": "alie"},
    12: {"kind": "ipm", "tau": 0.5},
    13: {"kind": "mimic"},
    14: {"kind": "straggler"},
    15: {"kind": "free_rider"},
    16: {"kind": "replay", "from_round": 3},
}
HONEST = (1, 17, 18)
UNTRAINED = (2, 3, 4, 5)
CROWD = config_for(num_clients=18, num_rounds=4, model="mlp", local_epochs=2, behaviours=EVERYBODY)
MANY = config_for(
    num_clients=22,
    num_rounds=3,
    model="mlp",
    behaviours=EVERYBODY
    | {
        19: {"kind": "sybil_copy", "identities": 3, "to_round": 2},
        20: {"kind": "sybil_split", "identities": 2, "from_round": 2},
        21: {"kind": "collusion", "group": [22]},
    },
)
