"""What the file alone tells of a microcontroller, beside what TensorFlow Lite Micro's interpreter does with it."""

import dataclasses
import types

import numpy as np
import pytest

from edgeprune.tflite.compact import compact
from edgeprune.tflite.decode import OPERATOR
from edgeprune.tflite.encode import encoded
from edgeprune.tflite.flatbuffer import parse, read
from edgeprune.tflite.micro import (
    estimated_arena,
    kernel_scratch,
    resolver_methods,
    unregistered,
    wrong_axes,
)


def test_methods_register_what_is_in_the_file(micro_file):
    """One method for each kind of operator, and one more where weights are encoded."""
    model = read(micro_file)
    plain = resolver_methods(model)
    assert {"AddConv2D", "AddDepthwiseConv2D", "AddTransposeConv", "AddFullyConnected", "AddSoftmax"} <= set(plain)
    assert set(resolver_methods(parse(encoded(micro_file.read_bytes()).content))) == {*plain, "AddDecode"}
    assert unregistered(model) == ()


def test_operators_that_are_not_there_are_named():
    """Names are those of the file; custom operators are looked up, too."""
    codes = [("CONV_2D", False, 1), ("STABLEHLO_ADD", False, 1), (OPERATOR, True, 1), ("FlexErf", True, 1)]
    assert unregistered(types.SimpleNamespace(operator_codes=codes)) == ("STABLEHLO_ADD", "FlexErf")


def test_scales_along_other_axes_are_found(micro_file):
    """None in a converted file; moved to the input channels, the kernel is named with the axis it should have."""
    graph = read(micro_file).subgraphs[0]
    assert list(wrong_axes(graph)) == []
    operator = next(one for one in graph.operators if one.name == "CONV_2D")
    tensor = graph.tensors[operator.inputs[1]]
    moved = dataclasses.replace(tensor, quantization=dataclasses.replace(tensor.quantization, axis=3))
    tensors = tuple(moved if one is tensor else one for one in graph.tensors)
    assert list(wrong_axes(dataclasses.replace(graph, tensors=tensors))) == [(moved, 0)]


def test_the_estimated_arena_is_the_interpreters(micro_file):
    """Activations to the byte, plain and encoded; what stays within a fifth, or 300 bytes."""
    pytest.importorskip("tflite_micro", reason="edgeprune[micro] is not installed")
    from edgeprune.runtime.micro import MicroSession

    for content in (micro_file.read_bytes(), encoded(micro_file.read_bytes()).content):
        arena = MicroSession(content).arena
        activations, persistent = estimated_arena(parse(content).subgraphs[0])
        assert activations == arena.activations
        assert persistent == pytest.approx(arena.persistent, rel=0.2, abs=300)


def test_scratch_memory_is_that_of_the_largest_operator(micro_file):
    """Four windows of 3x3 in 64 channels, rounded up to vectors of 16, are more than a block of depthwise windows."""
    graph = read(micro_file).subgraphs[0]
    windows = {op.name: graph.tensors[op.inputs[1]].shape for op in graph.operators if op.name == "TRANSPOSE_CONV"}
    assert windows == {"TRANSPOSE_CONV": (16, 3, 3, 64)}
    assert kernel_scratch(graph) == max(4 * 3 * 3 * 64, 4 * 124 * 3 * 3)


def test_a_compact_file_holds_what_is_read(micro_file):
    """Names and metadata are gone, over a twentieth of this file; operators, shapes and weights stay, and all scales
    but those of biases with one for each channel."""
    content = micro_file.read_bytes()
    made = compact(content)
    assert len(made) < 0.95 * len(content)
    before, after = parse(content).subgraphs[0], parse(made).subgraphs[0]
    assert [one.name for one in after.operators] == [one.name for one in before.operators]
    assert {one.name for one in after.tensors} == {""}
    left_out = 0
    for old, new in zip(before.tensors, after.tensors, strict=True):
        assert (old.shape, old.dtype) == (new.shape, new.dtype)
        if new.quantization != old.quantization:
            assert (new.quantization, old.dtype) == (None, "int32")
            assert len(old.quantization.scale) == old.size > 1
            left_out += 1
        np.testing.assert_array_equal(np.frombuffer(new.stored, np.uint8), np.frombuffer(old.stored, np.uint8))
    assert left_out
    assert compact(made) == made
