"""The federated loop, as a generator of events.

    sample a cohort -> each client trains on its own data -> the strategy joins the updates -> evaluate ->
    value -> save

Federated averaging as in McMahan et al. 2017, algorithm 1. Who samples, trains, joins and values is passed
in. To stop a run, stop iterating. The process must have called torch.set_num_threads(1) (see
training.backends).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training import answers, backends, clients, devices, federation, figures, lines, networks, samplers, strategies
from training import checkpoints as saved
from training.answers import Makers
from training.backends import Backend
from training.card.card import Card, Played
from training.checkpoints import State
from training.clients import HONEST, Task, Update
from training.config import TrainingConfig
from training.datasets import Data
from training.events import ClientReport, Completed, Event, Log, RoundTrained, TrainingError
from training.federation import Federation
from training.games import RoundGames
from training.networks import Score

# examples that all clients hold, round number -> the cohort, ascending client numbers
Sample = Callable[[NDArray[np.int64], int], tuple[int, ...]]
Value = Callable[[RoundTrained, RoundGames], Any]  # the trained round, not yet valued, and its games
Done = Generator[Event, None, tuple[State, Score | None]]


def run(
    config: TrainingConfig,
    data: Data,
    *,
    sample: Sample | None = None,
    value: Value | None = None,
    looks: bool = True,
    keeps: Collection[str] = (),
    checkpoints: Path | None = None,
    resume: State | None = None,
    replay_until: int = 0,
    config_sha256: str = "",
) -> Iterator[Event]:
    """Started; for each round its Log lines, then RoundTrained; Completed.

    `config` must be resolved to `data`. `sample` chooses each round's cohort, by default as the configuration's
    sampler does. `value` is called with each round's games; what it returns is the round's `valued`. Without `looks`
    it asks them nothing about updates, and a large cohort's are not kept for it. `keeps`: of `previous_step` and
    `summed`, what its products need from round to round (see training.checkpoints.State). `checkpoints` is the folder
    for the state after each round. `resume` is such a state, of this configuration: the run goes on after it; log
    lines of rounds up to `replay_until` were told before and are left out. TrainingError where the run cannot go on; a
    FloatingPointError of `value` becomes one that names the round.
    """
    if resume is not None and resume.config_sha256 != config_sha256:
        raise TrainingError(f"The checkpoint of round {resume.round_number} belongs to another configuration")
    if value is not None and not config.validation_size:
        raise ValueError("validation_size: contributions are measured on held-out examples; there are none")
    device = devices.prepared(config)
    federated = federation.gather(config, data)
    train = backends.choose(config.backend)
    started = federation.started(federated)
    yield started
    labels, federated = federated.data.train_y, devices.placed(federated, device)
    on_card = devices.has_card(config, device)
    context = RunContext(
        federated=federated,
        train=train,
        card=Card(federated, labels) if on_card else None,
        sample=partial(_of_reported, sample or partial(samplers.sample, config), federated),
        value=value,
        looks=value is not None and looks,
        keeps=frozenset(keeps) | {"previous_step" for behaviour in federated.behaviours.values() if behaviour.recalls},
        checkpoints=checkpoints,
        known=sample is None,
    )
    state, score = resume or _untrained(federated, config_sha256, context.keeps), None
    for round_number in range(state.round_number + 1, config.num_rounds + 1):
        events = play_round(context, state, round_number)
        try:
            state, score = yield from (events if round_number > replay_until else _without_lines(events))
        except torch.OutOfMemoryError as error:
            raise devices.out_of_memory(config, round_number) from error
    score = score or federation.test_score(federated, state.weights.to(device))
    if worse := figures.worse(started.loss, score.loss):
        yield Log(message=f"{worse}; {lines.calmer(config)}", level="warning")
    yield Completed(message=lines.completed(config.num_rounds), weights_sha256=networks.weights_sha256(state.weights))


@dataclass(frozen=True, kw_only=True, eq=False)
class RunContext:
    """How the rounds of one run go: the arguments of `run` that every round needs."""

    federated: Federation
    train: Backend
    card: Card | None  # where it plays the rounds, `train` has nothing to do
    sample: Callable[[int], tuple[int, ...]]
    value: Value | None
    looks: bool  # whether `value` asks about updates, and so needs every one
    keeps: frozenset[str]
    checkpoints: Path | None
    known: bool  # whether cohorts are drawn from the configuration alone, so that one may look ahead


def play_round(context: RunContext, state: State, round_number: int) -> Done:
    """One round from the state before it to the state after it, which the generator returns with the round's score."""
    federated, config, begin = context.federated, context.federated.config, perf_counter()
    cohort = _sampled(context.sample, config, round_number)
    yield lines.round_begins(round_number, config.num_rounds, len(cohort))

    played = yield from (_played if context.card is None else _played_on_card)(context, state, cohort, round_number)
    _refuse_infinite(config, round_number, played)
    if played.score is not None:
        yield lines.evaluated(played.score, len(federated.data.test_y))

    after = State(
        round_number=round_number,
        weights=played.weights,
        strategy_state=played.strategy_state,
        validation_loss=played.validation_loss,
        best_validation_loss=_least(state.best_validation_loss, played.validation_loss),
        config_sha256=state.config_sha256,
        kept=_kept_on(state, cohort, played),
    )
    trained = RoundTrained(
        round_number=round_number,
        cohort=cohort,
        reports=tuple(played.reports),
        loss=played.score.loss if played.score else None,
        accuracy=played.score.accuracy if played.score else None,
        previous_validation_loss=state.validation_loss,
        validation_loss=played.validation_loss,
        best_validation_loss=state.best_validation_loss,
        weights_sha256=networks.weights_sha256(played.weights),
        checkpoint_sha256=saved.save(context.checkpoints, after) if context.checkpoints else None,
        train_seconds=played.train_seconds,
        evaluate_seconds=played.evaluate_seconds,
        valuation_seconds=0.0,
        duration_seconds=perf_counter() - begin,
    )
    if context.value is not None:
        begin_valuation = perf_counter()
        try:
            valued = context.value(trained, _games(context, state, played))
        except FloatingPointError as error:
            raise TrainingError(f"Round {round_number}: {error}; {lines.calmer(config)}") from None
        now = perf_counter()
        trained = dataclasses.replace(
            trained, valued=valued, valuation_seconds=now - begin_valuation, duration_seconds=now - begin
        )
    yield trained
    return after, played.score


def _played(
    context: RunContext, state: State, cohort: Sequence[int], round_number: int
) -> Generator[Event, None, Played]:
    """On the processor, by the configuration's backend, client by client."""
    federated, config, begin = context.federated, context.federated.config, perf_counter()
    tasks = federation.tasks(federated, cohort, round_number)
    total_examples = max(1, sum(task.num_examples for task in tasks))
    arriving = context.train(federated.network, state.weights, tasks, federated.data, config, round_number)
    odd = {place: task for place, task in enumerate(tasks) if task.behaviour is not HONEST}
    if makers := Makers.of(odd, config, round_number):
        arriving = answers.completed(arriving, makers, _last_step(state))
    reports: list[ClientReport] = []
    updates: Iterable[Update] = _reported(tasks, arriving, config, round_number, reports)
    deltas = None
    if context.looks or len(tasks) <= lines.FEW:  # otherwise no more than one update is in memory
        deltas = torch.zeros(len(tasks), len(state.weights))
        updates = yield from _kept(updates, deltas, reports)
    weights, strategy_state = strategies.join(config, state.weights, updates, total_examples, state.strategy_state)
    if len(tasks) > lines.FEW:
        yield from lines.cohort_trained(reports)
    trained = perf_counter()
    score = federation.test_score(federated, weights) if _is_tested(config, round_number) else None
    return Played(
        weights=weights,
        strategy_state=strategy_state,
        reports=reports,
        score=score,
        validation_loss=federation.validation_loss(federated, weights),
        deltas=deltas,
        is_finite=bool(torch.isfinite(weights).all()),
        train_seconds=trained - begin,
        evaluate_seconds=perf_counter() - trained,
    )


def _played_on_card(
    context: RunContext, state: State, cohort: Sequence[int], round_number: int
) -> Generator[Event, None, Played]:
    """On a GPU, all clients at once."""
    assert context.card is not None
    config = context.federated.config
    looks_ahead = context.known and round_number < config.num_rounds
    played = context.card.play(
        cohort,
        state.weights,
        state.strategy_state,
        round_number,
        whole=context.looks,
        test=_is_tested(config, round_number),
        after=partial(_sampled, context.sample, config, round_number + 1) if looks_ahead else None,
        step=state.kept.get("previous_step"),
    )
    for report in played.reports if not played.is_finite else ():
        _refuse_infinite_update(report, config, round_number)
    if len(cohort) <= lines.FEW:
        yield from map(lines.client_trained, played.reports)
    else:
        yield from lines.cohort_trained(played.reports)
    return played


def _last_step(state: State) -> Tensor:
    """[P]; zero where nobody recalls it."""
    return state.kept.get("previous_step", torch.zeros_like(state.weights))


def _of_reported(sample: Sample, federated: Federation, round_number: int) -> tuple[int, ...]:
    """The cohort, by what everybody reports to hold."""
    return sample(federation.num_reported(federated, round_number), round_number)


def _sampled(sample: Callable[[int], tuple[int, ...]], config: TrainingConfig, round_number: int) -> tuple[int, ...]:
    cohort = tuple(sample(round_number))
    if not cohort or sorted({*cohort}) != [*cohort] or not 1 <= cohort[0] <= cohort[-1] <= config.num_identities:
        raise ValueError(f"Round {round_number}: {cohort} are not ascending numbers of clients")
    return cohort


def _kept_on(state: State, cohort: Sequence[int], played: Played) -> dict[str, Tensor]:
    """What is kept before a round as it is after it."""
    kept = {}
    if "previous_step" in state.kept:
        kept["previous_step"] = played.weights - state.weights
    if "summed" in state.kept:
        assert played.deltas is not None, "whoever sums updates looks at them"
        kept["summed"] = state.kept["summed"].index_add(0, torch.tensor(cohort) - 1, played.deltas.cpu())
    return kept


def _untrained(federated: Federation, config_sha256: str, keeps: frozenset[str]) -> State:
    size, clients = len(federated.untrained), len(federated.num_examples)
    shapes = {"previous_step": (size,), "summed": (clients, size)}
    loss = federation.validation_loss(federated, federated.untrained)
    return State(
        round_number=0,
        weights=federated.untrained,
        strategy_state={},
        validation_loss=loss,
        best_validation_loss=loss,
        config_sha256=config_sha256,
        kept={name: federated.untrained.new_zeros(shapes[name]) for name in sorted(keeps)},
    )


def _least(*losses: float | None) -> float | None:
    return min((loss for loss in losses if loss is not None), default=None)


def _without_lines(events: Done) -> Done:
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        if not isinstance(event, Log):
            yield event


def _reported(
    tasks: Sequence[Task],
    updates: Iterator[Update],
    config: TrainingConfig,
    round_number: int,
    reports: list[ClientReport],
) -> Iterator[Update]:
    """The same updates, one for each task; what the server saw of each is added to `reports` as it passes."""
    for task, update in zip(tasks, updates, strict=True):
        effort = 0 if update.loss_before is None else clients.effort(task, config, round_number)
        report = _report(update, task, effort)
        _refuse_infinite_update(report, config, round_number)
        reports.append(report)
        yield update


def _refuse_infinite_update(report: ClientReport, config: TrainingConfig, round_number: int) -> None:
    numbers = (report.update_norm, report.loss_before or 0.0, report.loss_after or 0.0)
    if not all(map(math.isfinite, numbers)):
        text = f"Round {round_number}: the update of client {report.client} is not finite"
        raise TrainingError(f"{text}; {lines.calmer(config)}")


def _report(update: Update, task: Task, effort: int) -> ClientReport:
    return ClientReport(
        client=update.client,
        num_examples=update.num_examples,
        loss_before=update.loss_before,
        loss_after=update.loss_after,
        update_norm=update.norm,
        effort=effort,
        untrained=update.sent is not None and (update.loss_before is None or task.copies is not None),
        held=None if task.num_held == update.num_examples else task.num_held,
        holder=task.holder,
        copies=task.copies,
    )


def _kept(
    updates: Iterable[Update], deltas: Tensor, reports: Sequence[ClientReport]
) -> Generator[Event, None, list[Update]]:
    """All updates, each moved to its row of `deltas` [n, P]; a line for each client of a small cohort as it comes."""
    kept = []
    for row, update in zip(deltas, updates, strict=True):
        if update.delta is not None:
            update = dataclasses.replace(update, sent=row.copy_(update.delta))
        kept.append(update)
        if len(deltas) <= lines.FEW:
            yield lines.client_trained(reports[-1])
    return kept


def _is_tested(config: TrainingConfig, round_number: int) -> bool:
    return round_number % config.evaluate_every == 0 or round_number == config.num_rounds


def _refuse_infinite(config: TrainingConfig, round_number: int, played: Played) -> None:
    losses = (played.score.loss if played.score else 0.0, played.validation_loss or 0.0)
    if not (played.is_finite and all(map(math.isfinite, losses))):
        raise TrainingError(f"Round {round_number}: the global model is not finite; {lines.calmer(config)}")


def _games(context: RunContext, state: State, played: Played) -> RoundGames:
    federated = context.federated
    places = np.array([report.client for report in played.reports], np.int64) - 1
    return RoundGames(
        federated.config,
        federated.network,
        state.weights,
        state.strategy_state,
        played.weights,
        played.reports,
        played.deltas,
        federated.validation_x,
        federated.validation_y,
        federated.num_examples[places].tolist(),
        state.round_number + 1,
        state.kept,
    )
