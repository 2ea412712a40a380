"""One flat set of fields for a simulation: what is trained, how it is measured, what is paid. Stdlib only."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from training.config import DENSE_MODELS, ConfigError, TrainingConfig, option

EXACT_LIMIT = 16  # clients in a cohort whose coalitions can all be evaluated: 65,536
AUTO_EXACT_LIMIT = 10
NOT_HASHED = ("backend", "device")  # they change how fast a result comes, never the result
HASHED_IF_NOT: Mapping[str, Any] = {"precision": "float32"}  # fields that hashes of before know nothing of


@dataclass(frozen=True, kw_only=True)
class IncentiveConfig:
    """How contributions are measured and paid."""

    valuation: str = option(
        "auto",
        "How a client's contribution is measured; auto: exact Shapley for dense models and at most 10 clients "
        "a round, else leave-one-out; none: nothing is measured or paid",
        group="Incentives",
        choices=("auto", "shapley", "leave_one_out", "loss_improvement", "data_size", "equal", "none"),
    )
    utility: str = option(
        "loss",
        "What a coalition is worth: minus its validation loss, or its validation accuracy",
        group="Incentives",
        choices=("loss", "accuracy"),
    )
    utility_weights: str = option(
        "fixed",
        "Weight of a client in a coalition: its share of the whole cohort's examples (fixed) or of the "
        "coalition's (renormalised)",
        group="Incentives",
        choices=("fixed", "renormalised"),
    )
    reward_rule: str = option(
        "proportional", "How the pool is split over contributions", group="Incentives", choices=("proportional",)
    )
    pool: str = option(
        "improvement",
        "Tokens to pay in a round: by the drop of validation loss, or the same each round",
        group="Incentives",
        choices=("improvement", "fixed"),
    )
    pool_tokens: float = option(
        10.0, "Tokens a round (fixed pool)", group="Incentives", minimum=0.0, maximum=1_000_000.0
    )
    scaling_factor: float = option(
        10.0,
        "Tokens per unit of validation loss that a round gains (improvement pool)",
        group="Incentives",
        minimum=0.0,
        maximum=1_000_000.0,
    )


@dataclass(frozen=True, kw_only=True)
class SimulationConfig(IncentiveConfig, TrainingConfig):
    """A whole simulation. Raises ConfigError that names every bad field."""

    def _conflicts(self) -> dict[str, str]:
        errors = super()._conflicts()
        if self.valuation == "shapley" and self.cohort_size > EXACT_LIMIT:
            errors["valuation"] = (
                f"exact shapley needs rounds of at most {EXACT_LIMIT} clients; this one has {self.cohort_size}"
            )
        if self.validation_size == 0 and self.valuation != "none":
            errors["validation_size"] = "0 leaves nothing to measure contributions with; set valuation to none"
        return errors

    def resolved(self, dataset: str) -> Self:
        """The same configuration with nothing left to `auto` but the backend and the device."""
        config = super().resolved(dataset)
        if config.valuation != "auto":
            return config
        exact = config.model in DENSE_MODELS and config.cohort_size <= AUTO_EXACT_LIMIT
        return dataclasses.replace(config, valuation="shapley" if exact else "leave_one_out")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From JSON, a form or the shell; an unknown field is an error that names it."""
        unknown = [str(name) for name in values if name not in FIELDS]
        if unknown:
            raise ConfigError(dict.fromkeys(unknown, "there is no such field"))
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON (client numbers are strings there)."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["behaviours"] = {str(client): dict(behaviour) for client, behaviour in self.behaviours.items()}
        return values

    def sha256(self) -> str:
        """Hash over all that decides the result. Equal for equal simulations once `resolved`."""
        values = {
            name: value
            for name, value in self.to_dict().items()
            if name not in NOT_HASHED and not (name in HASHED_IF_NOT and value == HASHED_IF_NOT[name])
        }
        text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()


FIELDS: dict[str, dataclasses.Field[Any]] = {field.name: field for field in dataclasses.fields(SimulationConfig)}
GROUPS = ("Clients", "Data", "Training", "Incentives", "Run")


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
        label="Two labels each",
        help="Every client holds two sorted shards, as in McMahan 2017",
        values={"partition": "pathological", "num_rounds": 20},
    ),
    "crowd": Preset(
        label="A thousand clients",
        help="100 of 1,000 small clients train in each round; contributions by leaving one out",
        values={"num_clients": 1000, "fraction_fit": 0.1, "model": "2nn", "batch_size": 20, "num_rounds": 20},
    ),
}
