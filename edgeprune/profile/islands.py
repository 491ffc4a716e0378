"""Operators of a quantized file that still compute in float."""

from __future__ import annotations

from edgeprune.profile.graph import TFLiteModel

# These stand between the formats, and cost little.
_BORDERS = ("QUANTIZE", "DEQUANTIZE")


def float_operators(model: TFLiteModel) -> list[str]:
    """Names of the operators with a float result, in order; those that only change the number format are left out."""
    return [
        operator.name
        for graph in model.subgraphs
        for operator in graph.operators
        if operator.name not in _BORDERS
        and any(graph.tensors[index].dtype == "float32" for index in operator.outputs if index >= 0)
    ]


def float_warning(model: TFLiteModel) -> str | None:
    """What to say about them in a report; None if there are none."""
    names = float_operators(model)
    if not names:
        return None
    counted = ", ".join(f"{names.count(name)} {name}" for name in sorted(set(names)))
    return f"{len(names)} operators stay in float32, between int8 ones: {counted}."
