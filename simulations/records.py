"""Whether what a simulation's ledgers paid follows from its rows: facts, evidence, contributions, payments and sums.

From scheme 3 on a round's transaction commits to hashes of its facts and of what its economy made of them, which are
derived here again; before, to the hash of the evidence. What `prune` let go of is not looked for.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.db.models import Count, F, Sum

from incentives.chain import Entry
from incentives.memo import Facts, Paid
from incentives.models import Evidence, Ledger
from incentives.specification import Specification
from incentives.verification import Posted
from kinds import ConfigError
from simulations import economies
from simulations.config import SimulationConfig
from simulations.models import Client, Contribution, Round, Shadow, ShadowClient, ShadowRound, Simulation
from training.events import ClientReport

SUMS = ("number", "contribution", "contribution_variance", "reward_microtokens", "slashed_microtokens")
SLACK = 1e-9  # of a sum of floats, which depends on the order


def wrong(ledger: Ledger, posted: Sequence[Posted] | None) -> Iterator[tuple[int, str]]:
    """See incentives.verification.Derived."""
    shadow = Shadow.objects.select_related("simulation").filter(ledger=ledger).first()
    simulation = shadow.simulation if shadow else Simulation.objects.filter(ledger=ledger).first()
    if posted is None and ledger.is_shadow != (shadow is not None):
        yield 0, "it pays nobody, and is not marked so" if shadow else "marked as paying nobody, and no shadow has it"
    if simulation is None:
        return
    if posted is None:
        under_way = shadow is not None and shadow.added_at is not None and shadow.rounds_done < simulation.rounds_done
        if simulation.is_finished and not under_way:  # of one that goes on, sums and rounds are of different moments
            yield from ((0, text) for text in _wrong_sums(simulation, shadow))
        return
    of_rounds = {each.memo["round"]: each for each in posted if type(each.memo.get("round")) is int}
    of_rounds = {number: each for number, each in of_rounds.items() if not each.is_reversal}
    rows = {each.number: each for each in simulation.rounds.filter(number__in=of_rounds)}
    parts = parts_of(simulation, list(of_rounds))
    made = {}
    if shadow:
        made = {each.number: each for each in ShadowRound.objects.filter(shadow=shadow, number__in=of_rounds)}
    wanted = {each.memo.get("evidence_sha256") for each in posted}
    for each in (*rows.values(), *made.values()):
        wanted |= {each.evidence_sha256, each.products_sha256}
    found = {each.sha256: bytes(each.content) for each in Evidence.objects.filter(sha256__in=wanted - {None, ""})}
    for number, each in of_rounds.items():
        row = rows.get(number)
        if row is None or (shadow and number not in made):
            yield each.sequence, f"there is no record of round {number}"
            continue
        if simulation.pruned_at and simulation.archived and not parts[number]:
            continue
        text = _wrong_round(simulation, shadow, row, parts[number], made.get(number), found, each)
        if text:
            yield each.sequence, text


def parts_of(simulation: Simulation, numbers: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
    """Everybody's part in some rounds, ascending by client. One query."""
    names = (
        "value",
        "error",
        "reward_microtokens",
        "slashed_microtokens",
        "num_examples",
        "held",
        "effort",
        "untrained",
        "loss_before",
        "loss_after",
        "update_norm",
    )
    rows = Contribution.objects.filter(round__simulation=simulation, round__number__in=numbers)
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in rows.order_by("client__number").values(
        "round__number", "client__number", "client__holder", "client__num_examples", *names
    ):
        found[row["round__number"]].append(row)
    return found


def facts_of(simulation: Simulation, row: Round, parts: Sequence[Mapping[str, Any]]) -> Facts:
    """A recorded round's, from its rows."""
    return Facts.of(simulation.training_sha256, row.number, row, [report_of(part) for part in parts])


def report_of(part: Mapping[str, Any]) -> ClientReport:
    """A recorded part as the server saw it. Of schemes 1 and 2 what they did not write down is None."""
    names = ("num_examples", "loss_before", "loss_after", "update_norm", "effort", "untrained")
    of_client = {"client": part["client__number"], "holder": part["client__holder"], "held": held_of(part)}
    return ClientReport(**of_client, **{name: part[name] for name in names})


def held_of(part: Mapping[str, Any]) -> int:
    """Examples that a client held in a round."""
    held: int = part["client__num_examples"] if part["held"] is None else part["held"]
    return held


def paid_of(row: Round, parts: Sequence[Mapping[str, Any]]) -> Paid:
    """What the paying economy made of a recorded round, from its rows."""
    errors = tuple(part["error"] for part in parts if part["error"] is not None)
    slashed = tuple(part["slashed_microtokens"] for part in parts if part["slashed_microtokens"] is not None)
    return Paid(
        contributions=tuple(part["value"] or 0.0 for part in parts),
        errors=errors or None,
        pool=row.pool_microtokens,
        minted=row.pool_microtokens if row.minted_microtokens is None else row.minted_microtokens,
        burned=row.burned_microtokens,
        shares=tuple(part["reward_microtokens"] for part in parts),
        utilities_sha256=row.evidence_sha256 or None,
        state=row.economy_state,
        slashed=slashed or None,
        scores={name: tuple(map(float, scores)) for name, scores in row.scores.items()},
        products_sha256=row.products_sha256 or None,
    )


def _wrong_round(
    simulation: Simulation,
    shadow: Shadow | None,
    row: Round,
    parts: Sequence[Mapping[str, Any]],
    made: ShadowRound | None,
    evidence: Mapping[str, bytes],
    posted: Posted,
) -> str:
    """What is wrong with a round's rows first, or an empty text."""
    clients = [part["client__number"] for part in parts]
    paid = economies.paid_by(made) if made else paid_of(row, parts)
    if len(paid.shares) != len(clients) or len(clients) != row.cohort_size:
        return f"round {row.number} had {row.cohort_size} clients, and its record has {len(clients)}"
    sha256 = paid.utilities_sha256
    content = evidence.get(sha256 or "") if shadow or row.evidence is None else bytes(row.evidence)
    if sha256 and content is None and simulation.pruned_at is None:
        return f"the evidence of round {row.number} is missing"
    if content is not None and hashlib.sha256(content).hexdigest() != sha256:
        return f"the evidence of round {row.number} was changed"
    of_products = paid.products_sha256
    if of_products and of_products not in evidence and simulation.pruned_at is None:
        return f"the products of round {row.number} are missing"
    if of_products in evidence and hashlib.sha256(evidence[of_products]).hexdigest() != of_products:
        return f"the products of round {row.number} were changed"
    economy, at_stake = None, {}
    if simulation.scheme >= 3 or shadow:
        economy = Specification.from_dict(shadow.specification if shadow else simulation.config)
        at_stake = economies.at_stake(simulation, economy)
    expected = economies.posting(0, row.number, clients, paid, {}, **at_stake).transfers
    for now, then in zip(_by_account(expected), _by_account(posted.transfers), strict=False):
        if now != then:
            given, moved = f"{now[0]} {now[1]:,} micro-tokens", f"{then[0]} {then[1]:,}"
            return f"the record of round {row.number} gives {given}, the transfers {moved}"
    if len(expected) != len(posted.transfers):
        return f"the record of round {row.number} makes {len(expected)} transfers, not {len(posted.transfers)}"
    if shadow is None and row.treasury_microtokens != paid.pool - paid.burned - sum(paid.shares):
        return f"the record of round {row.number} leaves {row.treasury_microtokens:,} micro-tokens in the treasury"
    if economy is None:
        if posted.memo.get("evidence_sha256") != sha256:
            return f"the evidence of round {row.number} is not the one that it was paid for"
        if posted.memo.get("weights_sha256") != row.weights_sha256:
            return f"the weights of round {row.number} are not those that it was paid for"
        return ""
    if facts_of(simulation, row, parts).sha256() != posted.memo.get("facts_sha256"):
        what = "cohort, sizes, effort, losses, norms, weights"
        return f"the facts of round {row.number} ({what}) are not those that it was paid for (facts hash)"
    if paid.sha256(economy.hashed()) != posted.memo.get("economy_sha256"):
        return (
            f"the contributions of round {row.number}, or what its economy is or keeps, are not those that it was paid "
            "for (economy hash)"
        )
    rule = economy.reward_rule
    if shadow is None and "/" not in rule.kind and row.rule != f"{rule.kind}@{rule.description.version}":
        return f"the rule of round {row.number} is said to be {row.rule}"
    return ""


def _by_account(entries: Sequence[Entry]) -> list[tuple[str, int]]:
    return [(entry.credit, entry.amount) for entry in entries]


def _wrong_sums(simulation: Simulation, shadow: Shadow | None) -> Iterator[str]:
    """Sums over rounds that are not those of the rounds: of clients, and of the simulation or shadow."""
    variances: dict[int, float] = defaultdict(float)
    if shadow:
        rounds = ShadowRound.objects.filter(shadow=shadow)
        cohorts: dict[int, list[int]] = defaultdict(list)
        for number, client in (
            Contribution.objects.filter(round__simulation=simulation)
            .order_by("client__number")
            .values_list("round__number", "client__number")
            .iterator(10_000)
        ):
            cohorts[number].append(client)
        worth: dict[int, float] = defaultdict(float)
        rewards: dict[int, int] = defaultdict(int)
        lost: dict[int, int] = defaultdict(int)
        lists = ("number", "contributions", "errors", "rewards", "slashed")
        for number, of_round, errors, shares, slashed in rounds.order_by("number").values_list(*lists):
            if len(cohorts[number]) != len(shares):
                return  # contributions of an archived run were let go of
            zeros = [0] * len(shares)
            for client, value, error, share, slash in zip(
                cohorts[number], of_round, errors or zeros, shares, slashed or zeros, strict=True
            ):
                lost[client] += slash
                worth[client] += value
                variances[client] += error * error
                rewards[client] += share
        held = ShadowClient.objects.filter(shadow=shadow).order_by("number")
        sums = held.values_list(*SUMS)
        whole: Any = shadow
    else:
        rounds = simulation.rounds.all()
        parts = Contribution.objects.filter(round__simulation=simulation)
        by_client = (
            parts.order_by()
            .values("client__number")
            .annotate(
                w=Sum("value", default=0.0),
                v=Sum(F("error") * F("error"), default=0.0),
                r=Sum("reward_microtokens"),
                s=Sum("slashed_microtokens", default=0),
                n=Count("pk"),
            )
        )
        found = list(by_client.values_list("client__number", "w", "v", "r", "s"))
        taken = dict(by_client.values_list("client__number", "n"))
        everybody = Client.objects.filter(simulation=simulation).order_by("number")
        for client, times in everybody.values_list("number", "rounds"):
            if found and times != taken.get(client, 0):
                yield f"client {client} is said to have been in {times:,} rounds, it was in {taken.get(client, 0):,}"
        worth, rewards = {client: w for client, w, *_ in found}, {client: r for client, _, _, r, _ in found}
        variances |= {client: v for client, _, v, *_ in found}
        lost = {client: s for client, *_, s in found}
        sums = Client.objects.filter(simulation=simulation).order_by("number")
        sums = sums.values_list(*SUMS)
        if simulation.pruned_at and simulation.archived and not found:
            sums = sums.none()  # they were let go of
        whole = simulation
    said = {client: sums_of for client, *sums_of in sums}
    for client in sorted(said | rewards):
        if client not in said:
            yield f"client {client} has no sums, its rounds make {rewards[client]:,} micro-tokens"
            continue
        contribution, variance, reward, slashed = said[client]
        if slashed != lost.get(client, 0):
            made = f"its rounds make {lost.get(client, 0):,}"
            yield f"client {client} is said to have lost {slashed:,} micro-tokens of its stake, {made}"
        if reward != rewards.get(client, 0):
            yield f"client {client} is said to have {reward:,} micro-tokens, its rounds make {rewards.get(client, 0):,}"
        value = worth.get(client, 0.0)
        if not math.isclose(contribution, value, rel_tol=SLACK, abs_tol=SLACK):
            yield f"client {client} is said to be worth {contribution}, its rounds make {value}"
        if not math.isclose(variance or 0.0, variances[client], rel_tol=SLACK, abs_tol=SLACK):
            yield f"client {client} is said to be worth that with a variance of {variance}, not {variances[client]}"
    totals = rounds.aggregate(pool=Sum("pool_microtokens", default=0), burned=Sum("burned_microtokens", default=0))
    name = f"shadow {shadow.label}" if shadow else f"simulation {simulation.pk}"
    if totals["pool"] != whole.pool_microtokens:
        yield f"the pools of {name} are said to be {whole.pool_microtokens:,}, its rounds make {totals['pool']:,}"
    if shadow and totals["burned"] != shadow.burned_microtokens:
        burned = f"{shadow.burned_microtokens:,} micro-tokens, its rounds make {totals['burned']:,}"
        yield f"{name} is said to have burned {burned}"
    paid = sum(rewards.values())
    if (rewards or not whole.pool_microtokens) and paid != whole.paid_microtokens:
        yield f"{name} is said to have paid {whole.paid_microtokens:,} micro-tokens, its rounds make {paid:,}"
    if whole.rounds_done != rounds.count():
        yield f"{name} is said to have {whole.rounds_done:,} rounds, and has {rounds.count():,}"
    if shadow is None:
        yield from _wrong_shadows(simulation)
        yield from _wrong_record(simulation)


def _wrong_shadows(simulation: Simulation) -> Iterator[str]:
    """Shadows that are not there, or not called and placed as in the configuration, whose hash covers that. Of those
    that were priced later only their numbers, which have no gap, and their ledgers' names tell."""
    name = f"simulation {simulation.pk}"
    there = {each.number: each for each in simulation.shadows.select_related("ledger")}
    try:
        config = SimulationConfig.from_record(simulation.config, simulation.scheme)
    except ConfigError:
        return  # of an older release, or of a plug-in that is gone
    labels = dict(enumerate((label for label, _ in config.economies[1:]), 1))
    for number in range(1, max([*labels, *there], default=0) + 1):
        shadow, label = there.get(number), labels.get(number, "")
        if shadow is None:
            yield f"shadow {number} of {name}{f', {label},' if label else ''} is gone"
            continue
        if shadow.ledger.name != economies.ledger_name(simulation.pk, number):
            yield f"shadow {number} of {name} is said to have the ledger {shadow.ledger.name}"
        if (shadow.added_at is None) != bool(label):
            yield f"shadow {number} of {name} is {'not ' if shadow.added_at is None else ''}said to be priced later"
        elif label and shadow.label != label:
            yield f"shadow {number} of {name} is said to be {shadow.label}, by the configuration it is {label}"


def _wrong_record(simulation: Simulation) -> Iterator[str]:
    """What a simulation's own row, and its clients', say other than its configuration and rounds. A configuration with
    plug-ins is not hashed again, for what is usual for them is known only while they are there, nor one of scheme 1,
    since ledgers were written before there was a hash."""
    name = f"simulation {simulation.pk}"
    last = simulation.rounds.order_by("-number").first()
    if last is not None and last.weights_sha256 != simulation.weights_sha256:
        yield f"the weights of {name} are not those after its last round"
    evaluated = simulation.rounds.filter(loss__isnull=False).order_by("-number").first()
    for field in ("loss", "accuracy") if evaluated else ():
        said, found = getattr(simulation, field), getattr(evaluated, field)
        if said != found:
            yield f"the {field} of {name} is said to be {said}, its last evaluated round has {found}"
    if simulation.scheme == 1 or not simulation.config_sha256:
        return
    try:
        config = SimulationConfig.from_record(simulation.config, simulation.scheme)
    except ConfigError:
        return  # of an older release, or of a plug-in that is gone
    if not config.plugins and config.sha256() != simulation.config_sha256:
        yield f"the configuration of {name} is not the one of its hash"
    if not config.plugins and simulation.training_sha256 not in ("", config.training_sha256()):
        yield f"the training of {name} is not the one of its hash"
    does = {client: str(given["kind"]) for client, given in config.behaviours.items()}
    clients = Client.objects.filter(simulation=simulation).order_by("number")
    for client, holder, said in clients.values_list("number", "holder", "behaviour"):
        whose = config.holders.get(client)
        if said != does.get(whose or client, "honest"):
            found = does.get(whose or client, "honest")
            yield f"client {client} is said to be {said}, by the configuration it is {found}"
        if holder != whose:
            is_said = "itself" if holder is None else f"an identity of client {holder}"
            yield f"client {client} is said to be {is_said}, by the configuration it is of client {whose or client}"
