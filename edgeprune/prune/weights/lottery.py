"""Lottery tickets: early weights, and a mask that later ones have shown to be enough.

Frankle & Carbin 2019, arXiv:1803.03635; rewinding to an epoch instead of to the start: Frankle et al. 2020,
arXiv:1912.05671. The early weights of a model that comes trained are unknown, so it is trained anew from its own
initializers, or from initial weights that the user kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.errors import ModelError
from edgeprune.files import atomic_path
from edgeprune.models.types import Layer, Node, Variable
from edgeprune.prune.weights.schedule import Exponential
from edgeprune.recipe.granularity import choose, parse

if TYPE_CHECKING:
    import tf_keras

    from edgeprune.prune.weights.masked import MaskedModel
    from edgeprune.recipe.config import WeightsConfig


def reinitialized(model: tf_keras.Model, seed: int) -> tf_keras.Model:
    """A copy with fresh weights from the initializers of its layers.

    Layers and parts of layers that do not train (frozen ones, normalization by statistics of the data) keep theirs.

    Args:
        seed: decides the weights; seeds that initializers bring along do not, else all copies would be the same.
    """
    import tf_keras

    from edgeprune.models.graph import View
    from edgeprune.models.rebuild import copy_model

    copy, view = copy_model(model), View(model)
    tf_keras.utils.set_random_seed(seed)
    trained = {id(weight) for weight in copy.trainable_weights}
    for layer in model.layers:
        call, *_ = view.uses(layer)
        if call.is_input:
            continue
        # Every layer is built, with weights or not: layers such as Dropout draw seeds of their own.
        fresh = _built(layer, call)
        parts = zip(copy.get_layer(layer.name)._flatten_layers(), fresh._flatten_layers(), strict=True)
        for old, new in parts:
            if any(id(weight) in trained for weight in old._trainable_weights):
                for weight, value in zip(_own_weights(old), _own_weights(new), strict=True):
                    weight.assign(value)
    return copy


def _own_weights(layer: Layer) -> list[Variable]:
    """The weights of a layer, without those of the layers in it."""
    return [*layer._trainable_weights, *layer._non_trainable_weights]


def _built(layer: Layer, call: Node) -> Layer:
    """A new layer with weights of its own, which come from initializers without seeds."""
    import tensorflow as tf
    import tf_keras

    from edgeprune.models.graph import is_symbolic
    from edgeprune.models.rebuild import config_of, make_like

    def placeholder(value: Any) -> Any:
        return tf_keras.Input(type_spec=value.type_spec) if is_symbolic(value) else value

    args, kwargs = tf.nest.map_structure(placeholder, (call.call_args, call.call_kwargs))
    fresh = make_like(layer, _without_seeds(config_of(layer)))
    fresh(*args, **kwargs)
    return fresh


def _without_seeds(config: Any) -> Any:
    """The configuration of a layer with the seeds of its initializers removed."""
    if isinstance(config, list | tuple):
        return [_without_seeds(value) for value in config]
    if not isinstance(config, dict):
        return config
    return {key: None if key == "seed" else _without_seeds(value) for key, value in config.items()}


def load_initial(path: str, model: tf_keras.Model, trust: bool) -> tf_keras.Model:
    """The user's initial weights, in a copy of ``model``.

    Raises:
        ModelError: the file cannot be read, or its weights are not those of this architecture.
    """
    from edgeprune.models.load import load_model
    from edgeprune.models.rebuild import copy_model

    initial, copy = load_model(Path(path), trust=trust).get_weights(), copy_model(model)
    if [w.shape for w in initial] != [w.shape for w in copy.get_weights()]:
        raise ModelError(
            f"The initial weights in {path} do not fit the model: their number or shapes differ.",
            expected="the same architecture before training (with [filters], leave [lottery] initial out).",
        )
    copy.set_weights(initial)
    return copy


def round_sparsity(config: WeightsConfig, number: int, rounds: int) -> float:
    """The sparsity after round ``number`` (from 1): equal rounds remove equal shares of what is left."""
    return config.sparsity * Exponential(config.sparsity).fraction(number / rounds)


def next_masks(model: MaskedModel, config: WeightsConfig, sparsity: float) -> list[np.ndarray]:
    """The masks after a training: one bool array per kernel, in the layout of TFLite."""
    return choose(model.scores(), parse(config.granularity), sparsity, config.scope)


def save_arrays(arrays: list[np.ndarray], path: Path) -> None:
    """One .npz, written in one step."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, *arrays)


def load_arrays(path: Path) -> list[np.ndarray]:
    """What :func:`save_arrays` wrote, in its order."""
    with np.load(path) as arrays:
        return [arrays[f"arr_{number}"] for number in range(len(arrays.files))]


def save_at(epoch: int, path: Path) -> tf_keras.callbacks.Callback:
    """A Keras callback that keeps the model's weights after ``epoch`` (from 1), without what masking adds to them."""
    import tf_keras

    from edgeprune.prune.weights.masked import strip

    class SaveEarly(tf_keras.callbacks.Callback):
        def on_epoch_end(self, index: int, logs: dict[str, float] | None = None) -> None:
            if index + 1 == epoch:
                save_arrays(strip(self.model).get_weights(), path)

    return SaveEarly()
