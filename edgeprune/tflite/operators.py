"""One row of facts per operator of a graph: shapes, number formats, MACs, and bytes read, written and stored."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from edgeprune.tflite.graph import Operator, Subgraph, Tensor
from edgeprune.tflite.macs import operator_macs
from edgeprune.tflite.size import KERNEL_INPUTS, UNPACKING, stored_source, zeros

QuantizationKind = Literal["none", "float16", "per-tensor", "per-channel"]


@dataclass(frozen=True)
class TensorFacts:
    """The facts of a tensor that an operator reads or writes."""

    shape: tuple[int, ...]
    dtype: str
    constant: bool


@dataclass(frozen=True)
class OperatorRow:
    """One operator of the main subgraph. Shapes are [batch, ...]; an optional input that is left out is None.

    Attributes:
        input_shape, output_shape, dtype: of the first input and the first output.
        read_bytes: size of all inputs at run time, weights included.
        written_bytes: size of all outputs.
        weight_bytes: size of the operator's constants in the file, also of those that DEQUANTIZE or DENSIFY unpacks
            for it; with the indices of sparse ones.
        weight_sparsity: fraction of zeros among its kernels; None when it has none.
        quantization: of its kernels, else of its output.
        estimated_ms: estimated latency on the target; None without a target, or without an estimate for it.
        reads: indices of the operators whose outputs it reads.
        on_accelerator: whether the target's accelerator runs it; None without one, or where that is not known.
    """

    index: int
    name: str
    version: int
    output_name: str
    input_shape: tuple[int, ...] | None
    output_shape: tuple[int, ...] | None
    dtype: str | None
    inputs: tuple[TensorFacts | None, ...]
    outputs: tuple[TensorFacts | None, ...]
    macs: int
    read_bytes: int
    written_bytes: int
    weight_bytes: int
    weight_sparsity: float | None
    quantization: QuantizationKind
    estimated_ms: float | None
    reads: tuple[int, ...]
    on_accelerator: bool | None


def operator_rows(
    graph: Subgraph, estimated_ms: Sequence[float] | None, mapped: Collection[int] | None = None
) -> tuple[OperatorRow, ...]:
    """A row for each operator, in the order in which they run.

    Args:
        graph: the main subgraph.
        estimated_ms: milliseconds of each operator; None when there is no estimate.
        mapped: indices of the operators that the accelerator runs; None when there is none, or that is not known.
    """
    return tuple(
        _row(
            graph,
            op,
            estimated_ms[op.index] if estimated_ms else None,
            None if mapped is None else op.index in mapped,
        )
        for op in graph.operators
    )


def _row(graph: Subgraph, operator: Operator, estimated_ms: float | None, on_accelerator: bool | None) -> OperatorRow:
    data, output = graph.input(operator, 0), graph.output(operator)
    kernels = _kernels(graph, operator)
    return OperatorRow(
        index=operator.index,
        name=operator.name,
        version=operator.version,
        output_name=output.name if output else "",
        input_shape=data.shape if data else None,
        output_shape=output.shape if output else None,
        dtype=output.dtype if output else None,
        inputs=_facts(graph, operator.inputs),
        outputs=_facts(graph, operator.outputs),
        macs=operator_macs(graph, operator),
        read_bytes=_nbytes(graph, operator.inputs),
        written_bytes=_nbytes(graph, operator.outputs),
        weight_bytes=weight_bytes(graph, operator),
        weight_sparsity=_sparsity(kernels),
        quantization=_quantization(kernels[0] if kernels else output),
        estimated_ms=estimated_ms,
        reads=tuple(sorted({graph.producers[i].index for i in operator.inputs if i in graph.producers})),
        on_accelerator=on_accelerator,
    )


def weight_bytes(graph: Subgraph, operator: Operator) -> int:
    """Bytes in the file of the constants that an operator uses, each counted once."""
    if operator.name in UNPACKING:  # its constant is counted at the operator that reads the unpacked tensor
        return 0
    sources = [stored_source(graph, graph.input(operator, position)) for position in range(len(operator.inputs))]
    stored = {tensor.index: tensor for tensor in sources if tensor is not None}
    return sum(len(t.stored) + (t.sparsity.nbytes if t.sparsity else 0) for t in stored.values())


def _kernels(graph: Subgraph, operator: Operator) -> list[Tensor]:
    positions = KERNEL_INPUTS.get(operator.name, ())
    sources = [stored_source(graph, graph.input(operator, position)) for position in positions]
    return [tensor for tensor in sources if tensor is not None and tensor.is_numeric]


def _sparsity(kernels: Sequence[Tensor]) -> float | None:
    size = sum(tensor.size for tensor in kernels)
    return sum(map(zeros, kernels)) / size if size else None


def _quantization(tensor: Tensor | None) -> QuantizationKind:
    if tensor is None or tensor.quantization is None:
        return "float16" if tensor is not None and tensor.dtype == "float16" else "none"
    return "per-channel" if len(tensor.quantization.scale) > 1 else "per-tensor"


def _facts(graph: Subgraph, indices: Sequence[int]) -> tuple[TensorFacts | None, ...]:
    tensors = [graph.tensors[index] if index >= 0 else None for index in indices]
    return tuple(None if t is None else TensorFacts(t.shape, t.dtype, t.constant) for t in tensors)


def _nbytes(graph: Subgraph, indices: Sequence[int]) -> int:
    return sum(graph.tensors[index].nbytes for index in set(indices) if index >= 0)
