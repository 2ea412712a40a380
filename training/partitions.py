"""How the training examples are split over the clients. Indices in, indices out; every example lands exactly once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from training import behaviours
from training.config import TrainingConfig
from training.events import TrainingError
from training.seeds import numpy_generator

Indices = NDArray[np.int64]
# labels, number of clients, generator, parameters -> indices for client 1, 2, ...; some may be empty
Partition = Callable[..., list[Indices]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Holdings:
    """Who holds which training examples; all indices ascend, and but for copies no example is held twice."""

    validation: Indices  # the server's own, never in a client's hands
    clients: tuple[Indices, ...]  # client 1 first, after the last their further identities
    undivided: Mapping[int, Indices] = field(
        default_factory=dict
    )  # all that a client holds who divides it over several


def deal(config: TrainingConfig, labels: Indices) -> Holdings:
    """Draws the server's validation set, then splits the rest of the training set over the clients; who shows up under
    several identities divides its part over them, or holds it under each.

    `labels` int64 [num_train]; the configuration must be resolved. ValueError where a client would be empty,
    TrainingError where an identity would.
    """
    if config.validation_size is None:
        raise ValueError("validation_size: the configuration is not resolved")
    order = numpy_generator(config.split_seed, "validation").permutation(len(labels))
    validation = np.sort(order[: config.validation_size])
    rest = np.sort(order[config.validation_size :])
    parts = split(config, labels[rest], numpy_generator(config.split_seed, "partition"))
    return with_identities(config, validation, [rest[part] for part in parts])


def with_identities(config: TrainingConfig, validation: Indices, dealt: list[Indices]) -> Holdings:
    clients, undivided = list(dealt), {}
    for holder, given in config.behaviours.items():
        further, held = behaviours.further(given), dealt[holder - 1]
        if behaviours.has(given, "divided"):
            if len(held) <= further:
                text = f"client {holder} holds {len(held)} examples, too few for {1 + further} identities"
                raise TrainingError(f"behaviours: {text}")
            order = numpy_generator(config.split_seed, "behaviour", 0, holder).permutation(held)
            undivided[holder] = held
            clients[holder - 1], *others = (np.sort(part) for part in np.array_split(order, 1 + further))
        else:
            others = [held] * further
        clients += others
    return Holdings(validation=validation, clients=tuple(clients), undivided=undivided)


def split(config: TrainingConfig, labels: Indices, rng: np.random.Generator) -> list[Indices]:
    """Indices into `labels` for client 1, 2, ..., each ascending and none empty; together every index once."""
    if len(labels) < config.num_clients:
        raise ValueError(f"num_clients: {len(labels)} examples are too few for {config.num_clients} clients")
    partition: Partition = config.partition.load()
    parts = partition(labels, config.num_clients, rng, **config.partition.parameters)
    return [np.sort(part) for part in _without_empty(parts)]


def iid(labels: Indices, num_clients: int, rng: np.random.Generator) -> list[Indices]:
    """Shuffled and cut into parts whose sizes differ by at most one."""
    return np.array_split(rng.permutation(len(labels)), num_clients)


def dirichlet(labels: Indices, num_clients: int, rng: np.random.Generator, *, alpha: float) -> list[Indices]:
    """Each class is divided over the clients by its own draw from Dirichlet(alpha).

    Per class over clients as in Yurochkin et al. 2019 (Bayesian nonparametric federated learning, section 4);
    Hsu et al. 2019 (arXiv 1909.06335) draw per client over classes, which leaves examples over or short.
    """
    classes = [_divided(np.flatnonzero(labels == label), num_clients, rng, alpha) for label in np.unique(labels)]
    return [np.concatenate(pieces) for pieces in zip(*classes, strict=True)]


def pathological(
    labels: Indices, num_clients: int, rng: np.random.Generator, *, labels_per_client: int
) -> list[Indices]:
    """Sorted by label, cut into shards, `labels_per_client` shards to each (McMahan et al. 2017, section 3)."""
    shuffled = rng.permutation(len(labels))
    by_label = shuffled[np.argsort(labels[shuffled], kind="stable")]
    shards = np.array_split(by_label, num_clients * labels_per_client)
    dealt = rng.permutation(len(shards)).reshape(num_clients, labels_per_client)
    return [np.concatenate([shards[shard] for shard in hand]) for hand in dealt]


def quantity(labels: Indices, num_clients: int, rng: np.random.Generator, *, alpha: float) -> list[Indices]:
    """Sizes from Dirichlet(alpha), labels alike for all (Li et al. 2022, arXiv 2102.02079, quantity skew)."""
    return _divided(np.arange(len(labels)), num_clients, rng, alpha)


def _divided(indices: Indices, num_clients: int, rng: np.random.Generator, alpha: float) -> list[Indices]:
    """The indices, shuffled, in one piece per client with sizes in proportion to one draw from Dirichlet(alpha)."""
    ends = np.cumsum(_dirichlet(alpha, num_clients, rng)) * len(indices)
    cuts = np.minimum(np.rint(ends[:-1]).astype(np.int64), len(indices))
    return np.split(rng.permutation(indices), cuts)


def _dirichlet(alpha: float, size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """One draw from the symmetric Dirichlet, by logarithms of gamma variates.

    A gamma variate of shape 0.001 is mostly below the smallest double, and normalising zeros gives NaN; its
    logarithm is an ordinary number: log Gamma(a) = log Gamma(a + 1) + log(U) / a (Marsaglia and Tsang 2000,
    section 6).
    """
    logs = np.log(rng.standard_gamma(alpha + 1.0, size)) + np.log1p(-rng.random(size)) / alpha
    shares = np.exp(logs - logs.max())
    return np.asarray(shares / shares.sum())


def _without_empty(parts: list[Indices]) -> list[Indices]:
    """Gives each empty client one example of whoever holds most then, the first of equals."""
    parts = list(parts)
    sizes = np.array([len(part) for part in parts])
    for empty in np.flatnonzero(sizes == 0):
        donor = int(sizes.argmax())
        parts[empty], parts[donor] = parts[donor][-1:], parts[donor][:-1]
        sizes[empty], sizes[donor] = 1, sizes[donor] - 1
    return parts
