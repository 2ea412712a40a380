"""What a run will need is known before it starts, and nothing starts that needs more than there is."""

import dataclasses
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

import kinds
from fedsite.tests.machine import PROJECT
from simulations import durations, estimates
from simulations.config import SimulationConfig
from simulations.durations import size_of
from simulations.models import Simulation
from simulations.running.trainer import Assignment
from training import lines, networks
from training.catalogue import DATASETS
from training.config import ConfigError
from training.generators import torch_generator

MODELS = tuple(kinds.family("model"))
# 1,400 updates of 0.22 MB that are all kept, and hardly any arithmetic.
MANY = {
    "dataset": "digits",
    "model": "2nn",
    "num_clients": 1400,
    "strategy": "median",
    "valuation": "none",
    "validation_size": 0,
    "num_rounds": 1,
}
SENTENCE = "There is not enough memory for this configuration; a smaller model, or fewer clients in a round"


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("model", MODELS)
def test_it_knows_how_many_parameters_a_network_has(dataset, model):
    network = networks.build(model, DATASETS[dataset], torch_generator(0, "initial_weights"))
    counted = sum(parameter.numel() for parameter in network.parameters())
    assert size_of(model, DATASETS[dataset]).parameters == counted


def test_it_keeps_to_what_the_loop_does():
    assert lines.FEW == estimates.FEW


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"model": "cnn", "num_clients": 10_000}, "fraction_fit"),  # 66 GB
        ({"model": "cnn", "num_clients": 10_000, "valuation": "none", "strategy": "median"}, "fraction_fit"),
        (
            {"model": "cnn", "num_clients": 9_000, "fraction_fit": 0.0, "min_available_clients": 9_000},
            "min_available_clients",
        ),
    ],
)
def test_it_refuses_what_no_machine_here_can_bear(values, field):
    with pytest.raises(ConfigError) as refused:
        estimates.refuse_too_large(SimulationConfig.of(dataset="mnist", **values), 20 * estimates.GIGABYTE)
    assert [*refused.value.errors] == [field]
    assert "GB of memory, and 20.0 GB are allowed (FEDSITE_MAX_MEMORY)" in refused.value.errors[field]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"model": "cnn", "num_clients": 10_000, "valuation": "data_size"},  # no update is looked at twice
        {"model": "2nn", "num_clients": 10_000, "fraction_fit": 0.1},
    ],
)
def test_it_lets_others_in(values):
    estimates.refuse_too_large(SimulationConfig.of(dataset="mnist", **values), 4 * estimates.GIGABYTE)


def test_what_it_says_fits_does_fit():
    config = SimulationConfig.of(dataset="mnist", model="cnn", num_clients=10_000)
    with pytest.raises(ConfigError) as refused:
        estimates.refuse_too_large(config, 20 * estimates.GIGABYTE)
    most = int(refused.value.errors["fraction_fit"].split("; some ")[1].split()[0].replace(",", ""))
    estimates.refuse_too_large(
        SimulationConfig.of(dataset="mnist", model="cnn", num_clients=most), 20 * estimates.GIGABYTE
    )


@pytest.mark.django_db
def test_the_page_names_the_field(client, settings):
    settings.FEDSITE_MAX_MEMORY = estimates.GIGABYTE
    answer = client.post("/simulations/", {"num_clients": "5000", "model": "cnn"})
    assert answer.status_code == 422
    assert "FEDSITE_MAX_MEMORY" in answer.content.decode()
    assert not Simulation.objects.exists()


@pytest.mark.django_db
def test_the_api_names_the_field(client, settings):
    settings.FEDSITE_MAX_MEMORY = estimates.GIGABYTE
    values = {"num_clients": 5000, "model": "cnn", "dataset": "mnist"}
    answer = client.post("/api/simulations/", json.dumps(values), content_type="application/json")
    assert answer.status_code == 422
    assert "fraction_fit" in json.dumps(answer.json())
    assert not Simulation.objects.exists()


def test_the_shell_names_the_field():
    command = [sys.executable, "manage.py", "run_simulation", "--no-record", "--model=cnn", "--num-clients=5000"]
    environment = os.environ | {"FEDSITE_MAX_MEMORY": "1GB"}
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert "fraction_fit: this run needs about" in done.stderr


def trained(most_bytes=None, values=MANY, **options) -> tuple[dict, int]:
    """The last event of a trainer with a configuration of many updates, and its largest memory so far."""
    config = SimulationConfig.of(**values).to_dict()
    told = Assignment(config=config, data_dir=str(settings.FEDSITE_DATA_DIR), most_bytes=most_bytes)
    trainer = subprocess.Popen(
        [sys.executable, "-m", "simulations.running.trainer"],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    trainer.stdin.write(told.to_line())
    trainer.stdin.flush()
    event, peak = {}, 0
    for line in trainer.stdout:
        event = json.loads(line)
        status = Path(f"/proc/{trainer.pid}/status")
        if event["kind"] == "round":
            if status.exists():
                peak = next(int(row.split()[1]) for row in status.read_text().splitlines() if row.startswith("VmHWM"))
            trainer.stdin.write("\n")
            trainer.stdin.flush()
    trainer.communicate()
    return event, 1024 * peak


def test_a_run_takes_what_was_estimated():
    event, peak = trained()
    assert event["kind"] == "completed", event
    estimated = estimates.memory(SimulationConfig.of(**MANY)).total
    if peak:  # Linux tells
        assert 0.75 * peak < estimated < 1.25 * peak


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels do not bound what is written to")
def test_a_trainer_that_takes_more_than_it_may_ends_with_a_sentence():
    event, _ = trained(most_bytes=700_000_000, values=MANY | {"model": "cnn"})
    assert event["kind"] == "failed"
    assert event["message"].startswith(SENTENCE)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit that a Linux shell sets by ulimit -v")
def test_a_limit_of_the_shell_gives_the_same_sentence():
    limit = 4_200_000_000
    event, _ = trained(
        values=MANY | {"model": "cnn"}, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    )
    assert event["kind"] == "failed"
    assert event["message"].startswith(SENTENCE)


def test_updates_that_wait_for_conspirators_and_noisy_inputs_are_memory():
    crowd = {"dataset": "mnist", "num_clients": 200, "valuation": "none"}
    honest, mimic, valued = (
        estimates.memory(SimulationConfig.from_dict(crowd | more))
        for more in ({}, {"behaviours": {"3": {"kind": "mimic"}}}, {"valuation": "leave_one_out"})
    )
    assert honest.updates < valued.updates / 10
    assert mimic.updates == valued.updates
    both = {"valuation": "leave_one_out", "population": [{"share": 0.1, "kind": "alie"}]}
    twice = estimates.memory(SimulationConfig.from_dict(crowd | both))
    assert twice.updates == pytest.approx(2 * valued.updates, rel=0.05)
    noisy = {"population": [{"share": 0.5, "kind": "feature_noise"}]}
    images = 4 * 28 * 28 * 60_000
    assert estimates.memory(SimulationConfig.from_dict(crowd | noisy)).data == honest.data + round(1.5 * images)


def test_identities_are_rows_and_who_trains_nothing_takes_no_time():
    def config(**behaviours):
        return SimulationConfig.from_dict({"dataset": "mnist", "valuation": "none", "behaviours": behaviours})

    copies = config(**{"2": {"kind": "sybil_copy", "identities": 11}})
    assert copies.cohort_size == 20
    assert estimates.rows(copies) == estimates.rows(dataclasses.replace(config(), num_clients=20))
    honest, replay, half, group = (
        durations.of_phases(each)["train"]
        for each in (
            config(),
            config(**{str(client): {"kind": "replay"} for client in range(1, 6)}),
            config(**{str(client): {"kind": "less_data", "fraction": 0.5} for client in range(1, 6)}),
            config(**{"1": {"kind": "collusion", "group": [1, 2, 3, 4, 5]}}),
        )
    )
    assert replay == pytest.approx(0.5 * honest, rel=0.2)
    assert half == pytest.approx(0.75 * honest, rel=0.1)
    assert group == pytest.approx(0.6 * honest, rel=0.2)
