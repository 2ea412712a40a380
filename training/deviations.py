"""What each behaviour does: a function of its parameters that gives a Behaviour, see training.clients."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import torch
from torch import Tensor

from training.clients import Behaviour, Seen


def honest() -> Behaviour:
    return Behaviour()


def free_rider() -> Behaviour:
    """Takes the model, does nothing, and waits for its reward."""
    return Behaviour(silence=1.0)


def dropout(probability: float) -> Behaviour:
    """Honest, but in some rounds nothing arrives from it."""
    return Behaviour(silence=probability)


def low_effort(fraction: float) -> Behaviour:
    """Stops after a share of its local steps; its update still counts with all its examples."""
    return Behaviour(effort=fraction)


def label_flip(fraction: float) -> Behaviour:
    """Trains on classes - 1 - y for a random fraction of its examples, the same ones in every round."""

    def flipped(labels: Tensor, num_classes: int, generator: torch.Generator) -> Tensor:
        chosen = torch.randperm(len(labels), generator=generator)[: round(fraction * len(labels))]
        labels = labels.clone()
        labels[chosen] = num_classes - 1 - labels[chosen]
        return labels

    return Behaviour(labels=flipped)


def sign_flip(scale: float) -> Behaviour:
    """Trains honestly and sends the opposite, `scale` times as large."""
    return Behaviour(update=lambda delta: -scale * delta)


def noise() -> Behaviour:
    """Sends uniform noise, as long as the last global step; a zero update in round 1 (Lin et al. 2019, attack I)."""

    def send(seen: Seen) -> Tensor:
        drawn = torch.rand(len(seen.step), generator=seen.generator).mul_(2).sub_(1).to(seen.step)
        length: Tensor = torch.linalg.vector_norm(seen.step) / torch.linalg.vector_norm(drawn)
        return drawn * length

    return Behaviour(trains=False, recalls=True, send=send)


def replay() -> Behaviour:
    """Sends the last global step again; a zero update in round 1 (Lin et al. 2019, attack II, delta weights)."""
    return Behaviour(trains=False, recalls=True, send=lambda seen: seen.step.clone())


def disguised_replay(sigma: float) -> Behaviour:
    """Sends the last global step with normal noise of this deviation in every weight; a zero update in round 1
    (Lin et al. 2019, attack III, advanced delta weights)."""

    def send(seen: Seen) -> Tensor:
        return seen.step.clone() if seen.round_number == 1 else seen.step + sigma * _normal(seen)

    return Behaviour(trains=False, recalls=True, send=send)


def gaussian(sigma: float) -> Behaviour:
    """Sends normal noise of this deviation in every weight (Blanchard et al. 2017)."""
    return Behaviour(trains=False, send=lambda seen: sigma * _normal(seen))


def _normal(seen: Seen) -> Tensor:
    """[P], drawn on the processor whatever the device."""
    return torch.randn(len(seen.step), generator=seen.generator).to(seen.step)


def alie(z: float | None) -> Behaviour:
    """Trains as it should, and sends, of the honest updates, mean - z standard deviations of each weight, all
    conspirators alike (Baruch et al. 2019). z None: the largest at which, of n clients with m conspirators, so many
    honest ones are further off that the two are a majority: the normal quantile of (n - m - s) / (n - m), where
    s = floor(n / 2 + 1) - m, at least one, and never below 0."""

    def conspire(seen: Seen) -> Tensor:
        honest = seen.honest
        reach = largest_z(len(honest.updates), seen.num_conspiring) if z is None else z
        return (honest.mean - reach * honest.deviation).to(seen.step)

    return Behaviour(conspire=conspire)


def largest_z(num_honest: int, num_conspiring: int) -> float:
    """See `alie`; n are the honest and the conspiring ones."""
    supporters = max(1, (num_honest + num_conspiring) // 2 + 1 - num_conspiring)
    share = (num_honest - supporters) / max(1, num_honest)
    return NormalDist().inv_cdf(share) if share > 0.5 else 0.0


def ipm(tau: float) -> Behaviour:
    """Trains as it should, and sends -tau times the mean of the honest updates (Xie et al. 2020, inner product
    manipulation)."""
    return Behaviour(conspire=lambda seen: (-tau * seen.honest.mean).to(seen.step))


def mimic() -> Behaviour:
    """Trains as it should, and sends what one honest client sends, the first by number (Karimireddy et al. 2022); a
    zero update where none is there."""

    def conspire(seen: Seen) -> Tensor:
        return seen.honest.updates[0].clone() if seen.honest.updates else torch.zeros_like(seen.step)

    return Behaviour(conspire=conspire)


def scaled(scale: float) -> Behaviour:
    """Trains honestly and sends its update `scale` times as large (Bagdasaryan et al. 2020, model replacement)."""
    return Behaviour(update=lambda delta: scale * delta)


def less_data(fraction: float) -> Behaviour:
    """Trains on a share of its examples, the same ones in every round, and reports all of them."""

    def chosen(count: int, generator: torch.Generator) -> Tensor:
        return torch.randperm(count, generator=generator)[: max(1, round(fraction * count))].sort().values

    return Behaviour(data=chosen)


def label_noise(fraction: float) -> Behaviour:
    """Trains on other labels for a random fraction of its examples, each drawn evenly among the other classes, the same
    ones in every round."""

    def noisy(labels: Tensor, num_classes: int, generator: torch.Generator) -> Tensor:
        chosen = torch.randperm(len(labels), generator=generator)[: round(fraction * len(labels))]
        further = torch.randint(1, num_classes, (len(chosen),), generator=generator)
        labels = labels.clone()
        labels[chosen] = (labels[chosen] + further) % num_classes
        return labels

    return Behaviour(labels=noisy)


def feature_noise(sigma: float) -> Behaviour:
    """Trains on inputs with normal noise of this deviation, the same in every round."""

    def noisy(x: Tensor, generator: torch.Generator) -> Tensor:
        return x + sigma * torch.randn(x.shape, generator=generator).to(x)

    return Behaviour(features=noisy)


def over_report(factor: float) -> Behaviour:
    """Trains honestly and reports so many times the examples that it holds."""
    return Behaviour(reported=factor)


def straggler(epochs: int) -> Behaviour:
    """Has time for so many passes over its data only; its update counts with all its examples (Li et al. 2020)."""
    return Behaviour(epochs=epochs)


def sybil_split(identities: int) -> Behaviour:
    """Each of its identities trains honestly, on a part of its examples."""
    return Behaviour()


def sybil_copy(identities: int) -> Behaviour:
    """The first of its identities in a round trains honestly; the others send what that one sends."""
    return Behaviour()


def collusion(group: Sequence[int]) -> Behaviour:
    """The first of the group in a round trains honestly; the others send what that one sends."""
    return Behaviour()
