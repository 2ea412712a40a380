"""What it costs to measure contributions: `python -m benchmarks.valuation`.

Ten `mlp` clients, 1,000 samples, all 1,023 non-empty coalitions, batched against one model at a time, in turns in
one run; the same for some coalitions of `cnn` clients; the games of four strategies beside each other; then
leave-one-out for larger cohorts. MNIST from FEDSITE_DATA_DIR where it is there, else random images of its size: the
arithmetic is the same. A client's update is one step of gradient descent on examples of its own.
"""

from __future__ import annotations

import dataclasses
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
from training.config import TrainingConfig
from training.events import ClientReport
from training.games import RoundGame, RoundGames
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
    strategies_of_ten(everybody, x, y)
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


def a_round(model: str, num_clients: int, x: Tensor, y: Tensor, strategy: str = "fedavg") -> RoundGames:
    network = build(model, DATASETS["mnist"], torch.Generator().manual_seed(0))
    weights = parameters_to_vector(network.parameters()).detach().clone()
    deltas = weights.new_empty(num_clients, len(weights))
    for client, delta in enumerate(deltas):
        own = (torch.arange(PER_CLIENT) + SAMPLES + client * PER_CLIENT) % len(x)
        loss = F.cross_entropy(network(x[own]), y[own])
        delta.copy_(-0.5 * parameters_to_vector(torch.autograd.grad(loss, list(network.parameters()))))
    norms = torch.linalg.vector_norm(deltas, dim=1).tolist()
    return RoundGames(
        config=dataclasses.replace(TrainingConfig.of(strategy=strategy, num_clients=num_clients), scheme=3),
        network=network,
        weights=weights,
        state={},
        after=weights,
        reports=[
            ClientReport(client=client, num_examples=PER_CLIENT, loss_before=1.0, loss_after=1.0, update_norm=norm)
            for client, norm in enumerate(norms, start=1)
        ],
        deltas=deltas,
        x=x[:SAMPLES],
        y=y[:SAMPLES],
        held=[PER_CLIENT] * num_clients,
    )


def anew(games: RoundGames) -> RoundGame:
    """The server's game with nothing evaluated yet and no product made, as each round begins."""
    game = dataclasses.replace(games).of("server", "loss", "fixed")
    assert isinstance(game, RoundGame), "the updates are there"
    return game


def shapley_of_ten(model: str, coalitions: NDArray[np.bool_], one_by_one: int, x: Tensor, y: Tensor) -> None:
    """`one_by_one` of the coalitions are evaluated one model at a time as well, and their time is scaled."""
    games = a_round(model, 10, x, y)
    some = coalitions[:: len(coalitions) // one_by_one][:one_by_one]
    fast, slow = [], []
    for _ in range(REPEATS):
        fast.append(seconds(lambda: anew(games)(coalitions)))
        slow.append(len(coalitions) / len(some) * seconds(lambda: naive(games, some)))
    apart = np.abs(anew(games)(some) - naive(games, some)).max()
    print(f"{model}, 10 clients, {len(coalitions):,} coalitions, medians of {REPEATS}:")
    print(f"  one model at a time  {statistics.median(slow):8.3f} s   ({len(some)} coalitions timed, scaled)")
    print(f"  batched              {statistics.median(fast):8.3f} s   (best {min(fast):.3f})")
    ratio = statistics.median(slow) / statistics.median(fast)
    print(f"  ratio                {ratio:8.1f}     (largest difference {apart:.1e})")


def strategies_of_ten(coalitions: NDArray[np.bool_], x: Tensor, y: Tensor) -> None:
    """The servers' own games beside that of federated averaging, in turns."""
    names = ("fedavg", "fedavgm", "multi_krum", "centred_clipping")
    games = {name: a_round("mlp", 10, x, y, name) for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(REPEATS):
        for name in names:
            times[name].append(seconds(lambda name=name: anew(games[name])(coalitions)))
    print(f"mlp, 10 clients, {len(coalitions):,} coalitions by strategy, medians of {REPEATS}:")
    for name in names:
        median = statistics.median(times[name])
        print(f"  {name:<20} {median:8.3f} s   {median / statistics.median(times['fedavg']):5.2f} x fedavg")


def leave_one_out(model: str, num_clients: int, x: Tensor, y: Tensor) -> None:
    games = a_round(model, num_clients, x, y)
    repeats = 5 if num_clients <= 100 else 1
    times = [seconds(lambda: VALUATIONS["leave_one_out"](anew(games), games.num_examples)) for _ in range(repeats)]
    needed = coalitions_needed("leave_one_out", num_clients)
    print(
        f"{model}, {num_clients:,} clients, leave-one-out, {needed:,} coalitions: "
        f"{statistics.median(times):.3f} s (median of {repeats})"
    )


def naive(games: RoundGames, coalitions: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Average the updates, load the model, evaluate; one coalition after another."""
    assert games.deltas is not None, "the updates are there"
    shares = torch.tensor(games.num_examples, device=games.weights.device) / sum(games.num_examples)
    values = []
    with torch.no_grad():
        for row in coalitions:
            members = torch.from_numpy(np.flatnonzero(row)).to(shares.device)
            vector_to_parameters(games.weights + shares[members] @ games.deltas[members], games.network.parameters())
            values.append(-F.cross_entropy(games.network(games.x), games.y).item())
    return np.array(values)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
