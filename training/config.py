"""What a training run is asked to do. Standard library only: pages, JSON and shell read it without PyTorch.

Every field carries its help and its bounds, or the family that it chooses from, as metadata, so the form, the JSON
schema, the command line and the validation all say the same thing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import kinds
from kinds import Choice, ConfigError, Parameter, whole
from kinds.choice import lacks
from training import behaviours, entropy
from training.catalogue import DATASETS, DatasetInfo

__all__ = ["ConfigError", "TrainingConfig"]

MOST_IDENTITIES = 1_000_000
SCHEME = 3  # the number of today's meaning of a configuration; it rises whenever an unchanged one comes to mean another
MOST_MALICIOUS: dict[str, Callable[[int], int]] = {  # that a strategy can bear among n clients in a round
    "trimmed_mean": lambda n: (n - 1) // 2,  # something must be left in the middle: n > 2f (Yin et al. 2018)
    "multi_krum": lambda n: (n - 3) // 2,  # n >= 2f + 3 (Blanchard et al. 2017)
}


def option(parameter: Parameter, *, group: str) -> Any:
    """A field that holds one value."""
    return dataclasses.field(
        default=parameter.default,
        metadata={"help": parameter.help, "group": group, "parameter": parameter, "family": None},
    )


def chosen(family: str, default: str, help: str, *, group: str) -> Any:
    """A field that holds a Choice of this family; a bare name or a mapping becomes one."""
    return dataclasses.field(
        default=default, metadata={"help": help, "group": group, "parameter": None, "family": family}
    )


def structured(default: Callable[[], Any], help: str, *, group: str) -> Any:
    """A field with a form of its own, which its class checks."""
    return dataclasses.field(
        default_factory=default, metadata={"help": help, "group": group, "parameter": None, "family": None}
    )


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What is trained, by whom, on what. Raises ConfigError that names every bad field at once."""

    # Of kinds whose version has risen, by scheme: the one that the scheme means, by family and name.
    VERSIONS: ClassVar[Mapping[int, Mapping[tuple[str, str], int]]] = {}

    # Shorthand of the first version for parameters of choices: name -> (field, parameter).
    FLAT: ClassVar[Mapping[str, tuple[str, str]]] = {
        "alpha": ("partition", "alpha"),
        "labels_per_client": ("partition", "labels_per_client"),
        **{
            name: ("strategy", name)
            for name in (
                *("proximal_mu", "server_lr", "server_momentum", "beta_1", "beta_2", "tau"),
                *("num_malicious_clients", "clipping_norm"),
            )
        },
    }

    dataset: Choice = chosen("dataset", "auto", "Images to learn from", group="Data")
    partition: Choice = chosen("partition", "iid", "How the examples are split over the clients", group="Data")
    validation_size: int | None = option(
        whole(
            None,
            "Examples that the server holds out to measure contributions; empty: 1,000, or a tenth of a small set",
            minimum=0,
            maximum=50_000,
        ),
        group="Data",
    )
    data_seed: int | None = option(
        whole(
            None,
            "Fixes the split of the data alone; empty: the seed decides it too",
            minimum=0,
            maximum=2**32 - 1,
        ),
        group="Data",
    )
    model: Choice = chosen("model", "mlp", "The network that the clients train", group="Training")
    num_clients: int = option(whole(10, "Data holders that take part", minimum=1, maximum=1_000_000), group="Clients")
    num_rounds: int = option(whole(10, "Rounds of training", minimum=1, maximum=10_000), group="Training")
    fraction_fit: float = option(
        kinds.number(1.0, "Share of the clients sampled for each round", minimum=0.0, maximum=1.0), group="Clients"
    )
    min_available_clients: int = option(
        whole(2, "Fewest clients in a round, whatever the share", minimum=1, maximum=1_000_000), group="Clients"
    )
    sampler: Choice = chosen("sampler", "uniform", "Which clients take part in a round", group="Clients")
    behaviours: Mapping[int, Mapping[str, Any]] = structured(
        dict, "Clients that do not play fair; all others are honest", group="Clients"
    )
    population: tuple[Mapping[str, Any], ...] = structured(
        tuple, "Shares of the clients that do not play fair, drawn by the seed", group="Clients"
    )
    local_epochs: int = option(
        whole(1, "Passes over its own data that a client makes in a round", minimum=1, maximum=100), group="Training"
    )
    batch_size: int = option(whole(32, "Examples in a local batch", minimum=1, maximum=60_000), group="Training")
    lr: float = option(kinds.number(0.05, "Learning rate of local SGD", above=0.0, maximum=100.0), group="Training")
    momentum: float = option(kinds.number(0.0, "Momentum of local SGD", minimum=0.0, below=1.0), group="Training")
    weight_decay: float = option(
        kinds.number(0.0, "Weight decay of local SGD", minimum=0.0, maximum=1.0), group="Training"
    )
    strategy: Choice = chosen("strategy", "fedavg", "How the server joins the updates", group="Training")
    evaluate_every: int = option(
        whole(1, "Rounds between two looks at the test set; the last round always", minimum=1, maximum=10_000),
        group="Training",
    )
    seed: int = option(whole(0, "Fixes every random draw", minimum=0, maximum=2**32 - 1), group="Run")
    backend: str = option(
        kinds.choice(
            "auto",
            "What runs the local training, ray on many machines; results differ in rounding at most",
            choices=("auto", "sequential", "batched", "ray"),
        ),
        group="Run",
    )
    device: str = option(
        kinds.choice(
            "cpu",
            "Where tensors live; auto: a CUDA GPU where there is one",
            choices=("cpu", "cuda", "mps", "auto"),
        ),
        group="Run",
    )
    precision: str = option(
        kinds.choice(
            "float32",
            "How products are computed; tf32 is faster on a CUDA GPU and keeps three digits of each factor",
            choices=("float32", "tf32"),
        ),
        group="Run",
    )

    # Under which meaning: the number of today's for all that is asked for, and of a row for ever the one under which it
    # was queued. Not a field of the configuration: it is part of the hash and stands beside the record.
    scheme: int = dataclasses.field(default=SCHEME)

    def __post_init__(self) -> None:
        errors: dict[str, str] = {}
        for field in fields_of(type(self)):
            try:
                object.__setattr__(self, field.name, self._checked(field, getattr(self, field.name)))
            except ConfigError as error:
                errors |= error.errors
            except ValueError as error:
                errors[field.name] = str(error)
        if not errors:
            self._make_canonical()
            errors = self._conflicts()
        if errors:
            raise ConfigError(errors)

    def _make_canonical(self) -> None:
        """Equal meanings are equal values: a seed of the split that is the seed, a behaviour to the last round, clients
        that are said to be honest where no population is drawn from the others."""
        if self.data_seed == self.seed:
            object.__setattr__(self, "data_seed", None)
        last = self.num_rounds
        of_groups = {
            member
            for given in self.behaviours.values()
            if behaviours.has(given, "colludes")
            for member in given["group"]
        }
        acting = {
            client: behaviours.without_end(given, last)
            for client, given in self.behaviours.items()
            if self.population or given["kind"] != "honest" or client in of_groups
        }
        object.__setattr__(self, "behaviours", behaviours.grouped(acting))
        object.__setattr__(self, "population", tuple(behaviours.without_end(entry, last) for entry in self.population))

    def _checked(self, field: dataclasses.Field[Any], value: Any) -> Any:
        """The value in the field's own type and within its bounds; ValueError with what was expected."""
        if field.metadata["family"]:
            meant = self.VERSIONS.get(self.scheme, {})
            return kinds.checked(field.metadata["family"], value, field.name, versions=meant)
        if field.name == "behaviours":
            return behaviours.of_clients(value)
        if field.name == "population":
            return behaviours.of_shares(value)
        return field.metadata["parameter"].check(value)

    @classmethod
    def of(cls, **fields: Any) -> Self:
        """`from_dict` with the fields as arguments."""
        return cls.from_dict(fields)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, drops: Mapping[str, Any] | None = None) -> Self:
        """From JSON, a form or the shell, with today's meaning. ConfigError names what is wrong by the name that it was
        given under; an unknown field is one.

        Flat names are shorthand for parameters of choices. One that the chosen kind does not have is an error, but
        where it has the value that `drops` gives for it.
        """
        values, given = unflattened(cls, values, drops or {})
        try:
            return cls(**values)
        except ConfigError as error:
            raise ConfigError({given.get(name, name): text for name, text in error.errors.items()}) from None

    def to_dict(self) -> dict[str, Any]:
        """The canonical form, ready for JSON: each choice as its kind with all of its parameters, client numbers as
        strings."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields_of(type(self))}

    def _conflicts(self) -> dict[str, str]:
        """Fields that are well formed alone but not together."""
        errors = {}
        if self.precision == "tf32" and self.device not in ("cuda", "auto"):
            errors["precision"] = f"tf32 is for device cuda; this one is {self.device}"
        if self.backend == "ray" and self.device not in ("cpu", "auto"):
            errors["device"] = f"ray trains on processors; {self.device} is for the other backends"
        errors |= self._strangers()
        info = self.data_info
        held_out = self.validation_size if self.validation_size is not None else default_validation_size(info)
        left = info.num_train - held_out
        if left < self.num_clients:
            errors["num_clients"] = (
                f"{self.num_clients} clients need at least as many examples; {info.label} has {max(left, 0)} left "
                f"after {held_out} are held out"
            )
        if self.partition.kind == "pathological" and not errors:
            shards = self.num_clients * self.partition["labels_per_client"]
            if shards > left:
                errors["partition.labels_per_client"] = (
                    f"{shards} shards need at least as many examples; {left} are left"
                )
        return errors | self._unguarded()

    def _strangers(self) -> dict[str, str]:
        """Where clients are named that do not exist, or nobody is left to be sampled."""
        there = f"num_clients is {self.num_clients}"
        errors = {}
        late = [client for client in self.behaviours if client > self.num_clients]
        if late:
            errors["behaviours"] = f"client {late[0]} does not exist; {there}"
        elif text := behaviours.at_odds(self.behaviours):
            errors["behaviours"] = text
        elif self.num_identities > MOST_IDENTITIES:
            errors["behaviours"] = f"{self.num_identities:,} identities are more than {MOST_IDENTITIES:,}"
        if self.sampler.kind == "listed":
            if self.num_identities > self.num_clients:
                there += f", with further identities {self.num_identities}"
            for name in ("include", "exclude"):
                if named := [client for client in self.sampler[name] if client > self.num_identities]:
                    errors[f"sampler.{name}"] = f"client {named[0]} does not exist; {there}"
            if not errors and not self.num_listed:
                errors["sampler"] = "nobody is left to take part"
        return errors

    def _unguarded(self) -> dict[str, str]:
        """Where the strategy cannot bear as many malicious clients in a round as it is to guard against."""
        strategy = self.strategy.kind
        if strategy not in MOST_MALICIOUS:
            return {}
        size, given = self.cohort_size, self.strategy["num_malicious_clients"]
        malicious, most = size // 5 if given is None else given, MOST_MALICIOUS[strategy](size)
        if most < 0:
            return {"strategy": f"{strategy} needs rounds of at least 3 clients; this one has {size}"}
        if malicious > most:
            text = f"{strategy} can guard against at most {most} of {size} clients in a round, not {malicious}"
            return {"strategy.num_malicious_clients": text}
        return {}

    @property
    def data_info(self) -> DatasetInfo:
        """Of the data set; `auto` counts as MNIST."""
        return DATASETS["mnist" if self.dataset.kind == "auto" else self.dataset.kind]

    @property
    def split_seed(self) -> int:
        """The seed of all that deals the data."""
        return self.seed if self.data_seed is None else self.data_seed

    @property
    def absent_vote(self) -> bool:
        """Scheme 1: who sends nothing is a zero vote in robust strategies, and plays under renormalised weights."""
        return self.scheme == 1

    @property
    def num_listed(self) -> int:
        """Clients that the sampler may draw, each identity for one."""
        if self.sampler.kind != "listed":
            return self.num_identities
        named, without = set(self.sampler["include"]), set(self.sampler["exclude"])
        return len(named - without) if named else self.num_identities - len(without)

    @cached_property
    def holders(self) -> dict[int, int]:
        """Whose each identity is that a client has beside its own number, from num_clients + 1 on."""
        return behaviours.holders(self.num_clients, self.drawn_behaviours())

    @cached_property
    def num_identities(self) -> int:
        """Numbers under which somebody may take part: clients, and their further identities."""
        return behaviours.num_identities(self.num_clients, self.behaviours.values(), self.population)

    @property
    def cohort_size(self) -> int:
        """Clients in each round, each identity for one."""
        return min(
            sampled(self.num_identities, self.fraction_fit, self.min_available_clients),
            self.num_listed,
        )

    def resolved(self, dataset: str) -> Self:
        """The same configuration with a concrete data set, validation size and behaviour of each client; checked again
        against them."""
        size = self.validation_size
        if size is None:
            size = default_validation_size(DATASETS[dataset])
        given: dict[str, Any] = {"dataset": dataset, "validation_size": size, "population": ()}
        return dataclasses.replace(self, behaviours=self.drawn_behaviours(), **given)

    def drawn_behaviours(self) -> dict[int, Mapping[str, Any]]:
        """Of the clients that are named, and of those that the population's shares draw among the others."""
        drawn = dict(self.behaviours)
        if self.population:
            others = [client for client in range(1, self.num_clients + 1) if client not in drawn]
            others.sort(key=lambda client: entropy.digest(self.seed, "population", 0, client))
            counts = behaviours.drawn_numbers(self.num_clients, len(drawn), self.population)
            for entry, count in zip(self.population, counts, strict=True):
                of_kind = {name: value for name, value in entry.items() if name != "share"}
                members = others[:count]
                del others[:count]
                if behaviours.has(entry, "colludes"):
                    of_kind["group"] = sorted(members)
                    if count < 2:
                        continue  # with nobody else it is honest
                drawn |= dict.fromkeys(members, of_kind)
        return {client: drawn[client] for client in sorted(drawn) if drawn[client]["kind"] != "honest"}


def sampled(num_clients: int, fraction_fit: float, min_available_clients: int) -> int:
    """How many clients a round has where all may be sampled."""
    return min(num_clients, max(min_available_clients, round(fraction_fit * num_clients)))


def fields_of(config: type[Any]) -> tuple[dataclasses.Field[Any], ...]:
    """The fields that people set; what else a configuration holds carries no help."""
    return tuple(field for field in dataclasses.fields(config) if field.metadata)


def default_of(field: dataclasses.Field[Any]) -> Any:
    """As people would write it: a kind's name for a choice."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def default_validation_size(info: DatasetInfo) -> int:
    return min(1000, info.num_train // 10)


def unflattened(
    config: type[TrainingConfig], values: Mapping[str, Any], drops: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Fields with each flat name moved into its choice, and under which flat name each of those was given.

    See TrainingConfig.from_dict. What is wrong with a choice itself is left for the configuration to say.
    """
    fields = {field.name: field for field in fields_of(config)}
    nested, errors, given = {}, {}, {}
    for name, value in values.items():
        if name in fields:
            nested[name] = value
        elif name not in config.FLAT:
            errors[str(name)] = "there is no such field"
    for flat in [name for name in values if name in config.FLAT]:
        name, parameter = config.FLAT[flat]
        of_choice = nested.get(name, fields[name].default)
        inside = {"kind": of_choice} if isinstance(of_choice, str) else of_choice
        kind = inside.get("kind") if isinstance(inside, Mapping) else None
        known = kinds.family(fields[name].metadata["family"])
        if not isinstance(kind, str) or kind not in known:
            continue  # which is an error of its own
        if parameter in known[kind].parameters:
            if parameter in inside:
                errors[flat] = f"is given twice, here and in {name}"
            nested[name] = {**inside, parameter: values[flat]}
            given[f"{name}.{parameter}"] = flat
        elif flat not in drops or values[flat] not in (drops[flat], None):
            errors[flat] = lacks(known[kind], parameter)
    if errors:
        try:
            config(**nested)
        except ConfigError as error:
            errors = {given.get(name, name): text for name, text in error.errors.items()} | errors
        raise ConfigError(errors)
    return nested, given


def _plain(value: Any) -> Any:
    if isinstance(value, Choice):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value
