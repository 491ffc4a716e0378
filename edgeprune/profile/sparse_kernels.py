"""Which 1x1 convolutions XNNPACK computes with sparse kernels.

XNNPACK's rules (``src/subgraph.c``): the graph is one float32 cluster from a 3x3 stem with stride 2 on 3 channels,
padded by one on each side, through pointwise and depthwise convolutions to a global average pooling; more than two
thirds of all pointwise weights are zero; the weights are stored sparse.
"""

from __future__ import annotations

from collections.abc import Callable

from edgeprune.profile.graph import Operator, Subgraph
from edgeprune.profile.size import stored_source, zeros
from edgeprune.profile.versions import parse_version
from edgeprune.target import Runtime

MIN_SPARSITY = 2 / 3
# The oldest release that was seen to run sparse kernels, by package. tflite-runtime 2.14.0 does not; instructions were
# counted with ai-edge-litert 2.1.6 on an emulated Cortex-A72.
SINCE: dict[str, tuple[int, ...]] = {"ai-edge-litert": (2, 1), "litert": (2, 1)}
# Instructions for one weight that is not zero, over those for one multiply-accumulate of the dense kernel: MobileNetV1
# 1.0/224 takes 192.9 million instructions dense, 139.8, 100.4 and 60.9 with 70, 80 and 90 % of zeros, a line of slope
# 394 million per unit of density beside 171 million for the dense products.
COST_OF_NONZERO = 2.3

_ELEMENTWISE = {"ADD", "MUL", "HARD_SWISH", "LOGISTIC", "RELU", "RELU6", "LEAKY_RELU", "ABS", "NEG", "RESIZE_BILINEAR"}
_AROUND = {"PAD", "DENSIFY", "DEQUANTIZE", "RESHAPE", "SQUEEZE"}


def sparse_operators(graph: Subgraph, runtime: Runtime) -> dict[int, float]:
    """Index of each convolution that runs sparse, to the fraction of its weights that is not zero; none: all dense."""
    oldest = SINCE.get(runtime.package)
    if oldest is None or parse_version(runtime.version) < oldest:
        return {}
    pointwise = {op.index: op for op in graph.operators if _is_pointwise(graph, op)}
    stored = {index: stored_source(graph, graph.input(op, 1)) for index, op in pointwise.items()}
    if not any(tensor is not None and tensor.sparsity is not None for tensor in stored.values()):
        return {}
    if not _qualifies(graph):
        return {}
    counts = {index: (zeros(tensor), tensor.size) for index, tensor in stored.items() if tensor is not None}
    if sum(zero for zero, _ in counts.values()) <= MIN_SPARSITY * sum(size for _, size in counts.values()):
        return {}
    return {index: 1 - zero / size for index, (zero, size) in counts.items()}


def _qualifies(graph: Subgraph) -> bool:
    """Whether the operators up to the global pooling follow the rules, in the order in which they run."""
    seen_stem = False
    for operator in graph.operators:
        if operator.name == "MEAN":
            return seen_stem
        if operator.name in _AROUND or (seen_stem and operator.name in _ELEMENTWISE):
            continue
        rule = _RULES.get(operator.name)
        if rule is None or not _is_float(graph, operator) or not rule(graph, operator, seen_stem):
            return False
        seen_stem = True
    return False


def _conv(graph: Subgraph, operator: Operator, seen_stem: bool) -> bool:
    return _is_pointwise(graph, operator) if seen_stem else _is_stem(graph, operator)


def _is_stem(graph: Subgraph, operator: Operator) -> bool:
    kernel, options = graph.input(operator, 1), operator.options
    strides = (options.get("stride_h"), options.get("stride_w"))
    return (
        kernel is not None and kernel.shape[1:] == (3, 3, 3) and strides == (2, 2) and _padded_by(graph, operator) == 1
    )


def _is_pointwise(graph: Subgraph, operator: Operator) -> bool:
    kernel, data, options = graph.input(operator, 1), graph.input(operator, 0), operator.options
    return (
        operator.name == "CONV_2D"
        and kernel is not None
        and data is not None
        and kernel.shape[1:3] == (1, 1)
        and kernel.shape[-1] == data.shape[-1]
        and (options.get("stride_h", 1), options.get("stride_w", 1)) == (1, 1)
    )


def _depthwise(graph: Subgraph, operator: Operator, seen_stem: bool) -> bool:
    kernel, options = graph.input(operator, 1), operator.options
    if kernel is None or kernel.shape[1:3] not in ((3, 3), (5, 5)) or not seen_stem:
        return False
    stride = (options.get("stride_h"), options.get("stride_w"))
    return stride in ((1, 1), (2, 2)) and _padded_by(graph, operator) == kernel.shape[1] // 2


def _padded_by(graph: Subgraph, operator: Operator) -> int | None:
    """Rows that are added on every side; None where the sides differ or the padding is unknown."""
    data, kernel = graph.input(operator, 0), graph.input(operator, 1)
    if data is None or kernel is None or len(data.shape) != 4 or len(kernel.shape) != 4:
        return None
    stride = operator.options.get("stride_h", 1)
    if operator.options.get("padding") == "SAME":
        total = max((-(-data.shape[1] // stride) - 1) * stride + kernel.shape[1] - data.shape[1], 0)
        return total // 2 if total % 2 == 0 else None
    producer = graph.producers.get(data.index)
    sides = graph.input(producer, 1) if producer is not None and producer.name == "PAD" else None
    if sides is None or not sides.constant:
        return 0
    around = set(sides.data()[1:3].reshape(-1).tolist())
    return around.pop() if len(around) == 1 else None


def _is_float(graph: Subgraph, operator: Operator) -> bool:
    output = graph.output(operator)
    return output is not None and output.dtype == "float32"


_RULES: dict[str, Callable[[Subgraph, Operator, bool], bool]] = {"CONV_2D": _conv, "DEPTHWISE_CONV_2D": _depthwise}
