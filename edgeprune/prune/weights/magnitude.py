"""Magnitude pruning with tfmot's ``prune_low_magnitude``, which :mod:`edgeprune.prune.weights.engines` asks first.

The schedule is derived from the real number of training steps: with tfmot's default update frequency of 100 a short
fine-tune may never reach an update, and nothing says so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeprune.models.rebuild import copy_model
from edgeprune.models.types import Layer
from edgeprune.prune.weights.kernels import kernels, selected
from edgeprune.prune.weights.schedule import SCHEDULES, updates
from edgeprune.recipe.config import WeightsConfig
from edgeprune.recipe.granularity import Block, NofM, Weight, parse

if TYPE_CHECKING:
    import tensorflow as tf
    import tf_keras
    from tensorflow_model_optimization.sparsity import keras as sparsity


def can(model: tf_keras.Model, config: WeightsConfig) -> bool:
    """Whether tfmot supports what the recipe asks for.

    Its limits: per-layer magnitude only, no regrowth; blocks in kernels of two dimensions; n:m chosen once, in
    the first training step, in kernels of two or four dimensions whose last axis is the output; one device: its layers
    raise a TypeError where variables are mirrored.
    """
    import tensorflow as tf

    several = (tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy)
    if isinstance(model.distribute_strategy, several):
        return False
    if config.criterion != "magnitude" or config.scope != "layer" or config.regrow != "none":
        return False
    pattern = parse(config.granularity)
    chosen = kernels(model, selected(model, config))
    ranks = {len(kernel.variable.shape) for kernel in chosen}
    outputs_last = all(kernel.ends_with_outputs for kernel in chosen)
    if isinstance(pattern, NofM):
        return config.schedule == "one_shot" and config.begin == 0 and ranks <= {2, 4} and outputs_last
    if isinstance(pattern, Block):
        return ranks == {2} and outputs_last
    return isinstance(pattern, Weight)


def schedule(config: WeightsConfig, total_steps: int) -> sparsity.PruningSchedule:
    """The tfmot schedule over ``total_steps`` optimizer steps; its last update falls exactly on its end."""
    from tensorflow_model_optimization.sparsity import keras as sparsity

    when = updates(config, total_steps)
    if config.schedule in ("constant", "one_shot"):
        return sparsity.ConstantSparsity(config.sparsity, when.begin, when.end, when.frequency)
    if config.schedule in ("polynomial", "cubic"):
        power = 3.0 if config.schedule == "cubic" else config.power
        return sparsity.PolynomialDecay(0.0, config.sparsity, when.begin, when.end, power, when.frequency)
    return _tabulated(config, total_steps)


def _tabulated(config: WeightsConfig, total_steps: int) -> sparsity.PruningSchedule:
    """A schedule that tfmot does not have, as the table of its sparsity at each update."""
    import tensorflow as tf
    from tensorflow_model_optimization.sparsity import keras as sparsity

    when = updates(config, total_steps)
    curve = SCHEDULES[config.schedule](config.sparsity, config.power)
    steps = range(when.begin, when.end + 1, when.frequency)
    table = [config.sparsity * curve.fraction(when.progress(step)) for step in steps]

    class Tabulated(sparsity.PruningSchedule):
        def __call__(self, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            index = tf.clip_by_value((step - when.begin) // when.frequency, 0, len(table) - 1)
            due = self._should_prune_in_step(step, when.begin, when.end, when.frequency)
            return due, tf.gather(tf.constant(table, tf.float32), index)

        def get_config(self) -> dict[str, Any]:
            return {"class_name": config.schedule, "config": {"end_step": when.end, "table": table}}

    return Tabulated()


def wrap(
    model: tf_keras.Model, config: WeightsConfig, total_steps: int, seed: int = 0
) -> tuple[tf_keras.Model, list[str]]:
    """Wrap the layers that the recipe selects.

    Returns:
        A model that shares no weights with ``model``, and the names of the wrapped layers.

    Raises:
        RecipeError: a pattern selects no layer that can be pruned.
    """
    from tensorflow_model_optimization.sparsity import keras as sparsity

    names, pattern = selected(model, config), parse(config.granularity)
    options: dict[str, Any] = {}
    if isinstance(pattern, Block):  # recipes name [outputs, inputs], tfmot [inputs, outputs]
        options["block_size"] = (pattern.columns, pattern.rows)
    if isinstance(pattern, NofM):  # recipes count the weights that stay, tfmot those that are removed
        options["sparsity_m_by_n"] = (pattern.m - pattern.n, pattern.m)

    def replace(layer: Layer) -> Layer:
        if layer.name not in names:
            return layer
        return sparsity.prune_low_magnitude(layer, pruning_schedule=schedule(config, total_steps), **options)

    return copy_model(model, replace), names


def callbacks() -> list[tf_keras.callbacks.Callback]:
    """The callback that advances the masks."""
    from tensorflow_model_optimization.sparsity import keras as sparsity

    return [sparsity.UpdatePruningStep()]


def strip(wrapped: tf_keras.Model) -> tf_keras.Model:
    """Remove the wrappers; the zeros stay in the weights."""
    from tensorflow_model_optimization.sparsity import keras as sparsity

    return sparsity.strip_pruning(wrapped)
