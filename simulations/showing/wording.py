"""Plain words for what a configuration names: labels of fields and choices, facts of a simulation."""

from __future__ import annotations

from typing import Any

from simulations.config import AVERAGED, FIELDS, NO_GAME, in_todays_words
from simulations.models import Simulation
from simulations.running import manifest
from training.config import BEHAVIOURS, DATASETS

LABELS = {
    "num_clients": "Clients",
    "num_rounds": "Rounds",
    "fraction_fit": "Share in each round",
    "min_available_clients": "Fewest in a round",
    "behaviours": "Behaviours",
    "dataset": "Data set",
    "partition": "Split of the data",
    "alpha": "Dirichlet alpha",
    "labels_per_client": "Shards per client",
    "validation_size": "Held-out examples",
    "lr": "Learning rate",
    "proximal_mu": "Proximal mu",
    "server_lr": "Server's learning rate",
    "server_momentum": "Server's momentum",
    "beta_1": "Adam's beta 1",
    "beta_2": "Adam's beta 2",
    "tau": "Adam's tau",
    "num_malicious_clients": "Malicious clients assumed",
    "clipping_norm": "Clipping radius",
    "evaluate_every": "Evaluate every",
    "valuation": "Contribution by",
    "utility": "Worth of a coalition",
    "game": "Contributions to the model of",
    "utility_weights": "Weights in a coalition",
    "pool": "Pool of a round",
    "pool_tokens": "Tokens a round",
    "scaling_factor": "Tokens per unit of loss",
    "backend": "Runs on",
}
CHOICES = {
    **{name: info.label for name, info in DATASETS.items()},
    "auto": "automatic",
    "mlp": "MLP, one hidden layer",
    "2nn": "2NN, two hidden layers",
    "cnn": "CNN, two convolutions",
    "logistic": "logistic regression",
    "iid": "even (IID)",
    "dirichlet": "Dirichlet",
    "pathological": "sorted shards",
    "quantity": "uneven sizes",
    "fedavg": "FedAvg",
    "fedavgm": "FedAvgM, server momentum",
    "fedadam": "FedAdam",
    "fedprox": "FedProx",
    "median": "coordinate-wise median",
    "multi_krum": "multi-Krum",
    "shapley": "Shapley, exact",
    "leave_one_out": "leave one out",
    "none": "not measured",
    "fixed": "fixed",
    "improvement": "improvement on the best so far",
    "cpu": "CPU",
    "ray": "a Ray cluster",
}
SHORT = CHOICES | {"mlp": "MLP", "2nn": "2NN", "cnn": "CNN", "logistic": "logistic", "iid": "IID", "shapley": "Shapley"}
SHORT |= {"fedavgm": "FedAvgM", "median": "median"}


def label(name: str) -> str:
    return LABELS.get(name, name.replace("_", " ").capitalize())


def choice(value: str) -> str:
    return CHOICES.get(value, value.replace("_", " "))


def short(value: str) -> str:
    return SHORT.get(value, value.replace("_", " "))


def facts(simulation: Simulation) -> list[str]:
    """What was trained, by whom, on what; one line."""
    config = simulation.config
    split = short(config["partition"])
    if config["partition"] in ("dirichlet", "quantity"):
        split = f"{split} {config['alpha']:g}"
    return [
        data_and_model(simulation),
        f"{clients(simulation)}, {split}",
        short(config["strategy"]),
        rule(simulation),
        f"seed {config['seed']}",
    ]


def data_and_model(simulation: Simulation) -> str:
    data = "data not chosen yet" if simulation.dataset == "auto" else short(simulation.dataset)
    return f"{data}, {short(simulation.config['model'])}"


def clients(simulation: Simulation) -> str:
    """'10 clients', '1,000 clients, 100 each round'."""
    fewest, share = simulation.config["min_available_clients"], simulation.fraction_fit
    cohort = min(simulation.num_clients, max(fewest, round(share * simulation.num_clients)))
    noun = "client" if simulation.num_clients == 1 else "clients"
    each = "" if cohort == simulation.num_clients else f", {cohort:,} each round"
    return f"{simulation.num_clients:,} {noun}{each}"


def dishonest(simulation: Simulation) -> int:
    return len(simulation.config["behaviours"])


def rule(simulation: Simulation) -> str:
    """How contributions are measured and paid."""
    config = simulation.config
    if config["valuation"] == "none":
        return "nothing measured or paid"
    return f"{short(config['valuation'])}, {short(config['reward_rule'])}"


def game_note(simulation: Simulation) -> str:
    """By whose model contributions are measured, where that is not the one that the server made."""
    config = simulation.config
    if config["strategy"] in AVERAGED or config["valuation"] in NO_GAME:
        return ""
    return f"to the model of plain federated averaging, not to that of {short(config['strategy'])}"


def behaviour(simulation: Simulation, client: dict[str, Any]) -> dict[str, Any]:
    """What a client does, in words, with the parameters that are not the usual ones."""
    kind = client["behaviour"]
    given = simulation.config["behaviours"].get(str(client["number"]), {})
    usual = BEHAVIOURS.get(kind, {})
    odd = [f"{name} {given[name]:g}" for name in usual if given.get(name, usual[name].default) != usual[name].default]
    return {"does": ", ".join([kind.replace("_", " "), *odd]), "dishonest": kind != "honest"}


def configuration(simulation: Simulation) -> list[dict[str, Any]]:
    """Every field with its value, in today's words, for the table on the page."""
    meant = in_todays_words(simulation.config, simulation.scheme)
    return [
        {
            "name": name,
            "label": label(name),
            "value": _shown(meant.get(name, field.default)),
            "help": field.metadata["help"],
        }
        for name, field in FIELDS.items()
    ]


def machines(simulation: Simulation) -> list[str]:
    """On what it was trained, a line for the start and for each time that it went on."""
    first, *later = simulation.manifests or [None]
    lines = [manifest.in_words(first)] if first else []
    return lines + [f"after round {entry['after_round']:,}: {manifest.in_words(entry)}" for entry in later]


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(_behaviour_line(client, given) for client, given in value.items()) or "all honest"
    return "default" if value is None else str(value)


def _behaviour_line(client: str, given: dict[str, Any]) -> str:
    rest = [f"{name}={value:g}" for name, value in given.items() if name != "kind"]
    return f"{client}: {' '.join([given['kind'], *rest])}"
