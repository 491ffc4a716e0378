"""What quantization-aware training does with a layer: one table per question, keyed by class or function name.

Which outputs need a range of their own follows TFLite's quantization specification: an operator that only moves values
(pooling by maximum, reshaping, padding) keeps the range of its input, softmax and its kin have a fixed one, every other
output has its own (https://ai.google.dev/edge/litert/models/quantization_spec).
"""

from __future__ import annotations

from typing import Literal

from edgeprune.models.graph import activation_name, symbol_of
from edgeprune.models.layer_facts import LayerFacts, facts_of
from edgeprune.models.types import Layer

Range = Literal["own", "same", "fixed"]

# Layers whose kernels are rounded in training. All others keep float weights; the converter does with them what it can.
KERNELS = frozenset({"Conv1D", "Conv2D", "DepthwiseConv2D", "Conv2DTranspose", "Dense"})
# Those whose kernels the converter can be told one scale for all channels of: rounding in the graph is along the last
# axis, and only two- and four-dimensional kernels pass the converter with it.
ONE_SCALE = frozenset({"Conv2D", "Dense"})

_SAME = """
    Dropout SpatialDropout1D SpatialDropout2D SpatialDropout3D GaussianDropout GaussianNoise AlphaDropout
    ActivityRegularization Flatten Reshape Permute RepeatVector MaxPooling1D MaxPooling2D AveragePooling1D
    AveragePooling2D GlobalMaxPooling1D GlobalMaxPooling2D ZeroPadding1D ZeroPadding2D Cropping1D Cropping2D
    UpSampling1D UpSampling2D SlicingOpLambda
"""
_SAME_OPERATIONS = """
    reshape transpose expand_dims squeeze pad identity stop_gradient slice strided_slice split unstack gather
    nn.max_pool nn.max_pool2d nn.avg_pool nn.avg_pool2d nn.depth_to_space nn.space_to_depth image.resize
    __operators__.getitem tile broadcast_to
"""
_FIXED_FUNCTIONS = {"softmax", "sigmoid", "tanh"}
_FIXED_OPERATIONS = {"nn.softmax", "nn.sigmoid", "nn.tanh", "math.softmax", "math.sigmoid", "math.tanh", "tanh"}
SAME_CLASSES = frozenset(_SAME.split())
SAME_OPERATIONS = frozenset(_SAME_OPERATIONS.split())
# TFLite fuses these into the operator before them: no rounding happens in between.
FUSED_FUNCTIONS = frozenset({"relu", "relu6"})
FUSED_OPERATIONS = frozenset({"nn.relu", "nn.relu6"})
# Operators that take a fused activation in.
FUSING_CLASSES = frozenset({*KERNELS, "Add", "Multiply", "Subtract"})
FUSING_OPERATIONS = frozenset(
    {"math.add", "__operators__.add", "math.multiply", "__operators__.mul", "math.subtract", "__operators__.sub"}
)


def kernel_rule(layer: Layer) -> LayerFacts | None:
    """The facts about the kernel of a layer if training rounds it, or None."""
    return facts_of(layer) if type(layer).__name__ in KERNELS else None


def takes_one_scale(layer: Layer) -> bool:
    """Whether the file can hold the kernel of a layer with one scale for all channels."""
    return type(layer).__name__ in ONE_SCALE


def output_range(layer: Layer) -> Range:
    """Where the range of a layer's output comes from."""
    kind = type(layer).__name__
    if kind == "TFOpLambda":
        if symbol_of(layer) in SAME_OPERATIONS:
            return "same"
        return "fixed" if symbol_of(layer) in _FIXED_OPERATIONS else "own"
    if kind in SAME_CLASSES or function_of(layer) == "linear":
        return "same"
    return "fixed" if kind == "Softmax" or function_of(layer) in _FIXED_FUNCTIONS else "own"


def is_fused(layer: Layer) -> bool:
    """Whether the layer is an activation that TFLite computes inside the operator before it."""
    kind = type(layer).__name__
    if kind == "ReLU":
        plain = not float(layer.negative_slope or 0) and not float(layer.threshold or 0)
        return plain and layer.max_value in (None, 6.0)
    if kind == "TFOpLambda":
        return symbol_of(layer) in FUSED_OPERATIONS
    return function_of(layer) in FUSED_FUNCTIONS


def fuses(layer: Layer) -> bool:
    """Whether an activation behind the layer is computed inside of its operator."""
    if type(layer).__name__ == "TFOpLambda":
        return symbol_of(layer) in FUSING_OPERATIONS
    return type(layer).__name__ in FUSING_CLASSES and activation_name(layer) == "linear"


def function_of(layer: Layer) -> str | None:
    """The name of the function of a layer ``Activation``; None for every other layer."""
    return activation_name(layer) if type(layer).__name__ == "Activation" else None
