"""Plain words for what a configuration names: labels of fields and choices, facts of a simulation."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import kinds
from kinds.parameter import stretches
from simulations.config import CHOICES, FIELDS, GROUPS, SimulationConfig, kind_in
from simulations.models import Simulation
from simulations.running import manifest
from training.behaviours import num_identities
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
    "reward_rule": "Pool split by",
    "shadows": "Other economies",
    "stake": "Stake, tokens",
    "slashing": "What costs stake",
    "slashed_to": "Lost stakes go to",
    "burn_share": "Share burned",
    "budget_tokens": "Budget, tokens",
    "tokens": "Tokens a round",
    "scaling_factor": "Tokens per unit of loss",
    "backend": "Runs on",
}
THRESHOLD = {"above": "Score above", "share": "Share lost"}  # of an entry of slashing
MOST_ENTRIES = 50  # of clients with behaviours that a page lists
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
    config = simulation.configuration
    numbers = num_identities(simulation.num_clients, config["behaviours"].values(), config["population"])
    cohort = sampled(numbers, share, fewest)
    noun = "client" if simulation.num_clients == 1 else "clients"
    under = "" if numbers == simulation.num_clients else f" under {numbers:,} identities"
    each = "" if cohort == numbers else f", {cohort:,} each round"
    return f"{simulation.num_clients:,} {noun}{under}{each}"


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


def paying(simulation: Simulation) -> str:
    """What the paying economy consists of: 'contribution by Shapley, exact, pool of a round improvement on ...'."""
    config = simulation.configuration
    return economy({name: config[name] for name in ("valuation", "pool", "reward_rule")})


def game_note(simulation: Simulation) -> str:
    """By whose model contributions are measured, where that is not the one that the server made."""
    config = simulation.configuration
    strategy = kinds.family("strategy").get(config["strategy"]["kind"])
    valuation = kinds.family("valuation").get(config["valuation"]["kind"])
    if (strategy and "averaged" in strategy.traits) or (valuation and "no_game" in valuation.traits):
        return ""
    if config["game"] == "server":
        return ""
    name = short(config["strategy"]["kind"], "strategy")
    return f"to the model of plain federated averaging, not to that of {name}"


def behaviour(simulation: Simulation, client: dict[str, Any]) -> dict[str, Any]:
    """What a client does, in words, with the parameters that are not the usual ones."""
    name, holder = client["behaviour"], client["holder"]
    given = simulation.config["behaviours"].get(str(holder or client["number"]), {})
    found = kinds.family("behaviour").get(name)
    usual = {each: parameter.plain(parameter.default) for each, parameter in found.parameters.items()} if found else {}
    odd = [
        f"{each.replace('_', ' ')} {_shown(value)}"
        for each, value in given.items()
        if each not in ("kind", "source_sha256") and value != usual.get(each)
    ]
    if holder is not None:
        odd = [f"identity of client {holder:,}"]
    return {"does": ", ".join([name.replace("_", " "), *odd]), "dishonest": name != "honest"}


def configuration(simulation: Simulation) -> list[dict[str, Any]]:
    """Every field with its value, in today's words and by group; below each choice the parameters of its kind, and of
    no other. A row has a `value`, or `entries` of (who, does what)."""
    meant = simulation.configuration
    rows: dict[str, list[dict[str, Any]]] = {group: [] for group in GROUPS}
    for name, field in FIELDS.items():
        value, of_group = meant[name], rows[field.metadata["group"]]
        row = {"name": name, "label": label(name), "help": field.metadata["help"], "is_parameter": False}
        if name == "behaviours":
            of_group.append(row | {"value": "all honest", "entries": _who_does_what(value)})
            continue
        if name == "population":
            of_group.append(row | {"value": "none", "entries": _shares(value)})
            continue
        if name == "detectors":
            of_group.append(row | {"value": "none", "entries": [(each["kind"], _parameters(each)) for each in value]})
            continue
        if name == "slashing":
            of_group.append(row | {"value": "none", "entries": [(e["detector"]["kind"], _threshold(e)) for e in value]})
            continue
        if name == "shadows":
            of_group.append(row | {"value": "none", "entries": [(each["label"], economy(each)) for each in value]})
            continue
        if name not in CHOICES:
            of_group.append(row | {"value": "no limit" if name == "budget_tokens" and value is None else _shown(value)})
            continue
        found = kinds.family(CHOICES[name]).get(value["kind"])
        usual = found.parameters if found else {}
        named = {**usual, **{each: None for each in value if each != "kind"}}
        shown = {"value": kind(CHOICES[name], value["kind"]), "help": found.help if found else row["help"]}
        of_group.append(row | shown)
        for parameter in named:
            known = usual.get(parameter)
            of_group.append(
                {
                    "name": f"{name}.{parameter}",
                    "label": label(parameter),
                    "value": _shown(value.get(parameter, known.default if known else None)),
                    "help": known.help if known else "",
                    "is_parameter": True,
                }
            )
    return [{"name": group, "rows": of_group} for group, of_group in rows.items()]


def _who_does_what(behaviours: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """('3, 7', 'sign flip, scale 5'): clients that do the same together, in the order of the first of them."""
    found = together(behaviours)
    entries = [(_cut(stretches(clients)), behaviour_in_words(given)) for clients, given in found[:MOST_ENTRIES]]
    left_out = sum(len(clients) for clients, _ in found[MOST_ENTRIES:])
    return entries + ([("…", f"and {left_out:,} more")] if left_out else [])


def _shares(population: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    return [
        (f"{percent(entry['share'])} %", behaviour_in_words({k: v for k, v in entry.items() if k != "share"}))
        for entry in population
    ]


def _parameters(given: Mapping[str, Any]) -> str:
    named = [f"{label(name).lower()} {_shown(value)}" for name, value in given.items() if name not in _NOT_TOLD]
    return ", ".join(named) or "scores"


_NOT_TOLD = ("kind", "source_sha256")


def _threshold(entry: Mapping[str, Any]) -> str:
    """'above 0.99 costs 50 % of the stake'."""
    return f"above {entry['above']:g} costs {percent(entry['share'])} % of the stake"


def economy(entry: Mapping[str, Any]) -> str:
    """What an economy does not take from the paying one: 'contribution by data size, pool of a round fixed'."""
    words = []
    for name, value in entry.items():
        if name == "label":
            continue
        if name in ("detectors", "slashing"):
            told = [
                f"{each['detector']['kind']} {_threshold(each)}" if "detector" in each else each["kind"]
                for each in value
            ]
            words.append(f"{label(name).lower()}: {'; '.join(told) or 'none'}")
            continue
        if name not in CHOICES:
            words.append(f"{label(name).lower()} {_shown(value)}")
            continue
        words.append(f"{label(name).lower()} {kind(CHOICES[name], value['kind'])}")
        odd = {each: given for each, given in value.items() if each not in ("kind", "source_sha256")}
        words += [f"{label(each).lower()} {_shown(given)}" for each, given in odd.items()]
    return ", ".join(words).replace(" by by ", " by ") or "as the paying one"


def together(behaviours: Mapping[Any, Mapping[str, Any]]) -> list[tuple[list[int], Mapping[str, Any]]]:
    """Clients with what they do, those that do the same together, in the order of the first of each."""
    found: dict[str, tuple[list[int], Mapping[str, Any]]] = {}
    for client in sorted(behaviours, key=int):
        given = behaviours[client]
        found.setdefault(json.dumps(given, sort_keys=True), ([], given))[0].append(int(client))
    return list(found.values())


def behaviour_in_words(given: Mapping[str, Any]) -> str:
    """'label flip, fraction 0.5, rounds 3 to 6'."""
    bounds = ("kind", "source_sha256", "from_round", "to_round")
    words = [kind("behaviour", given["kind"])]
    words += [f"{name.replace('_', ' ')} {_shown(value)}" for name, value in given.items() if name not in bounds]
    first, last = given.get("from_round", 1), given.get("to_round")
    if last is not None:
        words.append(f"round {first:,}" if first == last else f"rounds {first:,} to {last:,}")
    elif first > 1:
        words.append(f"from round {first:,}")
    return ", ".join(words)


def percent(share: float) -> str:
    """0.07 as '7', to the last digit: `float(f"{percent}e-2")` is the share again."""
    return f"{Decimal(repr(float(share))).scaleb(2).normalize():f}"


def _cut(text: str, most: int = 60) -> str:
    """Client numbers, the first of them where they are many."""
    if len(text) <= most:
        return text
    kept = text[:most].rpartition(",")[0]
    return f"{kept}, …"


def memory(size: int) -> str:
    """'620 MB', '3.4 GB': two digits, for it is an estimate."""
    unit, name = (1_000_000_000, "GB") if size >= 1_000_000_000 else (1_000_000, "MB")
    return f"{float(f'{size / unit:.2g}'):,.12g} {name}"


def most_tokens(config: SimulationConfig, tokens: float | None) -> str:
    """What all rounds may pay, where something is paid. An improvement pays for the whole way to a loss of 0 at most,
    from a beginning that is known about."""
    if not config.is_valued:
        return ""
    if tokens is None:
        return "tokens as it goes"
    is_known = config.pool.has("scheduled") or tokens == config.budget_tokens
    return f"at most {'' if is_known else 'about '}{tokens:,.4g} tokens"


def machines(simulation: Simulation) -> list[str]:
    """On what it was trained, a line for the start and for each time that it went on."""
    first, *later = simulation.manifests or [None]
    lines = [manifest.in_words(first)] if first else []
    return lines + [f"after round {entry['after_round']:,}: {manifest.in_words(entry)}" for entry in later]


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return _cut(stretches(value)) or "none"
    return "default" if value is None else _number(value)


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
