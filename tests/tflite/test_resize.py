"""Files with other sizes."""

import dataclasses

import numpy as np
import pytest

from edgeprune.runtime.interpreter import find_runtime
from edgeprune.tflite.flatbuffer import parse
from edgeprune.tflite.resize import resized


@pytest.fixture(scope="module")
def content():
    """A full-integer file with a convolution of 8 channels, flattened before a dense layer."""
    import tf_keras

    from edgeprune.tradeoff import converted

    layers = tf_keras.layers
    inputs = layers.Input((4, 4, 3), batch_size=1)
    x = layers.Flatten()(layers.Conv2D(8, 3, padding="same", activation="relu", name="conv")(inputs))
    return converted(tf_keras.Model(inputs, layers.Dense(5)(x)), "int8", "int8")


def _narrower(graph):
    """The sizes with 6 channels in the place of 8."""
    changed = {8: 6, 128: 96}
    tensors = [
        dataclasses.replace(tensor, shape=tuple(changed.get(size, size) for size in tensor.shape))
        for tensor in graph.tensors
    ]
    return dataclasses.replace(graph, tensors=tuple(tensors))


def test_a_runtime_runs_the_file(content):
    """All tensors have the sizes asked for, constants too, and an interpreter that checks them computes outputs."""
    wanted = _narrower(parse(content).subgraphs[0])
    made = resized(content, wanted)
    tensors = parse(made).subgraphs[0].tensors
    assert [tensor.shape for tensor in tensors] == [tensor.shape for tensor in wanted.tensors]
    assert all(len(tensor.stored) == tensor.nbytes for tensor in tensors if tensor.constant)
    interpreter = find_runtime().interpreter(made)
    interpreter.invoke()
    (output,) = interpreter.get_output_details()
    assert interpreter.get_tensor(output["index"]).shape == (1, 5)


def test_weights_cannot_be_compressed(content):
    """Kernels hold all 255 integers alike, so that a compiler finds nothing to leave out; scales stay."""
    graph = parse(content).subgraphs[0]
    before, after = graph.tensors, parse(resized(content, graph)).subgraphs[0].tensors
    kernel = max((tensor for tensor in after if tensor.dtype == "int8" and tensor.constant), key=lambda one: one.size)
    values = np.frombuffer(kernel.stored, np.int8)
    assert len(np.unique(values)) > 200
    assert abs(values.mean()) < 10
    assert [one.quantization for one in after] == [one.quantization for one in before]
