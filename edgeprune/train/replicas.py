"""Training on several devices at once, of this machine or of several, by TensorFlow's ``tf.distribute``.

Each device has a replica of the model and takes its part of every batch; gradients are summed over the replicas. A
model belongs to the strategy in whose scope its variables were made, and Keras trains it there: stages that train make
their models in :func:`replicated`. How several machines stay in step is in ``machines.py``.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from edgeprune.errors import RecipeError
from edgeprune.models.types import Variable
from edgeprune.recipe.config import FinetuneConfig

if TYPE_CHECKING:
    import tensorflow as tf
    import tf_keras


@contextlib.contextmanager
def replicated(config: FinetuneConfig) -> Iterator[None]:
    """While it is open, variables are made on the devices that ``[finetune] strategy`` names.

    Raises:
        RecipeError: batches cannot be divided evenly among the devices.
    """
    if config.strategy == "none":
        yield
        return
    import tensorflow as tf

    strategy = strategy_of(config.strategy)
    count = strategy.num_replicas_in_sync
    if config.batch_size % count:
        nearest = max(round(config.batch_size / count), 1) * count
        raise RecipeError(
            f"[finetune] batch_size = {config.batch_size} cannot be divided evenly among {count} devices, as "
            f'strategy = "{config.strategy}" has to.',
            expected=f"a multiple of {count}.",
            fix=f"write batch_size = {nearest}, or leave strategy out.",
        )
    with strategy.scope(), tf.variable_creator_scope(_with_aggregation):
        yield


@functools.cache  # two of them in one process take each other's collective operations for their own
def strategy_of(name: str) -> tf.distribute.Strategy:
    """The one of ``[finetune] strategy``, with all devices that it finds."""
    import tensorflow as tf

    made = {
        "mirrored": tf.distribute.MirroredStrategy,  # all GPUs; without any, all logical CPUs
        "multiworker": tf.distribute.MultiWorkerMirroredStrategy,  # all GPUs of all workers, or their first CPUs
    }
    return made[name]()


def _with_aggregation(create: Callable[..., Variable], **options: Any) -> Variable:
    """Say for a variable that does not how the values that replicas assign to it become one.

    tfmot's layers and masked models assign in every step; most values are equal in all replicas, others are statistics
    of their part of the batch.
    """
    import tensorflow as tf

    aggregation = tf.VariableAggregation
    if options.get("aggregation", aggregation.NONE) == aggregation.NONE:
        is_float = tf.as_dtype(options.get("dtype") or tf.float32).is_floating
        options["aggregation"] = aggregation.MEAN if is_float else aggregation.ONLY_FIRST_REPLICA
    return create(**options)


def agree(model: tf_keras.Model) -> None:
    """Give all replicas the weights that are saved: the mean, for statistics of batches, which are each one's own."""
    if model.distribute_strategy.num_replicas_in_sync > 1:
        model.set_weights(model.get_weights())
