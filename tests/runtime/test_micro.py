import sys

import numpy as np
import pytest

from edgeprune.errors import MissingError, ModelError, UsageError
from edgeprune.runtime import micro
from edgeprune.runtime.micro import MicroSession
from edgeprune.tflite import decode
from edgeprune.tflite.encode import encoded
from edgeprune.tflite.flatbuffer import parse

pytest.importorskip("tflite_micro", reason="edgeprune[micro] is not installed")


def samples(*shape):
    return np.random.default_rng(0).integers(-128, 128, shape).astype(np.int8)


def test_encoded_weights_give_the_outputs_of_plain_ones(micro_file):
    """TensorFlow Lite Micro decodes all three codes, and a layer that is used twice: every output is the same."""
    encoding = encoded(micro_file.read_bytes())
    assert {one.code for one in encoding.tensors} >= {"pruned", "lut", "huffman"}
    plain, coded = MicroSession(micro_file), MicroSession(encoding.content)
    batch = [samples(50, 8, 8, 3)]
    expected, found = plain.run(batch)[0], coded.run(batch)[0]
    assert expected.shape == (50, 64)
    assert len(np.unique(expected, axis=0)) > 1
    np.testing.assert_array_equal(found, expected)


def test_a_published_file(shared_models):
    """ResNet8 of MLPerf Tiny, whose weights are dense: little is saved, and outputs are the same."""
    path = next(path for path in shared_models if path.name == "mlperf_tiny_resnet8_int8_reference.tflite")
    encoding = encoded(path.read_bytes())
    assert encoding.bytes < encoding.plain_bytes
    batch = [samples(5, 32, 32, 3)]
    plain, coded = MicroSession(path), MicroSession(encoding.content)
    np.testing.assert_array_equal(coded.run(batch)[0], plain.run(batch)[0])


def test_the_arena(micro_file):
    """Decoded weights take memory only with the operator that uses them; what is planned holds at least a layer."""
    plain, coded = MicroSession(micro_file).arena, MicroSession(encoded(micro_file.read_bytes()).content).arena
    for arena in (plain, coded):
        assert arena.bytes == arena.activations + arena.persistent
    assert plain.activations >= 16 * 16 * (16 + 32)
    assert plain.activations <= coded.activations < plain.activations + micro_file.stat().st_size / 2
    assert MicroSession(micro_file).arena == plain


def test_inputs_of_other_shapes_are_refused(micro_file):
    """A batch that is not of the file's shape and type is an error with what is expected."""
    session = MicroSession(micro_file)
    for batch in ([samples(2, 8, 8, 1)], [samples(2, 8, 8, 3).astype(np.float32)], [samples(0, 8, 8, 3)], []):
        with pytest.raises(UsageError, match=r"\(8, 8, 3\), 'int8'"):
            session.run(batch)


def test_damaged_weights_do_not_reach_the_interpreter(micro_file):
    """A flipped version in ancillary data is a message of edgeprune's reader."""
    content = encoded(micro_file.read_bytes()).content
    graph = parse(content).subgraphs[0]
    operator = next(one for one in graph.operators if one.name == decode.OPERATOR)
    ancillary = bytes(graph.tensors[operator.inputs[1]].stored)
    damaged = content.replace(ancillary, ancillary[:1] + b"\x09" + ancillary[2:])
    assert damaged != content
    with pytest.raises(ModelError, match="versions 9 and 1"):
        MicroSession(damaged)


def test_what_the_interpreter_refuses(micro_file):
    """A file with an operator that the interpreter does not register is an error with its words."""
    content = encoded(micro_file.read_bytes()).content
    with pytest.raises(ModelError, match="Failed to get registration from op code CUSTOM"):
        MicroSession(content.replace(b"TFLM_DECODE", b"TFLM_DECODX"))


def test_a_missing_package_names_the_extra(monkeypatch):
    """Without tflite-micro the error says how to install it."""
    monkeypatch.setitem(sys.modules, "tflite_micro", None)
    with pytest.raises(MissingError, match=r"edgeprune\[micro\]"):
        micro._package()
