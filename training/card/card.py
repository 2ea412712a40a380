"""A round on a GPU, from the cohort to the evaluated model: one transfer there, one back."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training import federation, networks, strategies
from training.answers import Makers
from training.backends.descent import few_of, rule_of
from training.card.buffers import RoundBuffers
from training.card.crowd import Crowd
from training.card.draws import Draws
from training.card.graphs import Graphs
from training.card.sheet import Holdings, Sheet, laid_out
from training.card.steps import steps_for
from training.card.thin import Thin
from training.clients import Honest
from training.events import ClientReport
from training.federation import Federation
from training.layers import dense_layers
from training.networks import Score

CHUNK_BYTES = 4 << 30  # of all clients' weights at a time; not what the card has, as it may show in the last bit


@dataclass(frozen=True, kw_only=True, eq=False)
class Played:
    """What became of a round."""

    weights: Tensor  # float32 [P], in the machine's memory
    strategy_state: Mapping[str, Tensor]  # on the card
    reports: list[ClientReport]  # in the cohort's order
    score: Score | None
    validation_loss: float | None
    deltas: Tensor | None  # float32 [n, P] in the cohort's order, on the card; where they were asked for
    is_finite: bool  # the weights, and what the reports say
    train_seconds: float
    evaluate_seconds: float


class Card:
    """A run's clients on its device. It keeps the memory of a round for the next one."""

    def __init__(self, federated: Federation, labels: Tensor) -> None:
        """`federated` has examples and network on the device; `labels` [num_train] are in the machine's memory."""
        data = federated.data
        self.federated, self.config = federated, federated.config
        self.holdings = Holdings.of(dataclasses.replace(data, train_y=labels), federated.holdings.clients)
        self.device, self.classes = data.train_x.device, data.info.num_classes
        largest = max(map(len, (*federated.holdings.clients, *federated.holdings.undivided.values())))
        self.batch = min(self.config.batch_size, largest)
        self.rule, self.size = rule_of(self.config), len(federated.untrained)
        self.most = max(1, CHUNK_BYTES // (4 * self.size * (2 if self.rule.momentum else 1)))  # clients in a chunk
        self.graphs, self.draws = Graphs(self.device), Draws(self.device)
        self.buffers: RoundBuffers | None = None
        layers = dense_layers(federated.network)
        self.thin = (
            None if layers is None else Thin(layers, data.train_x, self.batch, self.classes, self.rule, self.graphs)
        )
        self.newest: tuple[Tensor, Tensor] | None = None  # the global weights, in memory and on the card
        self.ahead: tuple[int, tuple[int, ...], Sheet] | None = None  # a round, its cohort, its work
        self.judged = torch.zeros(self.size, dtype=data.train_x.dtype, device=self.device)  # weights that are evaluated
        self.scores = [torch.zeros(2, dtype=torch.float64, device=self.device) for _ in range(2)]

    def play(
        self,
        cohort: Sequence[int],
        weights: Tensor,
        strategy_state: Mapping[str, Tensor],
        round_number: int,
        *,
        whole: bool,
        test: bool,
        after: Callable[[], Sequence[int]] | None = None,
        step: Tensor | None = None,
    ) -> Played:
        """The cohort trains from the global weights [P], its updates are joined, the new model is evaluated.

        `whole` asks for the clients' deltas, `test` for a look at the test set. `after` draws the next round's cohort,
        where that can be known: its work is laid out while the GPU is busy. `step` [P] is the last global one, for who
        recalls it; None: zero. TrainingError that names the client
        where a label is no class. Numbers may be infinite: it is for the reader to refuse them.
        """
        begin = perf_counter()
        sheet = self._sheet(cohort, round_number)
        clock = _Clock(self.device)
        weights = self._here(weights)
        makers = Makers.of(sheet.odd, self.config, round_number)
        every = whole or strategies.reads_each(self.config) or bool(makers)
        crowd, norms, losses = (self._in_one_step if self._is_thin(sheet, every) else self._trained)(
            sheet, weights, every
        )
        if makers:
            crowd, norms = _completed(
                crowd, norms, sheet, makers, weights.new_zeros(self.size) if step is None else step
            )
        state = {name: tensor.to(self.device) for name, tensor in strategy_state.items()}
        joined, strategy_state = strategies.join(
            self.config, weights, crowd, max(1, int(sheet.num_examples.sum())), dict(state)
        )
        clock.tick()
        scores = self._scores(joined, test)
        clock.tick()
        finite = joined.isfinite().all()[None].to(scores)
        come_back = self._back(norms, torch.cat([scores, finite]), joined, losses)  # the wider numbers first
        if after is not None:
            next_cohort = tuple(after())
            self.ahead = round_number + 1, next_cohort, self._laid_out(next_cohort, round_number + 1)
        norms, scores, told, losses = come_back()
        self.newest = told, joined
        found = losses.double().numpy()
        before, after_steps = (found, found) if self._is_thin(sheet, every) else _ends(sheet, found)
        trained, evaluated = clock.seconds()
        federated, num_tests = self.federated, len(self.federated.data.test_y)
        validated = _score(scores[-3:-1], len(federated.validation_y)) if len(federated.validation_y) else None
        numbers = norms.numpy(), before[sheet.steps > 0], after_steps[sheet.steps > 0]
        return Played(
            weights=told,
            strategy_state=strategy_state,
            reports=_reports(sheet, cohort, norms.numpy(), before, after_steps, makers),
            score=_score(scores[:2], num_tests) if test else None,
            validation_loss=validated.loss if validated else None,
            deltas=crowd.deltas if whole else None,
            is_finite=bool(scores[-1]) and all(np.isfinite(each).all() for each in numbers),
            train_seconds=max(trained, perf_counter() - begin - evaluated),
            evaluate_seconds=evaluated,
        )

    def _sheet(self, cohort: Sequence[int], round_number: int) -> Sheet:
        """What the round before has laid out, where it is for this cohort."""
        ahead, self.ahead = self.ahead, None
        if ahead is not None and ahead[:2] == (round_number, tuple(cohort)):
            return ahead[2]
        return self._laid_out(cohort, round_number)

    def _laid_out(self, cohort: Sequence[int], round_number: int) -> Sheet:
        odd = federation.odd_tasks(self.federated, cohort, round_number)
        return laid_out(self.holdings, cohort, self.config, round_number, self.batch, self.most, self.draws, odd)

    def _here(self, weights: Tensor) -> Tensor:
        """On the card, where those of the round before are already."""
        if self.newest is not None and self.newest[0] is weights:
            return self.newest[1]
        return weights.to(self.device)

    def _is_thin(self, sheet: Sheet, whole: bool) -> bool:
        return self.thin is not None and not whole and self.thin.can(sheet)

    def _in_one_step(self, sheet: Sheet, weights: Tensor, whole: bool) -> tuple[Crowd, Tensor, Tensor]:
        """As `_trained`, but the losses are those of the rows."""
        assert self.thin is not None
        mean, norms, losses = self.thin.train(sheet, weights)
        return Crowd(mean, None), norms, losses

    def _trained(self, sheet: Sheet, weights: Tensor, whole: bool) -> tuple[Crowd, Tensor, Tensor]:
        """What was sent; the norms of the rows, float64; the losses of the lines."""
        buffers = self._buffers_for(sheet)
        buffers.write(sheet, weights)
        if not whole and not sheet.updates and buffers.train(sheet):
            return Crowd(buffers.mean, None), *buffers.results(sheet)
        deltas = weights.new_empty(len(sheet.steps), self.size) if whole else None
        for number, stretches in enumerate(sheet.stretches):
            rows = range(number * sheet.chunk, min((number + 1) * sheet.chunk, len(sheet.steps)))
            buffers.descend(stretches)
            for row in sorted(sheet.updates.keys() & {*rows}):
                buffers.change(row - rows.start, sheet.updates[row])
            if deltas is not None:
                buffers.hand_over(deltas[rows.start : rows.stop])
            buffers.join()
        if deltas is not None and sheet.is_dealt:
            deltas = deltas.index_select(0, torch.from_numpy(sheet.rows).to(self.device))
        arrived = tuple((sheet.steps[sheet.rows] > 0).tolist()) if deltas is not None else ()
        return Crowd(buffers.mean, deltas, arrived), *buffers.results(sheet)

    def _buffers_for(self, sheet: Sheet) -> RoundBuffers:
        if self.buffers is None or not self.buffers.holds(sheet):
            network, x = self.federated.network, self.federated.data.train_x
            self.buffers = None  # before there is another
            self.graphs.forget()
            steps = steps_for(network, x, sheet.chunk, self.batch, self.classes, self.rule)
            self.buffers = RoundBuffers(steps, sheet, self.size, self.classes, self.rule, self.graphs)
        return self.buffers

    def _scores(self, weights: Tensor, test: bool) -> Tensor:
        """float64 [2] of the test set, where it is looked at, and [2] of the validation set, where there is one."""
        federated = self.federated
        sets = [(federated.data.test_x, federated.data.test_y)] if test else []
        if len(federated.validation_y):
            sets.append((federated.validation_x, federated.validation_y))
        self.judged.copy_(weights)

        def judge() -> None:
            for (x, y), score in zip(sets, self.scores, strict=False):
                score.copy_(networks.sums(federated.network, self.judged, x, y))

        self.graphs.run(("judge", test), judge)
        return torch.cat(self.scores[: len(sets)]) if sets else weights.new_zeros(0, dtype=torch.float64)

    def _back(self, *parts: Tensor) -> Callable[[], list[Tensor]]:
        """Sets out; the call waits until it is in the machine's memory."""
        packed = torch.cat([part.contiguous().view(torch.uint8) for part in parts])
        sizes = [part.numel() * part.element_size() for part in parts]
        host = torch.empty(packed.shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        host.copy_(packed, non_blocking=True)

        def come_back() -> list[Tensor]:
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            return [piece.view(part.dtype) for piece, part in zip(torch.split(host, sizes), parts, strict=True)]

        return come_back


def _completed(crowd: Crowd, norms: Tensor, sheet: Sheet, makers: Makers, step: Tensor) -> tuple[Crowd, Tensor]:
    """With the updates that are made, see training.answers; the norms of the rows too."""
    assert crowd.deltas is not None
    deltas, norms, step = crowd.deltas, norms.clone(), step.to(crowd.deltas)
    arrived, trained = list(crowd.arrived), sheet.steps[sheet.rows] > 0

    def put(place: int, sent: Tensor) -> None:
        deltas[place], arrived[place] = sent, True
        norms[int(sheet.rows[place])] = torch.linalg.vector_norm(sent, dtype=torch.float64)

    def own(place: int) -> Tensor | None:
        return deltas[place].clone() if trained[place] else None

    for place, source in makers.copies.items():
        put(place, deltas[source])
    for place in makers.senders:
        put(place, makers.sent(place, step, own(place)))
    if makers.conspirators:
        seen = [deltas[place] for place, here in enumerate(arrived) if here and place not in makers.acting]
        honest = Honest(step, seen)
        for place in makers.conspirators:
            put(place, makers.agreed(place, step, own(place), honest))
    sizes = sheet.num_examples[sheet.rows]
    total = max(1, sizes.sum())
    mean = torch.zeros_like(step, dtype=torch.float64)
    for delta, share in zip(deltas, (sizes / total).tolist(), strict=True):
        mean.add_(delta, alpha=share)
    return Crowd(mean, deltas, tuple(arrived)), norms


class _Clock:
    """What the device has been at, between ticks."""

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        self.times: list[float] = []
        self.events: list[torch.cuda.Event] = []
        self.tick()

    def tick(self) -> None:
        self.times.append(perf_counter())
        if self.on_gpu:
            self.events.append(torch.cuda.Event(enable_timing=True))  # type: ignore[no-untyped-call]
            self.events[-1].record()

    def seconds(self) -> list[float]:
        """Once the device is done."""
        if self.on_gpu:
            return [first.elapsed_time(last) / 1000 for first, last in pairwise(self.events)]
        return [last - first for first, last in pairwise(self.times)]


def _ends(sheet: Sheet, losses: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means of each row's first and last losses; NaN for whom sends nothing."""
    before, after = np.full((2, len(sheet.steps)), math.nan)
    for steps in np.unique(sheet.steps[sheet.steps > 0]).tolist():
        rows, few = np.flatnonzero(sheet.steps == steps), few_of(steps)
        of_rows = losses[sheet.lines_of(rows, steps)]
        before[rows], after[rows] = of_rows[:, :few].mean(1), of_rows[:, -few:].mean(1)
    return before, after


def _reports(
    sheet: Sheet,
    cohort: Sequence[int],
    norms: NDArray[np.float64],
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    makers: Makers,
) -> list[ClientReport]:
    arrays = (sheet.num_examples, sheet.steps, sheet.efforts, norms, before, after)
    columns = (values[sheet.rows].tolist() for values in arrays)
    reports = [
        _report(
            client=client,
            num_examples=num_examples,
            loss_before=first if steps else None,
            loss_after=last if steps else None,
            update_norm=norm,
            effort=effort,
        )
        for client, num_examples, steps, effort, norm, first, last in zip(cohort, *columns, strict=True)
    ]
    for place, task in sheet.odd.items():
        is_made = place in makers.senders or place in makers.conspirators
        source = reports[makers.copies.get(place, place)]
        reports[place] = dataclasses.replace(
            reports[place],
            loss_before=source.loss_before,
            loss_after=source.loss_after,
            untrained=place in makers.copies or (is_made and source.loss_before is None),
            held=None if task.num_held == task.num_examples else task.num_held,
            holder=task.holder,
            copies=task.copies,
        )
    return reports


def _report(**fields: Any) -> ClientReport:
    """In half of the time that its own constructor takes, which for ten thousand clients is seen."""
    report = object.__new__(ClientReport)
    report.__dict__.update(fields)
    return report


def _score(sums: Tensor, count: int) -> Score:
    loss, right = sums.tolist()
    return Score(loss=loss / count, accuracy=right / count)
