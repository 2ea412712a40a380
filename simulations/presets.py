"""Named sets of fields to start a simulation from: in the form, in the shell, in README. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A named set of fields to start from."""

    label: str
    help: str
    values: Mapping[str, Any]


PRESETS: dict[str, Preset] = {
    "default": Preset(label="Ten honest clients", help="Equal shares of the data; everyone helps", values={}),
    "free_rider": Preset(
        label="One free rider, one liar",
        help="Client 3 sends nothing, client 5 flips its labels, and data are unevenly spread",
        values={
            "partition": "dirichlet",
            "behaviours": {3: {"kind": "free_rider"}, 5: {"kind": "label_flip"}},
        },
    ),
    "attackers": Preset(
        label="Two attackers, robust server",
        help="Clients 3 and 7 send their update reversed and five times as large; multi-Krum leaves them out",
        values={
            "strategy": "multi_krum",
            "behaviours": {3: {"kind": "sign_flip", "scale": 5.0}, 7: {"kind": "sign_flip", "scale": 5.0}},
        },
    ),
    "uneven": Preset(
        label="Large and small clients",
        help="The same kind of data, but some clients hold much more of it",
        values={"partition": "quantity"},
    ),
    "specialists": Preset(
        label="Two shards each",
        help="Every client holds two shards of the data sorted by label, two to four labels in all, as in McMahan 2017",
        values={"partition": "pathological", "num_rounds": 20},
    ),
    "six_ways": Preset(
        label="Six ways to pay",
        help="The free rider and the liar again, paid by contribution, and what five other economies would have paid",
        values={
            "partition": "dirichlet",
            "behaviours": {3: {"kind": "free_rider"}, 5: {"kind": "label_flip"}},
            "shadows": [
                {"label": "by size", "valuation": "data_size"},
                {"label": "equal", "reward_rule": "equal"},
                {"label": "leave one out", "valuation": "leave_one_out"},
                {"label": "winner takes all", "reward_rule": "winner_takes_all"},
                {"label": "Tullock", "reward_rule": {"kind": "tullock", "exponent": 2.0}},
            ],
        },
    ),
    "free_riders": Preset(
        label="Four free riders",
        help="Client 2 sends nothing, 4 the server's last step again, 6 noise, 8 the last step under noise; whoever "
        "replays loses a quarter of its stake each time that a detector sees it",
        values={
            "behaviours": {
                2: {"kind": "free_rider"},
                4: {"kind": "replay"},
                6: {"kind": "noise"},
                8: {"kind": "disguised_replay"},
            },
            "stake": 5.0,
            "detectors": ["replay", "norm", "direction"],
            "slashing": [{"detector": "replay", "above": 0.99, "share": 0.25}],
        },
    ),
    "copies_of_oneself": Preset(
        label="Copies of oneself",
        help="Client 3 of eight trains once and shows up three times; by contribution, size or head it is paid three "
        "times, and by a rule that compares updates less than once",
        values={
            "num_clients": 8,
            "behaviours": {3: {"kind": "sybil_copy", "identities": 3}},
            "detectors": ["foolsgold"],
            "shadows": [
                {"label": "equal", "reward_rule": "equal"},
                {"label": "by size", "valuation": "data_size"},
                {"label": "less for copies", "reward_rule": {"kind": "sybil_discount", "by": "replication"}},
            ],
        },
    ),
    "liars_about_size": Preset(
        label="Liars about size",
        help="Clients 3 and 7 report five times the data that they hold; pay by size believes them, and so do "
        "contributions, since the server weighs updates by what is reported; what each is worth alone does not",
        values={
            "behaviours": {3: {"kind": "over_report", "factor": 5.0}, 7: {"kind": "over_report", "factor": 5.0}},
            "valuation": "data_size",
            "shadows": [
                {"label": "by contribution", "valuation": "shapley"},
                {"label": "each alone", "valuation": "loss_improvement"},
                {"label": "equal", "reward_rule": "equal"},
            ],
        },
    ),
    "a_reputation_spent": Preset(
        label="A reputation spent",
        help="Client 3 is honest to round 5, sends its update reversed in rounds 6 to 10, and is honest again: with "
        "its reputation gone it is drawn less often, and paid less than it would be without memory",
        values={
            "num_rounds": 20,
            "fraction_fit": 0.6,
            "lr": 0.01,
            "sampler": "by_reputation",
            "behaviours": {3: {"kind": "sign_flip", "from_round": 6, "to_round": 10}},
            "pool": {"kind": "fixed", "tokens": 1.0},
            "reward_rule": {"kind": "reputation", "decay": 0.7},
            "detectors": ["direction"],
            "shadows": [{"label": "without memory", "reward_rule": "proportional"}],
        },
    ),
    "a_slashed_stake": Preset(
        label="A slashed stake",
        help="Client 3 sends its update reversed; in each round in which that does harm its stake loses twice what its "
        "share of the data would be of the pool",
        values={
            "behaviours": {3: {"kind": "sign_flip"}},
            "stake": 5.0,
            "reward_rule": {"kind": "slashing", "rate": 2.0},
            "detectors": ["direction", "loss_worsening"],
        },
    ),
    "many_rules_at_once": Preset(
        label="Many rules at once",
        help="A free rider, a liar about size and flipped labels, and what each rule, and pay by size, gives for it",
        values={
            "partition": "dirichlet",
            "behaviours": {
                3: {"kind": "free_rider"},
                5: {"kind": "over_report", "factor": 5.0},
                7: {"kind": "label_flip"},
            },
            "shadows": [
                {"label": "equal", "reward_rule": "equal"},
                {"label": "by size", "valuation": "data_size"},
                {"label": "wage and bonus", "reward_rule": {"kind": "wage_bonus", "share": 0.2}},
                {"label": "top three", "reward_rule": {"kind": "top_k", "k": 3}},
                {"label": "by rank", "reward_rule": "rank"},
                {"label": "softmax", "reward_rule": "softmax"},
                {"label": "winner takes all", "reward_rule": "winner_takes_all"},
                {"label": "Tullock", "reward_rule": "tullock"},
                {"label": "slashing", "reward_rule": "slashing", "stake": 5.0},
                {"label": "reputation", "reward_rule": {"kind": "reputation", "decay": 0.5}},
                {"label": "less for copies", "reward_rule": "sybil_discount"},
            ],
        },
    ),
    "crowd": Preset(
        label="A thousand clients",
        help="100 of 1,000 small clients train in each round; contributions by leaving one out",
        values={"num_clients": 1000, "fraction_fit": 0.1, "model": "2nn", "batch_size": 20, "num_rounds": 20},
    ),
}
