"""How long a configuration will take. No PyTorch, no Django.

The model counts what is computed, at the speeds of a machine with two cores and 180 GFLOP/s; a machine that has run
something before knows how it compares, see `Pace`. Of backends it knows the fast one, of devices the processor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import kinds
from simulations.config import SimulationConfig
from training.catalogue import DatasetInfo

TRAINED = 1.8e11  # floating-point operations a second in training, dense or convolutional
EVALUATED = 1.2e11
MOVED = 2e10  # bytes a second of weights and activations that are read and written
START_SECONDS = 5.0  # PyTorch and the data
ROUND_SECONDS = 0.02  # what a round's record takes, and a client's in it
CLIENT_SECONDS = 0.0002
OF_STRATEGY = {
    "trimmed_mean": 40.0,
    "median": 40.0,
    "multi_krum": 12.0,
    "centred_clipping": 12.0,
}  # bytes moved a weight
PHASES = ("train", "evaluate", "valuation")
BEGUN = {
    "train": 0.02,
    "evaluate": 0.005,
    "valuation": 0.005,
}  # seconds that a phase takes however little there is to do
OF_CLIENT = 0.001  # and each client in training
GRANTED_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Size:
    """Of a network: its weights, the products of one example, and those of its first layer alone."""

    parameters: int
    products: int
    first: int


def size_of(model: str, info: DatasetInfo) -> Size:
    """Of the network that training.networks builds by this name; of a plugged-in one, which nobody here has built, with
    as many parameters as its description counts at their defaults, else as of the 2NN."""
    count = getattr(kinds.family("model").get(model), "cost", None)
    if count:
        counted = count(info.shape, info.num_classes)
        return Size(parameters=counted, products=counted, first=counted)
    channels, height, width = info.shape
    inputs, classes = prod(info.shape), info.num_classes
    if model == "cnn":
        flat = 64 * (height // 4) * (width // 4)
        parameters = 32 * (25 * channels + 1) + 64 * (25 * 32 + 1) + 512 * (flat + 1) + classes * 513
        products = height * width * 32 * 25 * channels + height * width // 4 * 64 * 25 * 32 + 512 * flat + classes * 512
        return Size(parameters=parameters, products=products, first=products)
    hidden = {"logistic": (), "mlp": (128,)}.get(model, (200, 200))
    layers = [*zip((inputs, *hidden), (*hidden, classes), strict=True)]
    products = sum(into * outputs for into, outputs in layers)
    return Size(
        parameters=products + sum(outputs for _, outputs in layers), products=products, first=inputs * layers[0][1]
    )


def of_phases(config: SimulationConfig) -> dict[str, float]:
    """Mean seconds of a round by phase."""
    info = config.data_info
    size = size_of(config.model.kind, info)
    cohort, held_out = config.cohort_size, held_out_of(config)
    examples = (info.num_train - held_out) * cohort / config.num_identities * config.local_epochs
    effort = sum(_effort(config, given) for given in config.behaviours.values()) / config.num_clients
    effort += sum(entry["share"] * _effort(config, entry) for entry in config.population)
    examples *= 1 + effort  # each term is minus what somebody leaves out
    steps = max(cohort, examples / config.batch_size)
    train = 6 * size.products * examples / TRAINED + 12 * size.parameters * steps / MOVED
    train += OF_STRATEGY.get(config.strategy.kind, 4.0) * size.parameters * cohort / MOVED
    evaluate = 2 * size.products * (info.num_test / config.evaluate_every + held_out) / EVALUATED
    valuation = sum(
        number * _coalition_seconds(config, size, held_out, itself=is_itself)
        for number, is_itself in _coalitions(config)
    )
    train += BEGUN["train"] + OF_CLIENT * cohort
    return {
        "train": train,
        "evaluate": evaluate + BEGUN["evaluate"],
        "valuation": valuation + BEGUN["valuation"] if config.is_valued else 0.0,
    }


def _effort(config: SimulationConfig, given: Mapping[str, Any]) -> float:
    """Of one who behaves so, less an honest client's."""
    fraction, epochs = given.get("fraction", 1.0), given.get("epochs", config.local_epochs)
    group = len(given.get("group", ())) or max(1, round(given.get("share", 0.0) * config.num_clients))
    left: dict[str, float] = {
        "free_rider": 0.0,
        "dropout": 1 - given.get("probability", 0.0),
        "low_effort": fraction,
        "less_data": fraction,
        "straggler": min(epochs / config.local_epochs, 1.0),
        "collusion": 1 / group,
    }
    left |= {name: 0.0 for name, kind in kinds.family("behaviour").items() if "untrained" in kind.traits}
    last = min(given.get("to_round") or config.num_rounds, config.num_rounds)
    rounds: float = max(0, last - given.get("from_round", 1) + 1) / config.num_rounds
    return rounds * (left.get(given["kind"], 1.0) - 1.0)


def _coalition_seconds(config: SimulationConfig, size: Size, held_out: int, *, itself: bool) -> float:
    """Of one coalition; where each is the strategy run once more, `itself`, with what that moves."""
    if itself:
        moved = OF_STRATEGY.get(config.strategy.kind, 4.0) * size.parameters * config.cohort_size / 2
        return moved / MOVED + 2 * size.products * held_out / EVALUATED
    if not config.model.has("dense"):
        return 2 * size.products * held_out / EVALUATED + 4 * size.parameters * config.cohort_size / MOVED
    inputs = prod(config.data_info.shape)
    joined = config.cohort_size / 2 if config.cohort_size <= 16 else 2.0  # players whose first layers are added up
    return held_out * (4 * size.first / inputs * joined / MOVED + 2 * (size.products - size.first) / 1e11)


def coalitions(config: SimulationConfig) -> int:
    """That the valuations evaluate in a round, at most; `auto` counts as what it will be."""
    return sum(number for number, _ in _coalitions(config))


def _coalitions(config: SimulationConfig) -> list[tuple[int, bool]]:
    """For each game that some economy asks how many coalitions it evaluates at most, and whether each is the strategy
    run once more. Economies that ask the same game share what it has found."""
    asked: dict[tuple[str, str, str], dict[str, int]] = {}
    for _, economy in config.economies:
        if economy.asks_game:
            choice, of_game = economy.valuation, (economy.game, economy.utility, economy.utility_weights)
            cost = choice.description.cost
            number = cost(config.cohort_size, **choice.parameters) if cost else 0
            asked.setdefault(of_game, {})[str(choice.to_dict())] = number
    everything = 2 ** min(config.cohort_size, 62)
    return [
        (min(sum(numbers.values()), everything), game == "server" and not config.strategy.has("weighted_sum"))
        for (game, _, _), numbers in asked.items()
    ]


def held_out_of(config: SimulationConfig) -> int:
    return min(1000, config.data_info.num_train // 10) if config.validation_size is None else config.validation_size


@dataclass(frozen=True, kw_only=True)
class Past:
    """What a run took: mean seconds of a round, by phase, over so many rounds; of a phase that it did not have, 0."""

    config: SimulationConfig
    rounds: int
    seconds: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How many times as long as the model says, by phase; 1.0 where nothing is known."""

    train: float = 1.0
    evaluate: float = 1.0
    valuation: float = 1.0
    runs: int = 0  # from which it is known

    @classmethod
    def of(cls, past: Sequence[Past], config: SimulationConfig) -> Pace:
        """From runs of the same model where there are any, else from all: what they took over what was expected.

        A second is taken for granted on both sides: a run of a few milliseconds tells nothing of one that lasts hours.
        """
        alike = [each for each in past if each.config.model.kind == config.model.kind] or list(past)
        found = {}
        for phase in PHASES:
            having = [each for each in alike if each.seconds[phase] > 0]
            taken = sum(each.rounds * each.seconds[phase] for each in having)
            expected = sum(each.rounds * of_phases(each.config)[phase] for each in having)
            found[phase] = (taken + GRANTED_SECONDS) / (expected + GRANTED_SECONDS)
        return cls(**found, runs=len(alike))


def seconds(config: SimulationConfig, pace: Pace) -> float:
    """From the start of its trainer to its end."""
    expected = of_phases(config)
    of_round = sum(
        (
            expected["train"] * pace.train,
            expected["evaluate"] * pace.evaluate,
            expected["valuation"] * pace.valuation,
        )
    )
    recorded = ROUND_SECONDS + CLIENT_SECONDS * config.cohort_size
    return START_SECONDS + config.num_rounds * (of_round + recorded)
