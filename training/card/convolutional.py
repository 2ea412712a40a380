"""Convolutional networks: a convolution is a dense layer on windows, so all clients' are one batched product.

Channels are innermost. An image is gathered with its border of zeros; what a layer pools is written into the middle of
the next layer's images, whose border stays zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from training.backends.descent import Rule
from training.card.dense import Tower, through_relu
from training.card.stacked import Move, Pieces, Stacked, padded
from training.layers import Convolution, Dense


def pieces_of(layer: Convolution) -> Pieces:
    width = layer.inputs * layer.kernel**2

    def pieces(values: Tensor) -> list[tuple[slice, Tensor]]:
        shape = layer.kernel, layer.kernel, layer.inputs
        windows = values[..., :width].view(*values.shape[:-1], *shape)
        return [(layer.weight, windows.movedim(-1, -3)), (layer.bias, values[..., width])]

    return pieces


class Convolved:
    """A convolution, the maximum of every 2 x 2, and ReLU, for all clients."""

    def __init__(self, layer: Convolution, height: int, width: int, images: int, like: Tensor) -> None:
        self.layer, self.height, self.width = layer, height, width  # of the images, with their border
        self.rows, self.columns = height - layer.kernel + 1, width - layer.kernel + 1  # of what comes out
        self.inner = layer.inputs * layer.kernel**2
        self.taken = like.new_zeros(images, self.rows * self.columns, padded(self.inner + 1))
        self.taken[..., self.inner] = 1
        self.zero = like.new_zeros(())
        self.places = (
            torch.arange(self.rows * self.columns, device=like.device).view(
                1, self.rows // 2, 2, self.columns // 2, 2, 1
            )
            if self.rows % 2 == self.columns % 2 == 0
            else None
        )

    def up(self, images: Tensor, parameter: Stacked, clients: int) -> tuple[Tensor, Tensor]:
        """What was the largest of every 2 x 2, [images, outputs, rows / 2, columns / 2], and where it was."""
        kernel = self.layer.kernel
        taken = self.taken[: len(images)]
        wide, into = _widened(images, self.layer.inputs), _widened(taken, self.layer.inputs)
        windows = wide.unfold(1, kernel, 1).unfold(2, kernel, 1)  # [images, rows, columns, inputs, kernel, kernel]
        into = into[..., : kernel**2 * wide.shape[3]]
        into.view(len(images), self.rows, self.columns, kernel, kernel, -1).copy_(windows.movedim(3, 5))
        out = torch.bmm(taken.view(clients, -1, taken.shape[2]), parameter.value[:clients].mT)
        before = out.view(len(images), self.rows, self.columns, -1).permute(0, 3, 1, 2)
        pooled, places = torch.ops.aten.max_pool2d_with_indices(before, [2, 2])
        return pooled, places

    def down(
        self, error: Tensor, places: Tensor, parameter: Stacked, clients: int, move: Move, first: bool
    ) -> Tensor | None:
        """From the error of what was pooled [images, rows / 2, columns / 2, outputs] to that of the images, which the
        first layer has no use for; the layer is moved."""
        images = len(error)
        spread = self._spread(error, places.permute(0, 2, 3, 1)).view(images, self.rows * self.columns, -1)
        by_client = spread.view(clients, -1, spread.shape[2])
        below = None
        if not first:
            of_windows = torch.bmm(by_client, parameter.value[:clients, :, : self.inner])
            below = self._gathered(of_windows.view(images, self.rows, self.columns, *[self.layer.kernel] * 2, -1))
        gradient = torch.bmm(spread.mT, self.taken[:images])  # of each image: many short products instead of few long
        move.by_gradient(parameter, gradient.view(clients, -1, *gradient.shape[1:]).sum(1))
        return below

    def _spread(self, error: Tensor, places: Tensor) -> Tensor:
        """Each error where its maximum was, zero elsewhere: [images, rows, columns, outputs]."""
        images, rows, columns, outputs = error.shape
        shape = images, rows, 1, columns, 1, outputs
        if self.places is not None:
            there = places.reshape(shape) == self.places
            return torch.where(there, error.reshape(shape), self.zero).view(images, self.rows, self.columns, outputs)
        flat = error.new_zeros(images, self.rows * self.columns, outputs)
        flat.scatter_(1, places.reshape(images, -1, outputs), error.reshape(images, -1, outputs))
        return flat.view(images, self.rows, self.columns, outputs)

    def _gathered(self, windows: Tensor) -> Tensor:
        """The sum over all windows of what each says about a pixel, [images, height, width, inputs]: first along the
        rows, then down the columns."""
        images, rows, columns, kernel, _, inputs = windows.shape
        lines = windows.new_zeros(images, rows, kernel, self.width, inputs)
        for at in range(kernel):
            lines[:, :, :, at : at + columns] += windows[:, :, :, :, at].transpose(2, 3)
        total = windows.new_zeros(images, self.height, self.width, inputs)
        for at in range(kernel):
            total[:, at : at + rows] += lines[:, :, at]
        return total


def _widened(values: Tensor, inputs: int) -> Tensor:
    """The same memory in elements of 16 bytes, where a pixel is some of these: they take half as long to copy."""
    each = torch.complex128.itemsize // values.element_size()
    return values.view(torch.complex128) if inputs % each == 0 else values


class Steps:
    """See training.card.steps."""

    def __init__(
        self,
        convolutions: Sequence[Convolution],
        dense: Sequence[Dense],
        x: Tensor,
        clients: int,
        batch: int,
        rule: Rule,
    ) -> None:
        self.x = F.pad(x, (convolutions[0].padding,) * 4).permute(0, 2, 3, 1).contiguous()
        self.layers: list[Convolved] = []
        self.parameters: list[Stacked] = []
        self.rooms: list[Tensor] = []  # for the images of each layer but the first, with their border
        height, width = self.x.shape[1:3]
        for layer in convolutions:
            if self.layers:
                height, width = height + 2 * layer.padding, width + 2 * layer.padding
                self.rooms.append(x.new_zeros(clients * batch, height, width, layer.inputs))
            convolved = Convolved(layer, height, width, clients * batch, x)
            self.layers.append(convolved)
            shape = layer.outputs, padded(convolved.inner + 1)
            self.parameters.append(Stacked.among(clients, shape, x, rule, pieces_of(layer)))
            height, width = convolved.rows // 2, convolved.columns // 2
        self.tower = Tower(dense, clients, batch, x, rule)
        self.parameters += self.tower.parameters
        self.room = x.new_zeros(clients, batch, padded(dense[0].inputs + 1))
        self.room[..., dense[0].inputs] = 1
        self.shape = height, width, convolutions[-1].outputs

    def step(self, x: Tensor, negative: Tensor, shares: Tensor, logits: Tensor, move: Move) -> None:
        clients, batch = x.shape[:2]
        images, places, pooled = x.flatten(0, 1), [], []
        for depth, layer in enumerate(self.layers):
            largest, place = layer.up(images, self.parameters[depth], clients)
            places.append(place)
            if depth + 1 < len(self.layers):
                border = self.layers[depth + 1].layer.padding
                images = self.rooms[depth][: len(images)]
                middle = images[:, border : border + largest.shape[2], border : border + largest.shape[3]]
                torch.clamp_min(largest.permute(0, 2, 3, 1), 0, out=middle)
                pooled.append(middle)
        height, width, outputs = self.shape
        flat = self.room[:clients]
        inside = flat[..., : outputs * height * width].view(clients, batch, outputs, height, width)
        torch.clamp_min(largest.view(clients, batch, outputs, height, width), 0, out=inside)
        values = self.tower.up(flat, logits)
        error = torch.addcmul(negative, torch.softmax(logits, 2), shares)
        below = self.tower.down(error, values, move, through=True)
        assert below is not None
        through_relu(below, flat[..., : below.shape[2]])
        error = below.view(clients * batch, outputs, height, width).permute(0, 2, 3, 1).contiguous()
        for depth in range(len(self.layers) - 1, -1, -1):
            layer = self.layers[depth]
            found = layer.down(error, places[depth], self.parameters[depth], clients, move, first=depth == 0)
            if found is not None:
                border = layer.layer.padding
                error = found[:, border : layer.height - border, border : layer.width - border].contiguous()
                through_relu(error, pooled[depth - 1])
