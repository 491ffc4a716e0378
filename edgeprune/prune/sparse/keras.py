"""A Keras model as XNNPACK will see it: each layer call a node as :mod:`edgeprune.hardware.xnnpack` knows them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeprune.hardware.xnnpack.sparse_inference import Analysis, Kind, Node, Padding, analyse, same_padding
from edgeprune.models.graph import View, activation_name, flat, symbol_of
from edgeprune.models.layer_facts import kernel_of
from edgeprune.models.types import Layer
from edgeprune.models.types import Node as LayerCall

if TYPE_CHECKING:
    import tf_keras

# Activations that become one unary operator, or products of these.
_UNARY = {"relu", "relu6", "sigmoid", "tanh", "elu", "swish", "silu", "leaky_relu", "linear"}
# Keras function behind an operator layer: what it is.
_FUNCTIONS: dict[str, Kind] = {
    "math.add": "elementwise",
    "__operators__.add": "elementwise",
    "math.multiply": "elementwise",
    "nn.relu": "elementwise",
    "nn.relu6": "elementwise",
    "math.sigmoid": "elementwise",
    "math.tanh": "elementwise",
}
# Nothing of these is left at inference.
_IDENTITIES = {
    "Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "AlphaDropout", "GaussianDropout",
    "GaussianNoise", "ActivityRegularization",
}  # fmt: skip


def analyse_model(model: tf_keras.Model) -> Analysis:
    """What each layer of a flat functional model is to sparse inference, and what is in its way.

    Layers that conversion folds into others (batch normalization behind a convolution, paddings before one) have no
    verdict of their own.
    """
    nodes, outputs = describe(model)
    return analyse(nodes, outputs)


def describe(model: tf_keras.Model) -> tuple[list[Node], set[int]]:
    """The nodes of a flat functional model in the order of the data, and the values that it returns."""
    view = View(model)
    values: dict[int, int] = {}  # of a tensor; several tensors can be one value
    folding: set[int] = set()  # values that come straight from a convolution
    nodes: list[Node] = []
    for call in view.nodes:
        outputs = flat(call.outputs)
        inputs = tuple(values[id(tensor)] for tensor in call.keras_inputs)
        kind = _kind(call.layer)
        folded = type(call.layer).__name__ == "BatchNormalization" and inputs and inputs[0] in folding
        alone = all(len(view.readers(tensor)) == 1 and not view.is_end(tensor) for tensor in call.keras_inputs)
        if kind == "identity" or (folded and alone):
            values.update({id(tensor): inputs[0] for tensor in outputs})
            continue
        numbers = tuple(len(values) + number for number in range(len(outputs)))
        values.update(zip(map(id, outputs), numbers, strict=True))
        if call.is_input:
            continue
        nodes.append(_node(call, kind, inputs, numbers))
        if nodes[-1].kind in ("convolution", "depthwise"):
            folding.update(numbers)
    return nodes, {values[id(tensor)] for tensor in model.outputs}


# -- what a layer is -------------------------------------------------------------------------------------------------


def _activation(layer: Layer) -> str:
    name = activation_name(layer)
    return "identity" if name == "linear" else "elementwise" if name in _UNARY else "other"


def _channels_last(kind: Kind) -> Callable[[Layer], str]:
    return lambda layer: kind if layer.data_format == "channels_last" else "other"


_KINDS: dict[str, Callable[[Layer], str]] = {
    "Conv2D": _channels_last("convolution"),
    "DepthwiseConv2D": _channels_last("depthwise"),
    "ZeroPadding2D": _channels_last("padding"),
    "GlobalAveragePooling2D": _channels_last("mean"),
    "UpSampling2D": lambda layer: "resize" if layer.interpolation == "bilinear" else "other",
    "Activation": _activation,
    "TFOpLambda": lambda layer: _FUNCTIONS.get(symbol_of(layer), "other"),
    "Dense": lambda layer: "dense",
    **{
        name: lambda layer: "elementwise"
        for name in ("Add", "Multiply", "ReLU", "LeakyReLU", "ELU", "BatchNormalization", "Rescaling")
    },
    **{name: lambda layer: "identity" for name in _IDENTITIES},
}


def _kind(layer: Layer) -> str:
    find = _KINDS.get(type(layer).__name__)
    return find(layer) if find else "other"


def _node(call: LayerCall, kind: str, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Node:
    layer = call.layer
    first = flat(call.outputs)[0]
    node = Node(layer.name, type(layer).__name__, kind, inputs, outputs, rank=len(first.shape))  # type: ignore[arg-type]
    details = _DETAILS.get(kind)
    return dataclasses.replace(node, **details(layer, call)) if details else node


def _kernel(layer: Layer, call: LayerCall) -> dict[str, Any]:
    kernel = kernel_of(layer).numpy()
    height, width = layer.kernel_size
    dilation = tuple(layer.dilation_rate)
    activation = _activation(layer)
    return {
        "kernel": (height, width),
        "strides": tuple(layer.strides),
        "dilation": dilation,
        "padding": _padding(layer, dilation),
        "channels": call.keras_inputs[0].shape[-1],
        "weights": kernel.size,
        "zeros": kernel.size - int(np.count_nonzero(kernel)),
        "activation": activation_name(layer) if activation == "other" else "",
    }


def _convolution(layer: Layer, call: LayerCall) -> dict[str, Any]:
    return {**_kernel(layer, call), "groups": layer.groups}


def _depthwise(layer: Layer, call: LayerCall) -> dict[str, Any]:
    return {**_kernel(layer, call), "multiplier": layer.depth_multiplier}


def _zero_padding(layer: Layer, call: LayerCall) -> dict[str, Any]:
    (top, bottom), (left, right) = layer.padding
    return {"padding": (top, bottom, left, right)}


def _dense(layer: Layer, call: LayerCall) -> dict[str, Any]:
    kernel = kernel_of(layer).numpy()
    return {"weights": kernel.size, "zeros": kernel.size - int(np.count_nonzero(kernel))}


_DETAILS: dict[str, Callable[[Layer, LayerCall], dict[str, Any]]] = {
    "convolution": _convolution,
    "depthwise": _depthwise,
    "padding": _zero_padding,
    "dense": _dense,
}


def _padding(layer: Layer, dilation: tuple[int, ...]) -> Padding:
    if layer.padding == "valid":
        return (0, 0, 0, 0)
    return same_padding(layer.kernel_size, tuple(layer.strides), dilation)
