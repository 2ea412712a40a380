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
    "crowd": Preset(
        label="A thousand clients",
        help="100 of 1,000 small clients train in each round; contributions by leaving one out",
        values={"num_clients": 1000, "fraction_fit": 0.1, "model": "2nn", "batch_size": 20, "num_rounds": 20},
    ),
}
