"""The contract of models: `f(info, **parameters) -> nn.Module`, of which only the parameters are averaged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from extensions.contract import Check, at_the_ends, usual
from kinds import Kind
from training import networks

MOST_PARAMETERS = 50_000_000


@dataclass(frozen=True, kw_only=True)
class Info:
    """What a model sees of a data set."""

    shape: tuple[int, int, int]
    num_classes: int


SETS = (Info(shape=(1, 8, 8), num_classes=10), Info(shape=(3, 32, 32), num_classes=7))


def built(kind: Kind, info: Any, seed: int = 1, parameters: dict[str, Any] | None = None) -> Any:
    """As a run builds it: whatever draws, draws from the run's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind.load()(info, **(usual(kind) if parameters is None else parameters))


def images(info: Info, n: int = 6) -> Tensor:
    return torch.randn(n, *info.shape, generator=torch.Generator().manual_seed(3))


def _wrong(network: Any, info: Info) -> str | None:
    if not isinstance(network, nn.Module):
        return f"it gave {type(network).__name__}, not an nn.Module"
    size = sum(parameter.numel() for parameter in network.parameters())
    if not 0 < size <= MOST_PARAMETERS:
        return f"it has {size:,} parameters, not 1 to {MOST_PARAMETERS:,}"
    if other := {str(parameter.dtype) for parameter in network.parameters() if parameter.dtype != torch.float32}:
        return f"it has parameters of {', '.join(sorted(other))}, not of float32 alone"
    with torch.no_grad():
        for n in (1, 6):
            found = network(images(info, n))
            if not isinstance(found, Tensor) or found.shape != (n, info.num_classes):
                words = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
                wanted = [n, info.num_classes]
                return f"{n} images of {info.shape} in {info.num_classes} classes give {words}, not {wanted}"
            if not torch.isfinite(found).all():
                return "its logits are not finite"
    return None


def _trained(network: nn.Module, info: Info) -> None:
    """One step of SGD, as clients take it."""
    network.train()
    labels = torch.arange(6) % info.num_classes
    network.zero_grad()
    loss = F.cross_entropy(network(images(info)), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.grad is not None:
                parameter.sub_(0.1 * parameter.grad)


def outputs(kind: Kind) -> Iterator[str]:
    network = built(kind, SETS[0])
    yield repr(networks.flatten(network).tolist()[:1000])
    with torch.no_grad():
        yield repr(network(images(SETS[0])).tolist())


def logits(kind: Kind) -> str | None:
    return next((found for info in SETS if (found := _wrong(built(kind, info), info))), None)


def ends(kind: Kind) -> str | None:
    for parameters in at_the_ends(kind):
        if found := _wrong(built(kind, SETS[0], parameters=parameters), SETS[0]):
            return f"with {parameters}: {found}"
    return None


def buffers_unchanged(kind: Kind) -> str | None:
    network = built(kind, SETS[0])
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    _trained(network, SETS[0])
    for name, buffer in network.named_buffers():
        if not torch.equal(buffer, before[name]):
            return (
                f"training changes its buffer {name}, which is not averaged: batch normalisation's running statistics "
                "would be those of nobody. Group or layer normalisation has none"
            )
    return None


def no_shared_draws(kind: Kind) -> str | None:
    network = built(kind, SETS[0])
    network.train()
    before = torch.get_rng_state()
    with torch.no_grad():
        one, two = network(images(SETS[0])), network(images(SETS[0]))
    if not torch.equal(before, torch.get_rng_state()) or not torch.equal(one, two):
        return "it draws while it trains, as dropout does, from the generator that everybody shares"
    return None


def all_have_gradients(kind: Kind) -> str | None:
    network = built(kind, SETS[0])
    _trained(network, SETS[0])
    lost = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    return f"{lost[0]} gets no gradient: it would be averaged and never learn" if lost else None


def weights_round_trip(kind: Kind) -> str | None:
    one, two = built(kind, SETS[0], seed=1), built(kind, SETS[0], seed=2)
    networks.load(two, networks.flatten(one))
    with torch.no_grad():
        if not torch.equal(one(images(SETS[0])), two(images(SETS[0]))):
            return "with another's weights it gives other logits: something that is no parameter decides them"
    return None


def seeded_weights(kind: Kind) -> str | None:
    one, again, other = (networks.flatten(built(kind, SETS[0], seed=seed)) for seed in (1, 1, 2))
    if not torch.equal(one, again):
        return "built twice from one seed, it begins with other weights"
    return "its first weights are the same whatever the seed" if torch.equal(one, other) else None


def repeatable(kind: Kind) -> str | None:
    network = built(kind, SETS[0])
    with torch.no_grad():
        same = torch.equal(network(images(SETS[0])), network(images(SETS[0])))
    return None if same else "the same images give other logits the second time"


CHECKS = (
    Check(name="logits", says="maps images [B, C, H, W] to logits [B, classes]", run=logits, required=True),
    Check(name="repeatable", says="gives the same for the same", run=repeatable, required=True),
    Check(name="buffers_unchanged", says="training changes its parameters alone", run=buffers_unchanged, required=True),
    Check(name="no_shared_draws", says="draws nothing while it trains", run=no_shared_draws, required=True),
    Check(name="all_have_gradients", says="every parameter has a gradient", run=all_have_gradients, required=True),
    Check(
        name="weights_round_trip",
        says="its parameters alone decide its logits",
        run=weights_round_trip,
        required=True,
    ),
    Check(name="seeded_weights", says="its first weights come from the seed", run=seeded_weights, required=True),
    Check(name="ends", says="keeps all that at the ends of its parameters", run=ends, required=True, fast=False),
)
