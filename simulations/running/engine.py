"""A simulation from its configuration to its last event: the loop, with every round valued and paid. No Django."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from incentives import fold, rewards
from incentives.fold import EconomyError, Step
from incentives.memo import Facts
from incentives.products import NoProducts
from incentives.rules import FULL
from incentives.specification import Specification
from simulations.config import PAYING, SimulationConfig
from simulations.running import manifest
from simulations.running.events import ClientRound, Event, Log, Resolved, Round, ShadowRound
from training import checkpoints as saved
from training import datasets, devices, entropy, lines, loop, samplers
from training.catalogue import DATASETS
from training.checkpoints import State
from training.events import RoundTrained, TrainingError
from training.figures import figure
from training.games import RoundGame, RoundGames


def simulate(
    config: SimulationConfig,
    *,
    data_dir: Path,
    checkpoint_dir: Path | None = None,
    checkpoints: Sequence[Checkpoint] = (),
    recorded_rounds: int = 0,
) -> Iterator[Event]:
    """Yield what happens, live. Raises TrainingError or ConfigError with a plain sentence.

    checkpoints: rounds to go on from, the best first, each with its SHA-256 and the economies' states after it; where
    none can be read the run starts again.
    recorded_rounds: rounds that have been told; of these only the rounds themselves are yielded, not their lines.
    """
    name = yield from datasets.find(config.dataset.kind, data_dir)
    config = dataclasses.replace(config.resolved(name), device=devices.chosen(config))
    yield Resolved(
        message=summary(config),
        config=config.to_dict(),
        config_sha256=config.sha256(),
        training_sha256=config.training_sha256(),
        manifest=manifest.of_this_process(config.device),
    )
    data = yield from datasets.load(name, data_dir)
    resume, states = first_readable(checkpoint_dir, checkpoints)
    economies = Economies(config, states)
    for event in loop.run(
        config,
        data,
        value=economies.step if config.is_valued else None,
        looks=config.looks,
        keeps=config.keeps,
        sample=economies.sample if config.feeds_back else None,
        checkpoints=checkpoint_dir,
        resume=resume,
        replay_until=recorded_rounds,
        config_sha256=config.sha256(),
    ):
        if not isinstance(event, RoundTrained):
            yield event
        elif event.round_number <= recorded_rounds:
            yield economies.round(event)
        else:
            yield from with_lines(config, event, economies.round(event))


Checkpoint = tuple[int, str, Sequence[Mapping[str, Any]]]  # its round and SHA-256, and each economy's state after it


def summary(config: SimulationConfig) -> str:
    """The configuration in a sentence."""
    return (
        f"{DATASETS[config.dataset.kind].label} over {config.num_clients:,} clients ({config.partition.kind}), "
        f"{config.model.kind}, {config.strategy.kind}, valuation {config.valuation.kind}, "
        f"configuration {config.sha256()[:12]}"
    )


def first_readable(
    folder: Path | None, checkpoints: Sequence[Checkpoint]
) -> tuple[State | None, Sequence[Mapping[str, Any]]]:
    """The first checkpoint that is there and whole, and the economies' states after it; None where the run must start
    again."""
    for number, sha256, states in checkpoints:
        if folder is not None and (found := saved.load(folder, number, sha256)) is not None:
            return found, states
    return None, ()


@dataclass(frozen=True, kw_only=True)
class Valued:
    """What a round's economies made of it, the paying one first."""

    steps: tuple[Step, ...]
    carried: float | None

    @property
    def paying(self) -> Step:
        return self.steps[0]


class Economies:
    """The economies of a run, folded over its rounds as they come. No Django."""

    def __init__(self, config: SimulationConfig, states: Sequence[Mapping[str, Any]] = ()) -> None:
        """`states` after the round from which it goes on, in the order of the economies; empty before round 1."""
        self.config, self.economies = config, config.economies
        self.states = [dict(state) for state in states] or [{} for _ in self.economies]
        self.training_sha256 = config.training_sha256()

    def sample(self, num_examples: NDArray[np.int64], round_number: int) -> tuple[int, ...]:
        """The next round's cohort, where the paying economy has a say in it."""
        known = feedback(self.config, self.states[0])
        return samplers.sample(self.config, num_examples, round_number, **known)

    def step(self, trained: RoundTrained, games: RoundGames) -> Valued:
        """What each makes of the next round. TrainingError where one cannot go on."""
        facts = Facts.of(self.training_sha256, trained.round_number, trained, trained.reports)
        made = NoProducts("the updates were not kept") if games.deltas is None else games.products.named()
        steps = []
        for place, (label, economy) in enumerate(self.economies):
            if economy.asks_game or self.config.scheme < 3:
                game: fold.Game = games.of(economy.game, economy.utility, economy.utility_weights)
            else:  # what the others' game would cost, or cannot be, is nothing to it
                game = games.roster(economy.game, economy.utility_weights)
            # of the valuation alone: what is drawn does not depend on where it stands or on what is beside it
            which = json.dumps(economy.valuation.to_dict(), sort_keys=True)
            seed = entropy.digest(self.config.seed, f"valuation/{which}", trained.round_number, 0)
            draw = np.random.Generator(np.random.PCG64(int.from_bytes(seed[:8])))
            try:
                done = fold.step(
                    economy,
                    self.states[place],
                    facts,
                    game,
                    draw=draw,
                    scheme=self.config.scheme,
                    products=made,
                    members=self.config.members(is_paying=label == PAYING),
                )
            except EconomyError as error:
                raise TrainingError(str(error) if label == PAYING else f"shadows: {label}: {error}") from error
            except rewards.TooManyTokens as error:
                before = _loss_to_beat(economy, trained)
                fell = f"the validation loss fell from {figure(before)} to {figure(trained.validation_loss)}"
                text = f"Round {trained.round_number}: {error}: {fell}, and scaling_factor is "
                text += f"{economy.pool['scaling_factor']:g}; {lines.calmer(self.config)}"
                raise TrainingError(text if label == PAYING else f"{label}: {text}") from None
            self.states[place] = dict(done.state)
            steps.append(done)
        _, paying = self.economies[0]
        asked = games.of(paying.game, paying.utility, paying.utility_weights) if paying.asks_game else None
        carried = asked.carried if isinstance(asked, RoundGame) else None
        return Valued(steps=tuple(steps), carried=carried)

    def round(self, trained: RoundTrained) -> Round:
        """The round with what everybody is paid."""
        _, economy = self.economies[0]
        valued: Valued | None = trained.valued
        done = valued.paying if valued else None
        paid = done.paid if done else None
        clients = tuple(
            ClientRound(
                client=report.client,
                holder=report.holder or report.client,
                num_examples=report.num_examples,
                true_examples=report.num_held,
                effort=report.effort,
                untrained=report.untrained,
                loss_before=report.loss_before,
                loss_after=report.loss_after,
                update_norm=report.update_norm,
                contribution=paid.contributions[place] if paid else None,
                error=paid.errors[place] if paid and paid.errors else None,
                reward_microtokens=paid.shares[place] if paid else 0,
                slashed_microtokens=paid.slashed[place] if paid and paid.slashed is not None else None,
            )
            for place, report in enumerate(trained.reports)
        )
        shadows: list[ShadowRound] = []
        others: dict[str | None, bytes] = {}
        for each in valued.steps if valued else ():
            if each.paid is not None and each.products is not None:
                others[each.paid.products_sha256] = each.products
        for number, step in enumerate(valued.steps[1:] if valued else (), 1):
            if step.paid is None or step.measured is None:
                continue
            if step.measured.evidence is not None:
                others[step.measured.utilities_sha256] = step.measured.evidence
            shadows.append(
                ShadowRound(
                    number=number,
                    contributions=step.paid.contributions,
                    errors=step.paid.errors,
                    rewards=step.paid.shares,
                    pool_microtokens=step.paid.pool,
                    minted_microtokens=step.paid.minted,
                    burned_microtokens=step.paid.burned,
                    evidence_sha256=step.paid.utilities_sha256,
                    economy_state=dict(step.state),
                    slashed=step.paid.slashed,
                    scores=dict(step.paid.scores),
                    products_sha256=step.paid.products_sha256,
                )
            )
        evidence = done.measured.evidence if done and done.measured else None
        others.pop(paid.utilities_sha256 if paid else None, None)
        version = 1 if self.config.scheme < 3 else economy.reward_rule.description.version
        return Round(
            message=_round_line(self.config, trained),
            round_number=trained.round_number,
            clients=clients,
            shadows=tuple(shadows),
            loss=trained.loss,
            accuracy=trained.accuracy,
            previous_validation_loss=trained.previous_validation_loss,
            validation_loss=trained.validation_loss,
            best_validation_loss=trained.best_validation_loss,
            carried=valued.carried if valued else None,
            pool_microtokens=paid.pool if paid else 0,
            minted_microtokens=paid.minted if paid else 0,
            burned_microtokens=paid.burned if paid else 0,
            treasury_microtokens=paid.pool - paid.burned - sum(paid.shares) if paid else 0,
            rule=f"{economy.reward_rule.kind}@{version}" if paid else None,
            evidence=evidence,
            evidence_sha256=paid.utilities_sha256 if paid else None,
            others=tuple(others.values()),
            economy_state=dict(done.state) if done else {},
            scores=dict(paid.scores) if paid else {},
            products_sha256=paid.products_sha256 if paid else None,
            weights_sha256=trained.weights_sha256,
            checkpoint_sha256=trained.checkpoint_sha256,
            train_seconds=trained.train_seconds,
            evaluate_seconds=trained.evaluate_seconds,
            valuation_seconds=trained.valuation_seconds,
            duration_seconds=trained.duration_seconds,
        )


def feedback(config: SimulationConfig, state: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    """What a sampler reads of the paying economy as it is after a round, of all clients in their order."""
    clients, money = [str(number) for number in range(1, config.num_identities + 1)], state.get("money", {})
    found: dict[str, tuple[float, ...]] = {}
    if config.sampler.has("balances"):
        balances = money.get("balances", {})
        found["balances"] = tuple(balances.get(client, 0) for client in clients)
    if config.sampler.has("stakes"):
        at_first, lost = config.members(is_paying=True).stakes(config.economies[0][1]), money.get("lost", {})
        found["stakes"] = tuple(at_first[int(client)] - lost.get(client, 0) for client in clients)
    if config.sampler.has("reputation"):
        known = state.get("reward_rule", {}).get("reputation", {})
        found["reputation"] = tuple(known.get(client, FULL) / FULL for client in clients)
    return found


def _loss_to_beat(economy: Specification, trained: RoundTrained) -> float | None:
    """What an improvement pool measures a round's validation loss against."""
    each_round = economy.pool.kind == "improvement_each_round"
    return trained.previous_validation_loss if each_round else trained.best_validation_loss


def with_lines(config: SimulationConfig, trained: RoundTrained, done: Round) -> Iterator[Event]:
    """The lines about valuation and reward, then the round itself."""
    _, economy = config.economies[0]
    if trained.valued is not None and trained.valued.paying.paid is not None:
        yield Log(message=_valuation_line(config, economy, trained.valued))
        yield Log(message=_reward_line(economy, trained, done), level="reward")
        yield from _slashing_lines(economy, done)
    yield done


def _valuation_line(config: SimulationConfig, economy: Specification, valued: Valued) -> str:
    choice, paid, measured = economy.valuation, valued.paying.paid, valued.paying.measured
    assert paid is not None
    assert measured is not None
    name = (choice.description.label if "/" in choice.kind else choice.kind).replace("_", " ").capitalize()
    total = sum(paid.contributions)
    gain = " = V(N) − V(∅)" if choice.kind == "shapley" else ""
    line = f"{name}: {measured.coalitions:,} coalitions, contributions sum to {figure(total)}{gain}"
    if valued.carried:
        line += f"; {figure(valued.carried)} more is what the server carries along"
    if economy.asks_game and economy.game == "fedavg" and not config.is_averaged:
        line += f"; to the model of plain federated averaging, not to that of {config.strategy.kind.replace('_', ' ')}"
    return line


def _reward_line(economy: Specification, trained: RoundTrained, done: Round) -> str:
    """With the reason where nobody gets anything."""
    earners = sum(part.reward_microtokens > 0 for part in done.clients)
    tokens = sum(part.reward_microtokens for part in done.clients) / rewards.MICROTOKENS
    line = f"Calculated reward: {tokens:,.4f} tokens to {earners:,} of {len(done.clients):,} clients"
    if done.burned_microtokens:
        line += f", {done.burned_microtokens / rewards.MICROTOKENS:,.4f} burned"
    if earners:
        return line
    if done.treasury_microtokens:
        kept = f"{done.treasury_microtokens / rewards.MICROTOKENS:,.4f} stay in the treasury"
        return f"{line}; no contribution is above 0, so {kept}"
    return f"{line}; {_why_no_pool(economy, trained, done)}"


def _slashing_lines(economy: Specification, done: Round) -> Iterator[Log]:
    """Who lost a stake and why; of many, the first few."""
    lost = [(place, part) for place, part in enumerate(done.clients) if part.slashed_microtokens]
    for place, part in lost[: lines.FEW]:
        above = [
            f"{name} {done.scores[name][place]:.3f} is above {entry['above']:g}"
            for entry in economy.slashing
            for name in [entry["detector"].kind]
            if done.scores[name][place] > entry["above"]
        ]
        why = (
            "; ".join(above) or f"the rule {economy.reward_rule.kind}, contribution {figure(part.contribution or 0.0)}"
        )
        tokens = (part.slashed_microtokens or 0) / rewards.MICROTOKENS
        yield Log(message=f"Client {part.client}: {tokens:,.4f} tokens of its stake are lost ({why})", level="warning")
    if len(lost) > lines.FEW:
        tokens = sum(part.slashed_microtokens or 0 for _, part in lost) / rewards.MICROTOKENS
        yield Log(message=f"{len(lost):,} stakes lost {tokens:,.4f} tokens in all", level="warning")


def _why_no_pool(economy: Specification, trained: RoundTrained, done: Round) -> str:
    pool, money = economy.pool, done.economy_state.get("money", {})
    if economy.budget_tokens is not None and money.get("pools") == rewards.fixed_pool(economy.budget_tokens):
        return f"the budget of {economy.budget_tokens:,.12g} tokens is spent"
    if pool.kind == "fixed":
        return f"the pool is fixed at {pool['tokens']:g} tokens"
    if "scaling_factor" not in pool.parameters:
        return f"the pool {pool.kind} is empty"
    before, after = _loss_to_beat(economy, trained), trained.validation_loss
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
