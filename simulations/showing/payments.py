"""A round's payment with its numbers put in: from a token back to what was measured. Nothing is computed by what pays:
shares before rounding are of floats, for a page; `recomputed` does it exactly, in a child.

A fixed number of queries; memory by the round's cohort.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from django.core.paginator import Paginator
from django.http import Http404
from django.urls import reverse

import kinds
from extensions.records import files_of
from incentives import verified
from incentives.coalitions import Table, read
from incentives.memo import Facts, Paid
from incentives.models import Evidence, Transaction, Verified
from incentives.rewards import MICROTOKENS
from incentives.specification import Specification
from simulations import economies, records, repricing
from simulations.config import PAYING
from simulations.models import Round, Shadow, ShadowRound, Simulation
from simulations.running.folding import CannotFold
from simulations.showing import waiting, wording
from simulations.showing.detectors_shown import over
from simulations.showing.ledgers_shown import MOST_ECONOMIES, differences

SHARE_ROWS = 50
MOST_PLAYERS = 10  # of a game whose marginal contributions are listed


def explained(posted: Transaction, client: str | None, page: str | None) -> dict[str, Any] | None:
    """What a transaction's page tells of the payment that it is; None where it is none of a round. `client`: of whose
    share, by default of the largest. See settings.PAYMENTS_EXPLAINED_BY."""
    number = posted.memo.get("round")
    if type(number) is not int or posted.reverses_id:
        return None
    of_ledger = Shadow.objects.filter(ledger=posted.ledger_id).select_related("simulation")
    shadow = of_ledger.first() if posted.ledger.is_shadow else None
    simulation = shadow.simulation if shadow else Simulation.objects.filter(ledger=posted.ledger_id).first()
    row = simulation and simulation.rounds.filter(number=number).first()
    if simulation is None or row is None:
        return None
    made = ShadowRound.objects.filter(shadow=shadow, number=number).first() if shadow else None
    parts = records.parts_of(simulation, [number])[number]
    facts = records.facts_of(simulation, row, parts)
    paid = economies.paid_by(made) if made else records.paid_of(row, parts)
    economy = shadow.specification if shadow else simulation.configuration
    known = Verified.objects.filter(ledger=posted.ledger_id).first()
    context: dict[str, Any] = {
        "template": "simulations/_payment.html",
        "simulation": simulation,
        "round": row,
        "label": shadow.label if shadow else PAYING,
        "economy_number": shadow.number if shadow else 0,
        "says": wording.economy(differences(simulation, shadow.specification)) if shadow else "",
        "facts": facts,
        "paid": paid,
        "pool": pool_formulas(economy, facts, paid),
        "rule": rule_of(simulation, row, economy, shadow),
        "valuation": wording.kind("valuation", economy["valuation"]["kind"]),
        "valuation_says": _said_of_valuation(economy["valuation"]["kind"]),
        "verified": known if known and not known.problem and known.sequence >= posted.sequence else None,
        "problem": known.problem if known else "",
        "is_doubtful": known is not None and verified.is_doubtful(known),
        "others": [],
        "is_whole": len(parts) == row.cohort_size == len(paid.shares),
    }
    if not context["is_whole"]:  # who was in it was let go of
        return context
    told = _table(row, paid)
    context["game"] = told and {
        "players": len(told.players),
        "coalitions": told.count,
        "words": wording.short(economy["game"]) if shadow or simulation.scheme >= 3 else "fedavg",
    }
    context["shares"], context["page"] = _shares(facts, paid, page)
    place, context["not_there"] = _place(simulation, facts, paid, client)
    if place is None:
        return context
    before = _state_before(simulation, shadow, number)
    context |= _share_of(simulation, economy, facts, paid, before, place)
    context |= _stake_of(simulation, shadow, economy, facts, paid, place)
    context["worth"] = told and worth_formula(economy["valuation"]["kind"], told, facts.cohort[place])
    context["others"] = _other_economies(simulation, posted, number, place, len(facts.cohort), parts)
    if told and economy["valuation"]["kind"] == "shapley" and _is_listed(told, facts.cohort[place]):
        query = f"?economy={context['economy_number']}&round={number}&client={facts.cohort[place]}"
        context["marginals"] = reverse("simulations:marginals", args=[simulation.pk]) + query
        context["num_marginals"] = 2 ** (len(told.players) - 1)
    return context


def _said_of_valuation(kind: str) -> str:
    """Of a built-in valuation the catalogue's words; of a plug-in, whose source may be another by now, none."""
    known = kinds.family("valuation").get(kind)
    return known.help if known and "/" not in kind else ""


def _table(row: Round, paid: Paid) -> Table | None:
    """Of what the economy asked for; None where it is not kept or cannot be read."""
    found = Evidence.objects.filter(sha256=paid.utilities_sha256 or "").values_list("content", flat=True).first()
    content = row.evidence if found is None and row.evidence_sha256 == paid.utilities_sha256 else found
    try:
        return read(bytes(content)) if content is not None else None
    except ValueError:
        return None


def _is_listed(told: Table, client: int) -> bool:
    n = len(told.players)
    return n <= MOST_PLAYERS and told.count == 2**n and client in told.players


def _place(simulation: Simulation, facts: Facts, paid: Paid, client: str | None) -> tuple[int | None, str]:
    """In the cohort, of the client that is asked for, else of the one with the largest share; None, with a sentence,
    where who is asked for was not in the round. Http404 for a client that the simulation does not have."""
    if not client:
        return max(range(len(paid.shares)), key=lambda place: (paid.shares[place], -place)), ""
    number = int(client) if client.isascii() and client.isdigit() and len(client) < 10 else 0
    if number in facts.cohort:
        return facts.cohort.index(number), ""
    if not simulation.clients.filter(number=number).exists():
        raise Http404(f"{simulation} has no such client")
    return None, f"Client {number:,} was not in round {facts.round_number:,}"


def worth_formula(valuation: str, told: Table, client: int) -> str:
    """A contribution that is the difference of two coalitions, with their worth put in; empty for what is none."""
    if valuation not in ("leave_one_out", "loss_improvement") or client not in told.players:
        return ""
    utilities, own = told.utilities(), 1 << told.players.index(client)
    everyone = (1 << len(told.players)) - 1
    if valuation == "leave_one_out":
        symbols, more, less = f"V(N) − V(N without {client:,})", everyone, everyone ^ own
    else:
        symbols, more, less = f"V({client:,} alone) − V(nobody)", own, 0
    if more not in utilities or less not in utilities:
        return ""
    numbers = f"{utilities[more]:.8f} − ({utilities[less]:.8f})".replace("-", "−")
    return f"{symbols} = {numbers} = {_signed(utilities[more] - utilities[less])}"


def _signed(value: float) -> str:
    return f"{value:+.8f}".replace("-", "−")


# Pool


def pool_formulas(economy: Mapping[str, Any], facts: Facts, paid: Paid) -> list[str]:
    """How many tokens the round pays, with its numbers put in, a line for each step: what the pool asks for, what the
    budget leaves of it, what is burned."""
    pool, kept = economy["pool"], paid.state.get("money", {})
    burned, number = paid.burned, facts.round_number
    asked: float | None = None  # micro-tokens by the formula, where the numbers for it are kept
    match pool["kind"]:
        case "improvement" | "improvement_each_round" as kind:
            before = facts.best_validation_loss if kind == "improvement" else facts.previous_validation_loss
            factor = pool.get("scaling_factor", 10.0)
            if before is None or facts.validation_loss is None:
                formula = f"max(0, loss to beat − loss) × {factor:,.12g}"
            else:
                formula = f"max(0, {before:.8f} − {facts.validation_loss:.8f}) × {factor:,.12g}"
                asked = max(0.0, before - facts.validation_loss) * factor * MICROTOKENS
        case "fixed":
            formula, asked = f"{pool['tokens']:,.12g} tokens in each round", pool["tokens"] * MICROTOKENS
        case "halving":
            halvings = (number - 1) // pool["rounds"]
            formula = f"{pool['tokens']:,.12g} / 2^{halvings}"
            asked = round(pool["tokens"] * MICROTOKENS) >> halvings
        case "decay":
            formula = f"{pool['tokens']:,.12g} × {pool['factor']:.12g}^{number - 1}"
            asked = pool["tokens"] * pool["factor"] ** (number - 1) * MICROTOKENS
        case "treasury":
            held = kept.get("treasury", 0) + burned + sum(paid.shares)
            left = max(0, pool["rounds"] - number + 1)
            formula = f"{_tokens(held)} in the treasury / {left:,} rounds left"
            asked = held // left if left else 0
        case kind:
            formula = kind
    budget = economy.get("budget_tokens")
    if budget is None:
        lines = [f"pool = {formula} = {_tokens(paid.pool)}"]
    else:
        before_it = kept.get("pools", 0) - paid.pool
        left_of_it = round(budget * MICROTOKENS) - before_it
        if paid.pool < left_of_it:  # the budget did not bind, and the formula is to the unit what was paid
            lines = [f"pool = {formula} = {_tokens(paid.pool)}"]
        else:
            lines = [f"pool = {formula}" + ("" if asked is None else f" = {_tokens(max(round(asked), paid.pool))}")]
        less = f"the budget of {budget:,.12g} less {_tokens(before_it)} of the rounds before"
        lines.append(f"at most {less} = {_tokens(left_of_it)}")
    if burned:
        share = economy.get("burn_share") or 0
        how = f"{share:.12g} × {_tokens(paid.pool)}" if share else "by the rule"
        lines.append(f"burned = {how} = {_tokens(burned)}")
    return lines


def _tokens(microtokens: int) -> str:
    return f"{microtokens / MICROTOKENS:,.6f}"


# Share


@dataclass(frozen=True)
class Share:
    """A rule's shares of the pool, as floats."""

    symbols: str  # c is a contribution, c+ one above 0 of who sent something and else 0, n how many sent something
    numbers: str  # the same with those of one client put in
    weights: list[float]  # everybody's
    of: float  # that each is divided by; where it is 0, nobody gets anything


def share_of(
    rule: Mapping[str, Any],
    contributions: Sequence[float],
    sent: Sequence[bool],
    place: int = 0,
    *,
    reputations: Sequence[int] = (),
    discounts: Sequence[float] = (),
) -> Share | None:
    """A built-in rule's, of who is at a place; None for a rule that is not known here. `reputations`: before the round,
    in millionths, and `discounts`, from 0 to 1, as the rules of these names have them."""
    gains = [max(0.0, each) if here else 0.0 for each, here in zip(contributions, sent, strict=True)]
    total, workers, gain = math.fsum(gains), sum(sent), gains[place]
    match rule["kind"]:
        case "proportional" | "slashing":
            symbols, weights = "c+ / Σ c+", gains
        case "equal":
            symbols, weights = "1 / n for each who sent something", [float(each) for each in sent]
        case "wage_bonus":
            wage = rule["share"]
            if not total:
                numbers = f"{wage:g} / {workers:,}" if sent[place] else "0"
                symbols = f"{wage:g} / n, and no bonus where Σ c+ = 0"
                return Share(symbols, numbers, [wage * each for each in sent], workers)
            weights = [
                here * wage * total / workers + (1 - wage) * each for each, here in zip(gains, sent, strict=True)
            ]
            numbers = f"({wage:g} / {workers:,} + {1 - wage:g} × {gain:.8g} / {total:.8g})" if sent[place] else "0"
            return Share(f"({wage:g} / n + {1 - wage:g} × c+ / Σ c+)", numbers, weights, math.fsum(weights))
        case "top_k":
            least = sorted(gains, reverse=True)[min(rule["k"], len(gains)) - 1] if gains else 0.0
            symbols = f"c+ / Σ c+ among the {rule['k']:,} largest, 0 for others"
            weights = [each if each >= least else 0.0 for each in gains]
        case "rank":
            symbols, weights = "rank / Σ ranks, 1 for the least c+ above 0", [_rank(each, gains) for each in gains]
        case "softmax":
            scale = (max((abs(each) for each in contributions), default=0.0) or 1.0) * rule["temperature"]
            best = max(contributions, default=0.0)
            weights = [here * math.exp((each - best) / scale) for each, here in zip(contributions, sent, strict=True)]
            of_all = math.fsum(weights)
            numbers = f"exp(({contributions[place]:.8g} − {best:.8g}) / {scale:.8g}) / {of_all:.8g}"
            symbols = f"exp((c − largest c) / s) / Σ of them, s = {rule['temperature']:g} × largest |c|"
            return Share(symbols, numbers.replace("(-", "(−") if sent[place] else "0", weights, of_all)
        case "winner_takes_all":
            most = max(gains, default=0.0)
            symbols, weights = (
                "1 / how many have the largest c+, 0 for others",
                [float(each == most > 0) for each in gains],
            )
        case "tullock":
            power, best = rule["exponent"], max(gains, default=0.0) or 1.0
            weights = [(each / best) ** power if each else 0.0 for each in gains]
            numbers = f"({gain:.8g} / {best:.8g})^{power:g} / {math.fsum(weights):.8g}" if gain else "0"
            return Share(f"(c+ / largest c+)^{power:g} / Σ of them", numbers, weights, math.fsum(weights))
        case "reputation" if reputations:
            power = rule["power"]
            weights = [each * (kept / MILLION) ** power for each, kept in zip(gains, reputations, strict=True)]
            of_all = math.fsum(weights)
            numbers = f"{gain:.8g} × {reputations[place] / MILLION:.6f}^{power:g} / {of_all:.8g}"
            return Share(f"c+ × r^{power:g} / Σ of them", numbers, weights, of_all)
        case "sybil_discount" if discounts:
            weights = [each * kept for each, kept in zip(gains, discounts, strict=True)]
            numbers = f"{gain:.8g} × {discounts[place]:.12g} / {total:.8g}"
            return Share("c+ × d / Σ c+", numbers, weights, total)
        case _:
            return None
    return Share(symbols, f"{weights[place]:.8g} / {math.fsum(weights):.8g}", weights, math.fsum(weights))


def _rank(gain: float, gains: Sequence[float]) -> float:
    """Equal ones share the mean of their ranks."""
    if not gain:
        return 0.0
    return sum(0 < each < gain for each in gains) + (1 + sum(each == gain for each in gains)) / 2


def _share_of(
    simulation: Simulation,
    economy: Mapping[str, Any],
    facts: Facts,
    paid: Paid,
    before: Mapping[str, Any],
    place: int,
) -> dict[str, Any]:
    """A client's share of the pool: its formula with the numbers put in, before and after rounding."""
    rule, to_split = economy["reward_rule"], paid.pool - paid.burned
    sent = facts.arrived if simulation.scheme >= 3 else (True,) * len(facts.cohort)
    reputations = _reputations(before, facts) if rule["kind"] == "reputation" else []
    discounts = _discounts(rule["by"], paid, sent) if rule["kind"] == "sybil_discount" else []
    found = share_of(rule, paid.contributions, sent, place, reputations=reputations, discounts=discounts)
    client: dict[str, Any] = {
        "number": facts.cohort[place],
        "reward": paid.shares[place],
        "contribution": paid.contributions[place],
        "error": paid.errors[place] if paid.errors else None,
        "sent": facts.arrived[place],
        "loss_before": facts.losses_before[place],
        "loss_after": facts.losses_after[place],
        "num_examples": facts.num_examples[place],
    }
    context = {
        "client": client,
        "to_split": to_split,
        "contributions_sum": math.fsum(paid.contributions),
        "negative": sum(each < 0 for each in paid.contributions),
        "rule_words": wording.kind("rule", rule["kind"]),
    }
    if found is None:
        return context
    lines = [f"share = {'(pool − burned)' if paid.burned else 'pool'} × {found.symbols}"]
    if any(found.weights):
        exact = f"{to_split * found.weights[place] / found.of / MICROTOKENS:,.8f}"
        lines.append(f"{_tokens(to_split)} × {found.numbers} = {exact}, to the unit {_tokens(paid.shares[place])}")
    else:
        lines.append("nobody has a share, so the pool stays in the treasury")
    if reputations:
        lines += reputation_formula(rule["decay"], facts.cohort[place], reputations[place], paid, sent, place)
    elif discounts:
        left = math.fsum(found.weights) / found.of if found.of else 0.0
        lines.append(f"d = {DISCOUNTS[rule['by']]} = {discounts[place]:.12g}; all d leave {left:.2%} of the pool")
    context["share"] = lines
    return context


MILLION = 1_000_000  # of which reputations are whole parts
DISCOUNTS = {
    "replication": "2^−(Σ cosines above 0 with the others' updates)",
    "foolsgold": "FoolsGold's weight of the updates sent so far",
}


def _state_before(simulation: Simulation, shadow: Shadow | None, number: int) -> Mapping[str, Any]:
    """What the economy kept of the rounds before this one."""
    rows: Any = shadow.rounds if shadow else simulation.rounds
    found: Mapping[str, Any] | None = rows.filter(number=number - 1).values_list("economy_state", flat=True).first()
    return found or {}


def _reputations(state: Mapping[str, Any], facts: Facts) -> list[int]:
    """Of the cohort, in millionths; see incentives.rules."""
    known = state.get("reward_rule", {}).get("reputation", {})
    return [int(known.get(str(client), MILLION)) for client in facts.cohort]


def reputation_formula(
    decay: float, client: int, reputation: int, paid: Paid, sent: Sequence[bool], place: int
) -> list[str]:
    """What becomes of a reputation, in millionths."""
    gains = [max(0.0, each) if here else 0.0 for each, here in zip(paid.contributions, sent, strict=True)]
    after = paid.state.get("reward_rule", {}).get("reputation", {}).get(str(client), MILLION)
    earned = f"min(1, {gains[place]:.8g} × {sum(sent):,} / {math.fsum(gains):.8g})" if any(gains) else "0"
    numbers = f"{decay:g} × {reputation:,} + {1 - decay:g} × {MILLION:,} × {earned}"
    return [
        f"r = {reputation:,} millionths before the round",
        f"after it {decay:g} × r + {1 - decay:g} × min(1, c+ × n / Σ c+) = {numbers} = {after:,} millionths",
    ]


def _discounts(by: str, paid: Paid, sent: Sequence[bool]) -> list[float]:
    """Of the cohort, from the products that its economy asked for; empty where they are not kept."""
    import numpy as np  # takes 13 MB, which a site does without until somebody looks

    from incentives.detectors import foolsgold_weights, replication_discounts
    from incentives.products import unpack

    content = Evidence.objects.filter(sha256=paid.products_sha256 or "").values_list("content", flat=True).first()
    if content is None:
        return []
    _, products = unpack(bytes(content))
    here = np.asarray(sent, np.bool_)
    found = (
        foolsgold_weights(products["summed"], here)
        if by == "foolsgold"
        else replication_discounts(products["updates"], here)
    )
    discounts: list[float] = found.tolist()
    return discounts


# Stake


def _stake_of(
    simulation: Simulation, shadow: Shadow | None, economy: Mapping[str, Any], facts: Facts, paid: Paid, place: int
) -> dict[str, Any]:
    """What detectors say of a client, and what its stake loses, with the numbers put in; no `stake` where it has none.
    See incentives.fold."""
    client = facts.cohort[place]
    found: dict[str, Any] = {
        "scores": [(wording.kind("detector", name), scores[place]) for name, scores in paid.scores.items()]
    }
    if paid.slashed is None:
        return found
    specification = Specification.from_dict(shadow.specification if shadow else simulation.config)
    lost = paid.slashed[place]
    after = economies.stakes_of(simulation, specification).get(client, 0)
    after -= paid.state.get("money", {}).get("lost", {}).get(str(client), 0)
    before = after + lost
    lines, asked = [f"at stake before the round = {_tokens(before)}"], []
    for entry in specification.slashing:
        name, above, share = entry["detector"].kind, entry["above"], entry["share"]
        score, label = paid.scores[name][place], wording.kind("detector", name)
        if score > above:
            asked.append(int(Fraction(str(share)) * before))
            told = f"{label} {over(score, above)} is above {above:g}"
            lines.append(f"{told}: {share:g} × {_tokens(before)}, rounded down = {_tokens(asked[-1])}")
        else:
            lines.append(f"{label} {score:.4f} is not above {above:g}")
    by_rule = lost - sum(asked)
    if specification.reward_rule.kind == "slashing":
        lines.append(_slashed_by_rule(specification.reward_rule["rate"], facts, paid, place, max(0, by_rule)))
        asked += [by_rule] if by_rule > 0 else []
    elif by_rule > 0:
        lines.append(f"the rule {wording.kind('rule', specification.reward_rule.kind)} takes {_tokens(by_rule)}")
        asked.append(by_rule)
    if asked:
        lines.append(f"lost = {' + '.join(map(_tokens, asked))}, at most what is there = {_tokens(lost)}")
    lines.append(f"at stake after the round = {_tokens(after)}")
    return found | {"stake": lines, "lost": lost, "slashed_to": specification.slashed_to}


def _slashed_by_rule(rate: float, facts: Facts, paid: Paid, place: int, taken: int) -> str:
    contribution = paid.contributions[place]
    if contribution >= 0 or not facts.arrived[place]:
        return f"contribution {contribution:.8g} is not below 0"
    sizes = f"{facts.num_examples[place]:,} / {sum(facts.num_examples):,}"
    told = f"contribution {contribution:.8g} is below 0".replace("-", "−")
    pool = _tokens(paid.pool - paid.burned)
    return f"{told}: {rate:g} × {pool} × {sizes} examples, rounded down, at most what is there = {_tokens(taken)}"


def _shares(facts: Facts, paid: Paid, page: str | None) -> tuple[list[dict[str, Any]], Any]:
    """Everybody's share, so many at a time, with a bar of its contribution: all on one scale, zero included."""
    low, high = min(0.0, *paid.contributions), max(0.0, *paid.contributions)
    span = (high - low) or 1.0
    zero = 100 * -low / span
    shown = Paginator(range(len(facts.cohort)), SHARE_ROWS).get_page(page)
    rows = []
    for place in shown:
        value = paid.contributions[place]
        width = 100 * abs(value) / span
        rows.append(
            {
                "client": facts.cohort[place],
                "contribution": value,
                "reward": paid.shares[place],
                "lost": paid.slashed[place] if paid.slashed else 0,
                "harms": value < 0,
                "zero": f"{zero:.2f}",
                "left": f"{zero - width if value < 0 else zero:.2f}",
                "width": f"{width:.2f}",
            }
        )
    return rows, shown


def _other_economies(
    simulation: Simulation, posted: Transaction, number: int, place: int, size: int, parts: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """What the same client gets in the same round under the simulation's other economies. Two queries."""
    rows = ShadowRound.objects.filter(shadow__simulation=simulation, number=number).order_by("shadow__number")
    names = ("shadow__ledger", "shadow__label", "rewards")
    found = [
        (ledger, label, rewards[place])
        for ledger, label, rewards in rows.values_list(*names)[:MOST_ECONOMIES]
        if len(rewards) == size
    ]
    found.insert(0, (simulation.ledger_id, PAYING, parts[place]["reward_microtokens"]))
    others = [each for each in found if each[0] != posted.ledger_id]
    there = Transaction.objects.filter(ledger__in=[each[0] for each in others], key=posted.key)
    at = {
        ledger: (name, sequence) for ledger, name, sequence in there.values_list("ledger", "ledger__name", "sequence")
    }
    return [
        {"label": label, "reward": reward, "ledger": at[ledger][0], "sequence": at[ledger][1]}
        for ledger, label, reward in others
        if ledger in at
    ]


def rule_of(simulation: Simulation, row: Round, economy: Mapping[str, Any], shadow: Shadow | None) -> dict[str, Any]:
    """The rule with its version, and of a plug-in the source that it was paid by."""
    choice = economy["reward_rule"]
    name, _, version = ("" if shadow else row.rule).rpartition("@")
    known = kinds.family("rule").get(choice["kind"])
    if not name:
        name, version = choice["kind"], str(known.version) if known else ""
    sha256 = str(choice.get("source_sha256", ""))
    is_it = known is not None and known.source_sha256 == sha256
    files = files_of(sha256) if sha256 else None
    return {
        "name": name,
        "version": version,
        "help": known.help if known and is_it else "",
        "sha256": sha256,
        "files": files,
    }


# Again


def recomputed(simulation: Simulation, number: int) -> dict[str, Any]:
    """Whether each economy's payment of a round follows from what was kept, computed by children one after another, of
    which none is begun after waiting.SECONDS."""
    began, checked, problem = time.monotonic(), 0, waiting.too_large(simulation, number)
    wrong = []
    try:
        for label, _, text in () if problem else repricing.recompute(simulation, number, seconds=waiting.SECONDS):
            checked += 1
            if text:
                wrong.append((label, text))
    except CannotFold as error:
        problem = str(error)
    seconds = time.monotonic() - began
    return {"number": number, "checked": checked, "wrong": wrong, "problem": problem, "seconds": seconds}


def marginals(simulation: Simulation, economy: int, number: int, client: int) -> dict[str, Any] | None:
    """What the client added to each coalition without it, by size, and the mean over sizes: its exact Shapley value.
    None where not all coalitions of at most MOST_PLAYERS were evaluated."""
    row = simulation.rounds.filter(number=number).first()
    if row is None:
        return None
    if economy:
        made = ShadowRound.objects.filter(shadow__simulation=simulation, shadow__number=economy, number=number).first()
        sha256 = made.evidence_sha256 if made else ""
    else:
        sha256 = row.evidence_sha256
    told = _table(row, Paid(contributions=(), pool=0, minted=0, burned=0, shares=(), utilities_sha256=sha256 or None))
    if told is None or not _is_listed(told, client):
        return None
    utilities, n = told.utilities(), len(told.players)
    own = 1 << told.players.index(client)
    rows = [
        {
            "members": [other for place, other in enumerate(told.players) if coalition >> place & 1],
            "size": coalition.bit_count(),
            "without": utilities[coalition],
            "with": utilities[coalition | own],
            "adds": utilities[coalition | own] - utilities[coalition],
        }
        for coalition in range(2**n)
        if not coalition & own
    ]
    rows.sort(key=lambda each: (each["size"], each["members"]))
    sizes = []
    for size in range(n):
        adds = [each["adds"] for each in rows if each["size"] == size]
        sizes.append({"size": size, "count": len(adds), "mean": math.fsum(adds) / len(adds)})
    value = math.fsum(each["mean"] for each in sizes) / n
    return {"client": client, "number": number, "rows": rows, "sizes": sizes, "value": value, "players": told.players}
