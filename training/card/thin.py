"""A cohort in which every client takes one step: the weights of nobody need ever be anywhere.

All start from the same weights, so their batches pass them as one long batch; and as only the mean of what they send is
asked for, that is one product of all errors with all inputs, each client's in proportion to its share.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from training.backends.descent import Rule
from training.card.dense import through_relu
from training.card.sheet import Sheet
from training.forward import dense_values
from training.layers import Dense

MOST_EXAMPLES = 64  # of a client: its norm comes from products of all pairs of them
TOGETHER = 512  # rows that are added up in float32, before the sums of these are in float64
PIECE_BYTES = 512 << 20  # of the values and errors that are in memory at a time


class Thin:
    def __init__(self, layers: Sequence[Dense], x: Tensor, batch: int, classes: int, rule: Rule) -> None:
        self.layers, self.x, self.batch, self.rule = list(layers), x.flatten(1), batch, rule
        self.classes = torch.arange(classes, device=x.device, dtype=torch.int32)
        self.positions = torch.arange(batch, device=x.device, dtype=torch.int32)
        widths = sum(layer.inputs + 2 * layer.outputs for layer in layers)
        self.group = max(1, TOGETHER // batch)  # clients
        self.piece = self.group * max(1, PIECE_BYTES // (4 * batch * widths * self.group))

    def can(self, sheet: Sheet) -> bool:
        return bool(sheet.steps[0] <= 1) and self.batch <= MOST_EXAMPLES and not self.rule.pull and not sheet.updates

    def train(self, sheet: Sheet, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The weighted mean float64 [P], the norms float64 [rows], the losses [rows]; 0 for whom sends nothing."""
        working = int((sheet.steps > 0).sum())
        lines = sheet.lines_of(np.arange(working), 1)[:, 0] if working else np.zeros(0, np.int64)
        total = weights.new_zeros(len(weights), dtype=torch.float64)
        norms = weights.new_zeros(len(sheet.steps), dtype=torch.float64)
        losses = weights.new_zeros(len(sheet.steps))
        shares = sheet.num_examples / sheet.num_examples.sum()
        for first in range(0, working, self.piece):
            rows = slice(first, min(first + self.piece, working))
            these = _filled_up(sheet, lines[rows], self.group)
            sheet_here = torch.from_numpy(these).to(weights.device)
            share = np.zeros(len(these))
            share[: rows.stop - rows.start] = shares[rows]
            found = self._piece(sheet_here, torch.from_numpy(share).to(weights), weights, total)
            count = rows.stop - rows.start
            norms[rows] = found[0][:count]
            losses[rows] = found[1][:count]
        return total, norms, losses

    def _piece(self, sheet: Tensor, share: Tensor, weights: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        """Adds to the total what these clients send, in proportion; their norms and their losses."""
        clients, batch = len(sheet), self.batch
        widths, examples, labels = sheet[:, :1], sheet[:, 1 : batch + 1], sheet[:, batch + 1 :]
        shares = ((self.positions < widths).to(weights.dtype) / widths.clamp_min(1)).view(-1, 1)
        negative = (labels.reshape(-1, 1) == self.classes) * -shares
        x = self.x.index_select(0, examples.reshape(-1))
        *values, logits = dense_values(self.layers, weights, x)
        losses = (torch.log_softmax(logits, 1) * negative).view(clients, -1).sum(1)
        error = torch.addcmul(negative, torch.softmax(logits, 1), shares)
        squares = weights.new_zeros(clients, dtype=torch.float64)
        by_row = (share * -self.rule.lr).repeat_interleave(batch)[:, None]
        for layer, inputs in zip(reversed(self.layers), reversed(values), strict=True):
            own, each = inputs.view(clients, batch, -1), error.view(clients, batch, -1)
            squares += ((own @ own.mT + 1) * (each @ each.mT)).sum((1, 2), dtype=torch.float64)
            scaled = error * by_row
            groups = clients // self.group
            products = torch.bmm(scaled.view(groups, -1, layer.outputs).mT, inputs.view(groups, -1, layer.inputs))
            total[layer.weight] += products.sum(0, dtype=torch.float64).view(-1)
            total[layer.bias] += scaled.sum(0, dtype=torch.float64)
            if layer is not self.layers[0]:
                error = error @ weights[layer.weight].view(layer.outputs, layer.inputs)
                through_relu(error, inputs)
        return squares.clamp_min(0).sqrt() * self.rule.lr, losses


def _filled_up(sheet: Sheet, lines: np.ndarray, group: int) -> np.ndarray:
    """[clients, 1 + 2 batch]: width, examples and labels of these lines, and empty ones up to whole groups."""
    batch = sheet.examples.shape[1]
    table = np.zeros((-(-len(lines) // group) * group, 1 + 2 * batch), np.int32)
    table[: len(lines), 0] = sheet.widths[lines]
    table[: len(lines), 1 : batch + 1] = sheet.examples[lines]
    table[: len(lines), batch + 1 :] = sheet.labels[lines]
    return table
