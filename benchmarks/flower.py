"""The workloads of benchmarks.engine in Flower, which starts it: `python -m benchmarks.flower W3`.

As one would write it to be fast: Ray actors with one core and one thread each, one per core; each actor loads MNIST
and deals it once, the examples are slices of one tensor, batches need no loader; nothing but the updated weights
comes back. The server evaluates with all cores, as the actors wait meanwhile. Same maths, split and batches as ours.
"""

from __future__ import annotations

import json
import os
import sys
import time
from functools import cache
from itertools import pairwise

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from torch import nn
from torch.nn import functional as F

from benchmarks.engine import WORKLOADS
from benchmarks.learning import mnist
from training import federation
from training.federation import Federation
from training.generators import torch_generator

client_app, server_app = ClientApp(), ServerApp()
told: list[tuple[float, float]] = []  # when a round ended, and its accuracy


@cache
def federated(name: str) -> Federation:
    """Once in a process."""
    return federation.gather(WORKLOADS[name].config, mnist())


@client_app.train()
def train(message: Message, context: Context) -> Message:
    torch.set_num_threads(1)
    name, round_number = message.content["config"]["workload"], message.content["config"]["server-round"]
    here, client = federated(name), int(context.node_config["partition-id"]) + 1
    here.network.load_state_dict(message.content["arrays"].to_torch_state_dict())
    indices = torch.from_numpy(here.holdings.clients[client - 1])
    descend(here, indices, torch_generator(here.config.seed, "batches", round_number, client))
    content = {
        "arrays": ArrayRecord(here.network.state_dict()),
        "metrics": MetricRecord({"num-examples": len(indices)}),
    }
    return Message(content=RecordDict(content), reply_to=message)


def descend(here: Federation, indices: torch.Tensor, generator: torch.Generator) -> None:
    optimiser = torch.optim.SGD(here.network.parameters(), lr=here.config.lr)
    order = indices[torch.randperm(len(indices), generator=generator)]
    for batch in torch.split(order, here.config.batch_size):
        optimiser.zero_grad()
        F.cross_entropy(here.network(here.data.train_x[batch]), here.data.train_y[batch]).backward()
        optimiser.step()


@server_app.main()
def main(grid: Grid, context: Context) -> None:
    torch.set_num_threads(os.cpu_count() or 1)
    name = sys.argv[1]
    here, config = federated(name), WORKLOADS[name].config
    strategy = FedAvg(
        fraction_train=config.fraction_fit,
        fraction_evaluate=0.0,
        min_train_nodes=config.cohort_size,
        min_available_nodes=config.num_clients,
    )
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(here.network.state_dict()),
        num_rounds=config.num_rounds,
        train_config=ConfigRecord({"workload": name}),
        evaluate_fn=lambda _, arrays: evaluate(here, arrays),
    )


def evaluate(here: Federation, arrays: ArrayRecord) -> MetricRecord:
    here.network.load_state_dict(arrays.to_torch_state_dict())
    size = 200 if any(isinstance(layer, nn.Conv2d) for layer in here.network) else 1000
    with torch.inference_mode():
        found = torch.cat([here.network(images).argmax(1) for images in torch.split(here.data.test_x, size)])
    accuracy = (found == here.data.test_y).double().mean().item()
    told.append((time.perf_counter(), accuracy))
    return MetricRecord({"accuracy": accuracy})


def bench() -> None:
    config = WORKLOADS[sys.argv[1]].config
    actors = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    run_simulation(server_app, client_app, num_supernodes=config.num_clients, backend_config=actors)
    ends = [end for end, _ in told]  # the first is that of the untrained model
    seconds = [after - before for before, after in pairwise(ends)]
    print(json.dumps({"seconds": seconds, "accuracy": told[-1][1]}))


if __name__ == "__main__":
    import benchmarks.flower  # by its name, so that actors find the apps by import and not by pickling this module

    benchmarks.flower.bench()
