"""The runner: one file that stands alone, on its own and as part of edgeprune."""

import ast
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edgeprune.runtime import runner

FILE = Path(runner.__file__)


def run(*arguments, **options):
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, **options)


def test_it_stands_alone():
    """It needs nothing of edgeprune, no package beside NumPy and a runtime, and no syntax newer than Python 3.9."""
    tree = ast.parse(FILE.read_text(), feature_version=(3, 9))
    # What is imported for type checkers only is not needed to run.
    tree.body = [
        node for node in tree.body if not isinstance(node, ast.If) or ast.unparse(node.test) != "TYPE_CHECKING"
    ]
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {
        (node.module if isinstance(node, ast.ImportFrom) else alias.name).partition(".")[0]
        for node in imports
        for alias in node.names
    }
    assert names - set(sys.stdlib_module_names) == {"numpy"}


def test_a_copy_measures(tiny_files, tmp_path):
    """Copied somewhere else, it prints one JSON document with every figure, and its outputs are the same each time."""
    copy = shutil.copy(FILE, tmp_path / "r u n.py")
    documents = [json.loads(run(copy, tiny_files["int8"], "--runs", 20, cwd="/").stdout) for _ in range(2)]
    (first,), (second,) = (document["results"] for document in documents)
    assert first["outputs_sha256"] == second["outputs_sha256"]
    assert 0 < first["min_ms"] <= first["p5_ms"] <= first["median_ms"] <= first["p95_ms"] <= first["max_ms"]
    assert first["init_ms"] > 0
    assert first["first_ms"] > 0
    assert first["std_ms"] >= 0
    assert first["peak_bytes"] > 2**20
    assert (first["threads"], first["kernels"]) == (1, "xnnpack")
    assert first["runtime"].startswith("ai-edge-litert ")
    for moment in ("before", "after"):
        assert set(first[moment]) == {"governor", "clock_hz", "temperature_c", "throttling"}


@pytest.mark.parametrize("name", ["float32", "int8"])
def test_compiled_model_computes_what_the_interpreter_does(tiny_files, name):
    """LiteRT's CompiledModel is measured on the same input, gives the same outputs, and is named."""
    (compiled,), (plain,) = (
        json.loads(run(FILE, tiny_files[name], "--runs", 20, *options).stdout)["results"]
        for options in (["--delegate", "compiled", "--threads", 2], ["--threads", 2])
    )
    assert compiled["outputs_sha256"] == plain["outputs_sha256"]
    assert compiled["runtime"] == f"{plain['runtime']}, CompiledModel"
    assert compiled["kernels"] == plain["kernels"] == "xnnpack"
    assert compiled["median_ms"] > 0


def test_files_take_turns(tiny_files):
    """With several files, every other round goes in reverse, and each line is said as soon as it is known."""
    done = run(FILE, tiny_files["float32"], tiny_files["int8"], "--rounds", 4, "--runs", 12, "--stream")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["model"] for line in lines if line.get("event") == "round"] == [0, 1, 1, 0, 0, 1, 1, 0]
    assert [len(result["rounds_ms"]) for result in lines[-1]["results"]] == [4, 4]


@pytest.mark.parametrize(("name", "arguments", "code"), [("foreign", [], 2), ("float32", ["--delegate", "edgetpu"], 3)])
def test_what_cannot_run(tiny_files, tmp_path, name, arguments, code):
    """A file that is no model ends with 2, a delegate that is not installed with 3; both say why, as JSON."""
    (tmp_path / "foreign.tflite").write_bytes(b"no model" * 10)
    path = tiny_files.get(name, tmp_path / "foreign.tflite")
    done = run(FILE, path, *arguments)
    assert done.returncode == code
    assert json.loads(done.stdout)["code"] == code


def test_a_file_that_fails_when_it_runs(tmp_path):
    """What loads and then cannot be run, here an index beyond a table, is an error about the file (2), as JSON."""
    tf = pytest.importorskip("tensorflow")

    @tf.function(input_signature=[tf.TensorSpec([1, 4], tf.float32)])
    def beyond(x):
        return {"y": tf.gather(tf.constant([1.0, 2.0, 3.0]), tf.cast(tf.reduce_sum(x) + 9, tf.int32))}

    converter = tf.lite.TFLiteConverter.from_concrete_functions([beyond.get_concrete_function()])
    (tmp_path / "beyond.tflite").write_bytes(converter.convert())
    done = run(FILE, tmp_path / "beyond.tflite")
    assert done.returncode == runner.MODEL
    assert "cannot run the file" in json.loads(done.stdout)["error"]


def test_outputs_of_samples(tiny_files, tmp_path):
    """Samples run one by one, quantized on the way in and back on the way out."""
    generator = np.random.default_rng(0)
    np.savez(tmp_path / "in.npz", x0=generator.random((5, 8, 8, 3), np.float32))
    out = tmp_path / "out.npz"
    done = run(FILE, *tiny_files.values(), "--samples", tmp_path / "in.npz", "--outputs", out, "--runs", 10)
    assert done.returncode == 0, done.stderr
    with np.load(out) as found:
        assert found["y0_0"].shape == found["y1_0"].shape == (5, 4)
        np.testing.assert_allclose(found["y0_0"].sum(axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(found["y0_0"], found["y1_0"], atol=0.1)


def test_it_stops_when_it_is_alone(tiny_files, tmp_path):
    """When its standard input ends, it removes the folder that was made for it, but no other, and ends."""
    for name, stays in (("edgeprune-x", False), ("home", True)):
        folder = tmp_path / name
        folder.mkdir()
        command = [sys.executable, str(FILE), str(tiny_files["float32"]), "--stdin", "--runs", "100000000"]
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        time.sleep(1)
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(timeout=30) == runner.MISSING
        assert folder.exists() == stays


def test_throttling_is_named():
    """0x50005 is what a Raspberry Pi with a weak power supply says."""
    assert runner.throttling_of(0x50005) == [
        "under-voltage",
        "throttled",
        "under-voltage since boot",
        "throttled since boot",
    ]
    assert runner.throttling_of(0) == []


def test_vcgencmd_is_asked(tmp_path, monkeypatch):
    """Where the firmware's tool is there, its answer is read; where it fails, nothing is claimed."""
    tool = tmp_path / "vcgencmd"
    for script, expected in (("echo throttled=0x4", ["throttled"]), ("exit 1", None), ("echo what", None)):
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        assert runner.circumstances()["throttling"] == expected


PI = """processor\t: {core}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""
PI_TAIL = """Hardware\t: BCM2835
Revision\t: c03111
Serial\t\t: 100000003d1d1c36
Model\t\t: Raspberry Pi 4 Model B Rev 1.1
"""
INTEL = "vendor_id\t: GenuineIntel\nmodel\t\t: 85\nmodel name\t: Intel(R) Xeon(R) CPU @ 2.00GHz\nflags\t\t: fpu\n"


@pytest.mark.parametrize(
    ("cpuinfo", "tree", "name"),
    [
        (PI.format(core=0) + PI.format(core=1) + PI_TAIL, None, "Raspberry Pi 4 Model B Rev 1.1"),
        (PI.format(core=0) + "Hardware\t: BCM2835\n", "Raspberry Pi 3 Model B", "Raspberry Pi 3 Model B"),
        (PI.format(core=0) + "Hardware\t: BCM2835\n", None, "CPU part 0xd08"),
        ("Hardware\t: BCM2835\n", None, "BCM2835"),
        (INTEL, None, "Intel(R) Xeon(R) CPU @ 2.00GHz"),
    ],
)
def test_the_processor_is_named_by_what_says_most(monkeypatch, cpuinfo, tree, name):
    """The board's model comes before the family of its chip, wherever each stands in /proc/cpuinfo."""
    files = {"/proc/cpuinfo": cpuinfo, "/proc/device-tree/model": tree}
    monkeypatch.setattr(runner, "_read", files.get)
    assert runner.cpu_model() == name


@pytest.mark.parametrize(
    ("file", "given", "used"),
    [
        ("a.tflite", "default", "default"),
        ("a_edgetpu.tflite", "default", "edgetpu"),
        ("a_edgetpu.tflite", "builtin", "builtin"),
    ],
)
def test_compiled_files_need_their_delegate(file, given, used):
    """What was compiled for the Edge TPU runs with its delegate unless told otherwise."""
    assert runner.delegate_of(f"/x/{file}", given) == used


def test_statistics_have_an_oracle():
    """The summary is NumPy's."""
    found = runner.summary([1.0, 2.0, 3.0, 4.0, 100.0])
    assert (found["median_ms"], found["min_ms"], found["max_ms"], found["mean_ms"], found["runs"]) == (3, 1, 100, 22, 5)
