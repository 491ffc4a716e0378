import sys
from pathlib import Path

import pytest

from edgeprune.errors import ConversionError, MissingError
from edgeprune.hardware import vela_compiler as vela
from edgeprune.hardware.compilers import compile_for, compiler_version, time_for
from edgeprune.profiling.profile import profile
from edgeprune.target import load_target
from edgeprune.tflite.flatbuffer import read

TARGETS = ("ethos-u55-128", "ethos-u65-256")


@pytest.fixture(scope="module")
def needs_vela():
    pytest.importorskip("ethosu.vela", reason="needs ethos-u-vela")


@pytest.fixture(scope="module")
def small_int8(tmp_path_factory):
    """A small full-integer network, converted from a model that was never trained."""
    tf_keras = pytest.importorskip("tf_keras")
    from edgeprune.checking.trial import trial_subject

    layers = tf_keras.layers
    model = tf_keras.Sequential(
        [
            layers.Input((16, 16, 3)),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.MaxPool2D(),
            layers.Flatten(),
            layers.Dense(4, activation="softmax"),
        ]
    )
    from edgeprune.models.load import load_model

    return trial_subject(load_model(model), load_target(TARGETS[0]), "int8", tmp_path_factory.mktemp("vela")).path


@pytest.mark.parametrize("name", TARGETS)
def test_vela_compiles(needs_vela, small_int8, tmp_path, name):
    """The real compiler writes an artifact with the NPU's operator, and its estimate has cycles, time and SRAM."""
    made = compile_for(load_target(name), small_int8, tmp_path)
    assert [op.name for op in read(made.file).subgraphs[0].operators] == ["ethos-u"]
    assert made.placement["fully_mapped"]
    assert made.placement["accelerator_ops"] == len(read(small_int8).subgraphs[0].operators)
    estimate = made.performance
    assert estimate["cycles"] > 0
    assert estimate["inference_ms"] == pytest.approx(1000 * estimate["cycles"] / estimate["clock_hz"], rel=0.01)
    assert 0 < estimate["sram_bytes"] < 1_000_000
    assert compiler_version(load_target(name)) == f"vela {vela.version()}"


@pytest.mark.parametrize("name", TARGETS)
def test_the_time_has_parts(needs_vela, small_int8, tmp_path, name):
    """The parts of operators, called after the tensors that they make, add up to the time of a profile's estimate."""
    board = load_target(name)
    timing = time_for(board, small_int8.read_bytes())
    assert timing.milliseconds == compile_for(board, small_int8, tmp_path).performance["inference_ms"]
    assert sum(timing.by_tensor.values()) == pytest.approx(timing.milliseconds)
    graph = read(small_int8).subgraphs[0]
    made = [graph.tensors[index].name for operator in graph.operators for index in operator.outputs]
    assert all(any(part.startswith(tensor) for tensor in made) for part in timing.by_tensor)
    assert timing.left == ()


def test_a_profile_asks_vela(needs_vela, small_int8):
    """The profile for an Ethos-U target has the compiler's placement and estimate."""
    found = profile(small_int8, TARGETS[0]).to_dict()
    assert found["placement"]["source"] == f"vela {vela.version()}"
    assert found["performance"]["cycles"] > 0


def test_the_compilers_time_is_the_estimate(needs_vela, small_int8):
    """Nothing but Vela knows how fast an Ethos-U is: its time is the estimate, under its name and without a range, and
    the gate on latency takes it."""
    from edgeprune.cli.tables import profile_table
    from edgeprune.selection import gate_latency

    found = profile(small_int8, TARGETS[0]).to_dict()
    estimated = found["latency"]["estimated"]
    assert estimated["median_ms"] == found["performance"]["inference_ms"] == estimated["low_ms"]
    assert (estimated["model_version"], estimated["origin"]) == (f"vela {vela.version()}", "compiler")
    assert "no latency estimate" not in profile_table(found).caption
    value, words = gate_latency({"latency": {**found["latency"], "measured": []}})
    assert value == estimated["median_ms"]
    assert "by vela" in words
    assert found["delegates"] == []


def test_a_time_without_the_operators_on_the_processor_is_no_estimate(needs_vela, tiny_model, tmp_path):
    """Vela gives a float file, of which it takes nothing, zero milliseconds: that must not win a gate on latency."""
    import tensorflow as tf

    path = tmp_path / "float.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(tiny_model).convert())
    latency = profile(path, TARGETS[0]).to_dict()["latency"]
    assert latency["estimated"] is None
    assert "stay on the processor" in latency["unknown"]


def test_operators_left_to_the_cpu_are_named(needs_vela, small_int8, tmp_path):
    """A file with float inputs and outputs leaves the conversions on the CPU, with Vela's reason."""
    coral = Path(__file__).parents[2].parent / "shared" / "data" / "coral" / "models" / "nrf20_mnist__mnist4.tflite"
    if not coral.is_file():
        pytest.skip("needs ../shared/data/coral")
    made = compile_for(load_target(TARGETS[0]), coral, tmp_path)
    assert (made.placement["accelerator_ops"], made.placement["cpu_ops"]) == (8, 2)
    reasons = {row["name"]: row["status"] for row in made.placement["not_mapped"]}
    assert "Float32" in reasons["QUANTIZE"]


def test_a_compiled_file_tells_its_placement(needs_vela, small_int8, tmp_path):
    """The artifact itself can be profiled for its target; it is not compiled again."""
    made = compile_for(load_target(TARGETS[0]), small_int8, tmp_path)
    found = profile(made.file, TARGETS[0]).to_dict()
    assert found["placement"]["source"] == "compiled file"
    assert found["placement"]["fully_mapped"]


def test_without_vela_the_error_says_how_to_get_it(small_int8, monkeypatch):
    """A target that needs Vela fails with exit code 3 and the command to install it."""
    monkeypatch.setitem(sys.modules, "ethosu", None)
    monkeypatch.setattr(vela.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingError, match="pip install ethos-u-vela") as error:
        profile(small_int8, TARGETS[0])
    assert error.value.exit_code == 3


def test_without_vela_there_is_no_time(small_int8, monkeypatch):
    """Also for a target that can do without its compiler elsewhere: nothing else knows the time."""
    board = load_target(TARGETS[0])
    optional = board.model_copy(update={"compiler": board.compiler.model_copy(update={"required": False})})
    monkeypatch.setattr(vela.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingError, match="pip install ethos-u-vela"):
        time_for(optional, small_int8.read_bytes())


def test_a_table_of_another_kind_is_refused():
    """A CSV without Vela's columns of operators is an error that names them; rows of one tensor are added up."""
    with pytest.raises(ConversionError, match="Name, Op Cycles"):
        vela.parse_layers("a,b\n1,2\n")
    assert vela.parse_layers("Op Cycles,Name\n3,x\n4,x\n5,y\n") == {"x": 7, "y": 5}


def test_a_summary_of_another_kind_is_refused():
    """A CSV without Vela's columns is an error that names them."""
    with pytest.raises(ConversionError, match="cycles_total"):
        vela.parse_summary("a,b\n1,2\n")
