"""What attackers do to each strategy: `python -m benchmarks.byzantine`.

Ten clients with equal shares of MNIST (IID), `mlp`, ten rounds. Two of them send their update reversed and five times
as large. Every strategy runs undisturbed and attacked; what counts is how far the attacked run ends below plain
FedAvg's undisturbed one. Exit status 1 where FedAvg survives the attack or a robust strategy loses more than 3 points.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import torch

import kinds
from benchmarks.learning import mnist, rounds
from training.config import TrainingConfig
from training.datasets import Data
from training.events import TrainingError

STRATEGIES = tuple(kinds.family("strategy"))
ROBUST = ("trimmed_mean", "median", "multi_krum", "centred_clipping")
ATTACKERS = (3, 7)
BEARABLE = 0.03  # of accuracy below the undisturbed run
COLLAPSED = 0.50  # accuracy


def main() -> None:
    parser = argparse.ArgumentParser(description="Accuracy of every strategy with and without two attackers among ten")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=5.0, help="how many times as large the reversed updates are")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = mnist()
    attack = {client: {"kind": "sign_flip", "scale": options.scale} for client in ATTACKERS}
    usual = accuracy(data, seed=options.seed)
    print(f"{'strategy':18}{'undisturbed':>12}{'attacked':>12}{'points lost to FedAvg undisturbed':>36}", flush=True)
    kept = [told(strategy, attack, usual, options.seed, data) for strategy in STRATEGIES]
    sys.exit(0 if all(kept) else 1)


def told(strategy: str, attack: dict[int, Any], usual: float | None, seed: int, data: Data) -> bool:
    """One line of the table; whether the strategy did as it should."""
    undisturbed = accuracy(data, seed=seed, strategy=strategy)
    attacked = accuracy(data, seed=seed, strategy=strategy, behaviours=attack)
    lost = f"{100 * (usual - attacked):.2f}" if usual is not None and attacked is not None else "all"
    print(f"{strategy:18}{shown(undisturbed):>12}{shown(attacked):>12}{lost:>36}", flush=True)
    if strategy in ROBUST:
        return usual is not None and attacked is not None and usual - attacked <= BEARABLE
    return strategy != "fedavg" or attacked is None or attacked < COLLAPSED


def accuracy(data: Data, **fields: Any) -> float | None:
    """Share of the test images that is right after the last round; None where the model left the finite numbers."""
    config = TrainingConfig.of(dataset="mnist", validation_size=0, evaluate_every=10, **fields)
    try:
        *_, last = rounds(config, data)
    except TrainingError as error:
        if "not finite" not in str(error):
            raise
        return None
    return last.accuracy


def shown(accuracy: float | None) -> str:
    return "diverged" if accuracy is None else f"{accuracy:.2%}"


if __name__ == "__main__":
    main()
