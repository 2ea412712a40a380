"""A cohort in which every client takes one step: the weights of nobody need ever be anywhere.

All start from the same weights, so their batches pass them as one long batch; and as only the mean of what they send is
asked for, that is one product of all errors with all inputs, each client's in proportion to its share.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.backends.descent import Rule
from training.card.dense import through_relu
from training.card.graphs import Graphs
from training.card.sheet import Sheet
from training.forward import dense_values
from training.layers import Dense

MOST_EXAMPLES = 64  # of a client: its norm comes from products of all pairs of them
TOGETHER = 512  # rows that are added up in float32, before the sums of these are in float64
PIECE_BYTES = 512 << 20  # of the values and errors that are in memory at a time


class Thin:
    def __init__(
        self, layers: Sequence[Dense], x: Tensor, batch: int, classes: int, rule: Rule, graphs: Graphs
    ) -> None:
        self.layers, self.x, self.batch, self.rule, self.graphs = list(layers), x.flatten(1), batch, rule, graphs
        self.classes = torch.arange(classes, device=x.device, dtype=torch.int32)
        self.positions = torch.arange(batch, device=x.device, dtype=torch.int32)
        widths = sum(layer.inputs + 2 * layer.outputs for layer in layers)
        self.group = max(1, TOGETHER // batch)  # clients
        self.most = self.group * max(1, PIECE_BYTES // (4 * batch * widths * self.group))
        self.clients = 0  # in a piece

    def can(self, sheet: Sheet) -> bool:
        return bool(sheet.steps[0] <= 1) and self.batch <= MOST_EXAMPLES and not self.rule.pull and not sheet.updates

    def train(self, sheet: Sheet, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The weighted mean float64 [P], the norms float64 [rows], the losses [rows]; 0 for whom sends nothing."""
        self._make_room(len(sheet.steps), weights)
        working = int((sheet.steps > 0).sum())
        lines = sheet.lines_of(np.arange(working), 1)[:, 0] if working else np.zeros(0, np.int64)
        self.weights.copy_(weights)
        self.total.zero_()
        self.all_examples.fill_(max(1.0, float(sheet.num_examples.sum())))
        norms = weights.new_zeros(len(sheet.steps), dtype=torch.float64)
        losses = weights.new_zeros(len(sheet.steps))
        for first in range(0, working, self.clients):
            rows = slice(first, min(first + self.clients, working))
            table = torch.zeros(self.table.shape, dtype=torch.int32, pin_memory=self.x.device.type == "cuda")
            _fill_in(table.numpy(), sheet, rows, lines[rows])
            self.table.copy_(table, non_blocking=True)
            self.graphs.run(("thin", self.clients), self._add_piece)
            norms[rows].copy_(self.norms[: rows.stop - first])
            losses[rows].copy_(self.losses[: rows.stop - first])
        return self.total, norms, losses

    def _make_room(self, rows: int, like: Tensor) -> None:
        clients = min(self.most, -(-rows // self.group) * self.group)
        if clients == self.clients:
            return
        self.clients = clients
        self.graphs.forget()
        self.table = torch.zeros(clients, 2 + 2 * self.batch, dtype=torch.int32, device=like.device)
        self.weights = torch.zeros_like(like)
        self.total = torch.zeros_like(like, dtype=torch.float64)
        self.all_examples = like.new_zeros((), dtype=torch.float64)
        self.norms = like.new_zeros(clients, dtype=torch.float64)
        self.losses = like.new_zeros(clients)

    def _add_piece(self) -> None:
        """Adds to the total what the clients of the table send, in proportion; notes their norms and their losses."""
        clients, batch, weights = self.clients, self.batch, self.weights
        widths, num_examples, examples, labels = torch.split(self.table, [1, 1, batch, batch], dim=1)
        shares = ((self.positions < widths).to(weights.dtype) / widths.clamp_min(1)).view(-1, 1)
        negative = (labels.reshape(-1, 1) == self.classes) * -shares
        x = self.x.index_select(0, examples.reshape(-1))
        *values, logits = dense_values(self.layers, weights, x)
        self.losses.copy_((torch.log_softmax(logits, 1) * negative).view(clients, -1).sum(1))
        error = torch.addcmul(negative, torch.softmax(logits, 1), shares)
        squares = torch.zeros_like(self.norms)
        of_mean = (num_examples / self.all_examples).to(weights.dtype) * -self.rule.lr
        of_row = of_mean.expand(-1, batch).reshape(-1, 1)
        for layer, inputs in zip(reversed(self.layers), reversed(values), strict=True):
            own, each = inputs.view(clients, batch, -1), error.view(clients, batch, -1)
            squares += ((own @ own.mT + 1) * (each @ each.mT)).sum((1, 2), dtype=torch.float64)
            scaled = error * of_row
            groups = clients // self.group
            products = torch.bmm(scaled.view(groups, -1, layer.outputs).mT, inputs.view(groups, -1, layer.inputs))
            self.total[layer.weight] += products.sum(0, dtype=torch.float64).view(-1)
            self.total[layer.bias] += scaled.sum(0, dtype=torch.float64)
            if layer is not self.layers[0]:
                error = error @ weights[layer.weight].view(layer.outputs, layer.inputs)
                through_relu(error, inputs)
        self.norms.copy_(squares.clamp_min(0).sqrt() * self.rule.lr)


def _fill_in(table: NDArray[np.int32], sheet: Sheet, rows: slice, lines: NDArray[np.int64]) -> None:
    """Width, the client's number of examples, those of its batch, their labels."""
    count, batch = len(lines), sheet.examples.shape[1]
    table[:count, 0] = sheet.widths[lines]
    table[:count, 1] = sheet.num_examples[rows]
    table[:count, 2 : batch + 2] = sheet.examples[lines]
    table[:count, batch + 2 :] = sheet.labels[lines]
