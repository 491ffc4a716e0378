"""Which variables of a model a penalty on weights or weight decay acts on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprune.models.types import Variable

if TYPE_CHECKING:
    import tf_keras


def trainable_kernels(model: tf_keras.Model) -> list[Variable]:
    """The trainable variables that are neither biases nor parameters of a normalization."""
    trainable = {id(weight) for weight in model.trainable_variables}
    kernels = {
        id(weight): weight
        for layer in model._flatten_layers(include_self=False)
        if not type(layer).__name__.endswith("Normalization")
        for weight in layer._trainable_weights
        if id(weight) in trainable and len(weight.shape) > 1 and "bias" not in weight.name.rsplit("/", 1)[-1]
    }
    return list(kernels.values())
