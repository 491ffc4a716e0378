"""Warnings about a converted file: what the recipe does not let one expect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeprune.models.naming import layer_of
from edgeprune.quantize.plan import RULES, QuantizationPlan
from edgeprune.tflite.flatbuffer import parse

if TYPE_CHECKING:
    import tf_keras

    from edgeprune.tflite.graph import Operator, Subgraph

SELECT_PREFIX = "Flex"
# These move between formats, or do not compute with values.
_BORDERS = ("QUANTIZE", "DEQUANTIZE", "CAST", "SHAPE")


def select_operators(content: bytes) -> list[str]:
    """Operators of full TensorFlow in a file, each once."""
    operators = parse(content).subgraphs[0].operators
    return sorted({op.name.removeprefix(SELECT_PREFIX) for op in operators if op.custom and op.name.startswith("Flex")})


def float_operators(content: bytes) -> list[tuple[str, str]]:
    """(operator, name of its output) of what computes in float."""
    graph = parse(content).subgraphs[0]
    return [(op.name, graph.output(op).name) for op in graph.operators if _is_float(graph, op)]  # type: ignore[union-attr]


def conversion_warnings(content: bytes, plan: QuantizationPlan, model: tf_keras.Model) -> list[str]:
    """Warnings about a file: operators of full TensorFlow, and float operators in a file that should have none."""
    warnings = []
    if select := select_operators(content):
        warnings.append(
            f"Needs operators of full TensorFlow ({', '.join(select)}): runs only where the runtime has select TF ops."
        )
    if RULES[plan.mode].samples and plan.mode != "mixed" and (operators := float_operators(content)):
        warnings.append(
            f"Computes partly in float, because TensorFlow Lite has no integer kernel for: {_listed(operators, model)}."
        )
    return warnings


def _listed(operators: Sequence[tuple[str, str]], model: tf_keras.Model) -> str:
    rows = []
    for operator, tensor in operators:
        layer = layer_of(tensor, model)
        rows.append(f"{operator} ({layer})" if layer else operator)
    return ", ".join(dict.fromkeys(rows))


def _is_float(graph: Subgraph, operator: Operator) -> bool:
    output = graph.output(operator)
    return operator.name not in _BORDERS and output is not None and output.dtype == "float32"
