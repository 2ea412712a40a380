"""How fast a round is on a GPU: `python -m benchmarks.engine --device cuda [ROW ...] [--json FILE]`.

Each row runs with our engine on the GPU, with plain PyTorch on the same GPU, one client after another as a user would
write it, and with our engine on this machine's processor. A round is local training, aggregation and the test images;
its time is the median over the rounds after the first two, in which memory is taken and graphs are recorded. The peaks
are measured beside: products of float32 matrices without TF32, and a copy, bytes read and written counted. A row's own
arithmetic is that of the networks; its bytes are the fewest that a step can do with, each client's weights read and
written once, and each example read once.
"""

from __future__ import annotations

import copy
import dataclasses
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.learning import mnist
from kinds import Kind, register
from training import loop, networks, partitions
from training.backends.descent import Rule
from training.card.convolutional import Convolved, pieces_of
from training.card.stacked import Move, Stacked
from training.catalogue import DATASETS, DatasetInfo
from training.config import TrainingConfig
from training.datasets import Data
from training.events import RoundTrained
from training.layers import Convolution, convolutional_layers, dense_layers

DEVICE = torch.device("cuda")
INPUTS, CLASSES = 60, 10  # of the synthetic examples
DATASETS.setdefault(
    "synthetic",
    DatasetInfo(label="synthetic", shape=(1, 1, INPUTS), num_classes=CLASSES, num_train=1_000_000, num_test=10_000),
)


register(Kind(family="dataset", name="synthetic", help="Numbers without a meaning"))


@dataclass(frozen=True, kw_only=True)
class Row:
    title: str
    goal_ms: float
    config: TrainingConfig
    plain_clients: int | None = None  # that the plain loop trains, its time scaled to the cohort; None: all


def of_mnist(**fields: Any) -> TrainingConfig:
    return TrainingConfig.of(**{"dataset": "mnist", "validation_size": 0, "num_rounds": 12, **fields})


CROWD = {"model": "2nn", "num_clients": 10_000, "fraction_fit": 0.1, "validation_size": 10_000}
MANY = {"model": "mlp", "num_clients": 100_000, "fraction_fit": 0.1, "validation_size": 0, "num_rounds": 8}
ROWS = {
    "W3": Row(
        title="1,000 clients of 60, 100 a round, batch 20, 2nn",
        goal_ms=4,
        config=of_mnist(model="2nn", num_clients=1000, fraction_fit=0.1, batch_size=20),
    ),
    "crowd": Row(
        title="10,000 clients of 5, 1,000 a round, batch 5, 2nn",
        goal_ms=8,
        config=of_mnist(**CROWD, batch_size=5),
        plain_clients=200,
    ),
    "crowd2": Row(
        title="the same in batches of 3, so two steps",
        goal_ms=8,
        config=of_mnist(**CROWD, batch_size=3),
        plain_clients=200,
    ),
    "W2": Row(
        title="10 clients of 6,000, batch 32, mlp",
        goal_ms=15,
        config=of_mnist(model="mlp", num_clients=10, batch_size=32),
    ),
    "W1": Row(
        title="100 clients of 600, 10 a round, batch 10, cnn",
        goal_ms=60,
        config=of_mnist(model="cnn", num_clients=100, fraction_fit=0.1, batch_size=10),
    ),
    "many": Row(
        title="100,000 clients of 10 of synthetic, 10,000 a round, batch 10, mlp",
        goal_ms=60,
        config=TrainingConfig.of(dataset="synthetic", **MANY, batch_size=10),
        plain_clients=200,
    ),
    "many2": Row(
        title="the same in batches of 5, so two steps",
        goal_ms=60,
        config=TrainingConfig.of(dataset="synthetic", **MANY, batch_size=5),
        plain_clients=200,
    ),
}
COALITIONS = "coalitions"


def main(names: list[str], json_file: str | None, only_ours: bool) -> None:
    if not torch.cuda.is_available():
        sys.exit("There is no CUDA GPU that this PyTorch can use")
    unknown = set(names) - ROWS.keys() - {COALITIONS}
    if unknown:
        sys.exit(f"unknown row {min(unknown)}; there are {', '.join([*ROWS, COALITIONS])}")
    torch.set_num_threads(1)
    told: dict[str, Any] = {"card": torch.cuda.get_device_name(), "torch": torch.__version__, **peaks()}
    print(f"{told['card']}, torch {told['torch']}: {told['tflops']:.1f} TFLOP/s in float32, {told['tbps']:.2f} TB/s")
    told["rows"], data = {}, {"mnist": mnist()}
    for name in names or [*ROWS, COALITIONS]:
        if name == COALITIONS:
            told["rows"][name] = coalitions_row(data["mnist"], only_ours)
        else:
            config = ROWS[name].config
            if config.dataset.kind not in data:
                data[config.dataset.kind] = synthetic()
            told["rows"][name] = round_row(name, ROWS[name], data[config.dataset.kind], told, only_ours)
        if json_file:
            Path(json_file).write_text(json.dumps(told, indent=1))
    told["convolution_us"] = convolution_us()
    if json_file:
        Path(json_file).write_text(json.dumps(told, indent=1))
    for line in table(told["rows"]):
        print(line)
    both = ", ".join(f"{name} {value:.0f}" for name, value in told["convolution_us"].items())
    print(f"a convolution of ten clients, microseconds: {both}")


def peaks(size: int = 8192) -> dict[str, float]:
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    a, b = (torch.randn(size, size, device=DEVICE) for _ in range(2))
    out = torch.empty_like(a)
    of_product = statistics.median(times(lambda: torch.mm(a, b, out=out), 9))
    long = torch.randn(1 << 28, device=DEVICE)
    there = torch.empty_like(long)
    of_copy = statistics.median(times(lambda: there.copy_(long), 15))
    return {"tflops": 2 * size**3 / of_product / 1e12, "tbps": 8 * len(long) / of_copy / 1e12}


def times(work: Callable[[], object], repeats: int, warm: int = 3) -> list[float]:
    """Seconds of each repetition, the device done."""
    taken = []
    for _ in range(warm + repeats):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        work()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - begin)
    return taken[warm:]


def round_row(name: str, row: Row, data: Data, peak: dict[str, Any], only_ours: bool) -> dict[str, Any]:
    told: dict[str, Any] = {"title": row.title, "goal_ms": row.goal_ms}
    config = dataclasses.replace(row.config, device="cuda")
    torch.cuda.reset_peak_memory_stats()
    ours = [*rounds(config, data)]
    told["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    told["ours_ms"] = [1000 * each.duration_seconds for each in ours]
    told["ours"] = statistics.median(told["ours_ms"][2:])
    told["train_ms"] = statistics.median(1000 * each.train_seconds for each in ours[2:])
    told["evaluate_ms"] = statistics.median(1000 * each.evaluate_seconds for each in ours[2:])
    told["accuracy"], told["sha256"] = ours[-1].accuracy, ours[-1].weights_sha256
    gflop, gbyte = arithmetic(config, data)
    told["of_peak"] = gflop / told["ours"] / peak["tflops"]
    told["of_bandwidth"] = gbyte / told["ours"] / peak["tbps"]
    gc.collect()
    torch.cuda.empty_cache()
    if not only_ours:
        told["plain"] = plain_ms(row, data)
        few = min(config.num_rounds, 4 if name in ("W1", "many", "many2") else 6)
        on_cpu = [*rounds(dataclasses.replace(row.config, num_rounds=few), data)]
        told["cpu"] = statistics.median(1000 * each.duration_seconds for each in on_cpu[1:])
        told["accuracy_cpu"], told["accuracy_then"] = on_cpu[-1].accuracy, ours[few - 1].accuracy
    print(name, json.dumps({key: value for key, value in told.items() if key != "ours_ms"}))
    sys.stdout.flush()
    return told


def rounds(config: TrainingConfig, data: Data) -> Iterator[RoundTrained]:
    return (event for event in loop.run(config, data) if isinstance(event, RoundTrained))


def arithmetic(config: TrainingConfig, data: Data) -> tuple[float, float]:
    """GFLOP of a round, and the fewest GB that it can do with."""
    network, (_, height, width) = networks.build(config.model, data.info, torch.Generator()), data.info.shape
    convolutions, dense = convolutional_layers(network) or ([], dense_layers(network) or [])
    products = []
    for layer in convolutions:
        products.append(height * width * layer.outputs * layer.inputs * layer.kernel**2)
        height, width = height // 2, width // 2
    products += [layer.inputs * layer.outputs for layer in dense]
    held = (len(data.train_y) - (config.validation_size or 0)) // config.num_clients
    examples, steps = held * config.cohort_size, -(-held // config.batch_size)
    gflop = 2e-9 * (examples * (3 * sum(products) - products[0]) + len(data.test_y) * sum(products))
    size, image = len(networks.flatten(network)), data.train_x[0].numel()
    weights = 8 * size * (steps * config.cohort_size if steps > 1 or convolutions else 1)
    return gflop, 1e-9 * (weights + 4 * image * (examples + len(data.test_y)))


def plain_ms(row: Row, data: Data) -> float:
    """A round as one writes it in PyTorch, data on the GPU: the median of two, after some warming up."""
    torch.use_deterministic_algorithms(False)
    config, info = row.config, data.info
    x, y = data.train_x.to(DEVICE), data.train_y.to(DEVICE)
    test_x, test_y = data.test_x.to(DEVICE), data.test_y.to(DEVICE)
    model = networks.build(config.model, info, torch.Generator().manual_seed(0)).to(DEVICE)
    held = [
        torch.from_numpy(own).to(DEVICE)
        for own in partitions.deal(config, data.train_y.numpy()).clients[: config.cohort_size]
    ]
    few = row.plain_clients or len(held)

    def clients() -> dict[str, Tensor]:
        start = copy.deepcopy(model.state_dict())
        mean = {name: torch.zeros_like(value) for name, value in start.items()}
        for own in held[:few]:
            model.load_state_dict(start)
            optimiser = torch.optim.SGD(model.parameters(), lr=config.lr)
            for batch in own[torch.randperm(len(own), device=DEVICE)].split(config.batch_size):
                optimiser.zero_grad()
                F.cross_entropy(model(x[batch]), y[batch]).backward()
                optimiser.step()
            for name, value in model.state_dict().items():
                mean[name] += value / few
        return mean

    def tested() -> float:
        with torch.no_grad():
            return sum(
                int((model(a).argmax(1) == b).sum())
                for a, b in zip(test_x.split(1000), test_y.split(1000), strict=True)
            ) / len(test_y)

    of_clients = statistics.median(times(lambda: model.load_state_dict(clients()), 2, warm=1))
    of_test = statistics.median(times(tested, 3, warm=1))
    return 1000 * (of_clients * len(held) / few + of_test)


def coalitions_row(data: Data, only_ours: bool) -> dict[str, Any]:
    from benchmarks.valuation import a_round, anew, naive

    everybody = (np.arange(1, 1024)[:, None] >> np.arange(10) & 1).astype(np.bool_)
    here = a_round("mlp", 10, data.train_x, data.train_y)
    assert here.deltas is not None, "the updates are there"
    there = dataclasses.replace(
        here,
        network=copy.deepcopy(here.network).to(DEVICE),
        weights=here.weights.to(DEVICE),
        deltas=here.deltas.to(DEVICE),
        x=here.x.to(DEVICE),
        y=here.y.to(DEVICE),
    )
    told: dict[str, Any] = {"title": "1,023 coalitions of ten mlp clients, 1,000 examples", "goal_ms": 3}
    torch.cuda.reset_peak_memory_stats()
    told["ours_ms"] = [1000 * each for each in times(lambda: anew(there)(everybody), 15)]
    told["ours"] = statistics.median(told["ours_ms"])
    told["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
    told["apart"] = float(np.abs(anew(there)(everybody) - anew(here)(everybody)).max())
    if not only_ours:
        some = everybody[::16]
        one_by_one = partial(naive, there, some)
        told["plain"] = 1000 * statistics.median(times(one_by_one, 3, warm=1)) * len(everybody) / len(some)
        told["cpu"] = 1000 * statistics.median(times(lambda: anew(here)(everybody), 5, warm=1))
    print(COALITIONS, json.dumps({key: value for key, value in told.items() if key != "ours_ms"}))
    return told


def convolution_us(clients: int = 10, batch: int = 10, repeats: int = 20) -> dict[str, float]:
    """The second layer of `cnn`, up and down: as products over windows, as the engine does it, with the maximum and its
    way back; and as PyTorch's grouped convolution, without these. A step each, in a recorded graph."""
    layer = Convolution(inputs=32, outputs=64, kernel=5, padding=2, start=0)
    images, like = torch.randn(clients * batch, 18, 18, 32, device=DEVICE), torch.zeros(0, device=DEVICE)
    rule = Rule(lr=0.0, momentum=0.0, pull=0.0, mu=0.0)
    ours = Convolved(layer, 18, 18, clients * batch, like)
    weights = Stacked.among(clients, (64, 804), like, rule, pieces_of(layer))
    move = Move(rule, torch.zeros(clients, device=DEVICE))
    error = torch.randn(clients * batch, 7, 7, 64, device=DEVICE)
    x, y = (torch.randn(batch, clients * width, 14, 14, device=DEVICE) for width in (32, 64))
    kernel = torch.randn(clients * 64, 32, 5, 5, device=DEVICE)

    def windows() -> None:
        _, places = ours.up(images, weights, clients)
        ours.down(error, places, weights, clients, move, first=False)

    def grouped() -> None:
        F.conv2d(x, kernel, padding=2, groups=clients)
        torch.ops.aten.convolution_backward(
            y, x, kernel, None, [1, 1], [2, 2], [1, 1], False, [0, 0], clients, [True, True, False]
        )

    told = {}
    for name, work in (("windows", windows), ("grouped", grouped)):
        work()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(repeats):
                work()
        told[name] = 1e6 * statistics.median(times(graph.replay, 5)) / repeats
    return told


def synthetic(alpha: float = 1.0, beta: float = 1.0, per_client: int = 10) -> Data:
    """The generator of Li et al. 2020 (FedProx, section 5.1): each client has a linear model and a mean of its own."""
    info, rng = DATASETS["synthetic"], np.random.default_rng(0)
    deviation = np.arange(1, INPUTS + 1, dtype=np.float32) ** -0.6
    x, y = [], []
    for clients in [1000] * ((info.num_train + info.num_test) // per_client // 1000):
        shift, centre = rng.normal(0, alpha**0.5, (clients, 1, 1)), rng.normal(0, beta**0.5, (clients, 1))
        weight = (shift + rng.standard_normal((clients, INPUTS, CLASSES), np.float32)).astype(np.float32)
        bias = (shift[:, 0] + rng.standard_normal((clients, CLASSES), np.float32)).astype(np.float32)
        mean = (centre + rng.standard_normal((clients, INPUTS), np.float32)).astype(np.float32)
        own = mean[:, None] + deviation * rng.standard_normal((clients, per_client, INPUTS), np.float32)
        x.append(own.reshape(-1, 1, 1, INPUTS))
        y.append((own @ weight + bias[:, None]).argmax(2).reshape(-1))
    images, labels = torch.from_numpy(np.concatenate(x)), torch.from_numpy(np.concatenate(y).astype(np.int64))
    last = info.num_train
    return Data(
        name="synthetic",
        info=info,
        train_x=images[:last],
        train_y=labels[:last],
        test_x=images[last:],
        test_y=labels[last:],
    )


def table(rows: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield f"{'':<11}{'goal ms':>8}{'ms':>9}{'plain ms':>10}{'x':>7}{'CPU ms':>9}{'x':>7}{'GiB':>7}{'peak':>6}{'bw':>6}"
    for name, row in rows.items():
        ours = row["ours"]
        line = f"{name:<11}{row['goal_ms']:>8.0f}{ours:>9.2f}"
        for other in ("plain", "cpu"):
            width = 10 if other == "plain" else 9
            line += f"{row[other]:>{width}.1f}{row[other] / ours:>7.0f}" if other in row else " " * (width + 7)
        line += f"{row['memory_gib']:>7.2f}"
        if "of_peak" in row:
            line += f"{row['of_peak']:>6.0%}{row['of_bandwidth']:>6.0%}"
        yield line
