import random
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_files import Given, tflite_of

from edgeprune.checking.model import check
from edgeprune.errors import ModelError
from edgeprune.evaluate.files import open_alike
from edgeprune.profiling.profile import profile
from edgeprune.tflite import flatbuffer, interface, size
from edgeprune.tflite.faults import faults

# Loads each file named on a line of the input, runs it once, and prints whether that went well.
RUNNER = """
import os, sys
from ai_edge_litert.interpreter import Interpreter, OpResolverType
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
for line in sys.stdin:
    try:
        resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        interpreter = Interpreter(line.strip(), experimental_op_resolver_type=resolver)
        interpreter.allocate_tensors()
        interpreter.invoke()
        runs = True
    except Exception:
        runs = False
    print(int(runs), file=answers, flush=True)
"""


class LiteRT:
    """The verdicts of a runtime in a child process, which is replaced when it dies."""

    def __init__(self):
        self.process = None

    def runs(self, path: Path) -> bool:
        if self.process is None:
            self.process = subprocess.Popen(
                [sys.executable, "-c", RUNNER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        print(path, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline().strip()
        if not answer:
            self.close()
        return answer == "1"

    def close(self):
        if self.process:
            self.process.stdin.close()
            self.process.stdout.close()
            self.process.wait()
        self.process = None


@pytest.fixture(scope="module")
def litert():
    runtime = LiteRT()
    yield runtime
    runtime.close()


def two_layers(**changes) -> bytes:
    """x -> fully connected -> ReLU, with 2 weights per output."""
    given = {
        "weights": Given((3, 2), data=np.arange(6, dtype=np.float32)),
        "nodes": [("FULLY_CONNECTED", (0, 1, -1), (2,)), ("RELU", (2,), (3,))],
    } | changes
    tensors = [Given((1, 2)), given["weights"], Given((1, 3)), Given((1, 3))]
    return tflite_of(tensors, given["nodes"], [0], [3])


def structure(content: bytes) -> list[int]:
    """Positions outside the large buffers: where a changed bit changes more than a weight."""
    import tflite

    model = tflite.Model.GetRootAs(content, 0)
    weights = np.zeros(len(content), bool)
    for buffer in map(model.Buffers, range(model.BuffersLength())):
        if not buffer.DataIsNone() and buffer.DataLength() > 64:
            start = buffer._tab.Vector(buffer._tab.Offset(4))
            weights[start : start + buffer.DataLength()] = True
    return np.flatnonzero(~weights).tolist()


def changed(content: bytes, places: list[int], generator: random.Random) -> bytes:
    if generator.random() < 0.1:
        return content[: generator.randrange(len(content))]
    made = bytearray(content)
    place = generator.choice(places)
    if generator.random() < 0.6:
        made[place] ^= 1 << generator.randrange(8)
    else:
        made[place : place + 4] = generator.choice([0, 1, 2**31 - 1, 2**32 - 1, len(content)]).to_bytes(4, "little")
    return bytes(made[: len(content)])


@pytest.mark.parametrize("rounds", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_what_litert_runs_is_read(artifacts, litert, tmp_path, rounds):
    """Of files with a changed bit or word outside the weights, none that LiteRT runs is refused."""
    generator = random.Random(rounds)
    sources = [artifacts[name].read_bytes() for name in ("float32", "int8", "lstm")]
    places = [structure(content) for content in sources]
    path, run = tmp_path / "changed.tflite", 0
    for _ in range(rounds):
        number = generator.randrange(len(sources))
        path.write_bytes(changed(sources[number], places[number], generator))
        if litert.runs(path):
            run += 1
            flatbuffer.read(path)
    assert 0 < run < rounds


def with_external_buffers(content: bytes) -> bytes:
    """The same file with its last large buffer behind the flatbuffer, as files above 2 GB have them all."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    def packed() -> bytes:
        builder = flatbuffers.Builder(len(content))
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    buffer = max(model.buffers, key=lambda one: 0 if one.data is None else len(one.data))
    data, buffer.data = bytes(bytearray(buffer.data)), None
    buffer.offset = buffer.size = 1 << 40  # places in the table, for numbers that are known below
    start = -(-len(packed()) // 16) * 16
    buffer.offset, buffer.size = start, len(data)
    return packed().ljust(start, b"\0") + data


ODD = {
    "text behind": lambda content: content + b"made by hand\n" * 9,
    "a zip behind": lambda content: content + b"PK\x05\x06" + bytes(18),
    "moved by 4 bytes": lambda content: (
        struct.pack("<I", struct.unpack_from("<I", content)[0] + 4) + b"TFL3" + bytes(4) + content[8:]
    ),
    "a buffer behind": with_external_buffers,
}


@pytest.mark.parametrize("name", list(ODD))
def test_unusual_layouts_are_read_as_they_were(artifacts, litert, tmp_path, name):
    """A file with something behind it, unaligned, or with buffers outside the flatbuffer holds the same weights."""
    original = artifacts["float32"].read_bytes()
    path = tmp_path / "odd.tflite"
    path.write_bytes(ODD[name](original))
    assert litert.runs(path)
    tables = [
        [(k.shape, k.zeros, k.distinct) for k in size.kernels(flatbuffer.parse(c))]
        for c in (original, path.read_bytes())
    ]
    assert tables[0] == tables[1]
    assert faults(flatbuffer.read(path)) == ()


def test_a_constant_larger_than_its_shape_is_read_up_to_it(litert, tmp_path):
    """LiteRT ignores what a constant stores beyond its shape, and so do the figures."""
    path = tmp_path / "large.tflite"
    path.write_bytes(two_layers(weights=Given((3, 2), data=np.ones(10, np.float32))))
    assert litert.runs(path)
    (kernel,) = profile(path).kernels
    assert (kernel.weights, kernel.zeros, kernel.stored_bytes) == (6, 0, 24)
    assert not [item for item in check(path, "rpi4") if item.checker == "contents"]


def test_a_compressed_constant_is_profiled_and_an_error_of_check(tmp_path):
    """A constant of fewer bytes than its shape, which TensorFlow Lite Micro decodes, has a profile; `check` says that
    LiteRT refuses it."""
    path = tmp_path / "short.tflite"
    path.write_bytes(two_layers(weights=Given((3, 2), data=np.zeros(2, np.float32))))
    found = profile(path, "rpi4")
    assert (found.params, found.nonzero_params, found.weight_bytes) == (6, 6, 8)
    (item,) = check(path, "rpi4")
    assert item.severity == "error"
    assert "stores 8 bytes, and its shape needs 24: LiteRT refuses" in item.what
    assert item.what in found.warnings


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([("RELU", (2,), (3,)), ("FULLY_CONNECTED", (0, 1, -1), (2,))], "reads the tensor 2 't2' before it is written"),
        ([("RELU", (0,), (3,)), ("RELU", (0,), (3,))], "writes over the tensor 3"),
        ([("RELU", (0,), (1,)), ("RELU", (0,), (3,))], "writes over the tensor 1"),
    ],
)
def test_an_impossible_order_is_named(tmp_path, nodes, said):
    """Operators that read what is not written yet, or write over a tensor, are read, and are errors of `check`."""
    path = tmp_path / "order.tflite"
    path.write_bytes(two_layers(nodes=nodes))
    assert profile(path, "rpi4").operators
    for target in ("rpi4", "coral"):
        (item,) = check(path, target)
        assert said in item.what


def test_a_tensor_that_does_not_exist_is_refused_without_the_word_damaged():
    """LiteRT refuses a file that names a missing tensor, and TensorFlow Lite Micro does not: it is not called
    damaged."""
    with pytest.raises(ModelError, match=r"cannot run: .* names a tensor that does not exist among 4"):
        flatbuffer.parse(two_layers(nodes=[("RELU", (9,), (3,))]))


def test_tensors_of_one_name_are_told_apart(tmp_path):
    """Inputs whose tensors have the same name are all there, so that files of such names can be compared."""
    path = tmp_path / "same.tflite"
    content = tflite_of([Given((1, 2))] * 3, [("ADD", (0, 1), (2,))], [0, 1], [2])
    path.write_bytes(content.replace(b"t1\0", b"t0\0"))
    names = [port.names for port in interface.interface(flatbuffer.read(path)).inputs]
    assert names == [("t0",), ("t0:1",)]
    open_alike([path, path])
