"""Which operators the Edge TPU has, each with its limits, and what to use instead of those that it has not.

The list is that of https://coral.ai/docs/edgetpu/models-intro/ for runtime 14 and newer, and TILE, which is mapped in
compiled files; the limits, each with its source, are in :mod:`edgeprune.hardware.edgetpu.limits`.
"""

from __future__ import annotations

from edgeprune.hardware.edgetpu import limits
from edgeprune.hardware.edgetpu.limits import MAPPED, SUBGRAPHS, UNSUPPORTED
from edgeprune.hardware.placement import PlacementRule, RuleBook

_GENERAL = (
    limits.custom_operator,
    limits.quantize_float,
    limits.not_integer,
    limits.dynamic_size,
    limits.too_many_dimensions,
    limits.too_new,
)
_REDUCTION = (limits.batch_axis,)
_CONVOLUTION = (limits.computed_weights, limits.uneven_dilation)
OPERATORS: dict[str, tuple[PlacementRule, ...]] = {
    "ADD": (),
    "AVERAGE_POOL_2D": (limits.fused_activation,),
    "CONCATENATION": (limits.fused_activation, limits.constant_part),
    "CONV_2D": _CONVOLUTION,
    "CUSTOM": (),
    "DEPTHWISE_CONV_2D": _CONVOLUTION,
    "EXPAND_DIMS": (),
    "FULLY_CONNECTED": (limits.computed_weights, limits.dense_rows, limits.shuffled_weights),
    "L2_NORMALIZATION": (),
    "LOGISTIC": (),
    "MAXIMUM": (),
    "MAX_POOL_2D": (limits.fused_activation,),
    "MEAN": (*_REDUCTION, limits.channel_mean, limits.large_mean),
    "MINIMUM": (),
    "MUL": (),
    "PACK": (limits.batch_axis,),
    "PAD": (limits.batch_axis,),
    "PRELU": (limits.alpha_shape,),
    "QUANTIZE": (),
    "REDUCE_MAX": _REDUCTION,
    "REDUCE_MIN": _REDUCTION,
    "RELU": (),
    "RELU6": (),
    "RELU_N1_TO_1": (),
    "RESHAPE": (limits.large_reshape,),
    "RESIZE_BILINEAR": (limits.imprecise_resize,),
    "RESIZE_NEAREST_NEIGHBOR": (limits.imprecise_resize,),
    "RSQRT": (),
    "SLICE": (),
    "SOFTMAX": (limits.long_softmax,),
    "SPACE_TO_DEPTH": (),
    "SPLIT": (limits.batch_axis,),
    "SQUARED_DIFFERENCE": (),
    "SQUEEZE": (limits.inner_squeeze,),
    "STRIDED_SLICE": (limits.strided, limits.ellipsis),
    "SUB": (),
    "SUM": _REDUCTION,
    "TANH": (),
    "TILE": (limits.batch_axis,),
    "TRANSPOSE": (limits.large_transpose,),
    "TRANSPOSE_CONV": (limits.computed_weights, limits.large_transposed_convolution),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (),
}
SUBSTITUTES = {
    "ARG_MAX": "end the model before the argmax, and take it on the host.",
    "BATCH_MATMUL": "use dense layers or 1x1 convolutions, whose weights are constants.",
    "DIV": "multiply by the reciprocal; by a constant, fold it into the layer before.",
    "ELU": "use ReLU or ReLU6.",
    "GELU": "use ReLU or ReLU6, and fine-tune.",
    "HARD_SWISH": "use ReLU6 in place of hard-swish, and fine-tune.",
    "LEAKY_RELU": "use ReLU, or PReLU with shared_axes=[1, 2].",
    "MIRROR_PAD": "pad with zeros.",
    "UNPACK": "use slices.",
}
EDGE_TPU = RuleBook(
    name="Edge TPU",
    operators=OPERATORS,
    general=_GENERAL,
    mapped=MAPPED,
    unsupported=UNSUPPORTED,
    second_subgraph=SUBGRAPHS,
    only_first=True,
    passthrough=frozenset({"edgetpu-custom-op"}),
    substitutes=SUBSTITUTES,
)
