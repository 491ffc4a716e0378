import importlib.metadata
import subprocess
import sys

import numpy as np
import pytest

from edgeprune.errors import MissingError, ModelError, UsageError
from edgeprune.runtime import interpreter as runtime


def test_the_first_runtime_is_ai_edge_litert():
    """With ai-edge-litert installed it is chosen, and says which release it is."""
    found = runtime.find_runtime()
    assert found.name == "ai-edge-litert"
    assert found.version == f"ai-edge-litert {importlib.metadata.version('ai-edge-litert')}"


@pytest.mark.parametrize("kernels", ["default", "builtin"])
@pytest.mark.parametrize("form", ["path", "bytes"])
def test_interpreters_run(tiny_files, kernels, form):
    """A file or its bytes run with either set of kernels; XNNPACK takes part only where it may."""
    path = tiny_files["float32"]
    source = path if form == "path" else path.read_bytes()
    interpreter = runtime.find_runtime().interpreter(source, kernels=kernels)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.ones((1, 8, 8, 3), np.float32))
    interpreter.invoke()
    output = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    assert output.sum() == pytest.approx(1, abs=1e-5)
    assert runtime.runner.is_delegated(interpreter) == (kernels == "default")


def test_runtimes_agree(tiny_files):
    """TensorFlow's own interpreter, preferred by name, gives the outputs of ai-edge-litert."""
    outputs = []
    for name in ("ai-edge-litert", "tensorflow"):
        found = runtime.find_runtime(name)
        assert found.version.startswith(f"{name} ")
        interpreter = found.interpreter(tiny_files["float32"], kernels="builtin")
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.ones((1, 8, 8, 3), np.float32))
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-6)


def test_finding_a_runtime_does_not_import_tensorflow(tiny_files):
    """Neither finding the runtime nor running a file imports TensorFlow; nothing is written to standard error."""
    code = (
        "import sys; from edgeprune.runtime.interpreter import find_runtime; find_runtime().interpreter(sys.argv[1]);"
        "sys.exit('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tiny_files["float32"])], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_damaged_files_are_model_errors(tiny_files):
    """Truncated and foreign content ends in a model error."""
    content = tiny_files["float32"].read_bytes()
    for damaged in (content[:1000], content[: len(content) // 2], b"", b"no model"):
        with pytest.raises(ModelError):
            runtime.find_runtime().interpreter(damaged)


def test_what_the_runtime_refuses_is_a_model_error(tiny_files):
    """A file that is whole but has an operator version that the runtime does not know is a model error."""
    import tflite

    content = bytearray(tiny_files["int8"].read_bytes())
    model = tflite.Model.GetRootAs(content, 0)
    changed = [model.OperatorCodes(index) for index in range(model.OperatorCodesLength())]
    changed = [code for code in changed if code._tab.Offset(8)]  # versions other than 1 are written out
    for code in changed:
        position = code._tab.Pos + code._tab.Offset(8)
        content[position : position + 4] = (99).to_bytes(4, "little")
    assert changed
    with pytest.raises(ModelError, match=r"Didn't find op for builtin opcode '\w+' version '99'"):
        runtime.find_runtime().interpreter(bytes(content))


def test_unknown_and_missing_runtimes(monkeypatch):
    """A name that is no runtime is a usage error; one that is not installed is missing, with how to get it."""
    with pytest.raises(UsageError, match="There is no runtime 'onnx'"):
        runtime.find_runtime("onnx")
    monkeypatch.setattr(runtime.runner.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingError, match="pip install ai-edge-litert") as error:
        runtime.find_runtime()
    assert error.value.exit_code == 3
    with pytest.raises(MissingError, match="pip install tflite-runtime"):
        runtime.find_runtime("tflite-runtime")
