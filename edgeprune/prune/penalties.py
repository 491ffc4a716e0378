"""Penalties that make weights, channels or groups of weights small before anything is removed.

A penalty is a sum over the model's weights; the training loss gets it times its weight in ``[sparsify]``. It belongs
to a second model over the same layers, so the model that is saved does not contain it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.errors import RecipeError
from edgeprune.models.types import Variable
from edgeprune.prune.channels.analyse import analyse
from edgeprune.recipe.config import SparsifyConfig
from edgeprune.train.variables import trainable_kernels

if TYPE_CHECKING:
    import tensorflow as tf
    import tf_keras

Penalty = Callable[[], "tf.Tensor"]  # → float32 scalar tensor, of the weights as they are when it is called

MakePenalty = Callable[["tf_keras.Model"], Penalty]
PENALTIES: dict[str, MakePenalty] = {}


def penalty(make: MakePenalty) -> MakePenalty:
    """Enter a function ``model -> penalty`` into the table, under its name."""
    PENALTIES[make.__name__] = make
    return make


@penalty
def weights_l1(model: tf_keras.Model) -> Penalty:
    """Sum of absolute weights, biases and normalization left out (Han et al. 2015, arXiv:1506.02626)."""
    return _absolute_sum(trainable_kernels(model), "weights_l1", "trainable weights")


@penalty
def bn_l1(model: tf_keras.Model) -> Penalty:
    """Sum of absolute scales of batch normalization: network slimming (Liu et al. 2017, arXiv:1708.06519)."""
    import tf_keras

    scales = [
        layer.gamma
        for layer in model._flatten_layers(include_self=False)
        if isinstance(layer, tf_keras.layers.BatchNormalization) and layer.scale and layer.trainable
    ]
    return _absolute_sum(scales, "bn_l1", "trainable BatchNormalization layer with scales")


@penalty
def group_lasso(model: tf_keras.Model) -> Penalty:
    """Sum of the Euclidean norms of the channels that can be removed (Wen et al. 2016, arXiv:1608.03665).

    A channel's norm is over all weights that make it, in all layers that make it together (the two sides of an
    addition, say), as in Fang et al. 2023, arXiv:2301.12900.
    """
    import tensorflow as tf

    graph = analyse(model)
    free = [unit for group in graph.groups for i, unit in enumerate(group.units.tolist()) if i not in group.reasons]
    trainable = {id(weight) for weight in model.trainable_variables}
    making = [
        (weight, binding.axis, binding.vector)
        for layer in model.layers
        for binding in graph.layers[layer.name].bindings
        if binding.role in ("produced", "matched") and id(weight := layer.weights[binding.weight]) in trainable
    ]
    if not set(free) & set(np.concatenate([[], *(vector for _, _, vector in making)]).astype(int).tolist()):
        raise _nothing_to_act_on("group_lasso", "group of channels that can be removed (see `edgeprune inspect`)")

    def value() -> tf.Tensor:
        squares = tf.zeros(len(graph.units))
        for weight, axis, vector in making:
            others = [a for a in range(len(weight.shape)) if a != axis]
            rows = tf.reduce_sum(tf.square(tf.cast(weight, tf.float32)), others)
            squares += tf.math.unsorted_segment_sum(rows, vector, len(graph.units))
        chosen = tf.gather(squares, free)
        # The root has no gradient at zero, where a channel is to stay.
        return tf.reduce_sum(tf.where(chosen > 0, tf.sqrt(tf.where(chosen > 0, chosen, 1.0)), 0.0))

    return value


def penalized(model: tf_keras.Model, config: SparsifyConfig) -> tf_keras.Model:
    """A model over the same layers and weights whose loss has the recipe's penalties; ``model`` has none.

    Raises:
        RecipeError: a penalty finds nothing in the model to act on.
    """
    import tf_keras

    shell = tf_keras.Model(model._nested_inputs, model._nested_outputs, name=model.name)
    for name, weight in weights(config).items():
        shell.add_loss(_scaled(PENALTIES[name](model), weight))
    return shell


def weights(config: SparsifyConfig) -> dict[str, float]:
    """The penalties that the recipe asks for, and their weights in the loss."""
    return {name: getattr(config, name) for name in PENALTIES if getattr(config, name)}


def values(model: tf_keras.Model, config: SparsifyConfig) -> dict[str, float]:
    """The recipe's penalties, each without its weight."""
    return {name: float(PENALTIES[name](model)()) for name in weights(config)}


def _scaled(value: Penalty, weight: float) -> Penalty:
    return lambda: weight * value()


def _absolute_sum(variables: Sequence[Variable], name: str, what: str) -> Penalty:
    import tensorflow as tf

    if not variables:
        raise _nothing_to_act_on(name, what)
    return lambda: tf.add_n([tf.reduce_sum(tf.abs(tf.cast(variable, tf.float32))) for variable in variables])


def _nothing_to_act_on(name: str, what: str) -> RecipeError:
    return RecipeError(
        f"[sparsify] {name} has nothing to act on in this model.",
        expected=f"at least one {what}.",
        fix=f"set another penalty ({', '.join(other for other in PENALTIES if other != name)}).",
    )
