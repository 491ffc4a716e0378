"""Count the work of an operator: the terms of the latency model.

The table :data:`KINDS` gives each operator a kind; the amounts of work follow from the kind, shapes, number formats and
the caches of the processor. :class:`edgeprune.target.CpuSeconds` defines the amounts, and holds the seconds per unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

from edgeprune.hardware.placement import constant
from edgeprune.target import BoardRuntime, CpuSeconds, DType, Target
from edgeprune.tflite.graph import Operator, Subgraph, Tensor
from edgeprune.tflite.macs import operator_macs
from edgeprune.tflite.size import UNPACKING, stored_source
from edgeprune.tflite.versions import Version, parse_version

CpuKernelSet = Literal["builtin", "xnnpack"]

# Terms of work that threads share. The built-in kernels run all other work on one thread. Under XNNPACK, what is not
# shared is the start of an operator, the wait for memory, and that for weights which are read again: all cores read
# them the same way (one and four threads of MobileNetV1 in float on a Raspberry Pi 4: 312 and 142 ms, XNNPACK#814).
PARALLEL: dict[CpuKernelSet, frozenset[str]] = {
    "builtin": frozenset({"conv_macs", "conv_elements", "dense_macs", "depthwise_macs"}),
    "xnnpack": frozenset(CpuSeconds.model_fields) - {"memory_bytes", "panel_bytes", "operators"},
}
# Operators that pass their input on unchanged, or that run once when the model is loaded.
FREE = {"RESHAPE", "SQUEEZE", "EXPAND_DIMS", "SHAPE", "BITCAST", "CALL_ONCE", "VAR_HANDLE"}
KINDS: dict[str, str] = {
    **dict.fromkeys(("CONV_2D", "CONV_3D", "TRANSPOSE_CONV", "CONV_3D_TRANSPOSE"), "conv"),
    # MediaPipe's.
    "Convolution2DTransposeBias": "conv",
    "MaxPoolingWithArgmax2D": "reduced",
    "MaxUnpooling2D": "moved",
    "FULLY_CONNECTED": "dense",
    "BATCH_MATMUL": "batch_matmul",
    **dict.fromkeys(("RNN", "SVDF", "UNIDIRECTIONAL_SEQUENCE_RNN"), "recurrent"),
    **dict.fromkeys(("LSTM", "UNIDIRECTIONAL_SEQUENCE_LSTM"), "lstm"),
    "DEPTHWISE_CONV_2D": "depthwise",
    **dict.fromkeys(
        (
            "COS", "ELU", "EXP", "GELU", "L2_NORMALIZATION", "LOCAL_RESPONSE_NORMALIZATION", "LOG",
            "LOGISTIC", "LOG_SOFTMAX", "POW", "RSQRT", "SIN", "SQRT", "TANH", "DIV",
        ),
        "nonlinear",
    ),
    "SOFTMAX": "softmax",
    **dict.fromkeys(
        (
            "ARG_MAX", "ARG_MIN", "AVERAGE_POOL_2D", "CUMSUM", "L2_POOL_2D", "MAX_POOL_2D", "MEAN", "REDUCE_ALL",
            "REDUCE_ANY", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD", "SUM", "TOPK_V2",
        ),
        "reduced",
    ),
    **dict.fromkeys(
        (
            "BATCH_TO_SPACE_ND", "BROADCAST_TO", "CAST", "CONCATENATION", "DEPTH_TO_SPACE", "DYNAMIC_UPDATE_SLICE",
            "EMBEDDING_LOOKUP", "FILL", "GATHER", "GATHER_ND", "MIRROR_PAD", "PACK", "PAD", "PADV2", "REVERSE_V2",
            "SLICE", "SPACE_TO_BATCH_ND", "SPACE_TO_DEPTH", "SPLIT", "SPLIT_V", "STRIDED_SLICE", "TILE", "TRANSPOSE",
            "UNPACK",
        ),
        "moved",
    ),
}  # fmt: skip
# Of operators without an entry: one pass over the output.
_DEFAULT_KIND = "elementwise"
# Kinds whose second input is a kernel.
_WITH_KERNEL = {"conv", "dense", "batch_matmul", "recurrent", "depthwise", "lstm"}
# Passes over the output, where there are several: hard-swish is a clamped sum, and a product. No XNNPACK kernel takes
# the squared difference of integers, which layer normalization has; the built-in one takes 66 cycles for an element on
# a Cortex-A72 where others take 2 (benchmarks/results/recurrent.md).
_PASSES: Mapping[tuple[str, DType], float] = MappingProxyType(
    {("HARD_SWISH", "float32"): 2, ("HARD_SWISH", "int8"): 2, ("SQUARED_DIFFERENCE", "int8"): 33}
)
# What no published file has much of, priced as so many elements of a nonlinear operator, by cycles on a Cortex-A72,
# where one takes 8.4 in int8 and 6.3 in float32 (benchmarks/results/recurrent.md).
# For each row of a softmax: 370 cycles in int8, 115 in float32.
_SOFTMAX_ROW: Mapping[DType, float] = MappingProxyType({"float32": 18.0, "int8": 44.0})
# The integer kernel of BATCH_MATMUL, which XNNPACK does not take, shares nothing among threads: 0.65 cycles for a
# multiply-accumulate, and 43 for a sum.
_INT8_MAC, _INT8_SUM = 0.65 / 8.4, 43 / 8.4
# Built-in means of integers over other axes than height and width: 68 cycles for an element, where others take 1.6.
_OTHER_AXES = 42.0
# Products of 16-bit activations with 8-bit weights are plain loops on one thread: 3.5 cycles for a multiply-accumulate
# of a convolution, 12.5 of a depthwise one, 0.9 of a dense layer (benchmarks/results/recurrent.md), as
# so many elements of an elementwise operator, of 2.05 cycles each. XNNPACK takes none.
_SHORT_MACS: Mapping[str, float] = MappingProxyType(
    {"conv_macs": 3.5 / 2.05, "depthwise_macs": 12.5 / 2.05, "dense_macs": 0.9 / 2.05}
)
# Operators of which no measured file has one: their amounts are counted, and priced as those of other operators.
UNMEASURED = {"LSTM", "RNN", "SVDF", "UNIDIRECTIONAL_SEQUENCE_LSTM", "UNIDIRECTIONAL_SEQUENCE_RNN"}
# The work of a fused LSTM beside its products, per cell and step, as that many elements of a nonlinear operator: 470
# instructions in float32 and 880 in int8 on a Cortex-A72 (benchmarks/results/recurrent.md; tflite-runtime 2.14, two
# layers), at 1.5 instructions per cycle and the 8.4 cycles of such an element.
_CELL: Mapping[DType, float] = MappingProxyType({"float32": 37.0, "int8": 70.0})
# What a step of an unrolled layer consists of. The cost of a start was fitted to files with few such operators, where
# it stands for caches that large layers have emptied; on a Cortex-A72 it is 9 us. 917 operators of an int8 LSTM in 40
# steps take 0.72 million instructions there, arithmetic included (benchmarks/results/recurrent.md): below 1 us each.
SMALL_MACS, SMALL_ELEMENTS = 50_000, 4_096
MANY_SMALL, LATER_START = 100, 0.1
# Rows of a matrix product that a kernel computes at once (google/XNNPACK: src/configs/gemm-config.c, f32 and qs8).
_PANEL_ROWS = {"float32": 6, "int8": 4}


# XNNPACK in recent runtimes computes float 1x1 convolutions two channels at a time, unless there are 8k or 8k - 1 of
# them: 9.05 instructions a channel beside 5.92 where eight go at a time, over 40 widths and 64 inputs
# (benchmarks/results/odd_channels.md). tflite-runtime 2.14.0 and ai-edge-litert 1.2.0 do not, 1.3.0 does.
PAIRS, COST_OF_PAIRS = 2, 9.05 / 5.92
_PAIRING_SINCE: Mapping[str, Version] = MappingProxyType({"ai-edge-litert": (1, 3, 0), "litert": (1, 3, 0)})
# With fewer channels, two at a time cost less than what eight at a time would compute for nothing.
PAIRED_FROM = 16


def _few_in_pairs(channels: int, depth: int) -> float:
    """Steps of eight channels that cost what a float convolution of fewer than eight takes, two channels at a time.

    Of windows larger than 1x1, ``depth`` values each, under the releases of :data:`PAIRS`: simulated cycles of 3x3
    windows over 3, 8 and 16 channels on a Cortex-A72 (benchmarks/results/vector_width.md).
    """
    return math.ceil(channels / PAIRS) * (0.3 + 9 / depth)


@dataclass(frozen=True)
class _Row:
    """What a depthwise kernel spends on one tap of one output position, in channels of its steady state.

    Attributes:
        start: reading pointers, whatever the width.
        at_once: channels of a full step.
        part: channels of a step over what is left.
        part_cost: of such a step.
        tap: cost of a channel, relative to the kernel for 3x3 windows and whole steps.
        own: widths with a kernel of their own → what that takes.
    """

    start: float
    at_once: int
    part: int
    part_cost: float
    tap: float = 1.0
    own: Mapping[int, float] = field(default_factory=dict)

    def channels(self, channels: int) -> float:
        if channels in self.own:
            return self.own[channels]
        left = math.ceil(channels % self.at_once / self.part) * self.part_cost
        return self.tap * (self.start + channels // self.at_once * self.at_once + left)


# Simulated cycles of 3x3 and 5x5 windows over 2 to 128 channels on a Cortex-A72 (benchmarks/results/vector_width.md).
_ROWS: Mapping[tuple[CpuKernelSet, DType], _Row] = MappingProxyType(
    {
        ("xnnpack", "float32"): _Row(4.8, 4, 4, 4.0),
        ("xnnpack", "int8"): _Row(8.4, 16, 8, 10.6),
        ("builtin", "float32"): _Row(14.5, 16, 1, 3.7, own={8: 9.9}),
        ("builtin", "int8"): _Row(8.9, 8, 1, 5.5, tap=3.0),
    }
)
# The built-in integer kernel for 3x3 windows takes whole steps of 8 channels only.
_BUILTIN_3X3 = _Row(4.7, 8, 8, 8.0)


# Instructions of a sparse kernel per weight that is not zero, relative to the dense kernel's per multiply-accumulate.
# MobileNetV1 1.0/224 takes 192.9 million instructions dense, and 139.8, 100.4 and 60.9 million with 70, 80 and 90 % of
# zeros: a line with a slope of 394 million per unit of density, where the dense products take 171 million.
COST_OF_NONZERO = 2.3


@dataclass(frozen=True)
class Caches:
    """What the model uses of a processor.

    Attributes:
        l1_bytes: size of one core's first-level data cache.
        last_bytes: size of the last-level cache.
        channel_multiple: number format → number of channels that fill a vector.
        pairing: whether the runtime is one of those that compute odd numbers of float channels in pairs.
    """

    l1_bytes: int
    last_bytes: int
    channel_multiple: Mapping[DType, int]
    pairing: bool = False


@dataclass(frozen=True)
class Work:
    """The amounts of work of one operator; ``dtype`` is the number format of the kernel that runs it."""

    index: int
    name: str
    kind: str
    dtype: DType
    amounts: Mapping[str, float]


def caches_of(target: Target) -> Caches:
    """The caches of a target's processor; sizes that are not known are those of a small core."""
    cpu = target.cpu
    l1 = cpu.l1d_bytes if cpu and cpu.l1d_bytes else 32_768
    last = (cpu.l3_bytes or cpu.l2_bytes) if cpu else None
    return Caches(l1, last or 524_288, target.channel_multiple, pairs_channels(target.runtime))


def works(
    graph: Subgraph, kernels: CpuKernelSet, caches: Caches, sparse: Mapping[int, float] = MappingProxyType({})
) -> list[Work]:
    """The amounts of work of every operator of a graph, in order.

    Args:
        graph: the main subgraph.
        kernels: that run it.
        caches: of the processor.
        sparse: index of each operator that runs with sparse kernels → the fraction of its weights that is not zero.
    """
    miss = weights_miss(graph, caches)
    counted = [work(graph, operator, kernels, caches, miss) for operator in graph.operators]
    for index in small_operators(graph)[MANY_SMALL:]:
        counted[index] = replace(counted[index], amounts={**counted[index].amounts, "operators": LATER_START})
    return [_sparse(each, sparse[each.index]) if each.index in sparse else each for each in counted]


def weights_miss(graph: Subgraph, caches: Caches) -> float:
    """Fraction of all weights that is no longer in the last cache when the next inference begins, in [0, 1)."""
    return _miss(sum(tensor.nbytes for tensor in graph.tensors if tensor.constant), caches.last_bytes)


def small_operators(graph: Subgraph) -> list[int]:
    """Indices of the operators whose work is little beside their start, in order."""
    return [
        operator.index
        for operator in graph.operators
        if operator.name not in FREE
        and not _unpacks(graph, operator)
        and operator_macs(graph, operator) <= SMALL_MACS
        and _output_elements(graph, operator) <= SMALL_ELEMENTS
    ]


def _sparse(work: Work, density: float) -> Work:
    """The work of a sparse kernel: only nonzero weights count, each at a higher cost; in all never more than dense."""
    cost = min(1.0, COST_OF_NONZERO * density)
    cheaper = {term: cost * work.amounts.get(term, 0.0) for term in ("conv_macs", "panel_bytes")}
    return replace(work, amounts={**work.amounts, **cheaper})


def work(graph: Subgraph, operator: Operator, kernels: CpuKernelSet, caches: Caches, miss: float) -> Work:
    """The amounts of work of one operator; ``miss``: see :func:`weights_miss`."""
    dtype, kind = _dtype(graph, operator), KINDS.get(operator.name, _DEFAULT_KIND)
    if operator.name in FREE or _unpacks(graph, operator):
        return Work(operator.index, operator.name, "free", dtype, {})
    amounts = dict(_KIND_AMOUNTS[kind](graph, operator, kernels, caches, dtype))
    if is_short(graph, operator):
        amounts = _short(amounts)
    moved = _activation_bytes(graph, operator)
    weights = _weight_bytes(graph, operator)
    amounts["memory_bytes"] = moved * _miss(moved + weights, caches.last_bytes) + weights * miss
    amounts["operators"] = 1.0
    return Work(operator.index, operator.name, kind, dtype, amounts)


def _short(amounts: Amounts) -> Amounts:
    """The amounts of an operator with 16-bit activations, of which threads share none."""
    alone = {term: amount for term, amount in amounts.items() if term not in PARALLEL["builtin"]}
    products = sum(cost * amounts.get(term, 0.0) for term, cost in _SHORT_MACS.items())
    return {**alone, "elementwise_elements": alone.get("elementwise_elements", 0.0) + products}


def _miss(nbytes: int, cache_bytes: int) -> float:
    """Fraction of a working set that misses a cache, in [0, 1). It is smooth, as other data are cached too."""
    return nbytes / (nbytes + cache_bytes)


def _dtype(graph: Subgraph, operator: Operator) -> DType:
    """The number format of an operator's kernel: int8 also for float activations with integer weights."""
    kernel = graph.input(operator, 1)
    hybrid = KINDS.get(operator.name) in _WITH_KERNEL and kernel is not None
    for tensor in (graph.output(operator), graph.input(operator, 0), kernel if hybrid else None):
        if tensor is not None and tensor.dtype in ("int8", "uint8", "int16", "int4"):
            return "int8"
    return "float32"


def is_short(graph: Subgraph, operator: Operator) -> bool:
    """Whether an operator computes on 16-bit integers."""
    data, output = _data(graph, operator), graph.output(operator)
    return data is not None and output is not None and data.dtype == output.dtype == "int16"


def _unpacks(graph: Subgraph, operator: Operator) -> bool:
    source = graph.input(operator, 0)
    return operator.name in UNPACKING and stored_source(graph, source) is not None


def _inputs(graph: Subgraph, operator: Operator) -> list[Tensor]:
    return [tensor for i in range(len(operator.inputs)) if (tensor := graph.input(operator, i)) is not None]


def _activation_bytes(graph: Subgraph, operator: Operator) -> int:
    read = sum(t.nbytes for t in _inputs(graph, operator) if stored_source(graph, t) is None)
    return read + sum(graph.tensors[index].nbytes for index in operator.outputs if index >= 0)


def _weight_bytes(graph: Subgraph, operator: Operator) -> int:
    return sum(t.nbytes for t in _inputs(graph, operator) if stored_source(graph, t) is not None)


def _output_elements(graph: Subgraph, operator: Operator) -> int:
    return sum(graph.tensors[index].size for index in operator.outputs if index >= 0)


Amounts = dict[str, float]


def _conv(graph: Subgraph, operator: Operator, kernels: CpuKernelSet, caches: Caches, dtype: DType) -> Amounts:
    """A matrix product: output pixels x (window, input channels) x output channels."""
    kernel, output, data = graph.input(operator, 1), graph.output(operator), _data(graph, operator)
    if kernel is None or output is None or data is None or not output.shape or not kernel.shape:
        return {}
    channels, size = output.shape[-1], 4 if dtype == "float32" else 1
    macs = operator_macs(graph, operator)
    rows, depth = output.size / max(channels, 1), math.prod(kernel.shape[1:])
    multiple, pairing = caches.channel_multiple.get(dtype, 1), kernels == "xnnpack" and caches.pairing
    if pairing and in_pairs(graph, operator):
        computed = COST_OF_PAIRS * math.ceil(channels / PAIRS) * PAIRS
    elif pairing and _is_narrow(operator, kernel):
        computed = 8 * _few_in_pairs(channels, depth)
    else:
        computed = math.ceil(channels / multiple) * multiple
    padding = computed / max(channels, 1)
    amounts: Amounts = {"conv_macs": macs * padding, "conv_elements": rows * (depth + channels)}
    if kernels == "xnnpack":
        nbytes = kernel.size * size
        amounts["panel_bytes"] = rows / _PANEL_ROWS[dtype] * nbytes * _miss(nbytes, caches.l1_bytes)
    elif math.prod(kernel.shape[1:-1]) > 1 or operator.options.get("stride_w", 1) > 1:
        amounts["window_rows"] = rows * kernel.shape[1]
        amounts["moved_bytes"] = 2 * rows * depth * size
    return amounts


def pairs_channels(runtime: BoardRuntime) -> bool:
    """Whether a runtime computes some float 1x1 convolutions two channels at a time, see :data:`PAIRS`."""
    since = _PAIRING_SINCE.get(runtime.package)
    return since is not None and parse_version(runtime.version) >= since


def in_pairs(graph: Subgraph, operator: Operator) -> bool:
    """Whether an operator is a float 1x1 convolution of neither 8k nor 8k - 1 channels, see :data:`PAIRS`."""
    kernel = graph.input(operator, 1)
    if operator.name != "CONV_2D" or kernel is None or kernel.dtype != "float32" or kernel.shape[1:3] != (1, 1):
        return False
    return kernel.shape[0] % 8 not in (0, 7)


def _is_narrow(operator: Operator, kernel: Tensor) -> bool:
    """Whether an operator is a float convolution of :func:`_few_in_pairs`."""
    return (
        operator.name == "CONV_2D"
        and kernel.dtype == "float32"
        and kernel.shape[1:3] != (1, 1)
        and 0 < kernel.shape[0] < 8
    )


def computed_in_pairs(graph: Subgraph) -> dict[int, list[Operator]]:
    """Channels → the float 1x1 convolutions of so many that are computed two at a time, where that is worth a word."""
    found: dict[int, list[Operator]] = {}
    for operator in graph.operators:
        output = graph.output(operator)
        if in_pairs(graph, operator) and output is not None and output.shape and output.shape[-1] > PAIRED_FROM:
            found.setdefault(output.shape[-1], []).append(operator)
    return found


def words_of_pairs(channels: int, package: str) -> str:
    """What so many channels cost under a runtime."""
    full = -(-channels // 8) * 8
    return (
        f"{channels} output channels of a float 1x1 convolution: {package} computes them two at a time, "
        f"{COST_OF_PAIRS * channels / full:.2f} times the work of {full}."
    )


def _data(graph: Subgraph, operator: Operator) -> Tensor | None:
    return graph.input(operator, 2 if operator.name in ("TRANSPOSE_CONV", "CONV_3D_TRANSPOSE") else 0)


def _dense(graph: Subgraph, operator: Operator, kernels: CpuKernelSet, caches: Caches, dtype: DType) -> Amounts:
    """A dense layer on several rows, such as the steps of a sequence, reads its weights as often as a convolution."""
    output = graph.output(operator)
    if output is not None and output.shape and output.size > output.shape[-1]:
        return _conv(graph, operator, kernels, caches, dtype)
    return {"dense_macs": operator_macs(graph, operator)}


def _recurrent(graph: Subgraph, operator: Operator, kernels: CpuKernelSet, caches: Caches, dtype: DType) -> Amounts:
    return {"dense_macs": operator_macs(graph, operator)}


def _batch_matmul(graph: Subgraph, operator: Operator, kernels: CpuKernelSet, caches: Caches, dtype: DType) -> Amounts:
    macs = operator_macs(graph, operator)
    if dtype == "float32":
        return {"conv_macs": macs}
    return {"nonlinear_elements": _INT8_MAC * macs + _INT8_SUM * _output_elements(graph, operator)}


def _lstm(graph: Subgraph, operator: Operator, kernels: CpuKernelSet, caches: Caches, dtype: DType) -> Amounts:
    return lstm_amounts(graph, operator, dtype)


def lstm_amounts(graph: Subgraph, operator: Operator, dtype: DType) -> Amounts:
    """Products with the kernels of the gates; the gates' functions, products and sums of each cell in each step."""
    data, output = graph.input(operator, 0), graph.output(operator)
    if data is None or output is None or not output.shape:
        return {}
    cells = math.prod(data.shape[:-1]) * output.shape[-1]
    return {"dense_macs": operator_macs(graph, operator), "nonlinear_elements": _CELL[dtype] * cells}


def _depthwise(graph: Subgraph, operator: Operator, kernels: CpuKernelSet, caches: Caches, dtype: DType) -> Amounts:
    kernel, output = graph.input(operator, 1), graph.output(operator)
    if kernel is None or output is None or not output.shape or len(kernel.shape) != 4:
        return {}
    channels = output.shape[-1]
    row = _ROWS[kernels, dtype]
    if (kernels, dtype) == ("builtin", "int8") and kernel.shape[1:3] == (3, 3) and channels % _BUILTIN_3X3.at_once == 0:
        row = _BUILTIN_3X3
    return {"depthwise_macs": operator_macs(graph, operator) * row.channels(channels) / max(channels, 1)}


def _elementwise(graph: Subgraph, operator: Operator, kernels: CpuKernelSet, caches: Caches, dtype: DType) -> Amounts:
    passes = _PASSES.get((operator.name, dtype), 1)
    return {"elementwise_elements": passes * _output_elements(graph, operator)}


def _nonlinear(graph: Subgraph, operator: Operator, kernels: CpuKernelSet, caches: Caches, dtype: DType) -> Amounts:
    return {"nonlinear_elements": _output_elements(graph, operator)}


def _softmax(graph: Subgraph, operator: Operator, kernels: CpuKernelSet, caches: Caches, dtype: DType) -> Amounts:
    elements, output = _output_elements(graph, operator), graph.output(operator)
    rows = elements / max(output.shape[-1], 1) if output is not None and output.shape else 0
    return {"nonlinear_elements": elements + _SOFTMAX_ROW[dtype] * rows}


def _reduced(graph: Subgraph, operator: Operator, kernels: CpuKernelSet, caches: Caches, dtype: DType) -> Amounts:
    """Pooling reads its window for each output, a reduction each input once."""
    data = graph.input(operator, 0)
    window = operator.options.get("filter_height", 0) * operator.options.get("filter_width", 0)
    whole = float(data.size) if data is not None else 0.0
    if (
        operator.name == "MEAN"
        and (kernels, dtype) == ("builtin", "int8")
        and not _over_height_and_width(graph, operator)
    ):
        whole *= _OTHER_AXES
    return {"reduced_elements": max(whole, window * _output_elements(graph, operator))}


def _over_height_and_width(graph: Subgraph, operator: Operator) -> bool:
    data, axes = graph.input(operator, 0), constant(graph, operator, 1)
    rank = len(data.shape) if data is not None else 0
    return rank == 4 and axes is not None and sorted(axis % rank for axis in axes) == [1, 2]


def _moved(graph: Subgraph, operator: Operator, kernels: CpuKernelSet, caches: Caches, dtype: DType) -> Amounts:
    return {"moved_bytes": _activation_bytes(graph, operator)}


_KIND_AMOUNTS = {
    "conv": _conv,
    "dense": _dense,
    "batch_matmul": _batch_matmul,
    "recurrent": _recurrent,
    "softmax": _softmax,
    "lstm": _lstm,
    "depthwise": _depthwise,
    "elementwise": _elementwise,
    "nonlinear": _nonlinear,
    "reduced": _reduced,
    "moved": _moved,
}
