"""One flat set of fields for a simulation: what is trained, how it is measured, what is paid. Stdlib only.

A configuration has its meaning under a scheme, which a row keeps for ever: 1 is the first release's; 2 is today's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from incentives.rewards import MICROTOKENS, MOST_MICROTOKENS
from training.config import (
    BEHAVIOURS,
    DATASETS,
    DENSE_MODELS,
    ROBUST,
    SCHEME,
    SERVER_LR,
    ConfigError,
    TrainingConfig,
    default_validation_size,
    fields_of,
    option,
)

EXACT_LIMIT = 16  # clients in a cohort whose coalitions can all be evaluated: 65,536
AUTO_EXACT_LIMIT = 10
NOT_HASHED = ("backend",)  # it changes how fast a result comes, never the result
FIRST_FIELDS = (  # what a configuration of scheme 1 holds; its hash covers them all, but for the last two
    *("dataset", "partition", "alpha", "labels_per_client", "validation_size", "model", "num_clients", "num_rounds"),
    *("fraction_fit", "min_available_clients", "behaviours", "local_epochs", "batch_size", "lr", "momentum"),
    *("weight_decay", "strategy", "proximal_mu", "server_lr", "server_momentum", "beta_1", "beta_2", "tau"),
    *("num_malicious_clients", "clipping_norm", "evaluate_every", "seed", "valuation", "utility", "utility_weights"),
    *("reward_rule", "pool", "pool_tokens", "scaling_factor", "backend", "device"),
)
AVERAGED = ("fedavg", "fedprox")  # whose model is that of plain federated averaging
NO_GAME = ("data_size", "equal", "none")  # valuations that ask no coalition what it is worth
SHARDS = {"labels_per_client": "labels_per_client"}
SCALING = {"scaling_factor": "scaling_factor"}
# What is hashed since scheme 2: a choice is a kind with its own parameters, each under its name within the choice.
CHOICES: dict[str, dict[str, dict[str, str]]] = {  # field -> kind -> field of a parameter -> the parameter's name
    "dataset": {},
    "model": {},
    "valuation": {},
    "reward_rule": {},
    "partition": {"dirichlet": {"alpha": "alpha"}, "pathological": SHARDS, "quantity": {"alpha": "alpha"}},
    "strategy": {
        "fedavgm": {"server_lr": "server_lr", "server_momentum": "server_momentum"},
        "fedadam": {name: name for name in ("server_lr", "beta_1", "beta_2", "tau")},
        "fedprox": {"proximal_mu": "proximal_mu"},
        "trimmed_mean": {"num_malicious_clients": "num_malicious_clients"},
        "multi_krum": {"num_malicious_clients": "num_malicious_clients"},
        "centred_clipping": {"clipping_norm": "clipping_norm"},
    },
    "pool": {"improvement": SCALING, "improvement_each_round": SCALING, "fixed": {"pool_tokens": "tokens"}},
}
PARAMETERS = {name for kinds in CHOICES.values() for parameters in kinds.values() for name in parameters}


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
    game: str = option(
        "fedavg",
        "Whose model coalitions are measured by: what plain federated averaging would make of their updates, "
        "whatever the strategy",
        group="Incentives",
        choices=("fedavg",),
    )
    utility_weights: str = option(
        "fixed",
        "Weight of a client in a coalition: its share of the whole cohort's examples (fixed) or of the "
        "coalition's (renormalised, always so for loss_improvement)",
        group="Incentives",
        choices=("fixed", "renormalised"),
    )
    reward_rule: str = option(
        "proportional", "How the pool is split over contributions", group="Incentives", choices=("proportional",)
    )
    pool: str = option(
        "improvement",
        "Tokens to pay in a round: by the drop of validation loss below the best so far; "
        "improvement_each_round: below the round before, so that regained ground is paid again; fixed: the same each",
        group="Incentives",
        choices=("improvement", "improvement_each_round", "fixed"),
    )
    pool_tokens: float = option(
        10.0, "Tokens a round (fixed pool)", group="Incentives", minimum=0.0, maximum=1_000_000.0
    )
    scaling_factor: float = option(
        10.0,
        "Tokens per unit of validation loss that a round gains (improvement pools)",
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
        if self.scheme > 1 and self.pool == "fixed" and self.valuation != "none":
            supply = MOST_MICROTOKENS / MICROTOKENS
            if self.pool_tokens * self.num_rounds > supply:
                errors["pool_tokens"] = (
                    f"{self.num_rounds:,} rounds of {self.pool_tokens:,.12g} tokens are more than a ledger can hold, "
                    f"{supply:,.0f}"
                )
        return errors

    def resolved(self, dataset: str) -> Self:
        """The same configuration with nothing left to `auto` but the backend and the device."""
        config = super().resolved(dataset)
        if config.valuation == "auto":
            exact = config.model in DENSE_MODELS and config.cohort_size <= AUTO_EXACT_LIMIT
            config = dataclasses.replace(config, valuation="shapley" if exact else "leave_one_out")
        if config.scheme > 1:
            config = dataclasses.replace(config, utility_weights=config.weights_in_use)
        return config

    @property
    def weights_in_use(self) -> str:
        """loss_improvement looks at each client's own model, which is a coalition of one with renormalised weights."""
        return "renormalised" if self.valuation == "loss_improvement" else self.utility_weights

    @property
    def is_averaged(self) -> bool:
        """Whether the server makes the model of plain federated averaging, as every game takes it to."""
        return self.strategy in AVERAGED

    @property
    def pool_in_use(self) -> str:
        """By today's name: what scheme 1 called improvement pays by the round before."""
        return "improvement_each_round" if self.scheme == 1 and self.pool == "improvement" else self.pool

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From JSON, a form or the shell, with today's meaning; an unknown field is an error that names it."""
        return cls.from_record(values, SCHEME)

    @classmethod
    def from_record(cls, values: Mapping[str, Any], scheme: int) -> Self:
        """A row's, with the meaning under which it was queued; fields that have come since are at their defaults."""
        unknown = [str(name) for name in values if name not in FIELDS]
        if unknown:
            raise ConfigError(dict.fromkeys(unknown, "there is no such field"))
        return cls(**values, scheme=scheme)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON (client numbers are strings there)."""
        values = {name: getattr(self, name) for name in (FIRST_FIELDS if self.scheme == 1 else FIELDS)}
        values["behaviours"] = {str(client): dict(behaviour) for client, behaviour in self.behaviours.items()}
        return values

    def sha256(self) -> str:
        """Hash over all that decides the result. Equal for equal simulations once `resolved`.

        A row's hash stays its own whatever fields later releases add: they are left out at their defaults.
        """
        text = json.dumps(self.hashed(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def hashed(self) -> dict[str, Any]:
        """The scheme and all that is not at its default: fields, and choices as kinds with their own parameters alone.
        Scheme 1: all of its fields."""
        values = self.to_dict()
        if self.scheme == 1:
            return {name: value for name, value in values.items() if name not in ("backend", "device")}
        hashed: dict[str, Any] = {"scheme": self.scheme}
        for name in values.keys() - PARAMETERS - {*NOT_HASHED, *CHOICES, "behaviours"}:
            if values[name] != self._usual(name):
                hashed[name] = values[name]
        for name, kinds in CHOICES.items():
            mine = kinds.get(values[name], {})
            parameters = {mine[field]: values[field] for field in mine if values[field] != self._usual(field)}
            if parameters or values[name] != self._usual(name):
                hashed[name] = {"kind": values[name], **parameters}
        if self.behaviours:
            hashed["behaviours"] = {client: _unusual(given) for client, given in values["behaviours"].items()}
        return hashed

    def _usual(self, name: str) -> Any:
        """What is left out of the hash."""
        if name == "validation_size" and self.validation_size is not None and self.dataset != "auto":
            return default_validation_size(DATASETS[self.dataset])
        if name == "server_lr" and self.server_lr is not None:
            return SERVER_LR.get(self.strategy)
        return "cpu" if name == "device" else FIELDS[name].default


def _unusual(behaviour: Mapping[str, Any]) -> dict[str, Any]:
    usual = BEHAVIOURS[behaviour["kind"]]
    return {name: value for name, value in behaviour.items() if name == "kind" or value != usual[name].default}


def in_todays_words(values: Mapping[str, Any], scheme: int) -> dict[str, Any]:
    """A record's fields as one would ask for the same today, as far as that can be asked for; not checked."""
    values = {name: value for name, value in values.items() if name in FIELDS}
    if scheme == 1 and values.get("pool") == "improvement":
        values["pool"] = "improvement_each_round"
    return {"game": "fedavg", **values}


def renewed(values: Mapping[str, Any], scheme: int) -> tuple[SimulationConfig, list[str]]:
    """A record's configuration to be queued again, and what of its meaning cannot be asked for any more, in sentences.

    Raises ConfigError where it cannot be run at all any more.
    """
    config = SimulationConfig.from_dict(in_todays_words(values, scheme))
    silent = any(given["kind"] in ("free_rider", "dropout") for given in config.behaviours.values())
    changed = []
    if scheme == 1 and silent and config.strategy in ROBUST:
        changed.append(f"strategy: {config.strategy} is now over the updates that arrive; the absent voted zero before")
    if scheme == 1 and silent and config.weights_in_use == "renormalised" and config.valuation != "none":
        changed.append("valuation: a client that sends nothing in a round is now worth 0 in it")
    return config, changed


FIELDS: dict[str, dataclasses.Field[Any]] = {field.name: field for field in fields_of(SimulationConfig)}
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
        label="Two shards each",
        help="Every client holds two shards of the data sorted by label, two to four labels in all, as in McMahan 2017",
        values={"partition": "pathological", "num_rounds": 20},
    ),
    "crowd": Preset(
        label="A thousand clients",
        help="100 of 1,000 small clients train in each round; contributions by leaving one out",
        values={"num_clients": 1000, "fraction_fit": 0.1, "model": "2nn", "batch_size": 20, "num_rounds": 20},
    ),
}
