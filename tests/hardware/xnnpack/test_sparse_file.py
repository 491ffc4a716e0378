"""From the flatbuffer: will XNNPACK run it sparse, and what is stored how."""

import dataclasses
import json
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from edgeprune.cli import edgeprune
from edgeprune.errors import TargetError
from edgeprune.hardware.xnnpack.sparse_file import analyse_file, runtime_problem, sparse_path
from edgeprune.profiling.profile import profile
from edgeprune.target import BoardRuntime, load_target, with_runtime
from edgeprune.tflite.flatbuffer import parse


def mobile(share):
    """Stem, depthwise, 1x1 of 64x64 with a share of zeros, global average pooling; random weights."""
    import tf_keras

    L = tf_keras.layers
    inputs = L.Input((16, 16, 3))
    x = L.ReLU()(L.Conv2D(64, 3, 2, "valid")(L.ZeroPadding2D(1)(inputs)))
    x = L.ReLU()(L.DepthwiseConv2D(3, padding="same")(x))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(64, 1, use_bias=False, name="pw")(x)))
    model = tf_keras.Model(inputs, L.Dense(4)(L.GlobalAveragePooling2D()(x)))
    random = np.random.default_rng(0)
    model.set_weights([random.uniform(0.1, 1, weights.shape) for weights in model.get_weights()])
    kernel = model.get_layer("pw").get_weights()[0]
    kernel.ravel()[random.permutation(kernel.size)[: round(share * kernel.size)]] = 0
    model.get_layer("pw").set_weights([kernel])
    return model


def convert(model, sparse=True):
    from edgeprune.convert.converter import convert
    from edgeprune.quantize.plan import QuantizationPlan

    return convert(model, QuantizationPlan("float32", "float", False, sparse))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """share of zeros → (Keras model, sparse .tflite); "dense" → the same at 0.8, without sparse encoding."""
    folder = tmp_path_factory.mktemp("sparse")
    made = {}
    for share in (0.5, 0.8):
        made[share] = (mobile(share), folder / f"{share}.tflite")
        made[share][1].write_bytes(convert(made[share][0]))
    made["dense"] = (made[0.8][0], folder / "dense.tflite")
    made["dense"][1].write_bytes(convert(made[0.8][0], sparse=False))
    return made


def test_a_qualifying_file_is_expected_to_run_sparse(files):
    """80 % zeros, stored sparse: the path is on, and the one 1x1 kernel is named; its encoding takes less room."""
    found = profile(files[0.8][1])
    assert found.sparse_path.expected
    assert found.sparse_path.zero_share == pytest.approx(0.8, abs=1e-3)
    rows = {row.shape: row for row in found.kernels}
    row = rows[64, 1, 1, 64]
    assert (row.encoding, row.expected_kernels) == ("sparse", "sparse")
    assert {r.expected_kernels for r in found.kernels} == {"sparse", "dense"}
    nonzero = row.weights - row.zeros
    # Values of 4 bytes, an index of at least a byte each, and an offset of at least a byte per filter.
    assert nonzero * 5 + 64 <= row.stored_bytes <= nonzero * 6 + 65 * 4
    assert rows[64, 3, 3, 3].stored_bytes == 64 * 27 * 4


def test_the_sparse_file_computes_what_its_keras_model_computes(files):
    """With XNNPACK and with the built-in kernels, and equal to the file with dense encoding."""
    from edgeprune.runtime.interpreter import find_runtime

    model, path = files[0.8]
    x = np.random.default_rng(2).uniform(0, 1, (1, 16, 16, 3)).astype("float32")
    expected = model(x).numpy()
    for file in (path, files["dense"][1]):
        for kernels in ("default", "builtin"):
            interpreter = find_runtime().interpreter(file.read_bytes(), kernels=kernels)
            interpreter.allocate_tensors()
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
            interpreter.invoke()
            found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
            np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert path.stat().st_size < files["dense"][1].stat().st_size


def test_too_few_zeros_keep_dense_kernels(files):
    """Half of the weights is not more than two thirds, however they are stored."""
    found = profile(files[0.5][1])
    assert not found.sparse_path.expected
    assert "50.0%" in found.sparse_path.reasons[0]


def test_a_runtime_to_be_installed_makes_the_sparse_estimate(files):
    """The estimate for a target whose runtime never runs sparse is that of dense kernels; for the runtime that the user
    is going to install there it is lower, and the warning is gone."""
    found = {}
    for runtime in ("tflite-runtime 2.14.0", "ai-edge-litert 2.1.6"):
        command = ["profile", str(files[0.8][1]), "--target", "rpi4", "--kernels", "xnnpack", "--json"]
        done = CliRunner().invoke(edgeprune, [*command, "--runtime", runtime])
        found[runtime] = json.loads(done.output)
    old, new = found.values()
    assert new["latency"]["estimated"]["median_ms"] < old["latency"]["estimated"]["median_ms"]
    assert any("never uses sparse kernels" in warning for warning in old["warnings"])
    assert not any("uses sparse" in warning for warning in new["warnings"])
    for text in ("litert", "my-runtime 1.0"):
        with pytest.raises(TargetError, match="is not a runtime and its version"):
            with_runtime(load_target("rpi4"), text)


def test_dense_encoding_has_no_sparse_path(files):
    """The zeros are there, but nothing tells XNNPACK to look for them."""
    found = profile(files["dense"][1])
    assert found.sparse_path is None
    assert {row.expected_kernels for row in found.kernels} == {None}
    assert analyse_file(parse(files["dense"][1].read_bytes())).zero_share == pytest.approx(0.8, abs=1e-3)


def test_an_operator_in_the_way_is_named(artifacts):
    """The network of the other tests has a max pooling and a flattened end."""
    found = profile(artifacts["sparse"]).sparse_path
    assert not found.expected
    assert any("global average pooling" in reason for reason in found.reasons)


@pytest.mark.parametrize(
    ("package", "version", "word"),
    [
        ("tflite-runtime", "2.14.0", "never"),
        ("tensorflow", "2.21.0", "not known"),
        ("ai-edge-litert", "2.0.3", "not known"),
        ("ai-edge-litert", "2.1.6", None),
        ("litert", "2.3.0", None),
    ],
)
def test_runtimes(package, version, word, files):
    """What was tried is said; what was not tried is not known; a file built for the path warns about both."""
    runtime = BoardRuntime(package=package, version=version)
    problem = runtime_problem(runtime)
    assert (word in problem.what) if word else problem is None
    warnings = sparse_path(parse(files[0.8][1].read_bytes()), runtime).warnings
    assert len(warnings) == (1 if word else 0)


def test_the_profile_warns_about_the_runtime_of_the_target(files):
    """With tflite-runtime 2.14.0 on an rpi4 there is a warning, with ai-edge-litert none."""
    old = with_runtime(load_target("rpi4"), "tflite-runtime 2.14.0")
    assert any("tflite-runtime 2.14.0" in text for text in profile(files[0.8][1], old).warnings)
    assert not any("tflite-runtime" in text for text in profile(files[0.8][1], "rpi4").warnings)
    assert not any("sparse" in text for text in profile(files["dense"][1], "rpi4").warnings)


def test_a_dense_layer_behind_the_pooling_can_spoil_the_share(files):
    """Newer releases of XNNPACK count it: said where it makes the difference."""
    from edgeprune.hardware.xnnpack.sparse_file import _dense_warnings

    analysis = analyse_file(parse(files[0.8][1].read_bytes()))
    assert _dense_warnings(analysis) == []
    large = [
        dataclasses.replace(v, node=dataclasses.replace(v.node, weights=4096)) if v.node.kind == "dense" else v
        for v in analysis.verdicts
    ]
    assert "40.0%" in _dense_warnings(dataclasses.replace(analysis, verdicts=tuple(large)))[0]


def test_reading_needs_no_tensorflow(files):
    """Neither the rules nor the profile import it."""
    import subprocess

    code = (
        "import sys; sys.modules['tensorflow'] = sys.modules['tf_keras'] = None; "
        "from edgeprune.checking.check import Subject, sparse_inference; from edgeprune.target import load_target; "
        f"from edgeprune.tflite.flatbuffer import read; file = {str(files[0.8][1])!r}; "
        "print(sparse_inference(Subject(file, read(file)), load_target('rpi4'))[0].what)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "will be on: 80.0%" in done.stdout


def test_every_real_file_gets_a_verdict(shared_models):
    """Quantized, recurrent, custom operators: no crash, and none of them qualifies."""
    from edgeprune.tflite.flatbuffer import read

    for path in shared_models:
        assert not analyse_file(read(path)).qualifies


def test_targets_without_an_arm_processor_are_not_asked():
    """The sparse kernels are XNNPACK's for ARM."""
    from edgeprune.checking.sparse import has_arm_cpu

    assert has_arm_cpu(load_target("rpi4"))
    assert not has_arm_cpu(load_target("ethos-u55-128"))
