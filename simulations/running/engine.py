"""A simulation from its configuration to its last event: the loop, with every round valued and paid. No Django."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from incentives import rewards
from incentives.economy import PoolFacts, RuleFacts, ValuationFacts, Values, check_payment, check_state
from incentives.valuation import NotFinite
from incentives.valuation.evidence import Recorded, pack
from kinds import Choice
from simulations.config import SimulationConfig
from simulations.running import manifest
from simulations.running.events import ClientRound, Event, Log, Resolved, Round
from training import checkpoints as saved
from training import datasets, devices, entropy, lines, loop
from training.catalogue import DATASETS
from training.checkpoints import State
from training.events import RoundTrained, TrainingError
from training.figures import figure
from training.games import RoundGames

MOST_STATE = 2**18  # bytes of what an economy keeps between two rounds, as JSON


@dataclass(frozen=True, kw_only=True)
class Valued:
    """What a round's game was worth to its players."""

    contributions: dict[int, float]  # of the players; a client that left the game is worth nothing
    coalitions: int  # evaluated
    evidence: bytes


def simulate(
    config: SimulationConfig,
    *,
    data_dir: Path,
    checkpoint_dir: Path | None = None,
    checkpoints: Sequence[tuple[int, str, Mapping[str, Any]]] = (),
    recorded_rounds: int = 0,
) -> Iterator[Event]:
    """Yield what happens, live. Raises TrainingError or ConfigError with a plain sentence.

    checkpoints: rounds to go on from, the best first, each with its SHA-256 and the economy's state after it; where
    none can be read the run starts again.
    recorded_rounds: rounds that have been told; of these only the rounds themselves are yielded, not their lines.
    """
    name = yield from datasets.find(config.dataset.kind, data_dir)
    config = dataclasses.replace(config.resolved(name), device=devices.chosen(config))
    yield Resolved(
        message=summary(config),
        config=config.to_dict(),
        config_sha256=config.sha256(),
        manifest=manifest.of_this_process(config.device),
    )
    data = yield from datasets.load(name, data_dir)
    resume, state = first_readable(checkpoint_dir, checkpoints)
    economy = Economy(config, resume.round_number if resume else 0, state)
    for event in loop.run(
        config,
        data,
        value=economy.value if config.is_valued else None,
        looks=config.asks_game,
        checkpoints=checkpoint_dir,
        resume=resume,
        replay_until=recorded_rounds,
        config_sha256=config.sha256(),
    ):
        if not isinstance(event, RoundTrained):
            yield event
        elif event.round_number <= recorded_rounds:
            yield economy.paid(event)
        else:
            yield from with_lines(config, event, economy.paid(event))


def summary(config: SimulationConfig) -> str:
    """The configuration in a sentence."""
    return (
        f"{DATASETS[config.dataset.kind].label} over {config.num_clients:,} clients ({config.partition.kind}), "
        f"{config.model.kind}, {config.strategy.kind}, valuation {config.valuation.kind}, "
        f"configuration {config.sha256()[:12]}"
    )


def first_readable(
    folder: Path | None, checkpoints: Sequence[tuple[int, str, Mapping[str, Any]]]
) -> tuple[State | None, Mapping[str, Any]]:
    """The first checkpoint that is there and whole, and the economy's state after it; None where the run must start
    again."""
    for number, sha256, state in checkpoints:
        if folder is not None and (found := saved.load(folder, number, sha256)) is not None:
            return found, state
    return None, {}


class Economy:
    """The paying economy of a run: in each round its valuation, then its pool and its rule. No Django.

    What they keep between rounds is `state`, an object of JSON by field; it begins as it was after `round_number`.
    Rounds come in order.
    """

    def __init__(self, config: SimulationConfig, round_number: int, state: Mapping[str, Any]) -> None:
        self.config, self.round_number, self.state = config, round_number, dict(state)

    def value(self, games: RoundGames) -> Valued:
        """What the next round's game is worth to its players."""
        game = games.of("fedavg", self.config.utility, self.config.weights_in_use)
        self.round_number += 1
        choice, recorded = self.config.valuation, Recorded(game)
        facts = ValuationFacts(
            clients=game.cohort, players=game.players, num_examples=np.asarray(game.num_examples, np.int64)
        )
        # of the valuation alone: what is drawn does not depend on where it stands or on what is beside it
        which = json.dumps(choice.to_dict(), sort_keys=True)
        seed = entropy.digest(self.config.seed, f"valuation/{which}", self.round_number, 0)
        rng = np.random.Generator(np.random.PCG64(int.from_bytes(seed[:8])))
        try:
            values = self._ask("valuation", choice, recorded, facts, self.state.get("valuation", {}), rng)
        except NotFinite as error:
            clients = ", ".join(str(game.players[place]) for place in error.players)
            what = f"the updates of clients {clients} together give" if clients else "without any update there is"
            raise NotFinite(f"{what} a model whose {self.config.utility} is not finite", error.players) from None
        if not isinstance(values, Values):
            raise TrainingError(f"valuation: {choice.kind} gives no Values")
        worth = np.asarray(values.contributions, np.float64)
        if worth.shape != (len(game.players),) or not np.isfinite(worth).all():
            raise TrainingError(
                f"valuation: {choice.kind} gives no finite value for each of {len(game.players)} players"
            )
        self._keep("valuation", choice, values.state)
        return Valued(
            contributions={client: float(each) for client, each in zip(game.players, worth, strict=True)},
            coalitions=len(recorded.table()),
            evidence=pack(game.players, game.num_examples, recorded, version=min(self.config.scheme, 2)),
        )

    def paid(self, trained: RoundTrained) -> Round:
        """The round with its pool split by the rule."""
        config, valued = self.config, trained.valued
        contributions = [valued.contributions.get(client, 0.0) if valued else None for client in trained.cohort]
        pool = self._pool(trained) if valued else 0
        rule = config.reward_rule
        shares: Sequence[int] = [0] * len(trained.cohort)
        if valued:
            facts = RuleFacts(
                round_number=trained.round_number,
                clients=trained.cohort,
                contributions=tuple(worth or 0.0 for worth in contributions),
                num_examples=tuple(report.num_examples for report in trained.reports),
                sent=tuple(client in valued.contributions for client in trained.cohort),
            )
            payment = self._ask("reward_rule", rule, facts, pool, self.state.get("reward_rule", {}))
            try:
                shares = check_payment(payment, len(trained.cohort), pool).shares
            except ValueError as error:
                raise TrainingError(f"reward_rule: {rule.kind}: {error}") from None
            self._keep("reward_rule", rule, payment.state)
        clients = tuple(
            ClientRound(
                client=report.client,
                num_examples=report.num_examples,
                loss_before=report.loss_before,
                loss_after=report.loss_after,
                update_norm=report.update_norm,
                contribution=contribution,
                reward_microtokens=share,
            )
            for report, contribution, share in zip(trained.reports, contributions, shares, strict=True)
        )
        return Round(
            message=_round_line(config, trained),
            round_number=trained.round_number,
            clients=clients,
            loss=trained.loss,
            accuracy=trained.accuracy,
            validation_loss=trained.validation_loss,
            pool_microtokens=pool,
            treasury_microtokens=pool - sum(shares),
            rule=f"{rule.kind}@{rule.description.version}" if valued else None,
            evidence=valued.evidence if valued else None,
            evidence_sha256=hashlib.sha256(valued.evidence).hexdigest() if valued else None,
            economy_state=dict(self.state),
            weights_sha256=trained.weights_sha256,
            checkpoint_sha256=trained.checkpoint_sha256,
            train_seconds=trained.train_seconds,
            evaluate_seconds=trained.evaluate_seconds,
            valuation_seconds=trained.valuation_seconds,
            duration_seconds=trained.duration_seconds,
        )

    def _pool(self, trained: RoundTrained) -> int:
        """Micro-tokens to pay in the round."""
        choice = self.config.pool
        facts = PoolFacts(
            round_number=trained.round_number,
            previous_validation_loss=trained.previous_validation_loss,
            validation_loss=trained.validation_loss,
            best_validation_loss=trained.best_validation_loss,
        )
        try:
            pool, state = self._ask("pool", choice, facts, self.state.get("pool", {}))
        except rewards.TooManyTokens as error:
            before = _loss_to_beat(self.config, trained)
            fell = f"the validation loss fell from {figure(before)} to {figure(trained.validation_loss)}"
            text = f"Round {trained.round_number}: {error}: {fell}, and scaling_factor is {choice['scaling_factor']:g}"
            raise TrainingError(f"{text}; {lines.calmer(self.config)}") from None
        if isinstance(pool, bool) or not isinstance(pool, int) or not 0 <= pool <= rewards.MOST_MICROTOKENS:
            raise TrainingError(f"pool: {choice.kind} gives {pool!r}, not a whole number of micro-tokens")
        self._keep("pool", choice, state)
        return pool

    def _ask(self, field: str, choice: Choice, *facts: Any) -> Any:
        """What a kind's code says. TrainingError where a plug-in's fails."""
        try:
            return choice.load()(*facts, **choice.parameters)
        except FloatingPointError:
            raise
        except Exception as error:
            if "/" not in choice.kind:
                raise
            raise TrainingError(f"{field}: {choice.kind} failed: {type(error).__name__}: {error}") from error

    def _keep(self, field: str, choice: Choice, state: Mapping[str, Any]) -> None:
        """For the next round, and for a run that goes on from here. As JSON gives it back, so that a run that was
        killed is not told apart."""
        try:
            check_state(state)
        except ValueError as error:
            raise TrainingError(f"{field}: {choice.kind}: {error}") from None
        text = json.dumps(state, sort_keys=True)
        if len(text) > MOST_STATE:
            raise TrainingError(f"{field}: {choice.kind} keeps {len(text):,} bytes; {MOST_STATE:,} are allowed")
        if state:
            self.state[field] = json.loads(text)
        else:
            self.state.pop(field, None)


def _loss_to_beat(config: SimulationConfig, trained: RoundTrained) -> float | None:
    """What an improvement pool measures a round's validation loss against."""
    each_round = config.pool.kind == "improvement_each_round"
    return trained.previous_validation_loss if each_round else trained.best_validation_loss


def with_lines(config: SimulationConfig, trained: RoundTrained, done: Round) -> Iterator[Event]:
    """The lines about valuation and reward, then the round itself."""
    if trained.valued is not None:
        yield Log(message=_valuation_line(config, trained.valued))
        yield Log(message=_reward_line(config, trained, done), level="reward")
    yield done


def _valuation_line(config: SimulationConfig, valued: Valued) -> str:
    name = config.valuation.description.label if "/" in config.valuation.kind else config.valuation.kind
    name = name.replace("_", " ").capitalize()
    total = sum(valued.contributions.values())
    gain = " = V(N) − V(∅)" if config.valuation.kind == "shapley" else ""
    line = f"{name}: {valued.coalitions:,} coalitions, contributions sum to {figure(total)}{gain}"
    if config.asks_game and not config.is_averaged:
        line += f"; to the model of plain federated averaging, not to that of {config.strategy.kind.replace('_', ' ')}"
    return line


def _reward_line(config: SimulationConfig, trained: RoundTrained, done: Round) -> str:
    """With the reason where nobody gets anything."""
    earners = sum(part.reward_microtokens > 0 for part in done.clients)
    tokens = (done.pool_microtokens - done.treasury_microtokens) / rewards.MICROTOKENS
    line = f"Calculated reward: {tokens:,.4f} tokens to {earners:,} of {len(done.clients):,} clients"
    if earners:
        return line
    if done.pool_microtokens:
        kept = f"{done.pool_microtokens / rewards.MICROTOKENS:,.4f} stay in the treasury"
        return f"{line}; no contribution is above 0, so {kept}"
    return f"{line}; {_why_no_pool(config, trained)}"


def _why_no_pool(config: SimulationConfig, trained: RoundTrained) -> str:
    pool = config.pool
    if pool.kind == "fixed":
        return f"the pool is fixed at {pool['tokens']:g} tokens"
    if "scaling_factor" not in pool.parameters:
        return f"the pool {pool.kind} is empty"
    before, after = _loss_to_beat(config, trained), trained.validation_loss
    if before is not None and after is not None and after < before:
        factor = pool["scaling_factor"]
        return f"a drop of {before - after:.2g} at {factor:g} tokens per unit is less than a micro-token"
    if pool.kind == "improvement_each_round":
        return "the validation loss did not fall"
    return f"the validation loss is not below its best so far, {figure(before)}"


def _round_line(config: SimulationConfig, trained: RoundTrained) -> str:
    evaluated = trained.loss is not None
    figures = f"loss {figure(trained.loss)}, accuracy {trained.accuracy:.4f}" if evaluated else "not evaluated"
    return f"Round {trained.round_number} of {config.num_rounds} done: {figures}"
