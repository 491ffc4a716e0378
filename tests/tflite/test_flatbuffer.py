import contextlib
import random
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from tiny_files import Given, tflite_of

import edgeprune.profiling.profile as profile_package
from edgeprune.checking import check
from edgeprune.errors import ModelError
from edgeprune.hardware import delegates
from edgeprune.hardware.edgetpu import summary as edgetpu
from edgeprune.hardware.latency import estimate as latency
from edgeprune.profiling import compare
from edgeprune.target import load_target
from edgeprune.tflite import flatbuffer, macs, memory, size, sparse, versions


def interpreter_of(path, **options):
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    made = Interpreter(str(path), experimental_op_resolver_type=resolver, **options)
    made.allocate_tensors()
    return made


@pytest.mark.parametrize("name", ["float32", "float16", "dynamic", "int8", "int8-io", "sparse", "lstm"])
def test_tensors_are_those_of_the_interpreter(artifacts, name):
    """Index, name, shape, type, quantization and constant values agree with what the runtime itself reports."""
    model = flatbuffer.read(artifacts[name])
    interpreter = interpreter_of(artifacts[name])
    reported = {detail["index"]: detail for detail in interpreter.get_tensor_details()}
    for tensor in model.subgraphs[0].tensors:
        detail = reported[tensor.index]
        assert tensor.shape == tuple(detail["shape"])
        assert detail["name"] in (tensor.name, "Densify_output")  # the runtime renames what it unpacks
        assert tensor.dtype == np.dtype(detail["dtype"]).name
        scales = detail["quantization_parameters"]["scales"]
        np.testing.assert_allclose(tensor.quantization.scale if tensor.quantization else (), scales, rtol=1e-6)
        if tensor.constant and not tensor.sparsity:
            np.testing.assert_array_equal(tensor.data(), interpreter.tensor(tensor.index)())


@pytest.mark.parametrize("name", ["float32", "int8", "sparse"])
def test_operators_are_those_of_the_interpreter(artifacts, name):
    """Order, names, inputs and outputs of operators agree with the runtime."""
    graph = flatbuffer.read(artifacts[name]).subgraphs[0]
    reported = interpreter_of(artifacts[name])._get_ops_details()
    assert [(op.name, op.inputs, op.outputs) for op in graph.operators] == [
        (detail["op_name"], tuple(detail["inputs"]), tuple(detail["outputs"])) for detail in reported
    ]


def test_sparse_weights_decode_to_what_the_runtime_unpacks(artifacts):
    """A sparse-encoded kernel, decoded, equals the output of its DENSIFY operator."""
    graph = flatbuffer.read(artifacts["sparse"]).subgraphs[0]
    interpreter = interpreter_of(artifacts["sparse"], experimental_preserve_all_tensors=True)
    interpreter.invoke()
    unpacking = [op for op in graph.operators if op.name == "DENSIFY"]
    assert unpacking
    for operator in unpacking:
        dense = graph.input(operator, 0).data()
        assert (dense == 0).mean() > 0.5
        np.testing.assert_array_equal(dense, interpreter.get_tensor(operator.outputs[0]))


def test_options_signatures_and_metadata(artifacts):
    """Options carry the schema's names and values, signatures the argument names."""
    model = flatbuffer.read(artifacts["float32"])
    convolution = next(op for op in model.subgraphs[0].operators if op.name == "CONV_2D")
    assert convolution.options["stride_w"] == 2
    assert convolution.options["padding"] == "SAME"
    assert convolution.options["fused_activation_function"] == "RELU"
    assert model.bytes == artifacts["float32"].stat().st_size
    assert model.min_runtime is not None
    assert "min_runtime_version" in model.metadata


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty"),
        (b"\x00" * 100, "is not a .tflite file"),
        (b"PK\x03\x04 this is a zip", "as Keras writes .keras files, and not a .tflite file"),
        (b"\x89HDF\r\n\x1a\n and more", "as Keras writes .h5 files, and not a .tflite file"),
        (b"\x1c\x00\x00\x00TFL3", "is damaged"),
    ],
)
def test_foreign_content_is_refused(tmp_path, content, complaint):
    """Empty, foreign and truncated files are model errors that say what is wrong."""
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=complaint):
        flatbuffer.read(path)


def test_missing_file_and_folder_are_refused(tmp_path):
    """A missing file and a folder are model errors."""
    for path in (tmp_path / "absent.tflite", tmp_path):
        with pytest.raises(ModelError, match="cannot be read"):
            flatbuffer.read(path)


def test_overlapping_tables_run_out_of_budget(artifacts):
    """What is decoded counts against a budget, so that tables which share their bytes cannot fill the memory."""
    parser = flatbuffer._Parser(artifacts["float32"].read_bytes())
    parser.budget = 1000
    with pytest.raises(flatbuffer._Damaged, match="several times its own size"):
        parser.model()


def exercise(content: bytes, folder: Path | None = None) -> None:
    """Everything that the package computes from a file."""
    model = flatbuffer.parse(content)
    for graph in model.subgraphs:
        memory.plan(graph)
        for tensor in graph.tensors:
            if tensor.constant and tensor.is_numeric:
                tensor.data()
    size.kernels(model), size.params(model), size.nonzero_params(model), macs.macs(model), versions.min_runtime(model)
    edgetpu.edgetpu_placement(model.subgraphs[0])
    for name in delegates.DELEGATES:
        delegates.delegate_placement(model.subgraphs[0], name)
    for target in map(load_target, ("rpi4", "coral")):
        for kernels in latency.available(target):
            latency.predict(model.subgraphs[0], target, kernels)
        check.check([check.Subject(Path("model.tflite"), model)], target)
    if folder:
        (folder / "mutated.tflite").write_bytes(content)
        compare.compare(folder / "mutated.tflite", folder / "mutated.tflite", "rpi4")


def mutate(content: bytes, generator: random.Random) -> bytes:
    if generator.random() < 0.2:
        return content[: generator.randrange(len(content))]
    mutated = bytearray(content)
    for _ in range(generator.choice([1, 1, 2, 5, 20])):
        position = generator.randrange(len(mutated) - 4)
        extremes = [0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, len(content), generator.randrange(2**32)]
        word = generator.choice(extremes).to_bytes(4, "little")
        width = generator.choice([1, 4])
        mutated[position : position + width] = word[:width]
    return bytes(mutated)


@pytest.mark.parametrize("rounds", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutated_files_are_read_or_refused(artifacts, tmp_path, rounds):
    """Whatever bytes change, reading and profiling give a result or a ModelError, never another exception."""
    generator = random.Random(rounds)
    contents = [path.read_bytes() for path in artifacts.values()]
    refused = 0
    for _ in range(rounds):
        try:
            exercise(mutate(generator.choice(contents), generator), tmp_path)
        except ModelError:
            refused += 1
    assert 0 < refused < rounds


@pytest.mark.parametrize("shape", [(), (4,)])
@pytest.mark.parametrize("name", ["CONV_2D", "FULLY_CONNECTED"])
def test_kernels_of_too_few_dimensions_are_refused_or_read(name, shape):
    """A kernel whose shape has fewer dimensions than its operator needs gives a result or a ModelError."""
    kernel = Given(shape, "int8", np.ones(shape, np.int8), 0.1)
    data = Given((1, 4), "int8", scale=0.1)
    tensors = [data, kernel, data, data]
    content = tflite_of(tensors, [(name, (0, 1), (2,)), ("ADD", (2, 2), (3,))], [0], [3])
    with contextlib.suppress(ModelError):
        exercise(content)
    model = flatbuffer.parse(content)
    for target in map(load_target, ("rpi4", "coral")):
        with contextlib.suppress(ModelError):
            check.check([check.Subject(Path("model.tflite"), model)], target)
        with contextlib.suppress(ModelError):
            latency.predict(model.subgraphs[0], target)


def test_mutated_files_take_memory_in_proportion(artifacts):
    """What a mutated file makes the reader and the profile allocate stays within a multiple of its size."""
    generator = random.Random(7)
    contents = [path.read_bytes() for path in artifacts.values()]
    tracemalloc.start()
    for _ in range(30):
        content = mutate(generator.choice(contents), generator)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        with contextlib.suppress(ModelError):
            exercise(content)
        assert tracemalloc.get_traced_memory()[1] - before < 100 * len(content) + 5_000_000
    tracemalloc.stop()


def one_stored_weight(columns: int) -> bytes:
    """A dense layer of so many inputs, of whose weights one is stored."""
    weights = Given((1, columns), data=np.ones(1, np.float32), csr=([0, 1], [5]))
    tensors = [Given((1, columns)), weights, Given((1, 1))]
    return tflite_of(tensors, [("FULLY_CONNECTED", (0, 1), (2,))], [0], [2])


def test_what_a_sparse_tensor_leaves_out_is_not_made(tmp_path, monkeypatch):
    """A file of a few hundred bytes whose weights are a million, one of them stored, is profiled from what it stores;
    one that claims a hundred million is refused."""
    monkeypatch.setattr(sparse.Sparsity, "densify", lambda *_: pytest.fail("a dense array"))
    path = tmp_path / "tiny.tflite"
    path.write_bytes(one_stored_weight(2**20))
    (kernel,) = profile_package.profile(path, "rpi4").kernels
    assert (kernel.weights, kernel.zeros, kernel.distinct) == (2**20, 2**20 - 1, 2)
    with pytest.raises(ModelError, match="1 are stored"):
        flatbuffer.parse(one_stored_weight(2**27))


def test_a_damaged_file_is_exit_code_2(tmp_path, artifacts):
    """On the command line, a mutated file that cannot be read ends with one message and exit code 2."""
    generator = random.Random(3)
    content = artifacts["int8"].read_bytes()
    damaged = next(made for made in iter(lambda: mutate(content, generator), None) if refused(made))
    path = tmp_path / "damaged.tflite"
    path.write_bytes(damaged)
    command = [sys.executable, "-m", "edgeprune", "profile", str(path), "--target", "coral"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr


def refused(content: bytes) -> bool:
    try:
        exercise(content)
    except ModelError:
        return True
    return False


def test_real_files_are_read(shared_models):
    """Files of several converters, years and number formats are read whole."""
    for path in shared_models:
        model = flatbuffer.read(path)
        assert model.subgraphs[0].operators, path
        assert profile_package.profile(path).params >= 0
