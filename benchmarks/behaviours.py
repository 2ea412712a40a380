"""What cheats cost beside honest training: `python -m benchmarks.behaviours [KIND ...] [--rounds 9]`.

MNIST (from FEDSITE_DATA_DIR or `data/`), mlp, ten clients, of whom four behave so; backend `batched`. The honest run
and the other take turns, round by round, in one process; the figure is the median over rounds after the first of the
seconds of training and joining, and of what the one takes over what the other takes. Sybils have two identities each:
split ones make fourteen updates of ten holders' data.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import torch

import kinds
from benchmarks.learning import mnist, rounds
from training.config import TrainingConfig
from training.datasets import Data

LIMIT = 1.2  # times honest training
CLIENTS = (2, 3, 4, 5)
GIVEN: dict[str, dict[str, Any]] = {
    "collusion": {"group": CLIENTS},
    "sybil_copy": {"identities": 2},
    "sybil_split": {"identities": 2},
}


def main() -> None:
    there = [name for name in kinds.family("behaviour") if name != "honest"]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.behaviours", description=__doc__.partition(":")[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=" ".join(there))
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    if unknown := set(options.kinds) - set(there):
        parser.error(f"unknown behaviour {min(unknown)}; there are {', '.join(there)}")
    torch.set_num_threads(1)
    data = mnist()
    print(f"{'four of ten clients':<20}{'seconds a round':>16}{'honest':>9}{'times':>8}")
    above = []
    for name in options.kinds or there:
        times = measured(name, options.rounds, data)
        if times > LIMIT:
            above.append(name)
    print(f"above {LIMIT} x: {', '.join(above) or 'none'}")


def measured(name: str, num_rounds: int, data: Data) -> float:
    """Prints the line of a behaviour; how many times as long as the honest round beside it its round takes."""
    honest = config_for(num_rounds)
    odd = config_for(num_rounds, behaviours={client: {"kind": name, **GIVEN.get(name, {})} for client in CLIENTS})
    pairs = [
        (one.train_seconds, other.train_seconds)
        for one, other in zip(rounds(honest, data), rounds(odd, data), strict=True)
    ][1:]
    alone, beside = (statistics.median(seconds) for seconds in zip(*pairs, strict=True))
    times = statistics.median(other / one for one, other in pairs)
    print(f"{name:<20}{beside:>16.3f}{alone:>9.3f}{times:>8.2f}", flush=True)
    return times


def config_for(num_rounds: int, **fields: Any) -> TrainingConfig:
    return TrainingConfig.of(
        dataset="mnist", validation_size=0, num_clients=10, num_rounds=num_rounds, backend="batched", **fields
    )


if __name__ == "__main__":
    main()
