"""What a network is made of, and where each layer lies in the flat weights [P].

The fast paths know two kinds of networks: dense ones, and convolutional ones whose every convolution is followed by
ReLU and a 2 x 2 maximum. All others are None to the functions here, and are trained and evaluated by PyTorch itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Dense:
    """One Linear layer's place in the flat weights: [outputs, inputs] and then [outputs]."""

    inputs: int
    outputs: int
    start: int

    @property
    def parameters(self) -> int:
        return self.outputs * (self.inputs + 1)

    @property
    def part(self) -> slice:
        return slice(self.start, self.start + self.parameters)

    @property
    def weight(self) -> slice:
        return slice(self.start, self.part.stop - self.outputs)

    @property
    def bias(self) -> slice:
        return slice(self.weight.stop, self.part.stop)


@dataclass(frozen=True)
class Convolution:
    """A Conv2d's place in the flat weights, [outputs, inputs, kernel, kernel] and then [outputs]; a 2 x 2 maximum and
    ReLU come after it."""

    inputs: int
    outputs: int
    kernel: int
    padding: int
    start: int

    @property
    def weight(self) -> slice:
        return slice(self.start, self.start + self.outputs * self.inputs * self.kernel**2)

    @property
    def bias(self) -> slice:
        return slice(self.weight.stop, self.weight.stop + self.outputs)


def dense_layers(network: nn.Module) -> list[Dense] | None:
    """The layers of Sequential([Flatten], Linear, ReLU, Linear, ..., Linear); None for any other network."""
    if type(network) is not nn.Sequential:
        return None
    modules = list(network)
    return _dense(modules[1:] if modules and _is_flatten(modules[0]) else modules, 0)


def convolutional_layers(network: nn.Module) -> tuple[list[Convolution], list[Dense]] | None:
    """The layers of Sequential(Conv2d, ReLU, MaxPool2d(2), ..., Flatten, Linear, ..., Linear), or None."""
    if type(network) is not nn.Sequential:
        return None
    modules, convolutions, start = list(network), [], 0
    while len(modules) > 3 and _is_convolution(*modules[:3]):
        convolutions.append(_convolution(modules[0], start))
        start, modules = convolutions[-1].bias.stop, modules[3:]
    if not convolutions or not modules or not _is_flatten(modules[0]) or _shares(network):
        return None
    dense = _dense(modules[1:], start)
    return (convolutions, dense) if dense else None


def _is_flatten(module: nn.Module) -> bool:
    return type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1)


def _is_convolution(convolution: nn.Module, relu: nn.Module, pool: nn.Module) -> bool:
    if type(convolution) is not nn.Conv2d or type(relu) is not nn.ReLU or type(pool) is not nn.MaxPool2d:
        return False
    kernel, padding = convolution.kernel_size, convolution.padding
    plain = (convolution.stride, convolution.dilation, convolution.groups) == ((1, 1), (1, 1), 1)
    square = kernel[0] == kernel[1] and isinstance(padding, tuple) and padding[0] == padding[1]
    halves = (pool.kernel_size, pool.stride, pool.padding, pool.dilation) == (2, 2, 0, 1)
    told = pool.ceil_mode or pool.return_indices or convolution.bias is None or convolution.padding_mode != "zeros"
    return plain and square and halves and not told


def _convolution(module: nn.Module, start: int) -> Convolution:
    assert isinstance(module, nn.Conv2d)
    return Convolution(
        inputs=module.in_channels,
        outputs=module.out_channels,
        kernel=module.kernel_size[0],
        padding=int(module.padding[0]),
        start=start,
    )


def _shares(network: nn.Sequential) -> bool:
    """Whether a layer stands in more than one place, with one set of weights."""
    layers = [id(module) for module in network if isinstance(module, nn.Linear | nn.Conv2d)]
    return len(set(layers)) < len(layers)


def _dense(modules: Sequence[nn.Module], start: int) -> list[Dense] | None:
    linears = [module for module in modules[::2] if type(module) is nn.Linear and module.bias is not None]
    alternate = len(linears) == len(modules[::2]) and all(type(module) is nn.ReLU for module in modules[1::2])
    if len(modules) % 2 == 0 or not alternate or len(set(map(id, linears))) < len(linears):
        return None
    return _placed(linears, start)


def _placed(linears: Sequence[nn.Linear], start: int) -> list[Dense]:
    layers = []
    for linear in linears:
        layers.append(Dense(linear.in_features, linear.out_features, start))
        start = layers[-1].part.stop
    return layers
