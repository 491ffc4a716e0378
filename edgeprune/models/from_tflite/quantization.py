"""Number formats: real values out of quantized ones, and casts."""

from __future__ import annotations

import numpy as np

from edgeprune.models.from_tflite.call import Call, Value
from edgeprune.models.from_tflite.registry import rule
from edgeprune.tflite.graph import Operator, Subgraph, Tensor

# Types that stand for real values where the tensor has scales.
_INTEGERS = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767), "int4": (-8, 7)}
_REAL = ("float16", "bfloat16", "float64")


def is_quantized(tensor: Tensor) -> bool:
    """Whether the numbers of a tensor stand for real values by a scale."""
    return tensor.quantization is not None and tensor.dtype in (*_INTEGERS, "int32", "int64", "int2", "uint4")


def bounds(tensor: Tensor) -> tuple[float, float] | None:
    """The smallest and the largest value that a quantized activation can have; None for any other tensor."""
    if not is_quantized(tensor) or tensor.dtype not in _INTEGERS or tensor.quantization is None:
        return None
    if not len(tensor.quantization.scale):
        return None
    scale, zero = np.float32(tensor.quantization.scale[0]), (*tensor.quantization.zero_point, 0)[0]
    low, high = _INTEGERS[tensor.dtype]
    return float((low - zero) * scale), float((high - zero) * scale)


def input_bounds(graph: Subgraph) -> tuple[tuple[float, float] | None, ...]:
    """Of each input of a graph, what it can hold; of floats that are quantized first of all, what that can hold."""
    readers: dict[int, list[Operator]] = {index: [] for index in graph.inputs}
    for operator in graph.operators:
        for index in {*operator.inputs} & readers.keys():
            readers[index].append(operator)
    found = []
    for index, own in readers.items():
        quantized = [operator for operator in own if operator.name == "QUANTIZE"]
        read = quantized[0].outputs[0] if len(own) == len(quantized) == 1 else index
        found.append(bounds(graph.tensors[read]))
    return tuple(found)


def real_values(tensor: Tensor) -> np.ndarray:
    """A constant as the runtime computes with it: float32 for what stands for real values, else as it is.

    Raises:
        ModelError: it cannot be read.
    """
    data = tensor.data()
    if tensor.quantization is not None and is_quantized(tensor):
        scale = _along(tensor, tensor.quantization.scale, np.float64)
        zero = _along(tensor, tensor.quantization.zero_point or (0,), np.int64)
        return ((data.astype(np.int64) - zero) * scale).astype(np.float32)
    return data.astype(np.float32) if tensor.dtype in _REAL else data


def _along(tensor: Tensor, values: tuple[float, ...], dtype: type) -> np.ndarray:
    """One value for all, or one per index along the quantized axis."""
    assert tensor.quantization is not None
    array: np.ndarray = np.asarray(values, dtype)
    if len(array) == 1 or not tensor.shape:
        return array.reshape(-1)[:1].reshape(())
    line = [1] * len(tensor.shape)
    line[tensor.quantization.axis] = len(array)
    return array.reshape(line)


@rule("DEQUANTIZE", "QUANTIZE", "DENSIFY")
def as_it_is(call: Call) -> Value:
    """Values are real already: what is stored in another format was read as what it stands for."""
    return call.value(0)


@rule("FAKE_QUANT")
def fake_quant(call: Call) -> Value:
    """Left out, as the rounding of training is in Keras files; its range comes from the samples of calibration."""
    return call.value(0)


@rule("CAST")
def cast(call: Call) -> Value:
    value, output = call.value(0), call.output()
    dtype = "float32" if is_quantized(output) or output.dtype in _REAL else output.dtype
    if value.constant is not None:
        return Value.of_constant(value.constant.astype(dtype))
    assert value.tensor is not None
    return Value(value.shape, call.emit.op("cast", value.tensor, dtype))
