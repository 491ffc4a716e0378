import gzip

import numpy as np
import pytest

from edgeprune.tflite import flatbuffer, size
from edgeprune.tflite.graph import Quantization, Tensor
from edgeprune.tflite.sparse import Dimension, Sparsity


def keras_kernels(model):
    return [weights for layer in model.layers for weights in layer.get_weights() if weights.ndim > 1]


@pytest.mark.parametrize("name", ["float32", "float16", "int8", "int8-io", "dynamic", "sparse"])
def test_kernels_are_those_of_the_keras_model(artifacts, keras_model, name):
    """One kernel per layer with weights, of the layer's size, in every number format."""
    found = sorted(kernel.size for kernel in size.kernels(flatbuffer.read(artifacts[name])))
    assert found == sorted(weights.size for weights in keras_kernels(keras_model))


@pytest.mark.parametrize("name", ["float32", "float16", "sparse"])
def test_float_files_have_exactly_the_zeros_of_the_keras_model(artifacts, keras_model, name):
    """No zero is lost or made, and sparse encoding counts what it leaves out."""
    expected = sum(int((weights == 0).sum()) for weights in keras_kernels(keras_model))
    assert sum(kernel.zeros for kernel in size.kernels(flatbuffer.read(artifacts[name]))) == expected


@pytest.mark.parametrize("name", ["int8", "int8-io", "dynamic"])
def test_quantized_files_keep_the_zeros(artifacts, keras_model, name):
    """Quantization keeps every zero and rounds at most a few small weights to zero."""
    kernels = keras_kernels(keras_model)
    expected, total = sum(int((w == 0).sum()) for w in kernels), sum(w.size for w in kernels)
    found = sum(kernel.zeros for kernel in size.kernels(flatbuffer.read(artifacts[name])))
    assert expected <= found <= expected + 0.03 * total


def test_a_zero_is_the_zero_point():
    """For asymmetric weights zero is the stored zero point, also per channel; a stored 0 is not."""
    values = np.array([[3, 0, 3], [5, 3, 5]], np.uint8)

    def tensor(zero_point):
        quantization = Quantization((1.0,) * len(zero_point), zero_point, 0)
        stored = memoryview(values.tobytes())
        return Tensor(0, "w", (2, 3), (2, 3), "uint8", quantization, None, False, True, stored)

    assert size.zeros(tensor((3,))) == 3
    assert size.zeros(tensor((3, 5))) == 4


def test_different_numbers_are_counted_in_all_and_by_channel():
    """With a scale per channel, equal integers of two channels are different weights; with one scale they are not."""
    values = np.array([[1, 2, 1], [3, 4, 5]], np.int8)

    def tensor(scale):
        quantization = Quantization(scale, (0,) * len(scale), 0)
        return Tensor(0, "w", (2, 3), (2, 3), "int8", quantization, None, False, True, memoryview(values.tobytes()))

    assert size.distinct(tensor((1.0,))) == (5, 5)
    assert size.distinct(tensor((1.0, 2.0))) == (5, 3)


@pytest.mark.parametrize(("dtype", "bits"), [("int4", 4), ("int2", 2), ("uint4", 4)])
def test_packed_weights_are_unpacked(dtype, bits):
    """Weights of less than a byte come out with their values and signs, the lowest bits first."""
    low, high = (0, 2**bits - 1) if dtype.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    values = np.array([low, high, 0, 1, low], np.int64)
    packed = np.zeros(-(-len(values) * bits // 8), np.uint8)
    for index, value in enumerate(values):
        packed[index * bits // 8] |= (value & (2**bits - 1)) << (index * bits % 8)
    stored = memoryview(packed.tobytes())
    tensor = Tensor(0, "w", (5,), (5,), dtype, None, None, False, True, stored)
    assert tensor.nbytes == len(packed)
    np.testing.assert_array_equal(tensor.data(), values)


def test_parameters_are_kernels_and_biases(artifacts, keras_model):
    """Every weight of the Keras model is a parameter of the file; axes and shapes are not."""
    expected = keras_model.count_params()
    for name in ("float32", "int8", "sparse"):
        model = flatbuffer.read(artifacts[name])
        assert size.params(model) == expected
        kernels = size.kernels(model)
        zeros = sum(kernel.zeros for kernel in kernels)
        assert size.params(model) - size.nonzero_params(model) >= zeros
        assert size.weight_sparsity(kernels) == pytest.approx(zeros / sum(kernel.size for kernel in kernels))


@pytest.mark.parametrize("scales", [1, 3])
def test_sparse_weights_are_as_distinct_as_the_same_ones_dense(scales):
    """Different numbers, in all and per channel, counted from what is stored are those of the dense array."""
    dense = np.array([[1, 1, 2], [3, 0, 4], [0, 0, 0]], np.int8)
    rows = Dimension(3, None, None), Dimension(0, np.array([0, 3, 5, 5]), np.array([0, 1, 2, 0, 2]))
    stored = memoryview(np.array([1, 1, 2, 3, 4], np.int8).tobytes())
    quantization = Quantization((0.1,) * scales, (0,) * scales, 0)
    fields = (0, "w", (3, 3), (3, 3), "int8", quantization)
    sparse = Tensor(*fields, Sparsity((0, 1), (), rows), False, True, stored)
    whole = Tensor(*fields, None, False, True, memoryview(dense.tobytes()))
    assert size.distinct(sparse) == size.distinct(whole) == (5, 5 if scales == 1 else 3)


def test_gzip_size_is_repeatable(artifacts):
    """The compressed size is that of a gzip file without a time stamp, the same every time."""
    content = artifacts["float32"].read_bytes()
    assert size.gzip_bytes(content) == size.gzip_bytes(content)
    assert gzip.decompress(gzip.compress(content, 9, mtime=0)) == content
    assert size.gzip_bytes(content) < len(content)
