import json
import subprocess
import sys

import pytest
from commands import run


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A classifier of digits, never trained, as a Keras file and as float and int8 .tflite."""
    from edgeprune._tensorflow import import_tf

    import_tf()
    from edgeprune.checking.trial import trial_subject
    from edgeprune.data import demo_model
    from edgeprune.models.save import save_model
    from edgeprune.target import load_target

    folder = tmp_path_factory.mktemp("files")
    model = demo_model()
    save_model(model, folder / "model.keras")
    target = load_target("rpi4")
    return {
        "keras": folder / "model.keras",
        **{mode: trial_subject(model, target, mode, folder).path for mode in ("float32", "int8")},
    }


def test_check_of_a_file_as_json(files):
    """Standard output holds one document with the findings; an error among them is exit code 1."""
    done = run("check", files["float32"], "--target", "coral", "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 1, done.stderr
    assert document["target"] == "coral-usb"
    assert document["findings"][0]["severity"] == "error"


def test_check_of_a_keras_model(files):
    """A Keras model is converted on the way, and what is found names its layers."""
    done = run("check", files["keras"], "--target", "rpi4")
    assert done.returncode == 0, done.stderr
    assert "rpi4" in done.stdout


def test_compare_with_accuracy(files):
    """With data, the accuracy of both files stands beside their sizes."""
    done = run("compare", files["float32"], files["int8"], "--data", "demo", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["accuracy"]["accuracy"]) == 2
    assert 0 <= found["accuracy"]["agreement"] <= 1
    assert found["figures"]["bytes"]["change"] < 0


def test_compare_on_a_target(files):
    """With a target, its latency stands beside the sizes, for the files and operator by operator."""
    done = run("compare", files["float32"], files["int8"], "--target", "rpi4")
    assert done.returncode == 0, done.stderr
    assert "estimated ms on rpi4" in done.stdout
    assert "one by one" in done.stdout


def test_compare_as_a_table(files):
    """The table names both files and the operators."""
    done = run("compare", files["float32"], files["int8"])
    assert done.returncode == 0, done.stderr
    assert "CONV_2D" in done.stdout
    assert "bytes after gzip" in done.stdout


@pytest.mark.parametrize("command", ["check", "compare"])
def test_a_missing_file_is_exit_code_2(command, tmp_path):
    """A file that is not there is one message and exit code 2."""
    rest = ["--target", "rpi4"] if command == "check" else [tmp_path / "b.tflite"]
    done = run(command, tmp_path / "a.tflite", *rest)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_check_needs_no_tensorflow_for_a_file(files):
    """Checking a .tflite, which is run once, imports no TensorFlow."""
    code = (
        "import sys, edgeprune; edgeprune.check(sys.argv[1], 'coral');"
        "sys.exit(', '.join({'tensorflow', 'tf_keras'} & sys.modules.keys()) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(files["int8"])], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
