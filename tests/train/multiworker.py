"""Run by test_machines.py as each of several workers: trains with the others, and prints what came out."""

import json
import os
import sys
from pathlib import Path

from edgeprune._tensorflow import import_tf
from edgeprune.errors import EdgepruneError
from edgeprune.progress import Progress

import_tf()

from edgeprune.train.machines import together  # noqa: E402


def compared(folder, index):
    """What two workers make together, and what the first one makes alone."""
    import numpy as np
    from mirrored import Interrupted, train

    state, left = folder / "unbroken" / "training.npz", folder / "resumed" / "training.npz"
    model, weights, history = train("normalized", "multiworker", state, Interrupted(state, left))
    if index == 1:
        left.unlink()  # it was killed before it had saved its epoch
    _, resumed, _ = train("normalized", "multiworker", left)
    plain = train("plain", "multiworker", folder / "plain" / "training.npz")[1]
    alone = train("plain", "none", folder / "alone" / "training.npz")[1]
    return {
        "replicas": model.distribute_strategy.num_replicas_in_sync,
        "weights": float(sum(np.abs(weight).sum() for weight in weights)),
        "val_loss": history[-1]["val_loss"],
        "resumes": all(map(np.array_equal, weights, resumed)),
        "difference": max(float(np.abs(a - b).max()) for a, b in zip(alone, plain, strict=True)),
    }


def astray(folder, index):
    """The message of workers that are at different stages."""
    from mirrored import train

    try:
        train("plain", "multiworker", folder / f"stage{index}" / "training.npz")
    except EdgepruneError as error:
        return str(error)


if __name__ == "__main__":
    folder, index = Path(sys.argv[1]), json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    with together(["multiworker"], Progress()):
        printed = {**compared(folder, index), "astray": astray(folder, index)}
    print(json.dumps(printed))
