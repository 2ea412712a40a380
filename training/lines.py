"""The lines of a run's log, in words. No durations: two runs of one configuration say the same."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from training.config import TrainingConfig
from training.datasets import Data
from training.events import ClientReport, Log
from training.figures import figure
from training.networks import Score

FEW = 10  # a cohort up to this size is reported client by client; the log does not grow with larger ones


def started(config: TrainingConfig, data: Data, num_parameters: int, num_dealt: int) -> str:
    more = config.num_identities - config.num_clients
    identities = f" and {more:,} further {'identity' if more == 1 else 'identities'} of theirs" if more else ""
    held_out = f", {config.validation_size:,} held out by the server" if config.validation_size else ""
    return (
        f"Training {config.model.kind} ({num_parameters:,} parameters) on {data.info.label}: "
        f"{num_dealt:,} images with {_clients(config.num_clients)}{identities}{held_out}"
    )


def round_begins(round_number: int, num_rounds: int, cohort_size: int) -> Log:
    return Log(message=f"Round {round_number} of {num_rounds}: cohort of {_clients(cohort_size)}")


def client_trained(report: ClientReport) -> Log:
    if not report.sent:
        return Log(message=f"Client {report.client} sent no update", level="warning")
    norm = f"update norm {figure(report.update_norm, 2)}"
    if report.copies is not None:
        return Log(message=f"Client {report.client} sent the update of client {report.copies}", level="warning")
    if report.untrained:
        return Log(message=f"Client {report.client} sent an update without training, {norm}", level="warning")
    line = f"Client {report.client}: loss {figure(report.loss_before, 2)} → {figure(report.loss_after, 2)}, {norm}"
    if report.num_examples == report.num_held:
        return Log(message=line)
    says = f"it reports {report.num_examples:,} examples and holds {report.num_held:,}"
    return Log(message=f"{line}; {says}", level="warning")


def cohort_trained(reports: Sequence[ClientReport]) -> list[Log]:
    """One line for all who trained, and one each for those that did not, sent nothing, or report another size."""
    trained = [report for report in reports if report.sent and not report.untrained]
    copied = sum(report.copies is not None for report in reports)
    untrained = sum(report.untrained for report in reports) - copied
    silent = len(reports) - len(trained) - untrained - copied
    lying = sum(report.num_examples != report.num_held for report in trained)
    lines = []
    if trained:
        before = median(report.loss_before for report in trained if report.loss_before is not None)
        after = median(report.loss_after for report in trained if report.loss_after is not None)
        examples = sum(report.num_held for report in trained)
        losses = f"median loss {figure(before, 2)} → {figure(after, 2)}"
        lines.append(Log(message=f"{_clients(len(trained))} trained on {examples:,} examples: {losses}"))
    if untrained:
        lines.append(Log(message=f"{_clients(untrained)} sent an update without training", level="warning"))
    if copied:
        lines.append(Log(message=f"{_clients(copied)} sent the update of another", level="warning"))
    if lying:
        lines.append(Log(message=f"{_clients(lying)} reported another number of examples", level="warning"))
    if silent:
        lines.append(Log(message=f"{_clients(silent)} sent no update", level="warning"))
    return lines


def evaluated(score: Score, num_test: int) -> Log:
    figures = f"loss {figure(score.loss)}, accuracy {figure(score.accuracy)}"
    return Log(message=f"Evaluated: {figures} on {num_test:,} test images")


def completed(num_rounds: int) -> str:
    return f"Completed {num_rounds:,} round{'s' if num_rounds != 1 else ''}"


def calmer(config: TrainingConfig) -> str:
    """Which fields a run that diverges should make smaller."""
    fields = ["lr", *(name for name in ("proximal_mu", "server_lr") if name in config.strategy.parameters)]
    return f"a smaller {' or '.join(fields)} may help"


def _clients(count: int) -> str:
    return f"{count:,} client{'s' if count != 1 else ''}"
