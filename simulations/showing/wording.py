"""Plain words for what a configuration names: labels of fields and choices, facts of a simulation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import kinds
from simulations.config import CHOICES, FIELDS, kind_in
from simulations.models import Simulation
from simulations.running import manifest
from training.config import sampled

LABELS = {
    "num_clients": "Clients",
    "num_rounds": "Rounds",
    "fraction_fit": "Share in each round",
    "min_available_clients": "Fewest in a round",
    "behaviours": "Behaviours",
    "dataset": "Data set",
    "partition": "Split of the data",
    "population": "Population",
    "data_seed": "Seed of the split",
    "sampler": "Sampled",
    "include": "Only these clients",
    "exclude": "Never these clients",
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
    "tokens": "Tokens a round",
    "scaling_factor": "Tokens per unit of loss",
    "backend": "Runs on",
}
SHORT = {  # where a line has little room
    **{"mlp": "MLP", "2nn": "2NN", "cnn": "CNN", "logistic": "logistic", "iid": "IID", "shapley": "Shapley"},
    **{"fedavgm": "FedAvgM", "median": "median", "cpu": "CPU", "ray": "a Ray cluster"},
}


def label(name: str) -> str:
    return LABELS.get(name, name.replace("_", " ").capitalize())


def kind(family: str, name: str) -> str:
    """A kind as a person reads it; of a plug-in, its own label with its id."""
    found = kinds.family(family).get(name)
    if found is None:
        return name
    return f"{found.label} ({name})" if "/" in name else found.label


def short(value: str, family: str = "") -> str:
    """In a line that has little room."""
    if value in SHORT or family not in kinds.FAMILIES or "/" in value:
        return SHORT.get(value, value.replace("_", " "))
    return kind(family, value)


def facts(simulation: Simulation) -> list[str]:
    """What was trained, by whom, on what; one line."""
    config = simulation.configuration
    partition = config["partition"]
    split = short(partition["kind"], "partition")
    if "alpha" in partition:
        split = f"{split} {partition['alpha']:g}"
    return [
        data_and_model(simulation),
        f"{clients(simulation)}, {split}",
        short(config["strategy"]["kind"], "strategy"),
        rule(simulation),
        f"seed {config['seed']}",
    ]


def data_and_model(simulation: Simulation) -> str:
    data = "data not chosen yet" if simulation.dataset == "auto" else short(simulation.dataset, "dataset")
    return f"{data}, {short(model(simulation), 'model')}"


def model(simulation: Simulation) -> str:
    """The kind's name."""
    return kind_in(simulation.config, "model")


def clients(simulation: Simulation) -> str:
    """'10 clients', '1,000 clients, 100 each round'."""
    fewest, share = simulation.config["min_available_clients"], simulation.fraction_fit
    cohort = sampled(simulation.num_clients, share, fewest)
    noun = "client" if simulation.num_clients == 1 else "clients"
    each = "" if cohort == simulation.num_clients else f", {cohort:,} each round"
    return f"{simulation.num_clients:,} {noun}{each}"


def dishonest(simulation: Simulation) -> int:
    """How many clients do not play fair, of those that are named or drawn."""
    config = simulation.configuration
    drawn = sum(round(entry["share"] * simulation.num_clients) for entry in config["population"])
    return len(config["behaviours"]) + drawn


def rule(simulation: Simulation) -> str:
    """How contributions are measured and paid."""
    config = simulation.configuration
    if config["valuation"]["kind"] == "none":
        return "nothing measured or paid"
    return f"{short(config['valuation']['kind'], 'valuation')}, {short(config['reward_rule']['kind'], 'rule')}"


def game_note(simulation: Simulation) -> str:
    """By whose model contributions are measured, where that is not the one that the server made."""
    config = simulation.configuration
    strategy = kinds.family("strategy").get(config["strategy"]["kind"])
    valuation = kinds.family("valuation").get(config["valuation"]["kind"])
    if (strategy and "averaged" in strategy.traits) or (valuation and "no_game" in valuation.traits):
        return ""
    name = short(config["strategy"]["kind"], "strategy")
    return f"to the model of plain federated averaging, not to that of {name}"


def behaviour(simulation: Simulation, client: dict[str, Any]) -> dict[str, Any]:
    """What a client does, in words, with the parameters that are not the usual ones."""
    name = client["behaviour"]
    given = simulation.config["behaviours"].get(str(client["number"]), {})
    found = kinds.family("behaviour").get(name)
    usual = {each: parameter.default for each, parameter in found.parameters.items()} if found else {}
    odd = [
        f"{each.replace('_', ' ')} {_number(value)}"
        for each, value in given.items()
        if each not in ("kind", "source_sha256") and value != usual.get(each)
    ]
    return {"does": ", ".join([name.replace("_", " "), *odd]), "dishonest": name != "honest"}


def configuration(simulation: Simulation) -> list[dict[str, Any]]:
    """Every field with its value, in today's words, for the table on the page; below each choice the parameters of its
    kind, and of no other."""
    meant, rows = simulation.configuration, []
    for name, field in FIELDS.items():
        value = meant[name]
        row = {"name": name, "label": label(name), "help": field.metadata["help"], "is_parameter": False}
        if name not in CHOICES:
            rows.append(row | {"value": _shown(value)})
            continue
        found = kinds.family(CHOICES[name]).get(value["kind"])
        rows.append(row | {"value": kind(CHOICES[name], value["kind"]), "help": found.help if found else row["help"]})
        usual = found.parameters if found else {}
        for parameter in {**usual, **{each: None for each in value if each != "kind"}}:
            known = usual.get(parameter)
            rows.append(
                {
                    "name": f"{name}.{parameter}",
                    "label": label(parameter),
                    "value": _shown(value.get(parameter, known.default if known else None)),
                    "help": known.help if known else "",
                    "is_parameter": True,
                }
            )
    return rows


def machines(simulation: Simulation) -> list[str]:
    """On what it was trained, a line for the start and for each time that it went on."""
    first, *later = simulation.manifests or [None]
    lines = [manifest.in_words(first)] if first else []
    return lines + [f"after round {entry['after_round']:,}: {manifest.in_words(entry)}" for entry in later]


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{client}: {in_words(given)}" for client, given in value.items()) or "all honest"
    if isinstance(value, list | tuple):
        return "; ".join(in_words(each) if isinstance(each, dict) else str(each) for each in value) or "none"
    return "default" if value is None else str(value)


def in_words(given: Mapping[str, Any]) -> str:
    """A behaviour or a share of a population as one types it: 'label_flip fraction=0.5'."""
    rest = [f"{name}={_number(value)}" for name, value in given.items() if name not in ("kind", "source_sha256")]
    return " ".join([given["kind"], *rest])


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
