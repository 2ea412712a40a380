"""A simulation from its configuration to its last event: the loop, with every round valued and paid. No Django."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from incentives import rewards
from incentives.valuation import VALUATIONS, NotFinite
from incentives.valuation.evidence import Recorded, pack
from simulations.config import NO_GAME, SimulationConfig
from simulations.running import manifest
from simulations.running.events import ClientRound, Event, Log, Resolved, Round
from training import checkpoints as saved
from training import datasets, devices, lines, loop
from training.checkpoints import State
from training.config import DATASETS
from training.events import RoundTrained, TrainingError
from training.figures import figure
from training.game import CoalitionGame, Roster


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
    checkpoints: Sequence[tuple[int, str]] = (),
    recorded_rounds: int = 0,
) -> Iterator[Event]:
    """Yield what happens, live. Raises TrainingError or ConfigError with a plain sentence.

    checkpoints: (round, SHA-256) pairs to go on from, the best first; where none can be read the run starts again.
    recorded_rounds: rounds that have been told; of these only the rounds themselves are yielded, not their lines.
    """
    name = yield from datasets.find(config.dataset, data_dir)
    config = dataclasses.replace(config.resolved(name), device=devices.chosen(config))
    yield Resolved(
        message=summary(config),
        config=config.to_dict(),
        config_sha256=config.sha256(),
        manifest=manifest.of_this_process(config.device),
    )
    data = yield from datasets.load(name, data_dir)
    for event in loop.run(
        config,
        data,
        value=None if config.valuation == "none" else valuer(config),
        utility=config.utility,
        utility_weights=config.weights_in_use,
        looks=config.valuation not in NO_GAME,
        checkpoints=checkpoint_dir,
        resume=first_readable(checkpoint_dir, checkpoints),
        replay_until=recorded_rounds,
        config_sha256=config.sha256(),
    ):
        if not isinstance(event, RoundTrained):
            yield event
        elif event.round_number <= recorded_rounds:
            yield paid(config, event)
        else:
            yield from told(config, event, paid(config, event))


def summary(config: SimulationConfig) -> str:
    """The configuration in a sentence."""
    return (
        f"{DATASETS[config.dataset].label} over {config.num_clients:,} clients ({config.partition}), {config.model}, "
        f"{config.strategy}, valuation {config.valuation}, configuration {config.sha256()[:12]}"
    )


def first_readable(folder: Path | None, checkpoints: Sequence[tuple[int, str]]) -> State | None:
    """The first checkpoint that is there and whole; None where the run must start again."""
    states = (saved.load(folder, number, sha256) for number, sha256 in checkpoints if folder is not None)
    return next((state for state in states if state is not None), None)


def valuer(config: SimulationConfig) -> Callable[[CoalitionGame | Roster], Valued]:
    """How this configuration values a round's game."""
    valuation = VALUATIONS[config.valuation]

    def value(game: CoalitionGame | Roster) -> Valued:
        recorded = Recorded(game)
        try:
            values = valuation(recorded, game.num_examples)
        except NotFinite as error:
            clients = ", ".join(str(game.players[place]) for place in error.players)
            what = f"the updates of clients {clients} together give" if clients else "without any update there is"
            raise NotFinite(f"{what} a model whose {config.utility} is not finite", error.players) from None
        return Valued(
            contributions={client: float(worth) for client, worth in zip(game.players, values, strict=True)},
            coalitions=len(recorded.table()),
            evidence=pack(game.players, game.num_examples, recorded, version=min(config.scheme, 2)),
        )

    return value


def paid(config: SimulationConfig, trained: RoundTrained) -> Round:
    """A round with its pool split by the rule. Pure."""
    valued: Valued | None = trained.valued
    rule = rewards.REWARD_RULES[config.reward_rule]
    contributions = [valued.contributions.get(client, 0.0) if valued else None for client in trained.cohort]
    pool = pool_of(config, trained) if valued else 0
    shares = rule.pay([worth or 0.0 for worth in contributions], pool)
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
        rule=rule.label if valued else None,
        evidence=valued.evidence if valued else None,
        evidence_sha256=hashlib.sha256(valued.evidence).hexdigest() if valued else None,
        weights_sha256=trained.weights_sha256,
        checkpoint_sha256=trained.checkpoint_sha256,
        train_seconds=trained.train_seconds,
        evaluate_seconds=trained.evaluate_seconds,
        valuation_seconds=trained.valuation_seconds,
        duration_seconds=trained.duration_seconds,
    )


def pool_of(config: SimulationConfig, trained: RoundTrained) -> int:
    """Micro-tokens to pay in a round."""
    if config.pool == "fixed":
        return rewards.fixed_pool(config.pool_tokens)
    before, after = _loss_to_beat(config, trained), trained.validation_loss
    if before is None or after is None:
        raise ValueError("the improvement pool needs a validation set")
    try:
        return rewards.improvement_pool(before, after, config.scaling_factor)
    except rewards.TooManyTokens as error:
        fell = f"the validation loss fell from {figure(before)} to {figure(after)}"
        text = f"Round {trained.round_number}: {error}: {fell}, and scaling_factor is {config.scaling_factor:g}"
        raise TrainingError(f"{text}; {lines.calmer(config)}") from None


def _loss_to_beat(config: SimulationConfig, trained: RoundTrained) -> float | None:
    """What an improvement pool measures a round's validation loss against."""
    each_round = config.pool_in_use == "improvement_each_round"
    return trained.previous_validation_loss if each_round else trained.best_validation_loss


def told(config: SimulationConfig, trained: RoundTrained, done: Round) -> Iterator[Event]:
    """The lines about valuation and reward, then the round itself."""
    if trained.valued is not None:
        yield Log(message=_valuation_line(config, trained.valued))
        yield Log(message=_reward_line(config, trained, done), level="reward")
    yield done


def _valuation_line(config: SimulationConfig, valued: Valued) -> str:
    name = config.valuation.replace("_", " ").capitalize()
    total = sum(valued.contributions.values())
    gain = " = V(N) − V(∅)" if config.valuation == "shapley" else ""
    line = f"{name}: {valued.coalitions:,} coalitions, contributions sum to {figure(total)}{gain}"
    if config.valuation not in NO_GAME and not config.is_averaged:
        line += f"; to the model of plain federated averaging, not to that of {config.strategy.replace('_', ' ')}"
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
    before, after = _loss_to_beat(config, trained), trained.validation_loss
    if config.pool == "fixed":
        return f"the pool is fixed at {config.pool_tokens:g} tokens"
    if before is not None and after is not None and after < before:
        return f"a drop of {before - after:.2g} at {config.scaling_factor:g} tokens per unit is less than a micro-token"
    if config.pool_in_use == "improvement_each_round":
        return "the validation loss did not fall"
    return f"the validation loss is not below its best so far, {figure(before)}"


def _round_line(config: SimulationConfig, trained: RoundTrained) -> str:
    evaluated = trained.loss is not None
    figures = f"loss {figure(trained.loss)}, accuracy {trained.accuracy:.4f}" if evaluated else "not evaluated"
    return f"Round {trained.round_number} of {config.num_rounds} done: {figures}"
