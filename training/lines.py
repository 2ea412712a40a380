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


def started(config: TrainingConfig, data: Data, num_parameters: int) -> str:
    held_out = f", {config.validation_size:,} held out by the server" if config.validation_size else ""
    shared = len(data.train_y) - (config.validation_size or 0)
    return (
        f"Training {config.model.kind} ({num_parameters:,} parameters) on {data.info.label}: "
        f"{shared:,} images with {_clients(config.num_clients)}{held_out}"
    )


def round_begins(round_number: int, num_rounds: int, cohort_size: int) -> Log:
    return Log(message=f"Round {round_number} of {num_rounds}: cohort of {_clients(cohort_size)}")


def client_trained(report: ClientReport) -> Log:
    if report.loss_before is None:
        return Log(message=f"Client {report.client} sent no update", level="warning")
    losses = f"loss {figure(report.loss_before, 2)} → {figure(report.loss_after, 2)}"
    return Log(message=f"Client {report.client}: {losses}, update norm {figure(report.update_norm, 2)}")


def cohort_trained(reports: Sequence[ClientReport]) -> list[Log]:
    """One line for all, and one for those that sent nothing."""
    trained = [report for report in reports if report.loss_before is not None]
    silent = len(reports) - len(trained)
    lines = []
    if trained:
        before = median(report.loss_before for report in trained if report.loss_before is not None)
        after = median(report.loss_after for report in trained if report.loss_after is not None)
        examples = sum(report.num_examples for report in trained)
        losses = f"median loss {figure(before, 2)} → {figure(after, 2)}"
        lines.append(Log(message=f"{_clients(len(trained))} trained on {examples:,} examples: {losses}"))
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
