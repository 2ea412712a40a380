"""A network with one hidden layer whose width is a parameter, and layer normalisation, which has no buffers."""

import math

from torch import nn

from extensions import Kind, whole


def normalised(info, *, hidden):
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(info.shape), hidden),
        nn.LayerNorm(hidden),
        nn.Tanh(),
        nn.Linear(hidden, info.num_classes),
    )


KINDS = (
    Kind(
        family="model",
        name="normalised",
        help="One hidden layer with layer normalisation",
        source="Ba et al. 2016",
        code=normalised,
        parameters={"hidden": whole(32, "Units of the hidden layer", minimum=1, maximum=4096)},
    ),
)
