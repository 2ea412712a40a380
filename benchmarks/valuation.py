"""What it costs to measure contributions: `python -m benchmarks.valuation`.

Ten `mlp` clients, 1,000 samples, all 1,023 non-empty coalitions, batched against one model at a time, in turns in
one run; the same for some coalitions of `cnn` clients; then leave-one-out for larger cohorts. MNIST from
FEDSITE_DATA_DIR where it is there, else random images of its size: the arithmetic is the same. A client's update is one
step of gradient descent on examples of its own.
"""

from __future__ import annotations

import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from incentives.valuation import VALUATIONS, coalitions_needed
from training import datasets
from training.catalogue import DATASETS
from training.game import CoalitionGame
from training.networks import build

SAMPLES = 1000
PER_CLIENT = 60
REPEATS = 9


def main() -> None:
    torch.set_num_threads(1)
    x, y, source = images()
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, {source}, {SAMPLES:,} samples")
    everybody = (np.arange(1, 1024)[:, None] >> np.arange(10) & 1).astype(np.bool_)
    shapley_of_ten("mlp", everybody, 128, x, y)
    shapley_of_ten("cnn", everybody[::32], 8, x, y)
    for model, num_clients in (("mlp", 100), ("2nn", 100), ("2nn", 1000)):
        leave_one_out(model, num_clients, x, y)
    unit = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts bytes, Linux kilobytes
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit:,.0f} MB")


def images() -> tuple[Tensor, Tensor, str]:
    """Images [N, 1, 28, 28], labels [N], and where they are from."""
    folder = Path(os.environ.get("FEDSITE_DATA_DIR", "data"))
    if (folder / "MNIST" / "raw").is_dir():
        loading = datasets.load("mnist", folder)
        while True:
            try:
                print(next(loading).message)
            except StopIteration as loaded:
                data = loaded.value
                break
        return data.train_x, data.train_y, "MNIST"
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SAMPLES + 20_000, 1, 28, 28, generator=generator)
    return x, torch.randint(10, (len(x),), generator=generator), "random images"


def a_game(model: str, num_clients: int, x: Tensor, y: Tensor) -> CoalitionGame:
    network = build(model, DATASETS["mnist"], torch.Generator().manual_seed(0))
    weights = parameters_to_vector(network.parameters()).detach().clone()
    deltas = weights.new_empty(num_clients, len(weights))
    for client, delta in enumerate(deltas):
        own = (torch.arange(PER_CLIENT) + SAMPLES + client * PER_CLIENT) % len(x)
        loss = F.cross_entropy(network(x[own]), y[own])
        delta.copy_(-0.5 * parameters_to_vector(torch.autograd.grad(loss, list(network.parameters()))))
    return CoalitionGame(
        network,
        weights,
        deltas,
        [PER_CLIENT] * num_clients,
        PER_CLIENT * num_clients,
        x[:SAMPLES],
        y[:SAMPLES],
        players=tuple(range(1, num_clients + 1)),
        utility="loss",
        utility_weights="fixed",
    )


def shapley_of_ten(model: str, coalitions: NDArray[np.bool_], one_by_one: int, x: Tensor, y: Tensor) -> None:
    """`one_by_one` of the coalitions are evaluated one model at a time as well, and their time is scaled."""
    game = a_game(model, 10, x, y)
    some = coalitions[:: len(coalitions) // one_by_one][:one_by_one]
    fast, slow = [], []
    for _ in range(REPEATS):
        fast.append(seconds(lambda: game(coalitions)))
        slow.append(len(coalitions) / len(some) * seconds(lambda: naive(game, some)))
    apart = np.abs(game(some) - naive(game, some)).max()
    print(f"{model}, 10 clients, {len(coalitions):,} coalitions, medians of {REPEATS}:")
    print(f"  one model at a time  {statistics.median(slow):8.3f} s   ({len(some)} coalitions timed, scaled)")
    print(f"  batched              {statistics.median(fast):8.3f} s   (best {min(fast):.3f})")
    ratio = statistics.median(slow) / statistics.median(fast)
    print(f"  ratio                {ratio:8.1f}     (largest difference {apart:.1e})")


def leave_one_out(model: str, num_clients: int, x: Tensor, y: Tensor) -> None:
    game = a_game(model, num_clients, x, y)
    repeats = 5 if num_clients <= 100 else 1
    times = [seconds(lambda: VALUATIONS["leave_one_out"](game, game.num_examples)) for _ in range(repeats)]
    needed = coalitions_needed("leave_one_out", num_clients)
    print(
        f"{model}, {num_clients:,} clients, leave-one-out, {needed:,} coalitions: "
        f"{statistics.median(times):.3f} s (median of {repeats})"
    )


def naive(game: CoalitionGame, coalitions: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Average the updates, load the model, evaluate; one coalition after another."""
    values = []
    with torch.no_grad():
        for row in coalitions:
            members = torch.from_numpy(np.flatnonzero(row))
            shares = torch.tensor(game.num_examples)[members] / game.total_examples
            vector_to_parameters(game.weights + shares @ game.deltas[members], game.network.parameters())
            values.append(-F.cross_entropy(game.network(game.x), game.y).item())
    return np.array(values)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
