"""What a training run is asked to do. Stdlib only: pages, JSON and shell read it without PyTorch.

Every field carries its help, bounds and choices as metadata, so the form, the JSON schema, the command line and the
validation all say the same thing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self


class ConfigError(ValueError):
    """One or more fields that cannot be used; `errors` maps each field's name to a sentence."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        self.errors = dict(errors)
        super().__init__("; ".join(f"{name}: {text}" for name, text in self.errors.items()))


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
SCHEME = 2  # the number of today's meaning of a configuration; it rises whenever an unchanged one comes to mean another
DENSE_MODELS = ("mlp", "2nn", "logistic")
MODELS = ("mlp", "2nn", "cnn", "logistic")
STRATEGIES = (
    *("fedavg", "fedavgm", "fedadam", "fedprox"),
    *("trimmed_mean", "median", "multi_krum", "centred_clipping"),
)
ROBUST = ("trimmed_mean", "median", "multi_krum", "centred_clipping")  # means over the clients that sent something
SERVER_LR = {"fedavgm": 1.0, "fedadam": 0.03}  # 0.03: on MNIST, ten clients and rounds, better than 0.01, IID or not
MOST_MALICIOUS: dict[str, Callable[[int], int]] = {  # that a strategy can bear among n clients in a round
    "trimmed_mean": lambda n: (n - 1) // 2,  # something must be left in the middle: n > 2f (Yin et al. 2018)
    "multi_krum": lambda n: (n - 3) // 2,  # n >= 2f + 3 (Blanchard et al. 2017)
}


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One number that a behaviour takes."""

    default: float
    minimum: float
    maximum: float
    help: str


BEHAVIOURS: dict[str, dict[str, Parameter]] = {
    "free_rider": {},
    "label_flip": {
        "fraction": Parameter(default=1.0, minimum=0.0, maximum=1.0, help="share of its labels that it flips")
    },
    "sign_flip": {
        "scale": Parameter(
            default=1.0, minimum=0.0, maximum=100.0, help="how many times as large the reversed update is"
        )
    },
    "low_effort": {
        "fraction": Parameter(
            default=0.2, minimum=0.0, maximum=1.0, help="share of its local steps that it takes, at least one"
        )
    },
    "dropout": {
        "probability": Parameter(
            default=0.5,
            minimum=0.0,
            maximum=1.0,
            help="how likely it is to send nothing in a round: averaging strategies then count it as no change, at the "
            "full weight of its examples; robust ones are over the updates that arrived",
        )
    },
}


def option(
    default: Any,
    help: str,
    *,
    group: str,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """A dataclass field with its help text and bounds; `above` and `below` exclude the bound itself."""
    bounds = {"minimum": minimum, "maximum": maximum, "above": above, "below": below}
    metadata = {"help": help, "group": group, "choices": choices, **bounds}
    if isinstance(default, Mapping):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """What is trained, by whom, on what. Raises ConfigError that names every bad field at once."""

    dataset: str = option(
        "auto",
        "Images to learn from; auto takes MNIST where it can be had, else scikit-learn's digits",
        group="Data",
        choices=("auto", *DATASETS),
    )
    partition: str = option(
        "iid",
        "How the examples are split over the clients",
        group="Data",
        choices=("iid", "dirichlet", "pathological", "quantity"),
    )
    alpha: float = option(
        0.5,
        "Dirichlet concentration: small values make clients more unlike (dirichlet, quantity)",
        group="Data",
        minimum=0.001,
        maximum=1_000_000.0,
    )
    labels_per_client: int = option(
        2, "Sorted shards that each client gets (pathological)", group="Data", minimum=1, maximum=100
    )
    validation_size: int | None = option(
        None,
        "Examples that the server holds out to measure contributions; empty: 1,000, or a tenth of a small set",
        group="Data",
        minimum=0,
        maximum=50_000,
    )
    model: str = option("mlp", "The network that the clients train", group="Training", choices=MODELS)
    num_clients: int = option(10, "Data holders that take part", group="Clients", minimum=1, maximum=1_000_000)
    num_rounds: int = option(10, "Rounds of training", group="Training", minimum=1, maximum=10_000)
    fraction_fit: float = option(
        1.0, "Share of the clients sampled for each round", group="Clients", minimum=0.0, maximum=1.0
    )
    min_available_clients: int = option(
        2, "Fewest clients in a round, whatever the share", group="Clients", minimum=1, maximum=1_000_000
    )
    behaviours: Mapping[int, Mapping[str, Any]] = option(
        {}, "Clients that do not play fair; all others are honest", group="Clients"
    )
    local_epochs: int = option(
        1, "Passes over its own data that a client makes in a round", group="Training", minimum=1, maximum=100
    )
    batch_size: int = option(32, "Examples in a local batch", group="Training", minimum=1, maximum=60_000)
    lr: float = option(0.05, "Learning rate of local SGD", group="Training", above=0.0, maximum=100.0)
    momentum: float = option(0.0, "Momentum of local SGD", group="Training", minimum=0.0, below=1.0)
    weight_decay: float = option(0.0, "Weight decay of local SGD", group="Training", minimum=0.0, maximum=1.0)
    strategy: str = option(
        "fedavg",
        "How the server joins the updates",
        group="Training",
        choices=STRATEGIES,
    )
    proximal_mu: float = option(
        0.1,
        "Pull of each local step back to the global weights; 0 is fedavg (fedprox)",
        group="Training",
        minimum=0.0,
        maximum=100.0,
    )
    server_lr: float | None = option(
        None,
        "Step size of the server; empty: 1 for fedavgm, 0.03 for fedadam (fedavgm, fedadam)",
        group="Training",
        above=0.0,
        maximum=100.0,
    )
    server_momentum: float = option(
        0.9,
        "Share of the server's last step that it takes again; 0 is fedavg (fedavgm)",
        group="Training",
        minimum=0.0,
        below=1.0,
    )
    beta_1: float = option(0.9, "Decay of the mean of past updates (fedadam)", group="Training", minimum=0.0, below=1.0)
    beta_2: float = option(
        0.99, "Decay of the mean of their squares (fedadam)", group="Training", minimum=0.0, below=1.0
    )
    tau: float = option(
        0.001,
        "Adaptivity: the larger, the more alike the steps of all weights are to plain ones (fedadam)",
        group="Training",
        above=0.0,
        maximum=1000.0,
    )
    num_malicious_clients: int | None = option(
        None,
        "Clients in a round that the server guards against; empty: a fifth of them (trimmed_mean, multi_krum)",
        group="Training",
        minimum=0,
        maximum=1_000_000,
    )
    clipping_norm: float | None = option(
        None,
        "Distance from the centre to which updates are cut; empty: the median of their norms (centred_clipping)",
        group="Training",
        above=0.0,
        maximum=1_000_000.0,
    )
    evaluate_every: int = option(
        1,
        "Rounds between two looks at the test set; the last round always",
        group="Training",
        minimum=1,
        maximum=10_000,
    )
    seed: int = option(0, "Fixes every random draw", group="Run", minimum=0, maximum=2**32 - 1)
    backend: str = option(
        "auto",
        "What runs the local training, ray on many machines; results differ in rounding at most",
        group="Run",
        choices=("auto", "sequential", "batched", "ray"),
    )
    device: str = option(
        "cpu",
        "Where tensors live; auto: a CUDA GPU where there is one",
        group="Run",
        choices=("cpu", "cuda", "mps", "auto"),
    )
    precision: str = option(
        "float32",
        "How products are computed; tf32 is faster on a CUDA GPU and keeps three digits of each factor",
        group="Run",
        choices=("float32", "tf32"),
    )

    # Under which meaning: the number of today's for all that is asked for, and of a row for ever the one under which it
    # was queued. Not a field of the configuration: it is part of the hash and stands beside the record.
    scheme: int = dataclasses.field(default=SCHEME)

    def __post_init__(self) -> None:
        errors: dict[str, str] = {}
        for field in fields_of(type(self)):
            try:
                object.__setattr__(self, field.name, _checked(field, getattr(self, field.name)))
            except ValueError as error:
                errors[field.name] = str(error)
        if not errors:
            errors = self._conflicts()
        if errors:
            raise ConfigError(errors)

    def _conflicts(self) -> dict[str, str]:
        """Fields that are well formed alone but not together."""
        errors = {}
        if self.precision == "tf32" and self.device not in ("cuda", "auto"):
            errors["precision"] = f"tf32 is for device cuda; this one is {self.device}"
        if self.backend == "ray" and self.device not in ("cpu", "auto"):
            errors["device"] = f"ray trains on processors; {self.device} is for the other backends"
        late = [client for client in self.behaviours if client > self.num_clients]
        if late:
            errors["behaviours"] = f"client {late[0]} does not exist; num_clients is {self.num_clients}"
        info = DATASETS["mnist" if self.dataset == "auto" else self.dataset]
        held_out = self.validation_size if self.validation_size is not None else default_validation_size(info)
        left = info.num_train - held_out
        if left < self.num_clients:
            errors["num_clients"] = (
                f"{self.num_clients} clients need at least as many examples; {info.label} has {max(left, 0)} left "
                f"after {held_out} are held out"
            )
        shards = self.num_clients * self.labels_per_client
        if self.partition == "pathological" and not errors and shards > left:
            errors["labels_per_client"] = f"{shards} shards need at least as many examples; {left} are left"
        return errors | self._unguarded()

    def _unguarded(self) -> dict[str, str]:
        """Where the strategy cannot bear as many malicious clients in a round as it is to guard against."""
        if self.strategy not in MOST_MALICIOUS:
            return {}
        size = self.cohort_size
        malicious, most = self.malicious_among(size), MOST_MALICIOUS[self.strategy](size)
        if most < 0:
            return {"strategy": f"{self.strategy} needs rounds of at least 3 clients; this one has {size}"}
        if malicious > most:
            text = f"{self.strategy} can guard against at most {most} of {size} clients in a round, not {malicious}"
            return {"num_malicious_clients": text}
        return {}

    def malicious_among(self, cohort_size: int) -> int:
        """How many clients of a round of this size robust strategies take for malicious."""
        return cohort_size // 5 if self.num_malicious_clients is None else self.num_malicious_clients

    @property
    def absent_vote(self) -> bool:
        """Scheme 1: who sends nothing is a zero vote in robust strategies, and plays under renormalised weights."""
        return self.scheme == 1

    @property
    def cohort_size(self) -> int:
        """Clients in each round."""
        wanted = max(self.min_available_clients, round(self.fraction_fit * self.num_clients))
        return min(wanted, self.num_clients)

    def resolved(self, dataset: str) -> Self:
        """The same configuration with a concrete data set and validation size; checked again against them."""
        size = self.validation_size
        if size is None:
            size = default_validation_size(DATASETS[dataset])
        return dataclasses.replace(self, dataset=dataset, validation_size=size)


def fields_of(config: type[TrainingConfig]) -> tuple[dataclasses.Field[Any], ...]:
    """The fields that people set; what else a configuration holds carries no help."""
    return tuple(field for field in dataclasses.fields(config) if field.metadata)


def default_validation_size(info: DatasetInfo) -> int:
    return min(1000, info.num_train // 10)


def _checked(field: dataclasses.Field[Any], value: Any) -> Any:
    """The value in its declared type and within its bounds, or a ValueError that says what was expected."""
    if field.name == "behaviours":
        return _behaviours(value)
    kind = str(field.type)
    if kind.endswith("| None") and value is None:
        return None
    if kind.startswith("int"):
        return _bounded(field, _whole(value))
    if kind.startswith("float"):
        return _bounded(field, _number(value))
    return _choice(field, value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        raise ValueError(f"{_shown(value)} is not a whole number")
    return int(value)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{_shown(value)} is not a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{_shown(value)} is not a finite number")
    return number + 0.0  # -0.0 and 0.0 are one configuration


def _bounded(field: dataclasses.Field[Any], value: Any) -> Any:
    limits = field.metadata
    if (
        (limits["minimum"] is not None and value < limits["minimum"])
        or (limits["maximum"] is not None and value > limits["maximum"])
        or (limits["above"] is not None and value <= limits["above"])
        or (limits["below"] is not None and value >= limits["below"])
    ):
        raise ValueError(f"{_shown(value)} is not {bounds_text(limits)}")
    return value


def bounds_text(limits: Mapping[str, Any]) -> str:
    """The bounds of a field in words: 'at least 1 and at most 100'."""
    words = {"minimum": "at least", "above": "above", "maximum": "at most", "below": "below"}
    return " and ".join(f"{word} {limits[name]:,}" for name, word in words.items() if limits[name] is not None)


def _choice(field: dataclasses.Field[Any], value: Any) -> str:
    if not isinstance(value, str) or value not in field.metadata["choices"]:
        raise ValueError(f"{_shown(value)} is not one of {', '.join(field.metadata['choices'])}")
    return value


def _behaviours(value: Any) -> dict[int, dict[str, Any]]:
    """Sorted by client, parameters filled in, honest clients left out, so that equal meanings are equal values."""
    if not isinstance(value, Mapping):
        raise ValueError('expected a mapping from client numbers to {"kind": ...}')
    checked = {}
    for key, behaviour in value.items():
        client = _client_number(key)
        if client in checked:
            raise ValueError(f"client {client} is named twice")
        checked[client] = _behaviour(client, behaviour)
    return {client: checked[client] for client in sorted(checked) if checked[client]["kind"] != "honest"}


def _client_number(key: Any) -> int:
    text = str(key)
    if isinstance(key, bool) or not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) >= 1):
        raise ValueError(f"{_shown(key)} is not a client number; clients are numbered from 1")
    return int(text)


def _behaviour(client: int, value: Any) -> dict[str, Any]:
    kind = value.get("kind") if isinstance(value, Mapping) else None
    kinds = {"honest": {}, **BEHAVIOURS}
    if not isinstance(kind, str) or kind not in kinds:
        raise ValueError(f"client {client}: kind {_shown(kind)} is not one of {', '.join(kinds)}")
    unknown = sorted(str(name) for name in set(value) - {"kind", *kinds[kind]})
    if unknown:
        raise ValueError(f"client {client}: {kind} has no {_shown(unknown[0])}")
    filled = {name: value.get(name, parameter.default) for name, parameter in kinds[kind].items()}
    return {"kind": kind, **{name: _parameter(client, kind, name, given) for name, given in filled.items()}}


def _parameter(client: int, kind: str, name: str, value: Any) -> float:
    parameter = BEHAVIOURS[kind][name]
    try:
        number = _number(value)
    except ValueError as error:
        raise ValueError(f"client {client}: {name}: {error}") from None
    if not parameter.minimum <= number <= parameter.maximum:
        raise ValueError(
            f"client {client}: {name}: {_shown(value)} is not from {parameter.minimum:g} to {parameter.maximum:g}"
        )
    return number


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
