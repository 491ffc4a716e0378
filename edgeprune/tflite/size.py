"""The size of a .tflite: bytes, compressed bytes, parameters, and zeros among its kernels.

A kernel is here what it is in Keras: the weight tensor of an operator.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeprune.tflite.graph import Subgraph, Tensor, TFLiteModel

# Operator → the input positions of its kernels. Biases, batch-norm factors, slopes and shapes are not kernels.
KERNEL_INPUTS: dict[str, tuple[int, ...]] = {
    "BATCH_MATMUL": (0, 1),
    "CONV_2D": (1,),
    "CONV_3D": (1,),
    "CONV_3D_TRANSPOSE": (1,),
    "Convolution2DTransposeBias": (1,),
    "DEPTHWISE_CONV_2D": (1,),
    "EMBEDDING_LOOKUP": (1,),
    "FULLY_CONNECTED": (1,),
    "GATHER": (0,),
    "LSTM": (1, 2, 3, 4, 5, 6, 7, 8),
    "RNN": (1, 2),
    "SVDF": (1, 2),
    "TRANSPOSE_CONV": (1,),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (1, 2, 3, 4, 5, 6, 7, 8),
    "UNIDIRECTIONAL_SEQUENCE_RNN": (1, 2),
}
# Operators between a stored kernel and the operator that uses it, when the kernel is stored as float16 or sparse.
UNPACKING = ("DEQUANTIZE", "DENSIFY")
QUICK_GZIP = 4
_LEARNED_TYPES = ("float64", "float32", "float16", "bfloat16", "int4", "int2", "uint4")


@dataclass(frozen=True)
class StoredKernel:
    """The weight tensor of one operator, as stored in the file.

    Attributes:
        operator: the name of the operator, such as 'CONV_2D'.
        size: number of weights, zeros included.
        zeros: number of weights whose real value is zero.
        stored_bytes: bytes in the file; for a sparse tensor with its indices.
        distinct: number of different stored values. With one scale per channel, the same real value can be stored as a
            different integer in each channel.
        channel_distinct: the largest number of different values in one output channel; equal to ``distinct`` when the
            kernel has one scale or none.
    """

    operator: str
    tensor_name: str
    shape: tuple[int, ...]
    size: int
    zeros: int
    stored_bytes: int
    stored_sparse: bool
    distinct: int
    channel_distinct: int

    @property
    def sparsity(self) -> float:
        """Fraction of zeros, in [0, 1]."""
        return self.zeros / self.size if self.size else 0.0


def gzip_bytes(content: bytes, level: int = 9) -> int:
    """Size after gzip; the result depends on nothing but the content and the level.

    Level 9 takes a second per megabyte of pruned weights; :data:`QUICK_GZIP` takes a thirtieth of that, for at most a
    tenth more bytes.
    """
    return len(gzip.compress(content, compresslevel=level, mtime=0))


def zstd_bytes(content: bytes) -> int:
    """Size after zstd at level 19."""
    import zstandard

    return len(zstandard.ZstdCompressor(level=19).compress(content))


def kernels(model: TFLiteModel) -> list[StoredKernel]:
    """The kernels of all subgraphs, each stored tensor once, in the order in which operators use them."""
    by_tensor: dict[tuple[int, int], StoredKernel] = {}
    for number, graph in enumerate(model.subgraphs):
        for operator in graph.operators:
            for position in KERNEL_INPUTS.get(operator.name, ()):
                tensor = stored_source(graph, graph.input(operator, position))
                if tensor is not None and len(tensor.shape) > 1 and _is_parameter(tensor):
                    by_tensor.setdefault((number, tensor.index), _kernel(operator.name, tensor))
    return list(by_tensor.values())


def _kernel(operator: str, tensor: Tensor) -> StoredKernel:
    indices = tensor.sparsity.nbytes if tensor.sparsity else 0
    stored = len(tensor.stored) + indices
    return StoredKernel(
        operator,
        tensor.name,
        tensor.shape,
        tensor.size,
        zeros(tensor),
        stored,
        bool(tensor.sparsity),
        *distinct(tensor),
    )


def stored_source(graph: Subgraph, tensor: Tensor | None) -> Tensor | None:
    """The constant that a tensor is, or is unpacked from; None when the tensor depends on the model's input."""
    seen: set[int] = set()
    while tensor is not None and not tensor.constant:
        producer = graph.producers.get(tensor.index)
        if producer is None or producer.name not in UNPACKING or tensor.index in seen:
            return None
        seen.add(tensor.index)
        tensor = graph.input(producer, 0)
    return tensor


def params(model: TFLiteModel) -> int:
    """Number of parameters: elements of all float and quantized constants, biases included."""
    return sum(tensor.size for tensor in _parameters(model))


def nonzero_params(model: TFLiteModel) -> int:
    """Number of parameters whose real value is not zero."""
    return sum(tensor.size - zeros(tensor) for tensor in _parameters(model))


def weight_sparsity(table: Sequence[StoredKernel]) -> float | None:
    """Fraction of zeros among all weights of :func:`kernels`, in [0, 1]; None when there are no kernels."""
    size = sum(kernel.size for kernel in table)
    return sum(kernel.zeros for kernel in table) / size if size else None


def zeros(tensor: Tensor) -> int:
    """Number of elements of a constant whose real value is zero; for a quantized one, those at the zero point.

    Elements that the encoding of a sparse tensor leaves out are zero; of a compressed one, none is known to be.
    """
    if tensor.is_short:
        return 0
    values = tensor.values()
    quantization = tensor.quantization
    if quantization is None or len(quantization.zero_point) == 0:
        return tensor.size - int(np.count_nonzero(values))
    points = np.asarray(quantization.zero_point, np.int64)
    if (points == points[0]).all():
        return tensor.size - int(np.count_nonzero(values != points[0]))
    shape = [1] * len(tensor.shape)
    shape[quantization.axis] = len(points)
    return int(np.count_nonzero(tensor.data() == points.reshape(shape)))


def distinct(tensor: Tensor) -> tuple[int, int]:
    """Number of different stored values of a constant: in all, and the largest in one channel.

    Channels are indices along the axis of the scales; with one scale or none, both numbers are the same. Of a
    compressed tensor, every value counts as different, as none is known.
    """
    if tensor.is_short:
        return tensor.size, tensor.size
    quantization = tensor.quantization
    axis = quantization.axis if quantization is not None and len(quantization.scale) > 1 else None
    if tensor.sparsity is not None:
        return _distinct_stored(tensor, axis)
    values = tensor.data()
    total = len(np.unique(values))
    if axis is None:
        return total, total
    return total, max(len(np.unique(part)) for part in np.moveaxis(values, axis, 0))


def _distinct_stored(tensor: Tensor, axis: int | None) -> tuple[int, int]:
    """:func:`distinct` of a sparse tensor, without making it dense: a small file could fill the memory then."""
    assert tensor.sparsity is not None
    values, size = tensor.values(), tensor.size
    channel, nodes = tensor.sparsity.channels(tensor.shape, len(values), axis or 0)
    total = _with_zero(values[nodes], size)
    if axis is None:
        return total, total
    order = np.argsort(channel, kind="stable")
    starts = np.flatnonzero(np.diff(channel[order])) + 1
    parts = np.split(values[nodes[order]], starts)
    return total, max(1, *(_with_zero(part, size // tensor.shape[axis]) for part in parts))


def _with_zero(stored: np.ndarray, size: int) -> int:
    """Number of different values among ``size`` elements, of which those not stored are zero."""
    values = np.unique(stored)
    return len(values) + (len(stored) < size and 0 not in values)


def _parameters(model: TFLiteModel) -> list[Tensor]:
    return [
        tensor for graph in model.subgraphs for tensor in graph.tensors if tensor.constant and _is_parameter(tensor)
    ]


def _is_parameter(tensor: Tensor) -> bool:
    # Constants that are not learned (shapes, axes, paddings) are integers without a scale.
    return tensor.is_numeric and (tensor.dtype in _LEARNED_TYPES or tensor.quantization is not None)
