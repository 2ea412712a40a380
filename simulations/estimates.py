"""What a configuration will need, told before it is started; what the machine cannot bear is refused. No PyTorch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import kinds
from kinds import Kind
from simulations import durations
from simulations.config import SimulationConfig, scheduled_tokens
from simulations.durations import Pace, Past, held_out_of, size_of
from training.config import ConfigError

GIGABYTE = 1_000_000_000
MEGABYTE = 1_000_000
LOADED = 560 * MEGABYTE  # Python with PyTorch, before it has any data
OF_A_WORKER = 75 * MEGABYTE  # a thread that trains or evaluates, with what it writes on
PLAYERS_BYTES = 128 << 20  # training.scores: the first layers of all players for one tile of samples, at most
MAX_TILE = 512
FEW = 10  # training.lines: so small a cohort's updates are kept, to report them one by one
AT_ONCE = 2**22  # training.strategies.coordinates: values that are sorted, 24 bytes each
COMPARED = 2**16  # training.products: weights of each update, 12 bytes each
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
    size = 4 * size_of(config.model.kind, info).parameters
    valued = config.asks_game
    cohort = config.cohort_size
    # updates summed for products: before and after the round, and what of them is written to the checkpoint
    summed = 6 * config.num_identities if "summed" in config.keeps else 0
    kept = cohort if config.looks or not config.strategy.has("mean") or cohort <= FEW else 4 * processors
    if _has(config, lambda kind: "conspires" in kind.traits):  # all of them lie there until it has looked at them
        kept = 2 * cohort if kept >= cohort else cohort
    altered = _has(config, lambda kind: kind.name == "feature_noise")
    held_out = held_out_of(config)
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
        data=round(
            4 * prod(info.shape) * (info.num_train * (2 + altered if altered else 1) + info.num_test + held_out)
        ),
        updates=size * (kept + summed + 4),  # and the weights before and after, their sum and its float64
        strategy=joining,
        valuation=game,
    )


def _has(config: SimulationConfig, wanted: Callable[[Kind], bool]) -> float:
    """The share of the clients whose behaviour is of a wanted kind."""
    names = {name for name, kind in kinds.family("behaviour").items() if wanted(kind)}
    named = sum(given["kind"] in names for given in config.behaviours.values())
    drawn: float = sum(each["share"] for each in config.population if each["kind"] in names)
    return named / config.num_clients + drawn


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


def _rounds(fit: int) -> str:
    return "one round fits" if fit == 1 else f"some {_two_digits(fit):,} rounds fit"


def _two_digits(number: int) -> int:
    """Rounded down: it is an estimate."""
    unit = int(10 ** max(len(str(number)) - 2, 0))
    return number // unit * unit


def _gigabytes(number: int) -> str:
    return f"{number / GIGABYTE:.1f} GB"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a run will take. Seconds within a factor of two on a machine that has run something like it before, memory
    within a quarter, rows and coalitions at most."""

    seconds: float
    paced_by: int  # runs from which the machine's pace is known; 0: that of the model's own machine
    memory_bytes: int
    rows: int
    coalitions: int
    tokens: float | None  # over all rounds at most, of an improvement about; None: nobody knows before

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def estimate(config: SimulationConfig, past: Sequence[Past] = ()) -> Estimate:
    """`past`: recent runs here, see simulations.paces."""
    pace = Pace.of(past, config)
    return Estimate(
        seconds=durations.seconds(config, pace),
        paced_by=pace.runs,
        memory_bytes=memory(config).total,
        rows=rows(config),
        coalitions=durations.coalitions(config) * config.num_rounds,
        tokens=expected_tokens(config),
    )


def rows(config: SimulationConfig) -> int:
    """That a whole run writes: of clients and accounts, and in each round of events, contributions and transfers."""
    cohort = config.cohort_size
    events = cohort + 5 if cohort <= FEW else 7
    valued = [economy.is_valued for _, economy in config.economies]
    paid = sum(valued) * (cohort + 3)  # a transaction, what is minted and burned, what each client gets
    shadows = 2 * sum(valued[1:])  # what each made of the round, and the coalitions that it asked for
    return _before_rounds(config) + config.num_rounds * (2 + events + cohort + paid + shadows)


def expected_tokens(config: SimulationConfig) -> float | None:
    """That the paying economy mints: of a pool that is `scheduled`, at most so many. An improvement on the best so far
    pays for the way from where it begins to 0; an untrained model guesses, at a loss of about ln(classes). Never more
    than the budget."""
    _, economy = config.economies[0]
    if not economy.is_valued:
        return 0.0
    tokens = scheduled_tokens(economy.pool, config.num_rounds)
    if economy.pool.kind == "improvement":
        tokens = float(economy.pool["scaling_factor"]) * math.log(config.data_info.num_classes)
    budget = economy.budget_tokens
    return tokens if budget is None else min(budget, budget if tokens is None else tokens)


def refuse(
    config: SimulationConfig,
    *,
    most_bytes: int,
    most_rows: int = 0,
    most_seconds: int = 0,
    past: Sequence[Past] = (),
) -> None:
    """ConfigError with the figure and the field to change where a run needs more than that; 0 is no limit."""
    refuse_too_large(config, most_bytes)
    if most_rows and (needed := rows(config)) > most_rows:
        text = f"this run writes about {needed:,} rows, and {most_rows:,} are allowed (FEDSITE_MAX_ROWS)"
        of_round = (needed - _before_rounds(config)) // config.num_rounds
        fit = (most_rows - _before_rounds(config)) // of_round
        if fit < 1:
            raise ConfigError({"num_clients": text})
        raise ConfigError({"num_rounds": f"{text}; {_rounds(fit)}"})
    if most_seconds and (needs := durations.seconds(config, Pace.of(past, config))) > most_seconds:
        text = f"this run takes about {duration(needs)}, and {duration(most_seconds)} are allowed (FEDSITE_MAX_SECONDS)"
        each = (needs - durations.START_SECONDS) / config.num_rounds
        fit = int((most_seconds - durations.START_SECONDS) / each)
        raise ConfigError({"num_rounds": f"{text}; {_rounds(fit)}" if fit > 0 else text})


def _before_rounds(config: SimulationConfig) -> int:
    return 8 + 2 * config.num_identities + len(config.shadows) * (4 + 2 * config.num_identities)


def duration(seconds: float) -> str:
    """In words, of two digits: it is an estimate."""
    for unit, name in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.2g} {name}"
    return f"{max(1, round(seconds))} seconds"
