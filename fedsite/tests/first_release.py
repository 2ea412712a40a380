"""Runs of the first release, stopped in their middle, to prove that later releases end them as it would have.

    python -m fedsite.tests.first_release make FILE     with the code of the first release (git: c0607c5)
    python -m fedsite.tests.first_release load FILE     rows and checkpoints into a site migrated as far as FILE knows
    python -m fedsite.tests.first_release go_on         with today's code: every run of that site to its end
    python -m fedsite.tests.first_release price         each of them under every rule, from what was kept of it
    python -m fedsite.tests.first_release today         what the same configurations train when asked for today

FILE has a JSON object a line: first what is known about the rows, with the checkpoints and the end of each run as the
first release came to it undisturbed; then each row as `dumpdata` writes it. first_release.jsonl was made once.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from fedsite.tests import first_ledger, servers

FILE = Path(__file__).with_suffix(".jsonl")
ROUNDS, KILLED_AFTER = 5, 3
COMMON = {"dataset": "digits", "model": "logistic", "num_clients": 5, "num_rounds": ROUNDS, "batch_size": 64}
ABSENT = {"1": {"kind": "free_rider"}, **{str(client): {"kind": "dropout"} for client in (2, 4, 6)}}
MANY = {"num_clients": 8, "partition": "dirichlet", "behaviours": ABSENT}
RUNS: dict[str, dict[str, Any]] = {
    "regained": {"lr": 2.0, "partition": "pathological"},
    "silence_paid": {
        "num_clients": 6,
        "valuation": "equal",
        "utility_weights": "renormalised",
        "pool": "fixed",
        "behaviours": ABSENT,
    },
    "own_models": {"valuation": "loss_improvement", "behaviours": ABSENT, "num_clients": 6},
    "left_out": {**MANY, "valuation": "leave_one_out", "utility_weights": "renormalised", "fraction_fit": 0.75},
    "median": {**MANY, "strategy": "median", "pool": "fixed"},
    "trimmed_mean": {**MANY, "strategy": "trimmed_mean", "num_malicious_clients": 2},
    "multi_krum": {**MANY, "strategy": "multi_krum"},
    "centred_clipping": {**MANY, "strategy": "centred_clipping"},
    "fedadam": {"strategy": "fedadam", "partition": "quantity", "seed": 7},
    "fedprox": {"strategy": "fedprox", "lr": 0.2, "validation_size": 100, "pool_tokens": 3.5},
    "lost_checkpoint": {"strategy": "fedavgm", "lr": 0.5, "behaviours": {"3": {"kind": "label_flip"}}},
    "queued": {**MANY, "strategy": "median", "lr": 1.0},
}
for number, name in enumerate(RUNS):  # a run is told by what it is called and by its seed
    RUNS[name] = {**COMMON, "seed": 100 + number, **RUNS[name]}
SAME_BITS = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"}  # on every x86-64
QUEUE = """
import sys
from simulations import lifecycle
from simulations.config import SimulationConfig
lifecycle.queue(SimulationConfig.from_dict({config!r}), origin="api")
"""


def make(file: Path) -> None:
    import torch

    with tempfile.TemporaryDirectory() as folder:
        ends = undisturbed(Path(folder, "undisturbed"))
        servers.migrate(Path(folder, "killed"))
        environment = servers.site_environment(Path(folder, "killed")) | SAME_BITS
        for name, config in RUNS.items():
            if name == "queued":
                first_ledger.manage(environment, "shell", "-v0", "-c", QUEUE.format(config=config))
                continue
            armed = environment | {"FAILPOINT": f"round_committed:{KILLED_AFTER}"}
            done = servers.run_manage("run_simulation", *options(config), environment=armed)
            assert done.returncode == 137, done.stderr
        head = {
            "migrations": {app: newest(environment, app) for app in first_ledger.APPS},
            "torch": torch.__version__,
            "ends": ends,
            "checkpoints": checkpoints(Path(folder, "killed", "checkpoints")),
        }
        rows = first_ledger.manage(environment, "dumpdata", "--format", "jsonl", *first_ledger.APPS)
    file.write_text(json.dumps(head) + "\n" + rows)


def undisturbed(folder: Path) -> dict[str, Any]:
    """How each run ends where nothing happens to it."""
    servers.migrate(folder)
    environment = servers.site_environment(folder) | SAME_BITS
    ends = {}
    for name, config in RUNS.items():
        printed = json.loads(first_ledger.manage(environment, "run_simulation", "--json", *options(config)))
        end = {field: printed[field] for field in ("config", "config_sha256", "weights_sha256", "ledger_head")}
        end["losses"] = [row["loss"] for row in printed["rounds"]]
        end["pools"] = [row["pool_microtokens"] for row in printed["rounds"]]
        end["rewards"] = [client["reward_microtokens"] for client in printed["clients"]]
        ends[name] = end
    return ends


def options(config: dict[str, Any]) -> list[str]:
    return [word for name, value in config.items() for word in ("--set", f"{name}={json.dumps(value)}")]


def newest(environment: dict[str, str], app: str) -> str:
    return first_ledger.newest(first_ledger.manage(environment, "showmigrations", app))


def checkpoints(folder: Path) -> dict[str, str]:
    """The newest of each run."""
    return {
        str(path.relative_to(folder)): base64.b64encode(path.read_bytes()).decode()
        for path in sorted(folder.rglob(f"round-{KILLED_AFTER:06d}.pt"))
    }


def head_of(file: Path) -> dict[str, Any]:
    with file.open() as lines:
        return dict(json.loads(next(lines)))


def load(file: Path) -> None:
    """Also the checkpoints, but for the run that is to have lost its own."""
    first_ledger.load(file)
    lost = f"simulation-{1 + list(RUNS).index('lost_checkpoint')}/"
    for name, content in head_of(file)["checkpoints"].items():
        if not name.startswith(lost):
            path = Path(os.environ["FEDSITE_CHECKPOINT_DIR"], name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(base64.b64decode(content))


def go_on() -> None:
    """What a worker does, with the trainer in this process: PyTorch is loaded once for all of them. Prints the ends."""
    import django

    django.setup()
    from simulations.models import Simulation
    from simulations.running import events, lifecycle, trainer, worker
    from simulations.showing import results

    for simulation in Simulation.objects.order_by("pk"):
        claim = lifecycle.take(simulation)
        assert claim
        for _, line in trainer._lines(worker.assignment_for(claim)):
            worker.write(claim, events.decode(line))
    ended = {
        name: results.of_simulation(Simulation.objects.get(pk=number)) for number, name in enumerate(RUNS, start=1)
    }
    print(json.dumps(ended, default=str))


def price() -> None:
    """Every run that has ended under every rule. Prints, by run: each round's own pool and who of its cohort sent
    something, what does not follow when it is computed again, and by rule each round's pool, burned and rewards."""
    import django

    django.setup()
    import kinds
    from simulations import repricing
    from simulations.models import Contribution, Simulation, Status
    from simulations.running.folding import CannotFold
    from simulations.tests.schedules import Inline

    repricing.Child = Inline  # numpy is loaded once for all of them
    found: dict[str, Any] = {}
    for number, name in enumerate(RUNS, start=1):
        simulation = Simulation.objects.get(pk=number)
        if simulation.status != Status.COMPLETED:
            continue
        pools = list(simulation.rounds.order_by("number").values_list("pool_microtokens", flat=True))
        parts = Contribution.objects.filter(round__simulation=simulation).order_by("round__number", "client__number")
        sent: list[list[bool]] = [[] for _ in pools]
        for of_round, loss in parts.values_list("round__number", "loss_before"):
            sent[of_round - 1].append(loss is not None)
        found[name] = {"pools": pools, "sent": sent, "rules": {}}
        for rule in kinds.family("rule"):
            try:
                shadow = repricing.reprice(simulation, rule, {"reward_rule": rule})
            except CannotFold as error:
                found[name]["rules"][rule] = str(error)
                continue
            rows = shadow.rounds.order_by("number").values_list("pool_microtokens", "burned_microtokens", "rewards")
            found[name]["rules"][rule] = list(rows)
        found[name]["wrong"] = [each for each in repricing.recompute(simulation) if each[2]]
    print(json.dumps(found))


def today() -> None:
    """The hash of the weights that each configuration trains today, without what no kind of it reads, as JSON."""
    import torch

    from simulations.config import SimulationConfig
    from simulations.running.engine import simulate
    from simulations.running.events import Completed

    torch.set_num_threads(1)  # as a trainer does
    ends = {
        name: event.weights_sha256
        for name, config in RUNS.items()
        for event in simulate(SimulationConfig.from_record(config, 2), data_dir=Path("nowhere"))
        if isinstance(event, Completed)
    }
    print(json.dumps(ends))


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fedsite.settings")
    {"make": make, "load": load, "go_on": go_on, "price": price, "today": today}[sys.argv[1]](*map(Path, sys.argv[2:]))
