"""Multiply-accumulate operations (MACs) of an operator, from the shapes in the file.

Counted are the operators that multiply activations with a kernel or with each other; elementwise arithmetic, pooling
and activation functions count as none, as usual in the field (for example in Howard et al. 2017, arXiv:1704.04861).
Multiplications by zero weights are counted, because most runtimes do not skip them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from edgeprune.tflite.graph import Operator, Subgraph, TFLiteModel

MacRule = Callable[[Subgraph, Operator], int]


def macs(model: TFLiteModel) -> int:
    """MACs of one inference of the main subgraph, without the bodies of loops and branches.

    How often those run is not in the file.
    """
    graph = model.subgraphs[0]
    return sum(operator_macs(graph, operator) for operator in graph.operators)


def operator_macs(graph: Subgraph, operator: Operator) -> int:
    """MACs of one operator; 0 for an operator without a rule, or with a missing input."""
    rule = MAC_RULES.get(operator.name)
    return rule(graph, operator) if rule else 0


def _shape(graph: Subgraph, operator: Operator, position: int) -> tuple[int, ...]:
    tensor = graph.input(operator, position)
    return tensor.shape if tensor else (0,)


def _outputs(graph: Subgraph, operator: Operator) -> int:
    tensor = graph.output(operator)
    return tensor.size if tensor else 0


def _conv(graph: Subgraph, operator: Operator) -> int:
    """Each output element takes one filter [height, width, input channels of its group]."""
    return _outputs(graph, operator) * math.prod(_shape(graph, operator, 1)[1:])


def _depthwise(graph: Subgraph, operator: Operator) -> int:
    """Each output element takes one filter [height, width]; the kernel is [1, height, width, channels]."""
    return _outputs(graph, operator) * math.prod(_shape(graph, operator, 1)[1:3])


def _conv_3d(graph: Subgraph, operator: Operator) -> int:
    """The kernel is [depth, height, width, inputs, outputs]."""
    return _outputs(graph, operator) * math.prod(_shape(graph, operator, 1)[:4])


def _conv_3d_transpose(graph: Subgraph, operator: Operator) -> int:
    """Each input element is spread over [depth, height, width, outputs]; the kernel ends with [outputs, inputs]."""
    return math.prod(_shape(graph, operator, 2)) * math.prod(_shape(graph, operator, 1)[:4])


def _fully_connected(graph: Subgraph, operator: Operator) -> int:
    return _outputs(graph, operator) * _shape(graph, operator, 1)[-1] if _shape(graph, operator, 1) else 0


def _transpose_conv(data: int) -> MacRule:
    """Each element of this input is spread over [outputs, height, width]; the kernel ends with [inputs]."""

    def rule(graph: Subgraph, operator: Operator) -> int:
        return math.prod(_shape(graph, operator, data)) * math.prod(_shape(graph, operator, 1)[:3])

    return rule


def _batch_matmul(graph: Subgraph, operator: Operator) -> int:
    left = _shape(graph, operator, 0)
    inner = -2 if operator.options.get("adj_x") else -1
    return _outputs(graph, operator) * left[inner] if len(left) >= 2 else 0


def _recurrent(*kernels: int) -> MacRule:
    """Kernels [units, inputs] at these input positions, applied once per step of every sequence."""

    def rule(graph: Subgraph, operator: Operator) -> int:
        steps = math.prod(_shape(graph, operator, 0)[:-1])
        per_step = sum(math.prod(t.shape) for k in kernels if (t := graph.input(operator, k)) is not None)
        return steps * per_step

    return rule


_LSTM_KERNELS = (1, 2, 3, 4, 5, 6, 7, 8, 16)  # input and recurrent kernels of the gates, projection

MAC_RULES: dict[str, MacRule] = {
    "BATCH_MATMUL": _batch_matmul,
    "CONV_2D": _conv,
    "CONV_3D": _conv_3d,
    "CONV_3D_TRANSPOSE": _conv_3d_transpose,
    "DEPTHWISE_CONV_2D": _depthwise,
    "Convolution2DTransposeBias": _transpose_conv(0),  # MediaPipe's
    "FULLY_CONNECTED": _fully_connected,
    "LSTM": _recurrent(*_LSTM_KERNELS),
    "RNN": _recurrent(1, 2),
    "SVDF": _recurrent(1, 2),
    "TRANSPOSE_CONV": _transpose_conv(2),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _recurrent(*_LSTM_KERNELS),
    "UNIDIRECTIONAL_SEQUENCE_RNN": _recurrent(1, 2),
}
