"""Which operators delegates take: XNNPACK on CPUs; on Android the GPU delegate, NNAPI and the compilers for NPUs.

``delegate_operators.csv`` lists the operators of each delegate; where XNNPACK learned one after tflite-runtime 2.14.0,
the first release of ai-edge-litert that was seen to take it (1.1.2, 1.2.0, 1.3.0, 1.4.0, 2.0.3 and 2.1.6 were asked).
The rules here are further limits of some of them. All are published. The sources, which the rules name in brackets:

- [xnnpack] tensorflow/lite/delegates/xnnpack/README.md, the sections on FP32 and on quantized operators, and what
  ai-edge-litert 2.3 does with them (tests/hardware/test_delegates.py asks it);
- [gpu] tensorflow/lite/tools/versioning/gpu_compatibility.cc at 03a5e4e1, the rules that both the delegate and
  TensorFlow's analyzer apply (`tf.lite.experimental.Analyzer`, which the tests ask);
- [emulator] what four releases of the runtime do on the emulated Cortex-A72 (tests/devices/test_emulator.py);
- [nnapi] ``Validate`` and ``NeedInt8Conversion`` in tensorflow/lite/delegates/nnapi/nnapi_delegate.cc at 002e5f47.
  NNAPI is deprecated since Android 15; which operators a phone's driver takes can be seen only on the phone.
- [qualcomm] google-ai-edge/LiteRT@08c8bf6e: litert/vendors/qualcomm/compiler/Qualcomm_QNN_Compiler.md
- [mediatek] google-ai-edge/LiteRT@15511366: litert/vendors/mediatek/compiler/MediaTek_Neuro_Compiler.md; both list what
  a compiler supports, which also checks each operator's parameters, and was not run. Google Tensor has no such list.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import importlib.resources
from collections.abc import Mapping

from edgeprune.hardware.placement import (
    Answer,
    Placement,
    PlacementRule,
    RuleBook,
    activations,
    constant,
    place,
    rule,
    summarize,
)
from edgeprune.target import BoardRuntime
from edgeprune.tflite.graph import Operator, Subgraph, Tensor
from edgeprune.tflite.versions import MEDIAPIPE, parse_version

TAKEN = "delegated"
NOT_LISTED = "not supported by the delegate"
LIMIT = "supported by the delegate with other parameters"
DATA_TYPE = "number format not supported by the delegate"

_FLOAT = {"float32"}
_BYTE = {"int8", "uint8"}
_NOT_QUALCOMM = {"bfloat16", "complex64", "complex128", "int2", "uint4"}
_MEDIATEK = _FLOAT | _BYTE | {"float16", "int32", "int16", "int4", "int2", "bool"}
_FUSED = {"NONE", "RELU", "RELU_N1_TO_1", "RELU6", 0}


@functools.cache
def _marks(column: str) -> Mapping[str, str]:
    """The operators marked in a column of delegate_operators.csv, with their marks: 'yes', or a release."""
    text = importlib.resources.files("edgeprune.hardware").joinpath("delegate_operators.csv").read_text("utf-8")
    return {row["operator"]: row[column] for row in csv.DictReader(text.splitlines()) if row[column]}


def _listed(column: str) -> frozenset[str]:
    """The operators marked in a column of delegate_operators.csv."""
    return frozenset(_marks(column))


@rule(NOT_LISTED)
def custom(graph: Subgraph, operator: Operator) -> Answer:
    """Custom operators are not delegated."""
    return operator.custom


@rule(NOT_LISTED)
def custom_but_mediapipe(graph: Subgraph, operator: Operator) -> Answer:
    """Custom operators are not delegated."""
    return operator.custom and operator.name not in MEDIAPIPE  # which it computes in float32


@rule(DATA_TYPE)
def xnnpack_format(graph: Subgraph, operator: Operator) -> Answer:
    """XNNPACK takes float32, and 8-bit integers for part of its operators.

    [xnnpack].
    """
    dtypes = {tensor.dtype for tensor in activations(graph, operator)}
    if operator.name in ("QUANTIZE", "DEQUANTIZE"):
        return not dtypes <= _FLOAT | _BYTE
    weights = graph.input(operator, 1)
    if operator.name in ("CONV_2D", "FULLY_CONNECTED") and dtypes <= _FLOAT:
        return weights is not None and weights.dtype not in {"float32", "float16", "int8", "int4"}
    return not (
        dtypes <= _FLOAT or (dtypes <= _BYTE and len(dtypes) == 1 and operator.name in _listed("xnnpack_quantized"))
    )


@rule(DATA_TYPE, "install ai-edge-litert on the board: its XNNPACK takes 8-bit operators.")
def eight_bit(graph: Subgraph, operator: Operator) -> Answer:
    """This runtime keeps 8-bit operators, and those with 8-bit weights, to its built-in kernels.

    [emulator] tflite-runtime 2.14.0 takes as many instructions with XNNPACK as without it for int8 files.
    """
    kernel = graph.input(operator, 1)
    tensors = [*activations(graph, operator), *((kernel,) if kernel is not None and kernel.constant else ())]
    return any(tensor.dtype in _BYTE for tensor in tensors)


@rule(LIMIT)
def mixed_signs(graph: Subgraph, operator: Operator) -> Answer:
    """Requantization keeps the sign: int8 to int8, uint8 to uint8.

    [xnnpack] QUANTIZE.
    """
    data, output = graph.input(operator, 0), graph.output(operator)
    return {data.dtype if data else "", output.dtype if output else ""} == _BYTE


@rule(LIMIT, "fuse RELU or RELU6, and no other activation.")
def fused(graph: Subgraph, operator: Operator) -> Answer:
    """Only RELU, RELU6 and RELU_N1_TO_1 may be fused.

    [xnnpack].
    """
    return operator.options.get("fused_activation_function", "NONE") not in _FUSED


@rule(LIMIT, "give the layer a bias, and weights that are constants.")
def weights_and_bias(graph: Subgraph, operator: Operator) -> Answer:
    """Weights and bias must be constants, and convolutions need a bias.

    [xnnpack] CONV_2D, DEPTHWISE_CONV_2D.
    """
    weights, bias = graph.input(operator, 1), graph.input(operator, 2)
    return weights is None or bias is None or not _static(graph, weights.index) or not _static(graph, bias.index)


@rule(LIMIT, "make the weights constants.")
def weights_only(graph: Subgraph, operator: Operator) -> Answer:
    """Weights must be constants.

    [xnnpack] FULLY_CONNECTED, TRANSPOSE_CONV.
    """
    weights = graph.input(operator, 1)
    return weights is None or not _static(graph, weights.index)


@rule(LIMIT)
def parameters_static(graph: Subgraph, operator: Operator) -> Answer:
    """Shapes, axes, paddings and permutations must be constants.

    [xnnpack] PAD, RESHAPE, RESIZE_BILINEAR, SLICE, STRIDED_SLICE, TRANSPOSE.
    """
    return any(constant(graph, operator, position) is None for position in range(1, len(operator.inputs)))


@rule(LIMIT, "make the axes constants.")
def constant_axes(graph: Subgraph, operator: Operator) -> Answer:
    """The axes of a reduction must be constants.

    [emulator] MEAN, SUM, REDUCE_MAX, REDUCE_MIN.
    """
    return constant(graph, operator, 1) is None


@rule(LIMIT, "average over height and width of a 4-D tensor (GlobalAveragePooling2D), or install ai-edge-litert.")
def height_and_width(graph: Subgraph, operator: Operator) -> Answer:
    """In this runtime, a mean or sum must be over height and width, or over width.

    [emulator] MEAN, SUM.
    """
    if operator.name not in ("MEAN", "SUM"):
        return False
    data, axes = graph.input(operator, 0), constant(graph, operator, 1)
    if data is None or axes is None or len(data.shape) != 4:
        return True
    return sorted(axis % 4 for axis in axes) not in ([1, 2], [2])


@rule(LIMIT)
def pool_step(graph: Subgraph, operator: Operator) -> Answer:
    """A 1x1 pooling must have stride 1.

    [xnnpack] AVERAGE_POOL_2D, MAX_POOL_2D.
    """
    options = operator.options
    window = (options.get("filter_height", 1), options.get("filter_width", 1))
    return window == (1, 1) and (options.get("stride_h", 1), options.get("stride_w", 1)) != (1, 1)


@rule(LIMIT)
def negative_padding(graph: Subgraph, operator: Operator) -> Answer:
    """Paddings must not be negative.

    [xnnpack] PAD.
    """
    return any(size < 0 for size in constant(graph, operator, 1) or ())


@rule(LIMIT, "slice without a step.")
def slice_steps(graph: Subgraph, operator: Operator) -> Answer:
    """Strides must be 1, and no axis may be added or dropped.

    [xnnpack] STRIDED_SLICE.
    """
    masks = any(operator.options.get(f"{name}_mask", 0) for name in ("ellipsis", "new_axis", "shrink_axis"))
    return bool(masks) or any(stride != 1 for stride in constant(graph, operator, 3) or ())


@rule(LIMIT)
def softmax_beta(graph: Subgraph, operator: Operator) -> Answer:
    """Softmax must have beta 1.

    [xnnpack], [gpu] SOFTMAX.
    """
    return operator.options.get("beta", 1.0) != 1.0


@rule(LIMIT, "concatenate or split at most 5 tensors at a time.")
def five_parts(graph: Subgraph, operator: Operator) -> Answer:
    """At most five tensors are concatenated, and four split off.

    [xnnpack] CONCATENATION, SPLIT.
    """
    parts = _parts(operator)
    return parts < 2 or parts > (5 if operator.name == "CONCATENATION" else 4)


@rule(LIMIT, "concatenate at most 4 tensors at a time, or install ai-edge-litert.")
def four_parts(graph: Subgraph, operator: Operator) -> Answer:
    """In this runtime, at most four tensors are concatenated.

    [emulator] CONCATENATION.
    """
    return operator.name == "CONCATENATION" and _parts(operator) > 4


def _parts(operator: Operator) -> int:
    return len(operator.inputs if operator.name == "CONCATENATION" else operator.outputs)


@rule(LIMIT)
def like_scales(graph: Subgraph, operator: Operator) -> Answer:
    """Of 8-bit sums and differences, no input may have less than 1/1024 or 256 times the step of the output or more.

    [xnnpack] ADD, SUB: xnnpack_delegate.cc, CheckTensorsInputOutputScale.
    """
    steps = [_step(graph.output(operator)), *(_step(graph.input(operator, number)) for number in (0, 1))]
    output, *inputs = steps
    return output is not None and any(step is not None and not 1 / 1024 <= step / output < 256 for step in inputs)


def _step(tensor: Tensor | None) -> float | None:
    """The scale of an 8-bit tensor that has one for all values."""
    scale = tensor.quantization.scale if tensor is not None and tensor.quantization is not None else ()
    return scale[0] if tensor is not None and tensor.dtype in _BYTE and len(scale) == 1 and scale[0] else None


def _static(graph: Subgraph, index: int) -> bool:
    """Whether a tensor is a constant, or unpacked from one by DENSIFY or DEQUANTIZE."""
    if graph.tensors[index].constant:
        return True
    producer = graph.producers.get(index)
    if producer is None or producer.name not in ("DENSIFY", "DEQUANTIZE"):
        return False
    source = graph.input(producer, 0)
    return source is not None and source.constant


XNNPACK = RuleBook(
    name="XNNPACK",
    operators={
        **dict.fromkeys(_listed("xnnpack"), ()),
        "CUSTOM": (),
        **dict.fromkeys(("ADD", "SUB"), (fused, like_scales)),
        **dict.fromkeys(("MUL", "DIV"), (fused,)),
        **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D"), (fused, pool_step)),
        **dict.fromkeys(("CONCATENATION", "SPLIT"), (five_parts,)),
        **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D"), (fused, weights_and_bias)),
        **dict.fromkeys(("RESHAPE", "RESIZE_BILINEAR", "SLICE", "TRANSPOSE"), (parameters_static,)),
        "FULLY_CONNECTED": (fused, weights_only),
        **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"), (constant_axes,)),
        "PAD": (parameters_static, negative_padding),
        "QUANTIZE": (mixed_signs,),
        "SOFTMAX": (softmax_beta,),
        "STRIDED_SLICE": (parameters_static, slice_steps),
        "TRANSPOSE_CONV": (weights_only,),
    },
    general=(custom_but_mediapipe, xnnpack_format),
    mapped=TAKEN,
    unsupported=NOT_LISTED,
)


@rule(DATA_TYPE)
def gpu_format(graph: Subgraph, operator: Operator) -> Answer:
    """The GPU delegate computes in floats; 8-bit files run with quantization support on, which is the default.

    [gpu].
    """
    return any(t.dtype not in _FLOAT | _BYTE | {"float16", "int32", "bool"} for t in activations(graph, operator))


@rule(LIMIT)
def gpu_fused(graph: Subgraph, operator: Operator) -> Answer:
    """Only ReLU variants and tanh may be fused.

    [gpu] IsActivationSupported.
    """
    return operator.options.get("fused_activation_function", "NONE") not in _FUSED | {"TANH"}


@rule(LIMIT, "use depth_multiplier=1.")
def gpu_depth_multiplier(graph: Subgraph, operator: Operator) -> Answer:
    """A depth multiplier other than 1 needs a single input channel.

    [gpu] DEPTHWISE_CONV_2D.
    """
    data = graph.input(operator, 0)
    return operator.options.get("depth_multiplier", 1) != 1 and (data is None or data.shape[-1:] != (1,))


@rule(LIMIT)
def gpu_slice(graph: Subgraph, operator: Operator) -> Answer:
    """Slices work on tensors of 3 or 4 dimensions, without masks.

    [gpu] SLICE, STRIDED_SLICE.
    """
    data = graph.input(operator, 0)
    masks = any(operator.options.get(f"{name}_mask", 0) for name in ("ellipsis", "new_axis", "shrink_axis"))
    return bool(masks) or data is None or len(data.shape) not in (3, 4)


@rule(LIMIT)
def gpu_axes(graph: Subgraph, operator: Operator) -> Answer:
    """Axes of a reduction must be constants.

    [gpu] MEAN, SUM, REDUCE_MAX, REDUCE_MIN, REDUCE_PROD.
    """
    return constant(graph, operator, 1) is None


@rule(LIMIT)
def gpu_broadcast(graph: Subgraph, operator: Operator) -> Answer:
    """Of two tensors with as many dimensions, one must be at least as large as the other in all of them.

    [gpu] MUL.
    """
    first, second = graph.input(operator, 0), graph.input(operator, 1)
    if first is None or second is None or len(first.shape) != len(second.shape):
        return first is None or second is None
    pairs = list(zip(first.shape, second.shape, strict=True))
    return any(a < b for a, b in pairs) and any(b < a for a, b in pairs)


GPU = RuleBook(
    name="GPU delegate",
    operators={
        **dict.fromkeys(_listed("gpu"), ()),
        **dict.fromkeys(("AVERAGE_POOL_2D", "CONV_2D", "MAX_POOL_2D"), (gpu_fused,)),
        **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD"), (gpu_axes,)),
        **dict.fromkeys(("SLICE", "STRIDED_SLICE"), (gpu_slice,)),
        "DEPTHWISE_CONV_2D": (gpu_fused, gpu_depth_multiplier),
        "MUL": (gpu_fused, gpu_broadcast),
        "SOFTMAX": (softmax_beta,),
    },
    general=(custom, gpu_format),
    mapped=TAKEN,
    unsupported=NOT_LISTED,
)


@rule(LIMIT, "convert with fixed input sizes.")
def nnapi_dynamic(graph: Subgraph, operator: Operator) -> Answer:
    """Sizes must be known; a batch of unknown size is taken as 1.

    [nnapi] allow_dynamic_dimensions, off by default.
    """
    return any(size < 0 for tensor in activations(graph, operator) for size in tensor.signature[1:])


@rule(DATA_TYPE)
def nnapi_format(graph: Subgraph, operator: Operator) -> Answer:
    """NNAPI takes float32, float16 and 8-bit integers; some operators int32 and booleans.

    [nnapi] IsFloatOrQuantized and its relatives.
    """
    allowed = _FLOAT | _BYTE | {"float16", "int32", "bool"}
    return any(tensor.dtype not in allowed for tensor in activations(graph, operator))


NNAPI = RuleBook(
    name="NNAPI",
    operators=dict.fromkeys(_listed("nnapi"), ()),
    general=(custom, nnapi_format, nnapi_dynamic),
    mapped=TAKEN,
    unsupported=NOT_LISTED,
)


@rule(DATA_TYPE)
def qualcomm_format(graph: Subgraph, operator: Operator) -> Answer:
    """The compiler has no type for these numbers.

    [qualcomm] Supported Data Types.
    """
    return any(not tensor.is_numeric or tensor.dtype in _NOT_QUALCOMM for tensor in activations(graph, operator))


@rule(DATA_TYPE)
def mediatek_format(graph: Subgraph, operator: Operator) -> Answer:
    """The compiler has no type for these numbers; of 64-bit integers it takes constants.

    [mediatek] Supported Data Types.
    """
    return any(tensor.dtype not in _MEDIATEK for tensor in activations(graph, operator))


QUALCOMM = RuleBook(
    name="Qualcomm's NPU",
    operators=dict.fromkeys(_listed("qualcomm"), ()),
    general=(custom, qualcomm_format),
    mapped=TAKEN,
    unsupported=NOT_LISTED,
)
MEDIATEK = RuleBook(
    name="MediaTek's NPU",
    operators=dict.fromkeys(_listed("mediatek"), ()),
    general=(custom, mediatek_format),
    mapped=TAKEN,
    unsupported=NOT_LISTED,
)
DELEGATES: dict[str, RuleBook] = {
    "xnnpack": XNNPACK,
    "gpu": GPU,
    "nnapi": NNAPI,
    "qualcomm": QUALCOMM,
    "mediatek": MEDIATEK,
}


# Delegate and package of the runtime → limits of what the runtime hands to it by itself, beside the delegate's own.
_HANDED: dict[tuple[str, str], tuple[PlacementRule, ...]] = {
    ("xnnpack", "tflite-runtime"): (eight_bit, height_and_width, four_parts),
}
# Packages whose releases are numbered as in delegate_operators.csv; tflite-runtime ended before all of these.
_NUMBERED = {"ai-edge-litert", "litert"}


@functools.cache
def book_of(name: str, runtime: BoardRuntime | None = None) -> RuleBook:
    """The rules of a delegate, under a runtime if one is named.

    Args:
        name: a key of :data:`DELEGATES`.
        runtime: that hands operators to it; None: what the newest delegate takes if all is handed to it.
    """
    book = DELEGATES[name]
    if name != "xnnpack" or runtime is None:
        return book
    operators = {op: rules for op, rules in book.operators.items() if _takes(runtime, _marks(name).get(op, "yes"))}
    general = (*_HANDED.get((name, runtime.package), ()), *book.general)
    return dataclasses.replace(book, operators=operators, general=general)


def _takes(runtime: BoardRuntime, mark: str) -> bool:
    """Whether a runtime is of a release that takes an operator with this mark."""
    if mark == "yes":
        return True
    if runtime.package in _NUMBERED:
        return parse_version(runtime.version) >= parse_version(mark)
    return runtime.package != "tflite-runtime"  # which of TensorFlow's own releases was the first is not known


def delegate_placement(graph: Subgraph, name: str, runtime: BoardRuntime | None = None) -> Placement:
    """Which operators of a graph a delegate takes.

    Args:
        graph: the main subgraph.
        name: a key of :data:`DELEGATES`.
        runtime: that hands them to it; None: one that hands it all.

    Raises:
        KeyError: no such delegate.
    """
    book = book_of(name, runtime)
    placed, partitions = place(book, graph)
    return summarize(book, placed, partitions)


def rules_of(book: RuleBook) -> list[PlacementRule]:
    """All rules of a book, each once, in the order in which they are applied."""
    return list(dict.fromkeys([*book.general, *(item for items in book.operators.values() for item in items)]))
