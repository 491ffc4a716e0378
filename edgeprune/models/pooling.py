"""Average pooling over a whole map, written as the mean that it is.

By TFLite's quantization specification, AVERAGE_POOL_2D gives its result in the steps of what it reads. A mean lies
closer to zero than the largest of the values that it is taken of (in ResNet8 of MLPerf Tiny, six times), so that few
of the steps are left for what the classifier reads. MEAN computes the same, and its result has a range of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprune.models.graph import View
from edgeprune.models.rebuild import copy_model
from edgeprune.models.types import Layer, Node

if TYPE_CHECKING:
    import tf_keras

# Pooling → the layer that becomes a MEAN.
_MEANS = {"AveragePooling1D": "GlobalAveragePooling1D", "AveragePooling2D": "GlobalAveragePooling2D"}


def with_means(model: tf_keras.Model) -> tf_keras.Model:
    """A copy of the model with a mean for each average pooling over whole maps; the model itself where it has none.

    Args:
        model: flat functional tf_keras model.
    """
    whole = whole_map_poolings(model)
    return copy_model(model, lambda layer: mean_for(layer) if layer.name in whole else layer) if whole else model


def whole_map_poolings(model: tf_keras.Model) -> set[str]:
    """Names of the layers whose one window covers all of the map, of more than one position, in every call."""
    view = View(model)
    poolings = [layer for layer in model.layers if type(layer).__name__ in _MEANS]
    return {layer.name for layer in poolings if all(_is_whole(node) for node in view.uses(layer))}


def mean_for(pooling: Layer) -> Layer:
    """The mean over all positions, of the same name and with as many axes as what the ``pooling`` gives."""
    import tf_keras

    make = getattr(tf_keras.layers, _MEANS[type(pooling).__name__])
    config = pooling.get_config()
    made: Layer = make(keepdims=True, **{name: config[name] for name in ("name", "dtype", "data_format")})
    return made


def _is_whole(node: Node) -> bool:
    layer, shape = node.layer, list(node.keras_inputs[0].shape)
    sizes = shape[2:] if layer.data_format == "channels_first" else shape[1:-1]
    if None in sizes or all(size == 1 for size in sizes):
        return False
    windows = zip(sizes, layer.pool_size, layer.strides, strict=True)
    if layer.padding == "same":  # what is padded does not count
        return all(pool >= size and stride >= size for size, pool, stride in windows)
    return all(pool == size for size, pool, _ in windows)
