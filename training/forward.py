"""A network's logits from flat weights, without autograd: for evaluating, for coalitions, and as training's way up.

A convolution of few channels is one product of matrices over its windows, wider ones are oneDNN's. The maximum is
taken with channels innermost, which is ten times as fast as with them outermost, and before ReLU, which is the same
and has a quarter to do: the largest of four stays the largest, and where it is not positive nothing passes back.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.layers import Convolution, Dense, convolutional_layers, dense_layers

Logits = Callable[[Tensor, Tensor], Tensor]  # weights [P], x [B, ...] -> [B, classes]

FEW_CHANNELS = 4  # below it, a product over windows is faster than a convolution
# oneDNN's wide convolutions are a fifth faster with channels innermost where there is AVX-512, and slower elsewhere.
WIDE = torch.channels_last if torch.backends.cpu.get_cpu_capability() == "AVX512" else torch.contiguous_format


def logits_of(network: nn.Module) -> Logits:
    """For one thread at a time: other networks than those of training.layers are loaded into a copy of `network`."""
    dense, convolutional = dense_layers(network), convolutional_layers(network)
    if dense is not None:
        return lambda weights, x: dense_values(dense, weights, x.flatten(1))[-1]
    if convolutional is not None:
        return lambda weights, x: _convolved(*convolutional, weights, x)
    return _loaded(copy.deepcopy(network).eval())


def _loaded(network: nn.Module) -> Logits:
    parameters = list(network.parameters())

    def logits(weights: Tensor, x: Tensor) -> Tensor:
        parts = torch.split(weights, [parameter.numel() for parameter in parameters])
        with torch.no_grad():
            for parameter, part in zip(parameters, parts, strict=True):
                parameter.copy_(part.view_as(parameter))
            return network(x)  # type: ignore[no-any-return]

    return logits


def _convolved(convolutions: list[Convolution], dense: list[Dense], weights: Tensor, x: Tensor) -> Tensor:
    for layer in convolutions:
        if x.device.type != "cpu":  # a GPU's own convolutions are the fastest there, of few channels too
            x = F.max_pool2d(F.conv2d(x, kernel(layer, weights), weights[layer.bias], padding=layer.padding), 2).relu_()
            continue
        x = convolved(layer, weights, x).pooled
    return dense_values(dense, weights, x.contiguous().flatten(1))[-1]


def dense_values(layers: list[Dense], weights: Tensor, x: Tensor) -> list[Tensor]:
    """What goes into each layer, [B, inputs], and the logits [B, outputs] of the last."""
    values = [x]
    for layer in layers:
        weight = weights[layer.weight].view(layer.outputs, layer.inputs)
        values.append(torch.addmm(weights[layer.bias], values[-1], weight.T))
        if layer is not layers[-1]:
            values[-1].relu_()
    return values


@dataclass(frozen=True, eq=False)
class Convolved:
    """A convolution's way up, and what its way down needs of it."""

    taken: Tensor  # what was multiplied: windows [inputs * kernel^2, B * H * W], or x [B, inputs, H, W]
    before: Tensor  # [B, outputs, H, W] before the maximum, channels innermost
    places: Tensor  # int64, where the maxima were
    pooled: Tensor  # [B, outputs, H // 2, W // 2], channels innermost


def convolved(layer: Convolution, weights: Tensor, x: Tensor) -> Convolved:
    """Convolution, maximum, ReLU of x [B, inputs, H, W]."""
    if layer.inputs < FEW_CHANNELS:
        taken = _windows(layer, x)
        before = _by_product(layer, weights, taken, x)
    else:
        taken = x.contiguous(memory_format=WIDE)
        weight = kernel(layer, weights).contiguous(memory_format=WIDE)
        before = F.conv2d(taken, weight, weights[layer.bias], padding=layer.padding)
        before = before.contiguous(memory_format=torch.channels_last)
    pooled, places = torch.ops.aten.max_pool2d_with_indices(before, [2, 2])
    return Convolved(taken, before, places, pooled.relu_())


def kernel(layer: Convolution, flat: Tensor) -> Tensor:
    """Its part of flat [P]."""
    return flat[layer.weight].view(layer.outputs, layer.inputs, layer.kernel, layer.kernel)


def _windows(layer: Convolution, x: Tensor) -> Tensor:
    """[inputs * kernel^2, B * H * W]: copied in rows, where PyTorch's own unfold goes pixel by pixel."""
    around = F.pad(x, (layer.padding,) * 4)
    windows = around.unfold(2, layer.kernel, 1).unfold(3, layer.kernel, 1)  # [B, inputs, H, W, kernel, kernel]
    return windows.permute(1, 4, 5, 0, 2, 3).reshape(layer.inputs * layer.kernel**2, -1)


def _by_product(layer: Convolution, weights: Tensor, windows: Tensor, x: Tensor) -> Tensor:
    height, width = (size + 2 * layer.padding - layer.kernel + 1 for size in x.shape[2:])
    weight = weights[layer.weight].view(layer.outputs, -1)
    before = torch.addmm(weights[layer.bias], windows.T, weight.T)  # [B * H * W, outputs]
    return before.view(len(x), height, width, layer.outputs).permute(0, 3, 1, 2)
