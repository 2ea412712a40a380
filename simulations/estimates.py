"""What a configuration will need, told before it is started; what the machine cannot bear is refused. No PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from simulations.config import SimulationConfig
from training.catalogue import DatasetInfo
from training.config import ConfigError

GIGABYTE = 1_000_000_000
MEGABYTE = 1_000_000
LOADED = 560 * MEGABYTE  # Python with PyTorch, before it has any data
OF_A_WORKER = 75 * MEGABYTE  # a thread that trains or evaluates, with what it writes on
PLAYERS_BYTES = 128 << 20  # training.game: the first layers of all players for one tile of samples, at most
MAX_TILE = 512
FEW = 10  # training.lines: so small a cohort's updates are kept, to report them one by one
AT_ONCE = 2**22  # training.strategies.coordinates: values that are sorted, 24 bytes each
COMPARED = 2**16  # training.strategies.krum: weights of each update, 12 bytes each
FIRST_LAYER = {"mlp": 128, "2nn": 200, "logistic": 10}


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes at the peak of a run on the processor, by what takes them; within a quarter of what is measured."""

    program: int
    data: int
    updates: int
    strategy: int
    valuation: int

    @property
    def total(self) -> int:
        return self.program + self.data + self.updates + self.strategy + self.valuation


def memory(config: SimulationConfig, processors: int = 2) -> Memory:
    """Of a run's trainer. `auto` counts as what it may become that takes most."""
    info = config.data_info
    size = 4 * num_parameters(config.model.kind, info)
    valued = config.asks_game
    cohort = config.cohort_size
    kept = cohort if valued or not config.strategy.has("mean") or cohort <= FEW else 4 * processors
    held_out = min(1000, info.num_train // 10) if config.validation_size is None else config.validation_size
    joining = 0
    if config.strategy.kind in ("trimmed_mean", "median"):
        joining = 24 * min(AT_ONCE, cohort * size // 4)
    elif config.strategy.kind == "multi_krum":
        joining = 12 * cohort * min(COMPARED, size // 4) + 32 * cohort**2
    game = OF_A_WORKER * processors if valued else 0
    if valued and config.model.has("dense"):
        game += min(PLAYERS_BYTES, 4 * (cohort + 2) * FIRST_LAYER[config.model.kind] * min(MAX_TILE, held_out))
    return Memory(
        program=LOADED,
        data=4 * prod(info.shape) * (info.num_train + info.num_test + held_out),
        updates=size * (kept + 4),  # and the weights before and after, their sum and its float64
        strategy=joining,
        valuation=game,
    )


def num_parameters(model: str, info: DatasetInfo) -> int:
    """Of the network that training.networks builds by this name."""
    channels, height, width = info.shape
    inputs, classes = prod(info.shape), info.num_classes
    if model == "cnn":
        flat = 64 * (height // 4) * (width // 4)
        return 32 * (25 * channels + 1) + 64 * (25 * 32 + 1) + 512 * (flat + 1) + classes * 513
    widths = {"logistic": (), "mlp": (128,), "2nn": (200, 200)}[model]
    layers = zip((inputs, *widths), (*widths, classes), strict=True)
    return sum(outputs * (into + 1) for into, outputs in layers)


def refuse_too_large(config: SimulationConfig, most_bytes: int) -> None:
    """ConfigError that names the field to change where a run needs more memory than that."""
    needs = memory(config)
    if needs.total <= most_bytes:
        return
    figure = (
        f"this run needs about {_gigabytes(needs.total)} of memory, and {_gigabytes(most_bytes)} are allowed "
        f"(FEDSITE_MAX_MEMORY)"
    )
    of_clients = needs.updates + needs.strategy
    most = (most_bytes - needs.total + of_clients) * config.cohort_size // of_clients
    if most < 1:
        raise ConfigError({"dataset" if needs.data > of_clients else "model": figure})
    field = "fraction_fit" if config.cohort_size > config.min_available_clients else "min_available_clients"
    text = f"{figure}, {_gigabytes(of_clients)} for the updates of {config.cohort_size:,} clients a round"
    raise ConfigError({field: f"{text}; some {_two_digits(most):,} fit"})


def _two_digits(number: int) -> int:
    """Rounded down: it is an estimate."""
    unit = 10 ** max(len(str(number)) - 2, 0)
    return number // unit * unit


def _gigabytes(number: int) -> str:
    return f"{number / GIGABYTE:.1f} GB"
