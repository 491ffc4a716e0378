import contextlib
import io
import re

import pytest
from partitions import boundaries_predicted
from tiny_files import mediapipe_file

from edgeprune.hardware.delegates import DELEGATES, GPU, XNNPACK, book_of, delegate_placement, rules_of
from edgeprune.hardware.placement import judge
from edgeprune.target import BoardRuntime
from edgeprune.tflite.flatbuffer import read
from edgeprune.tflite.graph import Operator, Quantization, Subgraph, Tensor


def boundaries_of_the_runtime(path):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    details = interpreter._get_ops_details()
    return sorted(sorted(int(i) for i in d["outputs"]) for d in details if d["op_name"] == "DELEGATE")


@pytest.mark.parametrize("name", ["float32", "int8", "int8-io"])
def test_xnnpack_takes_what_the_runtime_gives_it(artifacts, name):
    """The parts of the graph that the rules give to XNNPACK are those that the installed runtime gives to it."""
    assert boundaries_predicted(read(artifacts[name]).subgraphs[0], XNNPACK) == boundaries_of_the_runtime(
        artifacts[name]
    )


def test_xnnpack_on_real_files(shared_models):
    """The same on published files; those that this runtime refuses to load are left out."""
    compared = 0
    for path in shared_models:
        with contextlib.suppress(RuntimeError, ValueError):
            expected = boundaries_of_the_runtime(path)
            assert boundaries_predicted(read(path).subgraphs[0], XNNPACK) == expected, path.name
            compared += 1
    assert compared >= 20


def test_xnnpack_takes_mediapipes_operators(tmp_path):
    """XNNPACK takes the operators of MediaPipe's that no runtime has a kernel for."""
    path = tmp_path / "mediapipe.tflite"
    path.write_bytes(mediapipe_file())
    graph = read(path).subgraphs[0]
    assert boundaries_predicted(graph, XNNPACK) == boundaries_of_the_runtime(path) == [[6]]
    assert delegate_placement(graph, "xnnpack").fully_mapped


@pytest.mark.parametrize("name", ["float32", "float16"])
def test_the_gpu_delegate_agrees_with_tensorflows_analyzer(artifacts, name):
    """Operators that the rules leave are those that TensorFlow's own analyzer warns of."""
    import tensorflow as tf

    with contextlib.redirect_stdout(io.StringIO()) as printed:
        tf.lite.experimental.Analyzer.analyze(model_path=str(artifacts[name]), gpu_compatibility=True)
    warned = {int(index) for index in re.findall(r"GPU COMPATIBILITY WARNING: .*?op#(\d+)", printed.getvalue())}
    graph = read(artifacts[name]).subgraphs[0]
    left = {op.index for op in graph.operators if judge(GPU, graph, op).supported is False}
    assert "GPU COMPATIBILITY" in printed.getvalue() or "GPU delegate" in printed.getvalue()
    assert left == warned


def test_nnapi_takes_a_plain_network(artifacts):
    """A residual CNN in int8 goes to NNAPI whole."""
    found = delegate_placement(read(artifacts["int8-io"]).subgraphs[0], "nnapi")
    assert found.fully_mapped, [op for op in found.operators if not op.on_accelerator]


@pytest.mark.parametrize("name", ["qualcomm", "mediatek"])
def test_npus_take_a_plain_network_and_no_lstm(artifacts, name):
    """What the compilers' documents list is taken; a fused LSTM, which neither lists, is left."""
    assert delegate_placement(read(artifacts["int8-io"]).subgraphs[0], name).fully_mapped
    left = delegate_placement(read(artifacts["lstm"]).subgraphs[0], name).to_dict()["not_mapped"]
    assert any("LSTM" in row["name"] for row in left)


def test_mediateks_compiler_has_fewer_operators():
    """The two lists differ where their documents do: a sum over an axis that grows is Qualcomm's only."""
    qualcomm, mediatek = (set(DELEGATES[name].operators) for name in ("qualcomm", "mediatek"))
    assert "CUMSUM" in qualcomm - mediatek
    assert mediatek <= qualcomm


def test_lstm_stays_with_the_runtime(artifacts):
    """XNNPACK has no LSTM: the operator is left, and named."""
    found = delegate_placement(read(artifacts["lstm"]).subgraphs[0], "xnnpack").to_dict()
    assert any("LSTM" in row["name"] for row in found["not_mapped"])


@pytest.mark.parametrize("name", DELEGATES)
def test_every_rule_gives_a_reason(name):
    """Each rule of a delegate says why."""
    for item in rules_of(DELEGATES[name]):
        assert len(item.reason) > 20, item.name


@pytest.mark.parametrize(("step", "taken"), [(1.0, True), (300.0, False), (1 / 2000, False)])
def test_sums_of_very_other_steps_are_left(step, taken):
    """XNNPACK leaves 8-bit sums where the step of an input is far from that of the output."""
    tensors = tuple(
        Tensor(index, "t", (1, 4), (1, 4), "int8", Quantization((scale,), (0,), 0), None, False, False, memoryview(b""))
        for index, scale in enumerate((step, 1.0, 1.0))
    )
    operator = Operator(0, "ADD", False, 1, (0, 1), (2,), {})
    graph = Subgraph("main", tensors, (operator,), (0, 1), (2,))
    assert (judge(XNNPACK, graph, operator).supported is True) == taken


def test_operators_follow_the_release():
    """An operator that came with a release is taken by it and later ones, and not by those before or tflite-runtime."""

    def takes(operator, text):
        package, version = text.split()
        return operator in book_of("xnnpack", BoardRuntime(package=package, version=version)).operators

    assert takes("LOG", "ai-edge-litert 2.1.6")
    assert not takes("LOG", "ai-edge-litert 2.0.3")
    assert takes("EXP", "litert 1.4.0")
    assert not takes("EXP", "ai-edge-litert 1.2.0")
    assert not takes("RSQRT", "tflite-runtime 2.14.0")
    assert takes("CONV_2D", "tflite-runtime 2.14.0")
    assert "LOG" in book_of("xnnpack").operators
