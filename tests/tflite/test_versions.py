from types import SimpleNamespace

import pytest

from edgeprune.tflite import flatbuffer, versions
from edgeprune.tflite.graph import TFLiteModel


def runtime_warnings(read, board):
    """The sentences for the user."""
    return [problem.what for problem in versions.runtime_problems(read, board)]


def target(package, version):
    return SimpleNamespace(
        micro=None, name="board", compiler=None, runtime=SimpleNamespace(package=package, version=version)
    )


def model(*codes):
    """A model of nothing but operator codes (name, custom, version)."""
    return TFLiteModel("", (), None, {}, (), codes, 0)


@pytest.mark.parametrize("name", ["float32", "float16", "int8", "int8-io", "sparse"])
def test_minimum_agrees_with_the_converter(artifacts, name):
    """The minimum runtime is no lower than what TensorFlow's converter wrote into the file."""
    read = flatbuffer.read(artifacts[name])
    assert versions.min_runtime(read) >= versions.parse_version(read.min_runtime)


def test_per_channel_dynamic_range_is_too_new_for_tflite_runtime(artifacts):
    """Dynamic-range dense layers of today's converter stop on tflite-runtime 2.14; the warning says so."""
    read = flatbuffer.read(artifacts["dynamic"])
    warnings = runtime_warnings(read, target("tflite-runtime", "2.14.0"))
    assert len(warnings) == 1
    assert "FULLY_CONNECTED version 12 needs tflite-runtime 2.17.0 or later" in warnings[0]
    assert "Didn't find op for builtin opcode 'FULLY_CONNECTED' version '12'" in warnings[0]
    assert "ai-edge-litert 1.0.0 or later" in warnings[0]
    assert runtime_warnings(read, target("ai-edge-litert", "1.0.0")) == []


@pytest.mark.parametrize("name", ["float32", "float16", "int8", "int8-io", "sparse", "lstm"])
def test_other_formats_run_on_tflite_runtime(artifacts, name):
    """No other number format needs more than tflite-runtime 2.14."""
    assert runtime_warnings(flatbuffer.read(artifacts[name]), target("tflite-runtime", "2.14.0")) == []


def test_the_installed_runtime_agrees_with_the_table():
    """Every operator version that the table gives to releases up to the installed ai-edge-litert is accepted by it."""
    from importlib.metadata import version

    from ai_edge_litert.interpreter import Interpreter

    installed = versions.parse_version(version("ai-edge-litert"))
    for (name, number), release in versions._table()["litert"].items():
        if release <= installed:
            Interpreter(model_content=one_code(name, number))
    with pytest.raises(ValueError, match="Didn't find op for builtin opcode 'CONV_2D' version '99'"):
        Interpreter(model_content=one_code("CONV_2D", 99))


def one_code(name: str, version: int) -> bytes:
    """A model that lists one operator version and uses none: the runtime looks it up all the same."""
    import flatbuffers
    import tflite

    number = {known: code for code, known in flatbuffer._OPERATOR_NAMES.items()}[name]
    builder = flatbuffers.Builder(256)

    def vector(start, *offsets):
        start(builder, len(offsets))
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()

    def table(kind, **fields):
        getattr(tflite, f"{kind}Start")(builder)
        for field, value in fields.items():
            getattr(tflite, f"{kind}Add{field}")(builder, value)
        return getattr(tflite, f"{kind}End")(builder)

    tensors = vector(tflite.SubGraphStartTensorsVector, table("Tensor", Buffer=0))
    graph = table("SubGraph", Tensors=tensors, Operators=vector(tflite.SubGraphStartOperatorsVector))
    code = table("OperatorCode", DeprecatedBuiltinCode=min(number, 127), BuiltinCode=number, Version=version)
    model = {
        "Version": 3,
        "OperatorCodes": vector(tflite.ModelStartOperatorCodesVector, code),
        "Subgraphs": vector(tflite.ModelStartSubgraphsVector, graph),
        "Buffers": vector(tflite.ModelStartBuffersVector, table("Buffer")),
    }
    builder.Finish(table("Model", **model), b"TFL3")
    return bytes(builder.Output())


def test_unknown_versions_are_said_to_be_unknown():
    """A version or operator newer than the table warns that it is not known, and leaves the minimum open."""
    unknown = model(("CONV_2D", False, 99), ("BUILTIN_212", False, 1), ("ADD", False, 1))
    warnings = runtime_warnings(unknown, target("ai-edge-litert", "2.3.0"))
    assert [warning.split(";")[0] for warning in warnings] == [
        "It is not known which ai-edge-litert release first runs CONV_2D version 99",
        "It is not known which ai-edge-litert release first runs BUILTIN_212 version 1",
    ]
    assert versions.min_runtime(unknown) is None
    assert versions.min_runtime(model(("ADD", False, 1))) == (1, 5, 0)


def test_custom_operators_warn_unless_bundled():
    """Custom operators name what they need on the device; those in every runtime do not warn."""
    custom = model(("FlexErf", True, 1), ("MyOp", True, 1), ("TFLite_Detection_PostProcess", True, 1))
    board = target("ai-edge-litert", "2.3.0")
    assert [problem.kind for problem in versions.runtime_problems(custom, board)] == ["select", "custom"]
    first, second = runtime_warnings(custom, board)
    assert "Flex delegate" in first
    assert "MyOp is a custom operator" in second


def test_versions_are_compared_as_numbers():
    """Release numbers compare by number, and suffixes do not matter."""
    assert versions.parse_version("2.10.0") > versions.parse_version("2.9.1")
    assert versions.parse_version("2.5.0.post1") == (2, 5, 0)
    assert versions.format_version((2, 5, 0)) == "2.5.0"


def test_table_is_complete():
    """Operators are known to the schema; each operator's releases do not go back as its versions go up."""
    names = set(flatbuffer._OPERATOR_NAMES.values())
    for column in versions._table().values():
        assert {name for name, _ in column} <= names
        # The list is TensorFlow's own; it says that a few later versions came in the same release, never in an older.
        for (name, number), release in column.items():
            assert column.get((name, number + 1), release) >= release


def test_mediapipes_operators_run_where_xnnpack_brings_them(tmp_path):
    """MediaPipe's operators in float32 are no custom ones for releases whose default delegate computes them, which the
    installed runtime does; older releases, and integers, are named."""
    from ai_edge_litert.interpreter import Interpreter
    from tiny_files import MEDIAPIPE_OPTIONS, mediapipe_file

    floats, integers = flatbuffer.parse(mediapipe_file()), flatbuffer.parse(mediapipe_file("int8"))
    assert set(MEDIAPIPE_OPTIONS) == versions.MEDIAPIPE
    assert runtime_warnings(floats, target("ai-edge-litert", "1.0.1")) == []
    interpreter = Interpreter(model_content=mediapipe_file())
    interpreter.allocate_tensors()
    interpreter.invoke()
    assert interpreter._get_ops_details()[-1]["op_name"] == "DELEGATE"
    old = versions.runtime_problems(floats, target("tflite-runtime", "2.14.0"))
    assert {problem.kind for problem in old} == {"delegate"}
    assert 'stops with "Encountered unresolved custom op: MaxUnpooling2D"' in old[1].what
    problems = versions.runtime_problems(integers, target("ai-edge-litert", "2.3.0"))
    assert [problem.kind for problem in problems] == ["custom"] * 3
