"""How fast local training is: `python -m benchmarks.engine [W1 W2 W3 crowd] [--turns 1] [--only batched ...]`.

Each workload runs with backend `batched`, with `sequential`, and, where requirements-bench.txt is installed, with
Flower on the same work; every run is a process of its own, one after another. A round is local training, aggregation
and the 10,000 test images; its seconds are the median over the rounds after the first. The peak is that of float32
products of matrices on all cores, one thread each, measured beside each run: on a busy machine both suffer alike.
MNIST from FEDSITE_DATA_DIR, or `data/`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.learning import mnist, rounds
from training import networks, threads
from training.catalogue import DATASETS
from training.config import TrainingConfig
from training.layers import convolutional_layers, dense_layers

ROOT = Path(__file__).parents[1]
CONTENDERS = ("batched", "sequential", "flower")


@dataclass(frozen=True, kw_only=True)
class Workload:
    title: str
    fields: dict[str, object]
    num_rounds: int
    contenders: tuple[str, ...] = CONTENDERS

    @property
    def config(self) -> TrainingConfig:
        return TrainingConfig.of(dataset="mnist", validation_size=0, num_rounds=self.num_rounds, **self.fields)

    @property
    def trained_examples(self) -> int:
        """In a round."""
        return DATASETS["mnist"].num_train * self.config.cohort_size // self.config.num_clients


WORKLOADS = {
    "W1": Workload(
        title="100 clients of 600, 10 a round, batch 10, cnn",
        num_rounds=4,
        fields={"model": "cnn", "num_clients": 100, "fraction_fit": 0.1, "batch_size": 10},
    ),
    "W2": Workload(
        title="10 clients of 6,000, batch 32, mlp",
        num_rounds=8,
        fields={"model": "mlp", "num_clients": 10, "batch_size": 32},
    ),
    "W3": Workload(
        title="1,000 clients of 60, 100 a round, batch 20, 2nn",
        num_rounds=10,
        fields={"model": "2nn", "num_clients": 1000, "fraction_fit": 0.1, "batch_size": 20},
    ),
    "crowd": Workload(
        title="10,000 clients of 6, 1,000 a round, batch 6, 2nn",
        num_rounds=6,
        fields={"model": "2nn", "num_clients": 10_000, "fraction_fit": 0.1, "batch_size": 6},
        contenders=("batched",),  # to be compared with W3; a message to each client takes minutes
    ),
}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One run of a workload."""

    seconds: list[float]  # of each round
    accuracy: float  # after the last
    wall_seconds: float  # the whole process, from start to exit
    rss_mb: float  # the most its processes held together
    peak_gflops: float  # beside it


def main() -> None:
    arguments = parsed()
    if arguments.device == "cuda":
        from benchmarks import card

        return card.main(arguments.workloads, arguments.json, arguments.only == ["batched"])
    if arguments.run:
        return run(arguments.run, arguments.workloads[0])
    torch.set_num_threads(1)
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}")
    contenders = [name for name in arguments.only if name != "flower" or importlib.util.find_spec("flwr")]
    if "flower" not in contenders:
        print("Without Flower: pip install -r requirements-bench.txt")
    medians = {}
    for name in arguments.workloads:
        here = [contender for contender in contenders if contender in WORKLOADS[name].contenders]
        runs = {contender: [measured(contender, name) for _ in range(arguments.turns)] for contender in here}
        medians[name] = report(name, runs)
        sys.stdout.flush()
    if {"W3", "crowd"} <= medians.keys() and "batched" in contenders:
        print(f"\ncrowd costs {per_example('crowd', medians) / per_example('W3', medians):.2f} x W3 a trained example")
    if "W3" in arguments.workloads and "batched" in contenders:
        print(f"W3 through run_simulation, recorded, from start to exit: {recorded_seconds():.1f} s")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__.partition(":")[0])
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=" ".join(WORKLOADS))
    parser.add_argument("--turns", type=int, default=1, help="runs of each")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: rows of benchmarks/card.py")
    parser.add_argument("--json", metavar="FILE", help="where cuda's numbers go besides")
    parser.add_argument("--run", choices=CONTENDERS[:2], help=argparse.SUPPRESS)  # in a process of its own
    arguments = parser.parse_args()
    if arguments.device == "cuda":
        return arguments
    arguments.workloads = arguments.workloads or list(WORKLOADS)
    unknown = set(arguments.workloads) - WORKLOADS.keys()
    if unknown:
        parser.error(f"unknown workload {min(unknown)}; there are {', '.join(WORKLOADS)}")
    return arguments


def run(backend: str, name: str) -> None:
    """The workload with our loop, in this process; what it took as JSON on the last line of standard output."""
    import dataclasses

    torch.set_num_threads(1)
    config = dataclasses.replace(WORKLOADS[name].config, backend=backend)
    ended = list(rounds(config, mnist()))
    print(json.dumps({"seconds": [each.duration_seconds for each in ended], "accuracy": ended[-1].accuracy}))


def measured(contender: str, name: str) -> Measured:
    """A run in a process of its own, with the peak before and after it."""
    module = ["benchmarks.flower", name] if contender == "flower" else ["benchmarks.engine", "--run", contender, name]
    before = peak_gflops()
    begin = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "FLWR_TELEMETRY_ENABLED": "0"}
    process = subprocess.Popen(
        [sys.executable, "-m", *module],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    watch = Watch(process.pid)
    output, errors = process.communicate()
    wall_seconds = time.perf_counter() - begin
    if process.returncode:
        sys.exit(f"{contender} failed on {name}:\n{errors[-3000:]}")
    told = json.loads(output.splitlines()[-1])
    return Measured(**told, wall_seconds=wall_seconds, rss_mb=watch.most_mb(), peak_gflops=(before + peak_gflops()) / 2)


class Watch(threading.Thread):
    """Looks a few times a second how much memory a process and its descendants hold, shared pages counted in each."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.most, self.ended = pid, 0, threading.Event()
        if importlib.util.find_spec("psutil"):
            self.start()

    def run(self) -> None:
        while not self.ended.wait(0.25):
            self.most = max(self.most, sum(resident_bytes(self.pid)))

    def most_mb(self) -> float:
        """Without psutil, that of the largest process so far alone."""
        self.ended.set()
        unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kilobytes
        return (self.most or resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit) / 2**20


def resident_bytes(pid: int) -> Iterator[int]:
    import psutil

    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        try:
            yield process.memory_info().rss
        except psutil.NoSuchProcess:
            continue


def peak_gflops(size: int = 2048, products: int = 12) -> float:
    """Of products of float32 matrices, all cores at once, one thread each; the median product's."""
    workers = threads.workers_for(torch.empty(0))
    square = torch.ones(size, size)

    def seconds(_: int, out: torch.Tensor) -> float:
        begin = time.perf_counter()
        torch.mm(square, square, out=out)
        return time.perf_counter() - begin

    taken = list(
        threads.in_order(seconds, range(products * workers), [torch.empty(size, size) for _ in range(workers)])
    )
    return workers * 2 * size**3 / statistics.median(taken) / 1e9


def gflop(name: str) -> float:
    """Arithmetic of a round: a multiplication with the weights on the way up; on the way down one for the weights'
    gradient and, above the first layer, one for the error below."""
    workload, info = WORKLOADS[name], DATASETS["mnist"]
    each = products_of(workload.config.model.kind)
    training = 3 * sum(each) - each[0]
    return 2e-9 * (workload.trained_examples * training + info.num_test * sum(each))


def products_of(model: str) -> list[int]:
    """Multiplications of each layer for one image on its way up."""
    network, (_, height, width) = networks.build(model, DATASETS["mnist"], torch.Generator()), DATASETS["mnist"].shape
    convolutions, dense = convolutional_layers(network) or ([], dense_layers(network) or [])
    wide = []
    for layer in convolutions:
        wide.append(height * width * layer.outputs * layer.inputs * layer.kernel**2)
        height, width = height // 2, width // 2
    return wide + [layer.inputs * layer.outputs for layer in dense]


def report(name: str, runs: dict[str, list[Measured]]) -> dict[str, float]:
    """Prints the table of a workload; each contender's median seconds per round."""
    medians = {contender: statistics.median(later_rounds(each)) for contender, each in runs.items()}
    ours = medians.get("batched")
    print(f"\n{name}: {WORKLOADS[name].title}; {gflop(name):.1f} GFLOP a round")
    print(f"  {'':<11}{'s/round':>9}{'ours is':>11}{'of peak':>9}{'wall s':>9}{'RSS MB':>9}{'accuracy':>10}")
    for contender, each in runs.items():
        seconds, peak = medians[contender], statistics.median(one.peak_gflops for one in each)
        faster = "" if ours is None or contender == "batched" else f"{seconds / ours:.1f} x"
        print(
            f"  {contender:<11}{seconds:>9.3f}{faster:>11}{gflop(name) / seconds / peak:>9.0%}"
            f"{statistics.median(one.wall_seconds for one in each):>9.1f}{max(one.rss_mb for one in each):>9,.0f}"
            f"{each[-1].accuracy:>10.4f}   (peak {peak:,.0f} GFLOP/s)"
        )
    return medians


def later_rounds(runs: list[Measured]) -> list[float]:
    return [seconds for each in runs for seconds in each.seconds[1:]]


def per_example(name: str, medians: dict[str, dict[str, float]]) -> float:
    return medians[name]["batched"] / WORKLOADS[name].trained_examples


def recorded_seconds() -> float:
    """Ten rounds of W3 by the shell command, recorded in a database of their own, made before."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "DATABASE_URL": f"sqlite:///{folder}/bench.sqlite3",
            "FEDSITE_CHECKPOINT_DIR": f"{folder}/checkpoints",
            "SECRET_KEY": "benchmark",
            "DEBUG": "1",
        }
        manage = [sys.executable, str(ROOT / "manage.py")]
        subprocess.run([*manage, "migrate", "--verbosity", "0"], env=environment, check=True)
        fields = {"dataset": "mnist", "validation_size": 0, "valuation": "none", **WORKLOADS["W3"].fields}
        options = [f"--set={field}={json.dumps(value)}" for field, value in {**fields, "num_rounds": 10}.items()]
        begin = time.perf_counter()
        subprocess.run(
            [*manage, "run_simulation", "--json", *options], env=environment, check=True, capture_output=True
        )
        return time.perf_counter() - begin


if __name__ == "__main__":
    main()
