"""A client that sends the largest entries of its update alone, to save bandwidth."""

import torch

from extensions import Behaviour, Kind, number


def sparse(*, kept):
    def update(delta):
        number_kept = max(1, round(kept * len(delta)))
        places = torch.topk(delta.abs(), number_kept).indices
        sent = torch.zeros_like(delta)
        sent[places] = delta[places]
        return sent

    return Behaviour(update=update)


KINDS = (
    Kind(
        family="behaviour",
        name="sparse",
        help="Sends the largest entries of its update, and zeros for the others",
        source="Aji & Heafield 2017",
        code=sparse,
        parameters={"kept": number(0.1, "Share of the entries that it sends", minimum=0.0, maximum=1.0)},
    ),
)
