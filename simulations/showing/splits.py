"""Who would hold which labels, before a start: the split that a run would make, computed from the labels alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from django.conf import settings

from simulations.config import SimulationConfig
from simulations.showing import fragments
from training import labels, partitions
from training.catalogue import DATASETS
from training.config import ConfigError
from training.events import TrainingError

MOST_CLIENTS = 10_000  # whose split is computed within a request
INSTEAD = "MNIST is not on this machine yet: it is downloaded when the run starts, or digits take its place"


def preview(config: SimulationConfig) -> dict[str, Any]:
    """What the picture of labels shows of a run that has begun; or `why_not`, a sentence."""
    if config.num_identities > MOST_CLIENTS:
        return {"why_not": f"The split of more than {MOST_CLIENTS:,} clients is computed when the run starts."}
    dataset = "mnist" if config.dataset.kind == "auto" else config.dataset.kind
    try:
        found = labels.train_labels(dataset, settings.FEDSITE_DATA_DIR, settings.FEDSITE_CHECKPOINT_DIR)
        holdings = partitions.deal(config.resolved(dataset), found)
    except labels.NotHere as error:
        return {"why_not": f"{INSTEAD if config.dataset.kind == 'auto' else error}."}
    except (ConfigError, TrainingError, ValueError) as error:
        return {"why_not": f"{error}."}
    classes = DATASETS[dataset].num_classes
    first = holdings.clients[: fragments.ALL_CLIENTS]
    counts = [np.bincount(found[indices], minlength=classes).tolist() for indices in first]
    return {
        "dataset": DATASETS[dataset].label,
        "everyone": config.num_identities,
        **fragments.heat(
            {"number": number, "num_examples": sum(of_client), "label_counts": of_client}
            for number, of_client in enumerate(counts, 1)
        ),
    }
