"""Artifacts under tflite-runtime 2.14.0, in an environment of its own: it needs NumPy 1."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matrix import representatives

from edgeprune.runtime.interpreter import find_runtime

ROOT = Path(__file__).parents[2]
# The flatbuffer reader, which looks at every file before the runtime does, needs the schema package.
REQUIREMENTS = ["tflite-runtime==2.14.0", "numpy<2", "tflite>=2.18"]
SCRIPT = """
import sys, numpy as np
from edgeprune.runtime.interpreter import find_runtime
runtime = find_runtime()
model, inputs, outputs, kernels = sys.argv[1:]
interpreter = runtime.interpreter(model, kernels=kernels)
images = np.load(inputs)
results = []
for image in images:
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
    interpreter.invoke()
    results.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
np.save(outputs, np.stack(results))
heavy = {"tensorflow", "tf_keras", "pydantic", "ai_edge_litert"} & sys.modules.keys()
print(runtime.version, sorted(heavy))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """The interpreter of an environment with tflite-runtime 2.14.0 and without TensorFlow and pydantic."""
    if sys.version_info[:2] > (3, 11):
        pytest.skip("tflite-runtime 2.14.0 has no wheels above Python 3.11")
    folder = tmp_path_factory.mktemp("tflite-runtime")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    command = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *REQUIREMENTS]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"pip cannot install tflite-runtime: {done.stderr.strip().splitlines()[-1]}")
    return python


@pytest.mark.parametrize(
    ("name", "kernels"),
    representatives(
        itertools.product(["float32", "int8"], ["default", "builtin"]), ("float32", "default"), ("int8", "builtin")
    ),
)
def test_artifacts_run_the_same_under_tflite_runtime(tiny_files, python, tmp_path, name, kernels):
    """tflite-runtime 2.14.0 is found, runs the files, and gives the outputs that ai-edge-litert gives."""
    generator = np.random.default_rng(0)
    images = generator.random((20, 8, 8, 3), np.float32)
    if name == "int8":
        images = generator.integers(-128, 127, (20, 8, 8, 3), np.int8, endpoint=True)
    np.save(tmp_path / "inputs.npy", images)
    arguments = [tiny_files[name], tmp_path / "inputs.npy", tmp_path / "outputs.npy", kernels]
    command = [python, "-c", SCRIPT, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "tflite-runtime 2.14.0 []"
    assert done.stderr == ""
    expected = np.stack([run(tiny_files[name], image, kernels) for image in images])
    tolerance = 1 if name == "int8" else 1e-5
    np.testing.assert_allclose(np.load(tmp_path / "outputs.npy").astype(float), expected.astype(float), atol=tolerance)


def run(path: Path, image: np.ndarray, kernels: str) -> np.ndarray:
    interpreter = find_runtime("ai-edge-litert").interpreter(path, kernels=kernels)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]


def test_a_file_that_is_too_new_is_a_model_error(tiny_files, python, tmp_path):
    """What tflite-runtime does not know ends in a model error, as the profile's warning says."""
    from edgeprune.tflite.flatbuffer import read

    newest = tmp_path / "dynamic.tflite"
    newest.write_bytes(_dynamic_range())
    assert ("FULLY_CONNECTED", False, 12) in read(newest).operator_codes
    code = "import sys; from edgeprune.runtime.interpreter import find_runtime; find_runtime().interpreter(sys.argv[1])"
    command = [python, "-c", code, str(newest)]
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)})
    assert "ModelError" in done.stderr
    assert "Didn't find op for builtin opcode 'FULLY_CONNECTED' version '12'" in done.stderr


def _dynamic_range() -> bytes:
    import tensorflow as tf
    import tf_keras

    image = tf_keras.layers.Input((64,), batch_size=1)
    model = tf_keras.Model(image, tf_keras.layers.Dense(64)(image))
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return converter.convert()
