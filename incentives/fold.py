"""An economy's step: from a round's facts and its game to what everybody is paid. Pure; a run folds it over its rounds.

In a round: the valuation says what each player is worth, and detectors score the cohort; the pool, how many
micro-tokens are paid, cut to what the budget leaves; of it a share is burned; the rule splits the rest, and what it
leaves stays in the treasury. Who sends nothing is worth 0 and gets 0, whatever the rule says. Then stakes lose what the
table of `slashing` and the rule take, from what they were before the round; it goes to the treasury or is burned. Who
is slashed is paid all the same: what a suspicion costs is said in one place.

What an economy keeps between rounds is an object of JSON: `valuation`, `detectors`, `pool` and `reward_rule`, as these
left it, and `money`: the sum of all `pools`, what the `treasury` holds, what stakes have `lost` by client, and the
clients' `balances` where a plugged-in rule or a sampler looks at them. Schemes 1 and 2 have no `money`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from incentives import rewards
from incentives.economy import (
    DetectorFacts,
    PoolFacts,
    RuleFacts,
    State,
    ValuationFacts,
    Values,
    check_payment,
    check_state,
)
from incentives.memo import Facts, Paid
from incentives.products import Arrays, NoProducts, RecordedProducts
from incentives.specification import NOBODY, Members, Specification
from incentives.valuation import NotFinite
from incentives.valuation.evidence import Recorded, pack
from kinds import Choice

MOST_STATE = 2**18  # bytes of what a kind keeps between two rounds, as JSON


class EconomyError(ValueError):
    """A kind has not given what its family gives; the text begins with the field."""


class Game(Protocol):
    """A round's players and what they are worth together."""

    @property
    def cohort(self) -> tuple[int, ...]:
        """Client numbers, ascending."""

    @property
    def players(self) -> tuple[int, ...]:
        """Of them, those who sent something: the columns of a coalition."""

    @property
    def num_examples(self) -> Sequence[int]:
        """Of the players."""

    def __call__(self, coalitions: NDArray[np.bool_]) -> NDArray[np.float64]: ...


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a round's game was worth to its cohort, in its order."""

    contributions: tuple[float, ...]
    errors: tuple[float, ...] | None  # standard errors, where it samples
    state: Mapping[str, Any]  # what the valuation keeps
    evidence: bytes | None = None  # the coalitions that it asked for, with their utilities
    utilities_sha256: str | None = None  # of the evidence
    coalitions: int = 0
    scores: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # by detector
    detectors: Mapping[str, Any] = field(default_factory=dict)  # what these keep


@dataclass(frozen=True, kw_only=True)
class Step:
    """What an economy made of a round; nothing where its valuation is `none`."""

    measured: Measured | None = None
    paid: Paid | None = None
    products: bytes | None = None  # those that it asked for, as evidence

    @property
    def state(self) -> Mapping[str, Any]:
        """What the economy keeps for the next round."""
        return self.paid.state if self.paid else {}


def step(
    specification: Specification,
    state: State,
    facts: Facts,
    game: Game,
    *,
    draw: np.random.Generator,
    scheme: int,
    products: Arrays | None = None,
    members: Members = NOBODY,
) -> Step:
    """The round of these facts, after rounds that have left `state`.

    `draw`: of the valuation alone, so that what is drawn does not depend on what is beside it. EconomyError,
    NotFinite where a coalition's model has diverged, TooManyTokens.
    """
    if not specification.is_valued:
        return Step()
    recorded = RecordedProducts(NoProducts("none are made here") if products is None else products)
    measured = measure(specification, state, facts, game, draw=draw, scheme=scheme, products=recorded)
    paid = pay(specification, state, facts, measured, scheme=scheme, products=recorded, members=members)
    evidence = recorded.packed(facts.cohort)
    if evidence is not None:
        paid = replace(paid, products_sha256=hashlib.sha256(evidence).hexdigest())
    return Step(measured=measured, paid=paid, products=evidence)


def pay(
    specification: Specification,
    state: State,
    facts: Facts,
    measured: Measured,
    *,
    scheme: int,
    products: Arrays,
    members: Members,
) -> Paid:
    """The second half of a step: pool, budget, burn, rule, treasury, stakes. EconomyError, TooManyTokens."""
    kept = {name: value for name, value in state.items() if name not in ("valuation", "detectors")}
    if measured.state:
        kept["valuation"] = measured.state
    if measured.detectors:
        kept["detectors"] = measured.detectors
    money: dict[str, Any] = {"pools": 0, "treasury": 0, **state.get("money", {})}
    if "/" in specification.reward_rule.kind or members.balances:
        money["balances"] = dict(money.get("balances", {}))
    at_first, lost = members.stakes(specification), dict(money.get("lost", {}))
    stakes = tuple(at_first[client] - lost.get(str(client), 0) for client in facts.cohort) if at_first else ()

    endowment = _endowment(specification) if facts.round_number == 1 else 0
    money["treasury"] += endowment
    pool = _pool(specification, kept, facts, money["treasury"])
    if specification.budget_tokens is not None:
        pool = min(pool, rewards.fixed_pool(specification.budget_tokens) - money["pools"])
    is_endowed = specification.pool.has("endowed")

    burned = round(Fraction(specification.burn_share) * pool)
    shares, burned_by_rule, slashed = _split(
        specification, kept, facts, measured, pool - burned, money.get("balances", {}), stakes, products, scheme
    )
    burned += burned_by_rule
    money["pools"] += pool
    money["treasury"] += (0 if is_endowed else pool) - burned - sum(shares)
    if stakes:
        slashed = _slashed(specification, measured.scores, stakes, slashed)
        money["treasury"] += sum(slashed) if specification.slashed_to == "treasury" else 0
        lost |= {
            str(client): lost.get(str(client), 0) + each
            for client, each in zip(facts.cohort, slashed, strict=True)
            if each
        }
        if lost:
            money["lost"] = lost
    for client, share in zip(facts.cohort, shares, strict=True) if "balances" in money else ():
        if share:
            money["balances"][str(client)] = money["balances"].get(str(client), 0) + share
    if scheme >= 3:
        kept["money"] = money
    return Paid(
        contributions=measured.contributions,
        errors=measured.errors,
        pool=pool,
        minted=endowment if is_endowed else pool,
        burned=burned,
        shares=shares,
        utilities_sha256=measured.utilities_sha256,
        state=kept,
        slashed=slashed if stakes else None,
        scores=measured.scores,
    )


def measure(
    specification: Specification,
    state: State,
    facts: Facts,
    game: Game,
    *,
    draw: np.random.Generator,
    scheme: int,
    products: Arrays,
) -> Measured:
    """The first half of a step: what everybody is worth, and how suspicious. EconomyError, NotFinite."""
    choice, recorded = specification.valuation, Recorded(game)
    seen = ValuationFacts(
        clients=game.cohort,
        players=game.players,
        num_examples=np.asarray(game.num_examples, np.int64),
        products=products,
        total_examples=sum(facts.num_examples),
    )
    try:
        values = _ask("valuation", choice, recorded, seen, state.get("valuation", {}), draw)
    except NotFinite as error:
        clients = ", ".join(str(game.players[place]) for place in error.players)
        what = f"the updates of clients {clients} together give" if clients else "without any update there is"
        raise NotFinite(f"{what} a model whose {specification.utility} is not finite", error.players) from None
    if not isinstance(values, Values):
        raise EconomyError(f"valuation: {choice.kind} gives no Values")
    evidence = None
    if specification.asks_game or scheme < 3:
        evidence = pack(game.players, game.num_examples, recorded, version=min(scheme, 3))
    kept: dict[str, Any] = {}
    _keep("valuation", choice, kept, values.state)
    scores, of_detectors = _scored(specification, state.get("detectors", {}), facts, products)
    return Measured(
        contributions=_of_cohort(choice, "value", values.contributions, game),
        errors=None if values.errors is None else _of_cohort(choice, "standard error", values.errors, game),
        state=kept.get("valuation", {}),
        evidence=evidence,
        utilities_sha256=None if evidence is None else hashlib.sha256(evidence).hexdigest(),
        coalitions=len(recorded.table()),
        scores=scores,
        detectors=of_detectors,
    )


def _scored(
    specification: Specification, state: State, facts: Facts, products: Arrays
) -> tuple[dict[str, tuple[float, ...]], dict[str, Any]]:
    """By detector, a score for each of the cohort; and what detectors keep."""
    scores: dict[str, tuple[float, ...]] = {}
    kept: dict[str, Any] = {}
    sent = facts.arrived
    seen = DetectorFacts(
        round_number=facts.round_number,
        clients=facts.cohort,
        num_examples=facts.num_examples,
        sent=sent,
        losses_before=facts.losses_before,
        losses_after=facts.losses_after,
        update_norms=facts.update_norms,
        previous_validation_loss=facts.previous_validation_loss,
        products=products,
    )
    for choice in specification.scorers:
        found = _ask("detectors", choice, seen, state.get(choice.kind, {}))
        if not isinstance(found, tuple) or len(found) != 2:
            raise EconomyError(f"detectors: {choice.kind} gives no pair of scores and state")
        try:
            each = np.asarray(found[0], np.float64)
        except (TypeError, ValueError) as error:
            raise EconomyError(f"detectors: {choice.kind} gives scores that are no numbers: {error}") from None
        if each.shape != (len(facts.cohort),) or not ((each >= 0) & (each <= 1)).all():
            raise EconomyError(f"detectors: {choice.kind} gives no score from 0 to 1 for each of {len(facts.cohort)}")
        scores[choice.kind] = tuple(
            score + 0.0 if here else 0.0 for score, here in zip(each.tolist(), sent, strict=True)
        )
        own: dict[str, Any] = {}
        _keep("detectors", choice, own, found[1])
        if own:
            kept[choice.kind] = own["detectors"]
    return scores, kept


def _of_cohort(choice: Choice, what: str, found: Any, game: Game) -> tuple[float, ...]:
    """A finite number for each player as one for each of the cohort: 0 for whoever does not play."""
    try:
        each = np.asarray(found, np.float64)
    except (TypeError, ValueError) as error:
        raise EconomyError(f"valuation: {choice.kind} gives no {what}s that are numbers: {error}") from None
    if each.shape != (len(game.players),) or not np.isfinite(each).all():
        raise EconomyError(f"valuation: {choice.kind} gives no finite {what} for each of {len(game.players)} players")
    of_client = dict(zip(game.players, each.tolist(), strict=True))
    return tuple(of_client.get(client, 0.0) + 0.0 for client in game.cohort)  # -0.0 as 0.0


def _endowment(specification: Specification) -> int:
    """Micro-tokens that are minted into the treasury before the first round."""
    if not specification.pool.has("endowed"):
        return 0
    endowment = rewards.fixed_pool(specification.pool["tokens"])
    budget = specification.budget_tokens
    return endowment if budget is None else min(endowment, rewards.fixed_pool(budget))


def _pool(specification: Specification, kept: dict[str, Any], facts: Facts, treasury: int) -> int:
    """Micro-tokens to pay in the round."""
    choice = specification.pool
    seen = PoolFacts(
        round_number=facts.round_number,
        previous_validation_loss=facts.previous_validation_loss,
        validation_loss=facts.validation_loss,
        best_validation_loss=facts.best_validation_loss,
        treasury=treasury,
    )
    pool, state = _ask("pool", choice, seen, kept.get("pool", {}))
    if isinstance(pool, bool) or not isinstance(pool, int) or not 0 <= pool <= rewards.MOST_MICROTOKENS:
        raise EconomyError(f"pool: {choice.kind} gives {pool!r}, not a whole number of micro-tokens")
    if choice.has("endowed") and pool > treasury:
        raise EconomyError(f"pool: {choice.kind} pays {pool:,} micro-tokens, and the treasury holds {treasury:,}")
    _keep("pool", choice, kept, state)
    return pool


def _split(
    specification: Specification,
    kept: dict[str, Any],
    facts: Facts,
    measured: Measured,
    pool: int,
    balances: Mapping[str, int],
    stakes: tuple[int, ...],
    products: Arrays,
    scheme: int,
) -> tuple[tuple[int, ...], int, tuple[int, ...]]:
    """Micro-tokens for each of the cohort, what the rule burns, and what it takes from each stake."""
    choice, sent = specification.reward_rule, facts.arrived
    seen = RuleFacts(
        round_number=facts.round_number,
        clients=facts.cohort,
        contributions=measured.contributions,
        num_examples=facts.num_examples,
        sent=sent,
        balances=tuple(balances.get(str(client), 0) for client in facts.cohort) if scheme >= 3 else (),
        stakes=stakes,
        scores=measured.scores,
        products=products,
    )
    payment = _ask("reward_rule", choice, seen, pool, kept.get("reward_rule", {}))
    try:
        payment = check_payment(payment, len(facts.cohort), pool, stakes)
    except ValueError as error:
        raise EconomyError(f"reward_rule: {choice.kind}: {error}") from None
    _keep("reward_rule", choice, kept, payment.state)
    shares = tuple(share if here or scheme < 3 else 0 for share, here in zip(payment.shares, sent, strict=True))
    return shares, payment.burned, tuple(payment.slashed or (0,) * len(shares))


def _slashed(
    specification: Specification, scores: Mapping[str, tuple[float, ...]], stakes: Sequence[int], by_rule: Sequence[int]
) -> tuple[int, ...]:
    """What each stake loses, to the rule and to all entries whose detector's score is above theirs together; rounded
    down, and never more than there is."""
    lost = list(by_rule)
    for entry in specification.slashing:
        share = Fraction(str(entry["share"]))
        for place, score in enumerate(scores[entry["detector"].kind]):
            if score > entry["above"]:
                lost[place] += int(share * stakes[place])
    return tuple(min(each, stake) for each, stake in zip(lost, stakes, strict=True))


def _ask(field: str, choice: Choice, *facts: Any) -> Any:
    """What a kind's code says. EconomyError where a plug-in's fails."""
    try:
        return choice.load()(*facts, **choice.parameters)
    except NotFinite:
        raise
    except Exception as error:
        if "/" not in choice.kind:
            raise
        raise EconomyError(f"{field}: {choice.kind} failed: {type(error).__name__}: {error}") from error


def _keep(field: str, choice: Choice, kept: dict[str, Any], state: object) -> None:
    """For the next round, and for a run that goes on from here. As JSON gives it back, so that a run that was killed is
    not told apart."""
    try:
        check_state(state)
    except ValueError as error:
        raise EconomyError(f"{field}: {choice.kind}: {error}") from None
    text = json.dumps(state, sort_keys=True)
    if len(text) > MOST_STATE:
        raise EconomyError(f"{field}: {choice.kind} keeps {len(text):,} bytes; {MOST_STATE:,} are allowed")
    if state:
        kept[field] = json.loads(text)
    else:
        kept.pop(field, None)
