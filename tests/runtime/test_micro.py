import sys

import numpy as np
import pytest
from matrix import representatives

from edgeprune.errors import MissingError, ModelError, UsageError
from edgeprune.runtime import micro
from edgeprune.runtime.micro import FloatMicroSession, MicroSession, footprint
from edgeprune.tflite import decode
from edgeprune.tflite.compact import compact
from edgeprune.tflite.encode import encoded
from edgeprune.tflite.flatbuffer import parse, read

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


def test_what_is_flashed_runs_on_float_samples(micro_file):
    """Encoded and without names, spread over processes: outputs are those of the plain file on quantized samples."""
    content = micro_file.read_bytes()
    plain = parse(content)
    given, made = (
        plain.subgraphs[0].tensors[one[0]] for one in (plain.subgraphs[0].inputs, plain.subgraphs[0].outputs)
    )
    batch = np.random.default_rng(0).random((9, 8, 8, 3), np.float32)
    scale, zero = given.quantization.scale[0], given.quantization.zero_point[0]
    quantized = np.clip(np.round(batch / scale) + zero, -128, 127).astype(np.int8)
    expected = MicroSession(micro_file).run([quantized])[0].astype(np.float32)
    expected = (expected - made.quantization.zero_point[0]) * made.quantization.scale[0]
    (signature,) = plain.signatures
    session = FloatMicroSession(compact(encoded(content).content), plain, [*signature.inputs], [*signature.outputs])
    np.testing.assert_allclose(session.run([batch])[0], expected)
    np.testing.assert_allclose(session.run([batch[:1]])[0], expected[:1])
    session.close()


def test_states_do_not_go_from_one_sample_to_the_next(artifacts):
    """The same sequence four times gives the same outputs four times: the LSTM begins anew with each."""
    graph = read(artifacts["lstm"]).subgraphs[0]
    form = graph.tensors[graph.inputs[0]]
    batch = np.repeat(np.random.default_rng(0).random((1, *form.shape[1:]), np.float32), 4, axis=0)
    (outputs,) = MicroSession(artifacts["lstm"]).run([batch])
    np.testing.assert_array_equal(outputs, np.repeat(outputs[:1], 4, axis=0))


def test_memory_is_recorded_or_estimated(micro_file, monkeypatch):
    """The footprint is the arena and what optimized kernels may want; without the interpreter it is an estimate."""
    content = micro_file.read_bytes()
    arena, recorded = MicroSession(micro_file).arena, footprint(content)
    assert (recorded.flash_bytes, recorded.activation_bytes) == (len(content), arena.activations)
    assert recorded.ram_bytes == arena.bytes + recorded.scratch_bytes
    assert recorded.recorded_by.startswith("tflite-micro 0.")
    monkeypatch.setattr(micro, "installed_version", lambda: None)
    estimated = footprint(content)
    assert estimated.recorded_by is None
    assert estimated.ram_bytes == pytest.approx(recorded.ram_bytes, rel=0.1)


@pytest.mark.parametrize("seed", representatives(range(3), 0))
def test_damaged_files_are_refused_or_run(micro_file, seed):
    """Twenty bytes of ancillary data flipped, one at a time: no process dies of it."""
    content = encoded(micro_file.read_bytes()).content
    graph, generator = parse(content).subgraphs[0], np.random.default_rng(seed)
    blocks = [
        bytes(graph.tensors[index].stored)
        for one in graph.operators
        if one.name == decode.OPERATOR
        for index in one.inputs[1::2]
    ]
    batch, refused = [samples(1, 8, 8, 3)], 0
    for _ in range(20):
        block = blocks[generator.integers(len(blocks))]
        damaged = bytearray(content)
        damaged[content.index(block) + int(generator.integers(len(block)))] ^= int(generator.integers(1, 256))
        try:
            MicroSession(bytes(damaged)).run(batch)
        except ModelError:
            refused += 1
    assert refused < 20  # what says another weight is no damage that can be seen


def test_a_missing_package_names_the_extra(monkeypatch):
    """Without tflite-micro the error says how to install it."""
    monkeypatch.setitem(sys.modules, "tflite_micro", None)
    with pytest.raises(MissingError, match=r"edgeprune\[micro\]"):
        micro._package()
