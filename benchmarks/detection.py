"""Are free riders found? `python -m benchmarks.detection [--seeds 20]`. MNIST from FEDSITE_DATA_DIR, or `data/`.

Replay: one of ten clients sends the server's last step again; found where its score is above the usual threshold, 0.99,
in every round from the second on, and a false alarm is an honest client's score above it. Disguised: 20 of 100 clients
send that step with normal noise of deviation 0.001; how well each detector tells them from the honest ones is the area
under its curve (AUC), of the scores in a round.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from sklearn.metrics import roc_auc_score

import incentives.catalogue  # noqa: F401
import kinds
from incentives.specification import ABOVE
from simulations.config import SimulationConfig
from simulations.running.engine import simulate
from simulations.running.events import Round

DETECTORS = ("replay", "norm", "foolsgold", "fltrust", "direction", "spectral")


def rounds(**fields: Any) -> Iterator[Round]:
    config = SimulationConfig.of(dataset="mnist", valuation="data_size", **fields)
    data_dir = Path(os.environ.get("FEDSITE_DATA_DIR", "data"))
    return (event for event in simulate(config, data_dir=data_dir) if isinstance(event, Round))


def replay(seeds: int, **fields: Any) -> tuple[int, int, int, float]:
    """Cheats found of all there were, false alarms, and the largest score of an honest client."""
    found = cheats = alarms = 0
    most = 0.0
    for seed in range(seeds):
        cheat = 1 + seed % 10
        run = rounds(seed=seed, num_rounds=5, behaviours={cheat: "replay"}, detectors=["replay"], **fields)
        for each in run:
            if each.round_number == 1:
                continue
            scores = dict(zip((part.client for part in each.clients), each.scores["replay"], strict=True))
            cheats += 1
            found += scores.pop(cheat) > ABOVE.default
            alarms += sum(score > ABOVE.default for score in scores.values())
            most = max(most, *scores.values())
    return found, cheats, alarms, most


def disguised(seed: int) -> dict[str, list[float]]:
    """By detector, the AUC of each round from the second on."""
    run = rounds(
        seed=seed,
        num_clients=100,
        num_rounds=5,
        population=[{"share": 0.2, "kind": "disguised_replay", "sigma": 0.001}],
        detectors=list(DETECTORS),
    )
    cheats = SimulationConfig.of(
        dataset="mnist", seed=seed, num_clients=100, population=[{"share": 0.2, "kind": "disguised_replay"}]
    ).drawn_behaviours()
    found: dict[str, list[float]] = {name: [] for name in DETECTORS}
    for each in run:
        truth = [part.client in cheats for part in each.clients]
        for name in DETECTORS if each.round_number > 1 else ():
            found[name].append(float(roc_auc_score(truth, each.scores[name])))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detection", description=__doc__.partition("`")[0])
    parser.add_argument("--seeds", type=int, default=20)
    seeds = parser.parse_args().seeds
    torch.set_num_threads(1)
    assert all(name in kinds.family("detector") for name in DETECTORS)
    for title, fields in (("IID", {}), ("Dirichlet 0.5", {"partition": {"kind": "dirichlet", "alpha": 0.5}})):
        begin = time.perf_counter()
        found, cheats, alarms, most = replay(seeds, **fields)
        print(
            f"replay, ten clients, {title}, {seeds} seeds: {found} of {cheats} found, {alarms} false alarms, largest "
            f"score of an honest client {most:.3f} ({time.perf_counter() - begin:.0f} s)"
        )
        sys.stdout.flush()
    print("20 disguised of 100, sigma 0.001, AUC in rounds 2 to 5, the least of three seeds:")
    of_seeds = [disguised(seed) for seed in range(3)]
    for name in DETECTORS:
        print(f"  {name:<10}", "  ".join(f"{min(each[name][place] for each in of_seeds):.3f}" for place in range(4)))


if __name__ == "__main__":
    main()
