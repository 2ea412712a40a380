"""What a simulation is asked to do: what is trained, how it is measured, what is paid. Standard library only.

A configuration has its meaning under a scheme, which a row keeps for ever: 1 is the first release's; under 2 pools pay
for the best loss so far; 3 is today's, with games of the strategy in use and many economies.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import incentives.catalogue  # noqa: F401  the kinds of valuations, pools and rules
import kinds
from incentives.rewards import MAX_TRANSFERS, MICROTOKENS, MOST_MICROTOKENS, fixed_pool
from incentives.specification import STRUCTURED, Members, Specification, differing, plain
from kinds import Choice, ConfigError
from kinds.parameter import shown
from training.config import (
    SCHEME,
    TrainingConfig,
    chosen,
    default_of,
    default_validation_size,
    fields_of,
    option,
    structured,
    unflattened,
)

EXACT_LIMIT = 16  # clients in a cohort whose coalitions can all be evaluated: 65,536
AUTO_EXACT_LIMIT = 10
ITSELF_EXACT_LIMIT = 8  # where each coalition is the strategy run once more
MOST_SHADOWS = 16
MOST_COMPARED = 1000  # training.products: updates of which each is multiplied with each
PAYING = "paying"  # how the economy of the top-level fields is called beside its shadows
NOT_HASHED = ("backend",)  # it changes how fast a result comes, never the result
FIRST_FIELDS = (  # what a configuration of scheme 1 holds; its hash covers them all, but for the last two
    *("dataset", "partition", "alpha", "labels_per_client", "validation_size", "model", "num_clients", "num_rounds"),
    *("fraction_fit", "min_available_clients", "behaviours", "local_epochs", "batch_size", "lr", "momentum"),
    *("weight_decay", "strategy", "proximal_mu", "server_lr", "server_momentum", "beta_1", "beta_2", "tau"),
    *("num_malicious_clients", "clipping_norm", "evaluate_every", "seed", "valuation", "utility", "utility_weights"),
    *("reward_rule", "pool", "pool_tokens", "scaling_factor", "backend", "device"),
)
FIRST_DEFAULTS: dict[str, Any] = {  # what a record of the first version holds for parameters that nothing read
    **{"alpha": 0.5, "labels_per_client": 2, "proximal_mu": 0.1, "server_lr": None, "server_momentum": 0.9},
    **{"beta_1": 0.9, "beta_2": 0.99, "tau": 0.001, "num_malicious_clients": None, "clipping_norm": None},
    **{"pool_tokens": 10.0, "scaling_factor": 10.0},
}


@dataclass(frozen=True, kw_only=True)
class IncentiveConfig:
    """How contributions are measured and paid."""

    valuation: Choice = chosen("valuation", "auto", "How a client's contribution is measured", group="Incentives")
    utility: str = option(
        kinds.choice(
            "loss",
            "What a coalition is worth: minus its validation loss, or its validation accuracy",
            choices=("loss", "accuracy"),
        ),
        group="Incentives",
    )
    game: str = option(
        kinds.choice(
            "server",
            "Whose model coalitions are measured by: what the strategy in use would make of their updates (server), or "
            "plain federated averaging whatever the strategy (fedavg)",
            choices=("server", "fedavg"),
        ),
        group="Incentives",
    )
    utility_weights: str = option(
        kinds.choice(
            "fixed",
            "Weight of a client in a coalition: its share of the whole cohort's examples (fixed) or of the "
            "coalition's (renormalised, always so for loss_improvement)",
            choices=("fixed", "renormalised"),
        ),
        group="Incentives",
    )
    pool: Choice = chosen("pool", "improvement", "Tokens to pay in a round", group="Incentives")
    reward_rule: Choice = chosen("rule", "proportional", "How the pool is split over contributions", group="Incentives")
    burn_share: float = option(
        kinds.number(0.0, "Share of each pool that is burned", minimum=0.0, maximum=1.0), group="Incentives"
    )
    budget_tokens: float | None = option(
        kinds.number(
            None, "Tokens that all rounds together may pay; empty: no limit", minimum=0.0, maximum=1_000_000_000.0
        ),
        group="Incentives",
    )
    stake: float = option(
        kinds.number(
            0.0,
            "Tokens that each data holder has at stake from the start, divided over its identities",
            minimum=0.0,
            maximum=1_000_000.0,
        ),
        group="Incentives",
    )
    detectors: tuple[Choice, ...] = structured(
        tuple, "What scores clients in each round by how suspicious they are", group="Incentives"
    )
    slashing: tuple[Mapping[str, Any], ...] = structured(
        tuple, "Which detector's score, above what, costs which share of the stake", group="Incentives"
    )
    slashed_to: str = option(
        kinds.choice("treasury", "Where lost stakes go", choices=("treasury", "burn")), group="Incentives"
    )
    shadows: tuple[Mapping[str, Any], ...] = structured(
        tuple, "Economies beside the paying one, on the same training", group="Incentives"
    )


@dataclass(frozen=True, kw_only=True)
class SimulationConfig(IncentiveConfig, TrainingConfig):
    """A whole simulation. Raises ConfigError that names every bad field."""

    VERSIONS: ClassVar[Mapping[int, Mapping[tuple[str, str], int]]] = {
        1: {("rule", "proportional"): 1},
        2: {("rule", "proportional"): 1},
    }
    FLAT: ClassVar[Mapping[str, tuple[str, str]]] = {
        **TrainingConfig.FLAT,
        "pool_tokens": ("pool", "tokens"),
        "scaling_factor": ("pool", "scaling_factor"),
    }

    # A record of scheme 1 as it is: its hash covers what nothing reads, too.
    first: Mapping[str, Any] | None = dataclasses.field(default=None, repr=False)

    def _checked(self, field: dataclasses.Field[Any], value: Any) -> Any:
        if field.name in STRUCTURED:
            return STRUCTURED[field.name](value)
        return _shadows(value) if field.name == "shadows" else super()._checked(field, value)

    def _conflicts(self) -> dict[str, str]:
        errors = super()._conflicts()
        for label, economy in self.economies:
            for name, text in self._unaffordable(economy).items():
                if label == PAYING:
                    errors[name] = text
                else:
                    errors.setdefault("shadows", f"{label}: {name}: {text}")
        if self.validation_size == 0 and self.is_valued:
            errors["validation_size"] = "0 leaves nothing to measure contributions with; set valuation to none"
        _, paying = self.economies[0]
        wants = {
            "balances": ("by_balance reads what clients earn, and nothing is paid", paying.is_valued),
            "stakes": (
                "by_stake reads what clients have at stake, and "
                + ("stake is 0" if paying.is_valued else "where nothing is measured nothing is"),
                paying.is_valued and paying.stake > 0,
            ),
            "reputation": (
                f"by_reputation reads what the rule reputation keeps; this one is {paying.reward_rule.kind}",
                paying.is_valued and paying.reward_rule.kind == "reputation",
            ),
        }
        for trait, (text, there) in wants.items():
            if self.sampler.has(trait) and not there:
                errors["sampler"] = text
        if self.sampler.has("stakes") and not errors:
            most = max(self.members(is_paying=True).stakes(paying).values()) / MICROTOKENS
            if most < self.sampler["minimum"]:
                errors["sampler.minimum"] = (
                    f"nobody would ever take part: the most that anybody has at stake is {most:g}"
                )
        return errors

    def _unaffordable(self, economy: Specification) -> dict[str, str]:
        errors = {}
        if economy.valuation.kind == "shapley" and self.cohort_size > EXACT_LIMIT:
            errors["valuation"] = (
                f"exact shapley needs rounds of at most {EXACT_LIMIT} clients; this one has {self.cohort_size}"
            )
        cost = economy.valuation.description.cost
        if "evaluations" in economy.valuation.parameters and "/" not in economy.valuation.kind and cost is not None:
            try:
                cost(self.cohort_size, **economy.valuation.parameters)
            except ValueError as error:
                errors["valuation.evaluations"] = str(error)
        compares = self.strategy.has("robust") and self.strategy.has("weighted_sum")
        if economy.asks_game and economy.game == "server" and compares and self.cohort_size > MOST_COMPARED:
            errors["game"] = (
                f"the game of {self.strategy.kind} compares every two updates, of at most {MOST_COMPARED:,} clients a "
                f"round; this one has {self.cohort_size:,}. Take fedavg, or a smaller fraction_fit"
            )
        if twice := differing(economy.detectors, economy.slashing):
            errors["slashing"] = f"{twice} is there with other parameters"
        if economy.is_valued and economy.slashing and not economy.stake:
            errors["slashing"] = "nothing is at stake; set stake"
        if economy.stake and not fixed_pool(economy.stake):
            errors["stake"] = f"{economy.stake:g} tokens are less than a micro-token"
        comparing = {
            "valuation": [economy.valuation],
            "reward_rule": [economy.reward_rule],
            "detectors": economy.detectors,
            "slashing": [entry["detector"] for entry in economy.slashing],
        }
        named = [name for name, choices in comparing.items() if any(each.has("products") for each in choices)]
        if economy.asks_products and self.cohort_size > MOST_COMPARED:
            errors[named[0]] = (
                f"every two updates are compared, of at most {MOST_COMPARED:,} clients a round; this one has "
                f"{self.cohort_size:,}. Take a smaller fraction_fit"
            )
        if economy.stake and economy.is_valued and 2 * self.num_identities + self.cohort_size + 8 > MAX_TRANSFERS:
            errors["stake"] = (
                f"{self.num_identities:,} stakes do not fit into the first round's transaction of at most "
                f"{MAX_TRANSFERS:,} transfers"
            )
        supply = MOST_MICROTOKENS / MICROTOKENS - self.num_clients * economy.stake * economy.is_valued
        tokens = scheduled_tokens(economy.pool, self.num_rounds)
        is_bounded = economy.budget_tokens is not None or not economy.is_valued
        if self.scheme > 1 and tokens is not None and tokens > supply and not is_bounded:
            rounds = f"{self.num_rounds:,} rounds of {economy.pool['tokens']:,.12g} tokens"
            beside = " beside the stakes" if economy.stake else ""
            errors["pool.tokens"] = f"{rounds} are more than a ledger can hold{beside}, {supply:,.0f}"
        return errors

    def resolved(self, dataset: str) -> Self:
        """The same configuration with nothing left to `auto` but the backend and the device."""
        config = super().resolved(dataset)
        (_, paying), *others = config.economies
        given: dict[str, Any] = {"valuation": paying.valuation}
        if config.scheme > 1:
            given["utility_weights"] = paying.utility_weights
        given["shadows"] = tuple(
            {
                **entry,
                **{
                    name: getattr(economy, name)
                    for name in ("valuation", "utility_weights")
                    if name in entry or getattr(economy, name) != getattr(paying, name)
                },
            }
            for entry, (_, economy) in zip(config.shadows, others, strict=True)
        )
        return dataclasses.replace(config, **given)

    @property
    def economies(self) -> tuple[tuple[str, Specification], ...]:
        """Each with its label, the paying one first; with nothing left to `auto`, which a configuration that is not yet
        resolved decides by what it knows."""
        return tuple((entry["label"], self._economy(entry)) for entry in ({"label": PAYING}, *self.shadows))

    def _economy(self, entry: Mapping[str, Any]) -> Specification:
        values = {name: entry.get(name, getattr(self, name)) for name in OF_AN_ECONOMY}
        if values["valuation"].kind == "auto":
            itself = values["game"] == "server" and not self.strategy.has("weighted_sum")
            most = ITSELF_EXACT_LIMIT if itself else AUTO_EXACT_LIMIT
            exact = self.model.has("dense") and self.cohort_size <= most
            values["valuation"] = kinds.checked("valuation", "shapley" if exact else "leave_one_out", "valuation")
        # what a client's own model is worth is a coalition of one with renormalised weights
        if values["valuation"].kind == "loss_improvement":
            values["utility_weights"] = "renormalised"
        return Specification(**values)

    @property
    def is_valued(self) -> bool:
        """Whether any economy measures and pays."""
        return any(economy.is_valued for _, economy in self.economies)

    @property
    def asks_game(self) -> bool:
        """Whether coalitions are asked what they are worth."""
        return any(economy.asks_game for _, economy in self.economies)

    @property
    def looks(self) -> bool:
        """Whether anything is asked about a round's updates."""
        return self.asks_game or any(economy.asks_products for _, economy in self.economies)

    @property
    def keeps(self) -> frozenset[str]:
        """What a training must keep from round to round for its economies, see Specification.keeps."""
        return frozenset().union(*(economy.keeps for _, economy in self.economies))

    def members(self, *, is_paying: bool) -> Members:
        """Who takes part, as an economy knows it."""
        return Members(
            num_clients=self.num_identities,
            holders=self.holders,
            balances=is_paying and self.sampler.has("balances"),
        )

    @property
    def feeds_back(self) -> bool:
        """Whether the paying economy decides who is sampled."""
        return any(self.sampler.has(trait) for trait in ("balances", "stakes", "reputation"))

    @property
    def is_averaged(self) -> bool:
        """Whether the server makes the model of plain federated averaging."""
        return self.strategy.has("averaged")

    @property
    def plugins(self) -> dict[str, str]:
        """Source hashes by the ids of the plug-ins in use; empty texts where they are not filled in yet."""
        of_shadows = [value for entry in self.shadows for value in entry.values()]
        choices = [choice for value in (*vars(self).values(), *of_shadows) for choice in _choices_in(value)]
        found = {choice.kind: choice.source_sha256 for choice in choices}
        found |= {
            given["kind"]: given.get("source_sha256", "") for given in (*self.behaviours.values(), *self.population)
        }
        return {kind: source for kind, source in sorted(found.items()) if "/" in kind}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, drops: Mapping[str, Any] | None = FIRST_DEFAULTS) -> Self:
        """From JSON or a file, with today's meaning; see TrainingConfig.from_dict. Of flat names that the chosen kinds
        do not have, those with the first version's default are left out, so that its records can be sent again."""
        for name in ("behaviours", "population"):
            given = values.get(name)
            inside = given.values() if isinstance(given, Mapping) else given if isinstance(given, list | tuple) else ()
            for each in inside:
                kind = each.get("kind") if isinstance(each, Mapping) else each
                if isinstance(each, Mapping) and "source_sha256" in each:
                    raise ConfigError({name: "source_sha256 is filled in when a run is queued"})
                if isinstance(kind, str) and "/" in kind and kind not in kinds.family("behaviour"):
                    raise ConfigError({name: f"there is no behaviour {shown(kind)}"})
        return super().from_dict(values, drops=drops)

    @classmethod
    def from_record(cls, values: Mapping[str, Any], scheme: int) -> Self:
        """A row's, with the meaning under which it was queued; fields that have come since are at their defaults."""
        unknown = [str(name) for name in values if name not in FIELDS and name not in cls.FLAT]
        if unknown:
            raise ConfigError(dict.fromkeys(unknown, "there is no such field"))
        known = dict(values)
        if scheme == 1 and known.get("pool") == "improvement":
            known["pool"] = "improvement_each_round"
        if scheme < 3:
            known["game"] = "fedavg"
        inert = {name: known[name] for name in known.keys() & cls.FLAT.keys()}
        nested, _ = unflattened(cls, known, inert)
        for name, field in FIELDS.items():
            if field.metadata["family"] and name in nested:
                nested[name] = kinds.checked(field.metadata["family"], nested[name], name, recorded=True)
        for name, check in STRUCTURED.items():
            nested[name] = check(nested.get(name, ()), recorded=True)
        nested["shadows"] = _shadows(nested.get("shadows", ()), recorded=True)
        return cls(**nested, scheme=scheme, first=dict(values) if scheme == 1 else None)

    def to_dict(self) -> dict[str, Any]:
        """The canonical form, ready for JSON (client numbers are strings there); of scheme 1, its flat fields."""
        values = super().to_dict()
        if self.first is None:
            return values
        flat = {name: value["kind"] if name in CHOICES else value for name, value in values.items()}
        if flat["pool"] == "improvement_each_round":
            flat["pool"] = "improvement"
        return {
            name: self.first.get(name, FIRST_DEFAULTS[name]) if name in self.FLAT else flat[name]
            for name in FIRST_FIELDS
        }

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
        if self.first is not None:
            return {name: value for name, value in values.items() if name not in ("backend", "device")}
        hashed: dict[str, Any] = {"scheme": self.scheme}
        for name, field in FIELDS.items():
            if name in CHOICES:
                of_choice = getattr(self, name).hashed()
                if of_choice != {"kind": field.default}:
                    hashed[name] = of_choice
            elif name == "behaviours":
                hashed |= (
                    {name: {client: _unusual(given) for client, given in values[name].items()}} if values[name] else {}
                )
            elif name == "population":
                hashed |= {name: [_unusual(given) for given in values[name]]} if values[name] else {}
            elif name in STRUCTURED:
                hashed |= {name: plain(getattr(self, name), hashes=True)} if values[name] else {}
            elif name == "shadows":
                shadows = [{"label": label, **economy.hashed()} for label, economy in self.economies[1:]]
                hashed |= {name: shadows} if shadows else {}
            elif name not in NOT_HASHED and values[name] != self._usual(name):
                hashed[name] = values[name]
        return hashed

    def training_sha256(self) -> str:
        """The same of what training alone reads: equal ones are one training, whatever is paid for it."""
        hashed = self.hashed()
        read = ("scheme", *TRAINING_FIELDS, *(OF_AN_ECONOMY if self.feeds_back else ()))
        of_training = {name: hashed[name] for name in read if name in hashed}
        text = json.dumps(of_training, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _usual(self, name: str) -> Any:
        """What is left out of the hash."""
        if name == "game" and self.scheme < 3:
            return "fedavg"
        if name == "validation_size" and self.validation_size is not None and self.dataset.kind != "auto":
            return default_validation_size(self.data_info)
        return "cpu" if name == "device" else FIELDS[name].default


def _shadows(value: Any, *, recorded: bool = False) -> tuple[dict[str, Any], ...]:
    """Each {"label": ..., what it does not take from the paying economy}, in the fields' own types. ValueError names
    the economy."""
    if not isinstance(value, list | tuple):
        raise ValueError('expected a list of {"label": ..., "reward_rule": ...}')
    if len(value) > MOST_SHADOWS:
        raise ValueError(f"{len(value)} economies beside the paying one are more than {MOST_SHADOWS}")
    found: dict[str, dict[str, Any]] = {}
    for place, entry in enumerate(value, 1):
        label = entry.get("label") if isinstance(entry, Mapping) else None
        if not isinstance(label, str) or not 1 <= len(label.strip()) <= 60 or not label.isprintable():
            raise ValueError(f"number {place}: expected a label of 1 to 60 characters")
        label = label.strip()
        if label == PAYING or label in found:
            raise ValueError(
                f"{label}: {'is how the top-level economy is called' if label == PAYING else 'is there twice'}"
            )
        found[label] = {"label": label}
        for name, given in entry.items():
            if name == "label" or (given is None and name != "budget_tokens"):
                continue
            if name not in OF_AN_ECONOMY:
                raise ValueError(f"{label}: an economy has no {shown(name)}; it has {', '.join(OF_AN_ECONOMY)}")
            metadata = OF_AN_ECONOMY[name].metadata
            try:
                if name in STRUCTURED:
                    found[label][name] = STRUCTURED[name](given, recorded=recorded)
                elif metadata["family"]:
                    found[label][name] = kinds.checked(metadata["family"], given, name, recorded=recorded)
                else:
                    found[label][name] = metadata["parameter"].check(given)
            except ConfigError as error:
                raise ValueError(f"{label}: {error}") from None
            except ValueError as error:
                raise ValueError(f"{label}: {name}: {error}") from None
    return tuple(found.values())


def _choices_in(value: Any) -> Iterator[Choice]:
    if isinstance(value, Choice):
        yield value
    elif isinstance(value, tuple):
        for each in value:
            yield from _choices_in(each)
    elif isinstance(value, Mapping):
        yield from _choices_in(tuple(value.values()))


def _unusual(given: Mapping[str, Any]) -> dict[str, Any]:
    """A behaviour as it enters the hash, with what bounds it and the share that it has of a population."""
    beside = {name: given[name] for name in ("from_round", "to_round", "share") if name in given}
    of_kind = {name: value for name, value in given.items() if name not in beside}
    return kinds.checked("behaviour", of_kind, "behaviours", recorded=True).hashed() | beside


def scheduled_tokens(pool: Choice, num_rounds: int) -> float | None:
    """What a pool mints over all rounds where its parameters alone decide that; None where the training does."""
    rounds = range(num_rounds)
    if pool.kind == "fixed":
        return float(pool["tokens"]) * num_rounds
    if pool.kind == "halving":
        return math.fsum(math.ldexp(pool["tokens"], -(number // pool["rounds"])) for number in rounds)
    if pool.kind == "decay":
        return math.fsum(pool["tokens"] * pool["factor"] ** number for number in rounds)
    return float(pool["tokens"]) if pool.kind == "treasury" else None


def without_unread(values: Mapping[str, Any]) -> dict[str, Any]:
    """A file's fields without the flat names that its kinds do not have and that hold the first version's default."""
    chosen = {name: values.get(name, FIELDS[name].default) for name in CHOICES}
    kind_of = {name: each.get("kind") if isinstance(each, Mapping) else each for name, each in chosen.items()}

    def is_read(flat: str) -> bool:
        field, parameter = SimulationConfig.FLAT[flat]
        kind = kinds.family(CHOICES[field]).get(str(kind_of[field]))
        return kind is None or parameter in kind.parameters or values[flat] not in (FIRST_DEFAULTS[flat], None)

    return {name: value for name, value in values.items() if name not in SimulationConfig.FLAT or is_read(name)}


def kind_in(values: Mapping[str, Any], name: str) -> str:
    """The name of the kind that a record chose; older ones hold the name alone."""
    return str(values[name]["kind"] if isinstance(values[name], Mapping) else values[name])


def canonical(values: Mapping[str, Any], scheme: int) -> dict[str, Any]:
    """A record's configuration in today's form and words, for pages; not checked, and whatever is missing is at its
    default."""
    known = {name: value for name, value in values.items() if name in FIELDS or name in SimulationConfig.FLAT}
    if scheme < 3:
        known["game"] = "fedavg"
    if scheme == 1 and known.get("pool") == "improvement":
        known["pool"] = "improvement_each_round"
    nested, _ = unflattened(SimulationConfig, known, known)
    found = {name: nested.get(name, default_of(field)) for name, field in FIELDS.items()}
    for name in CHOICES:
        if isinstance(found[name], str):
            found[name] = {"kind": found[name]}
    return found


def renewed(values: Mapping[str, Any], scheme: int) -> tuple[SimulationConfig, list[str]]:
    """A record's configuration to be queued again, and what of its meaning cannot be asked for any more, in sentences.

    Raises ConfigError where it cannot be run at all any more.
    """
    old = SimulationConfig.from_record(values, scheme)
    config = dataclasses.replace(old, scheme=SCHEME, first=None)
    silent = any(
        given["kind"] in ("free_rider", "dropout") for given in (*config.behaviours.values(), *config.population)
    )
    changed = []
    if scheme == 1 and silent and config.strategy.has("robust"):
        kind = config.strategy.kind
        changed.append(f"strategy: {kind} is now over the updates that arrive; the absent voted zero before")
    (_, paying), *_ = old.economies
    if scheme == 1 and silent and paying.utility_weights == "renormalised" and config.is_valued:
        changed.append("valuation: a client that sends nothing in a round is now worth 0 in it")
    return config, changed


FIELDS: dict[str, dataclasses.Field[Any]] = {field.name: field for field in fields_of(SimulationConfig)}
OF_AN_ECONOMY = {field.name: field for field in fields_of(IncentiveConfig) if field.name != "shadows"}
TRAINING_FIELDS = tuple(field.name for field in fields_of(TrainingConfig))
CHOICES = {name: field.metadata["family"] for name, field in FIELDS.items() if field.metadata["family"]}
GROUPS = ("Clients", "Data", "Training", "Incentives", "Run")
