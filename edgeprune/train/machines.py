"""Several machines that train one model, as workers of TensorFlow's ``MultiWorkerMirroredStrategy``.

Each runs the whole build, in a run folder of its own, and they wait for each other where the build begins, in every
step of every training, and at the end. Which machines they are is in ``TF_CONFIG``
(https://www.tensorflow.org/guide/distributed_training#setting_up_the_tf_config_environment_variable).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.errors import MissingError, UsageError
from edgeprune.files import atomic_path
from edgeprune.progress import Progress
from edgeprune.train.replicas import strategy_of

if TYPE_CHECKING:
    import tensorflow as tf
    import tf_keras

# Bytes of a stage's name that workers tell each other.
_NAME_BYTES = 128


@contextlib.contextmanager
def together(strategies: Sequence[str], progress: Progress) -> Iterator[None]:
    """Join the workers that ``TF_CONFIG`` names, if any training is to run on several machines, and leave with them.

    To be entered before TensorFlow computes anything. Returns when all workers have come.

    Raises:
        UsageError: ``TF_CONFIG`` is not set, or cannot be read.
        MissingError: another worker stopped before the end.
    """
    if "multiworker" not in strategies:
        yield
        return
    workers = _workers()
    progress.note(f"waits for the {len(workers)} workers of TF_CONFIG: {', '.join(workers)}")
    strategy = strategy_of("multiworker")
    yield
    with _naming_lost_workers():  # whoever leaves first takes the connection of the others along
        _gathered(strategy, np.zeros(1, np.int32))


def _workers() -> list[str]:
    """The addresses of all workers, by ``TF_CONFIG``."""
    fix = (
        "on every machine, before the same command, with its own index (0, 1, ...):\n"
        '  export TF_CONFIG=\'{"cluster": {"worker": ["HOST0:12345", "HOST1:12345"]}, '
        '"task": {"type": "worker", "index": 0}}\''
    )
    given = os.environ.get("TF_CONFIG")
    if not given:
        raise UsageError(
            '[finetune] strategy = "multiworker" trains on several machines, and TF_CONFIG, which names them, is not '
            "set.",
            fix=fix,
        )
    try:
        config = json.loads(given)
        workers, task = config["cluster"]["worker"], config["task"]
        if task["type"] != "worker" or set(config["cluster"]) != {"worker"} or not workers[task["index"]]:
            raise ValueError("a task that is not one of the workers")
        return list(map(str, workers))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UsageError(
            f"TF_CONFIG cannot be used ({error}): {given}",
            expected="the addresses of all workers, and which of them this one is; no other kinds of tasks.",
            fix=fix,
        ) from None


@contextlib.contextmanager
def in_step(model: tf_keras.Model, state_file: Path) -> Iterator[None]:
    """Train a model as all other workers do, from the state that the first of them has; nothing on one machine.

    A run that was broken off may have left one worker an epoch behind another.

    Raises:
        UsageError: another worker is at another stage.
        MissingError: another worker stopped.
    """
    strategy = model.distribute_strategy
    if not _is_multiworker(strategy):
        yield
        return
    with _naming_lost_workers():
        _same_stage(strategy, state_file.parent.name)
        _same_state(strategy, state_file)
        yield


def divided(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Batches of which several workers take a part each; never whole files of their source."""
    import tensorflow as tf

    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return batches.with_options(options)


def _is_multiworker(strategy: tf.distribute.Strategy) -> bool:
    import tensorflow as tf

    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


@contextlib.contextmanager
def _naming_lost_workers() -> Iterator[None]:
    import tensorflow as tf

    try:
        yield
    except (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.InternalError,
    ) as lost:
        raise MissingError(
            "Another worker of TF_CONFIG stopped, or cannot be reached.",
            fix="start the same command on all machines again: they go on from the last epoch of the first one.",
        ) from lost


def _gathered(strategy: tf.distribute.Strategy, value: np.ndarray) -> np.ndarray:
    """An array of each worker, one after the other: they may differ in their first axis."""
    import tensorflow as tf

    return strategy.gather(strategy.run(lambda: tf.constant(value)), axis=0).numpy()


def _same_stage(strategy: tf.distribute.Strategy, name: str) -> None:
    own = np.frombuffer(name.encode()[:_NAME_BYTES].ljust(_NAME_BYTES), np.uint8)
    rows = _gathered(strategy, own[None].astype(np.int32)).astype(np.uint8)
    found = [row.tobytes().decode(errors="replace").rstrip() for row in rows]
    if len(set(found)) > 1:
        raise UsageError(
            "The workers of TF_CONFIG are at different stages: "
            + ", ".join(f"worker {number} at {stage}" for number, stage in enumerate(found))
            + ".",
            expected="the same command, model, data and recipe, and run folders that are equally far.",
            fix="start all of them with --fresh, or copy the run folder of worker 0 to the others.",
        )


def _same_state(strategy: tf.distribute.Strategy, path: Path) -> None:
    """Replace the state of a training by that of the first worker, where they differ."""
    own = path.read_bytes() if path.is_file() else b""
    digests = _gathered(strategy, np.frombuffer(hashlib.sha256(own).digest(), np.int32)[None])
    if (digests == digests[0]).all():
        return
    sizes = _gathered(strategy, np.array([len(own)], np.int32))
    whole = _gathered(strategy, np.frombuffer(own + b"\0", np.uint8).astype(np.int32))
    if sizes[0]:
        with atomic_path(path) as temporary:
            Path(temporary).write_bytes(whole[: sizes[0]].astype(np.uint8).tobytes())
    else:
        path.unlink(missing_ok=True)
