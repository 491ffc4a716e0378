"""Whether XNNPACK will run a .tflite with its sparse kernels: the file's operators as nodes, and the verdict.

The rules are those of :mod:`edgeprune.hardware.xnnpack.sparse_inference`. In addition, weights must be stored sparse
(only then the delegate asks XNNPACK for sparse inference, ``xnnpack_delegate.cc``), and more than two thirds of the
weights of the 1x1 convolutions must be zero.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from edgeprune.hardware.xnnpack.sparse_inference import (
    MIN_ZEROS,
    Analysis,
    Kind,
    Node,
    Padding,
    Problem,
    analyse,
    same_padding,
)
from edgeprune.target import BoardRuntime
from edgeprune.tflite.graph import Operator, Subgraph, Tensor, TFLiteModel
from edgeprune.tflite.size import UNPACKING, stored_source, zeros

# Releases that were tried, by counting the instructions of a MobileNetV1 on an emulated Cortex-A72: sparse inference is
# off in the last tflite-runtime, and on in this release of its successor. Which release was the first is not known.
LAST_KNOWN_OFF = {"tflite-runtime": (2, 14, 0), "tensorflow-lite": (2, 14, 0), "tensorflow": (2, 14, 0)}
FIRST_KNOWN_ON = {"ai-edge-litert": (2, 1, 6), "litert": (2, 1, 6)}


@dataclasses.dataclass(frozen=True)
class SparsePath:
    """Whether a file will run with sparse kernels on an ARM processor.

    Attributes:
        expected: whether XNNPACK will switch to sparse kernels, given a runtime whose XNNPACK can.
        reasons: why not; empty when it is expected.
        zero_share: fraction of zeros among the weights of the 1x1 convolutions of the cluster, in [0, 1].
        kernels: names of the weight tensors that sparse kernels will use.
        warnings: what may keep the runtime from doing so.
    """

    expected: bool
    reasons: tuple[str, ...]
    zero_share: float
    kernels: tuple[str, ...]
    warnings: tuple[str, ...]


def sparse_path(model: TFLiteModel, runtime: BoardRuntime | None = None) -> SparsePath | None:
    """Whether a file will run with sparse kernels; None when none of its weights is stored sparse.

    Args:
        model: the file.
        runtime: of the target, to warn when it is too old; None for no such warning.
    """
    graph = model.subgraphs[0]
    if not any(tensor.sparsity for tensor in graph.tensors):
        return None
    analysis = analyse_file(model)
    reasons = [problem.what for problem in analysis.missing]
    reasons += [f"{v.node.name} {v.problem.what}" for v in analysis.verdicts if v.problem]
    if not reasons and analysis.zero_share <= MIN_ZEROS:
        reasons = [f"only {analysis.zero_share:.1%} of the 1x1 weights are zero, not more than two thirds"]
    expected = not reasons
    warnings = [*_runtime_warnings(runtime), *_dense_warnings(analysis)] if expected else []
    kernels = _kernels(graph, analysis.pointwise) if expected else ()
    return SparsePath(expected, tuple(reasons), analysis.zero_share, kernels, tuple(warnings))


def analyse_file(model: TFLiteModel) -> Analysis:
    """The role of each operator of the main subgraph in sparse inference, and what prevents it."""
    return analyse_graph(model.subgraphs[0])


def analyse_graph(graph: Subgraph) -> Analysis:
    """The role of each operator of a subgraph in sparse inference, and what prevents it."""
    nodes = [_node(graph, operator) for operator in graph.operators if operator.name not in UNPACKING]
    return analyse(nodes, graph.outputs)


def sparse_operators(graph: Subgraph, runtime: BoardRuntime) -> dict[int, float]:
    """Index of each convolution that is expected to run sparse → the fraction of its weights that is not zero.

    Empty when all are expected to run dense, also because it is not known that the runtime has sparse inference.
    """
    if runtime_problem(runtime) or not any(tensor.sparsity for tensor in graph.tensors):
        return {}
    analysis = analyse_graph(graph)
    if not analysis.qualifies or analysis.zero_share <= MIN_ZEROS:
        return {}
    index = {_name(operator): operator.index for operator in graph.operators}
    return {index[node.name]: 1 - node.zeros / node.weights for node in analysis.pointwise}


def runtime_problem(runtime: BoardRuntime) -> Problem | None:
    """Why a runtime may not use sparse kernels; None when it is known to use them."""
    from edgeprune.tflite.versions import format_version, parse_version

    package, version = runtime.package, parse_version(runtime.version)
    fix = "ai-edge-litert 2.1.6 is known to do so: install that or a later release on the device"
    if package in LAST_KNOWN_OFF and version <= LAST_KNOWN_OFF[package]:
        return Problem("runtime_off", f"{package} {runtime.version} never uses sparse kernels", fix)
    if package not in FIRST_KNOWN_ON or version < FIRST_KNOWN_ON[package]:
        what = f"It is not known whether {package} {format_version(version)} uses sparse kernels"
        return Problem("runtime_unknown", what, fix)
    return None


def _runtime_warnings(runtime: BoardRuntime | None) -> list[str]:
    problem = runtime_problem(runtime) if runtime else None
    return [f"This file is built for sparse inference. {problem.what}; {problem.fix}."] if problem else []


def _dense_warnings(analysis: Analysis) -> list[str]:
    share = analysis.zero_share_with_dense
    if share > MIN_ZEROS:
        return []
    return [
        "Newer releases of XNNPACK also count the weights of the dense layer behind the pooling. With it, only "
        f"{share:.1%} of the weights are zero; they need more than two thirds, and would use dense kernels. Raise the "
        "sparsity."
    ]


def _kernels(graph: Subgraph, nodes: Sequence[Node]) -> tuple[str, ...]:
    """Names of the tensors that hold the weights of some operators."""
    operators = {_name(operator): operator for operator in graph.operators}
    sources = [stored_source(graph, graph.input(operators[node.name], 1)) for node in nodes]
    return tuple(source.name if source else "" for source in sources)


# -- an operator as a node ---------------------------------------------------------------------------------------------

_KINDS: dict[str, Kind] = {
    "CONV_2D": "convolution",
    "DEPTHWISE_CONV_2D": "depthwise",
    "PAD": "padding",
    "RESIZE_BILINEAR": "resize",
    "DEPTH_TO_SPACE": "depth_to_space",
    "FULLY_CONNECTED": "dense",
    "MEAN": "mean",
    **dict.fromkeys(
        (
            "ADD", "MUL", "ABS", "CEIL", "ELU", "EXP", "FLOOR", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOGISTIC", "NEG",
            "RELU", "RELU6", "RELU_N1_TO_1", "ROUND", "RSQRT", "SQRT", "SQUARE", "TANH",
        ),
        "elementwise",
    ),
}  # fmt: skip


def _name(operator: Operator) -> str:
    return f"{operator.index} {operator.name}"


def _node(graph: Subgraph, operator: Operator) -> Node:
    output = graph.output(operator)
    tensors = [graph.tensors[index] for index in operator.inputs if index >= 0]
    inputs = tuple(t.index for t in tensors if stored_source(graph, t) is None and (t.nbytes or not t.constant))
    node = Node(
        _name(operator),
        operator.name,
        _KINDS.get(operator.name, "other"),
        inputs,
        tuple(index for index in operator.outputs if index >= 0),
        rank=len(output.shape) if output else 0,
        dtype=output.dtype if output else "",
    )
    details = _DETAILS.get(operator.name)
    return dataclasses.replace(node, **details(graph, operator)) if details else node


def _kernel(graph: Subgraph, operator: Operator) -> dict[str, Any]:
    data, weights = graph.input(operator, 0), stored_source(graph, graph.input(operator, 1))
    if data is None or weights is None or len(weights.shape) != 4 or len(data.shape) != 4:
        return {"kind": "other"}
    options = operator.options
    kernel, strides = weights.shape[1:3], (options.get("stride_h", 0), options.get("stride_w", 0))
    dilation = (options.get("dilation_h_factor", 1), options.get("dilation_w_factor", 1))
    same = options.get("padding", "SAME") == "SAME"
    padding: Padding = same_padding(kernel, strides, dilation) if same else (0, 0, 0, 0)
    fused = options.get("fused_activation_function", "NONE")
    return {
        "kernel": kernel,
        "strides": strides,
        "dilation": dilation,
        "padding": padding,
        "channels": data.shape[3],
        "weights": weights.size,
        "zeros": zeros(weights),
        "dtype": weights.dtype if weights.dtype != "float32" else data.dtype,
        "activation": str(fused) if fused not in ("NONE", "RELU", "RELU6", "RELU_N1_TO_1") else "",
    }


def _convolution(graph: Subgraph, operator: Operator) -> dict[str, Any]:
    fields, weights = _kernel(graph, operator), stored_source(graph, graph.input(operator, 1))
    if weights is not None and "channels" in fields:
        fields["groups"] = fields["channels"] // max(weights.shape[3], 1)
    return fields


def _depthwise(graph: Subgraph, operator: Operator) -> dict[str, Any]:
    return {**_kernel(graph, operator), "multiplier": operator.options.get("depth_multiplier", 0)}


def _padding(graph: Subgraph, operator: Operator) -> dict[str, Any]:
    table = graph.input(operator, 1)
    if table is None or not table.constant or table.is_short or table.shape != (4, 2):
        return {"kind": "other"}
    batch, height, width, channels = table.data().tolist()
    if any(batch) or any(channels):
        return {"kind": "other"}
    return {"padding": (*height, *width)}


def _mean(graph: Subgraph, operator: Operator) -> dict[str, Any]:
    data, axes = graph.input(operator, 0), graph.input(operator, 1)
    return {} if data is not None and len(data.shape) == 4 and _axes(axes) == {1, 2} else {"kind": "other"}


def _axes(tensor: Tensor | None) -> set[int]:
    if tensor is None or not tensor.constant or tensor.is_short:
        return set()
    return {int(axis) % 4 for axis in tensor.data().ravel()}


def _dense(graph: Subgraph, operator: Operator) -> dict[str, Any]:
    weights = stored_source(graph, graph.input(operator, 1))
    return {"weights": weights.size, "zeros": zeros(weights)} if weights is not None else {}


# Operator → its fields of Node beyond those of every operator.
_DETAILS: dict[str, Callable[[Subgraph, Operator], dict[str, Any]]] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _dense,
    "MEAN": _mean,
    "PAD": _padding,
}
