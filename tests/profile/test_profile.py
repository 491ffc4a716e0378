import json
import subprocess
import sys

import pytest

import edgeprune
import edgeprune.profile as package
from edgeprune.errors import ModelError, TargetError


def test_profile_gathers_the_facts_of_a_file(artifacts):
    """The profile is one JSON document with sizes, counts, memory, operators and kernels of the file."""
    found = package.profile(artifacts["int8"], "rpi4")
    document = json.loads(json.dumps(found.to_dict()))
    assert document["target"] == "rpi4"
    assert document["bytes"] == artifacts["int8"].stat().st_size > document["gzip_bytes"]
    assert 0.5 < document["weight_sparsity"] < 0.7
    estimated = document["latency"]["estimated"]
    assert estimated["low_ms"] < estimated["median_ms"] < estimated["high_ms"]
    assert document["placement"] is None
    assert document["macs"] == sum(row["macs"] for row in document["operators"])
    assert document["memory"]["arena_bytes"] >= document["memory"]["peak_bytes"]
    assert document["memory"]["peak_operator"].split()[1] in {row["name"] for row in document["operators"]}
    assert len(document["sha256"]) == 64
    assert {"name", "operator", "shape", "weights", "zeros", "sparsity"} <= document["kernels"][0].keys()
    assert document["warnings"] == []


def test_the_target_decides_about_warnings(artifacts):
    """The same file warns for a target with an old runtime, and not without a target."""
    assert package.profile(artifacts["dynamic"]).warnings == ()
    assert any(
        "FULLY_CONNECTED version 12" in warning for warning in package.profile(artifacts["dynamic"], "coral").warnings
    )
    with pytest.raises(TargetError):
        package.profile(artifacts["dynamic"], "no-such-board")


def test_package_and_function_share_their_name(artifacts):
    """edgeprune.profile(...) works although edgeprune.profile is also a package that was imported."""
    assert edgeprune.profile(artifacts["float32"]).bytes > 0


def test_damaged_file(tmp_path, artifacts):
    """A truncated file is a model error that names it."""
    path = tmp_path / "half.tflite"
    path.write_bytes(artifacts["float32"].read_bytes()[:2000])
    with pytest.raises(ModelError, match=r"half\.tflite is damaged"):
        package.profile(path)


def test_profile_does_not_import_tensorflow(artifacts):
    """A profile imports neither TensorFlow nor a runtime."""
    code = (
        "import sys, edgeprune.profile; edgeprune.profile.profile(sys.argv[1], 'rpi4');"
        "sys.exit(', '.join({'tensorflow', 'tf_keras', 'ai_edge_litert'} & sys.modules.keys()) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(artifacts["int8"])], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_only_a_build_waits_for_the_best_compression(artifacts, monkeypatch):
    """A profile computes no zstd and a quick gzip; asked for the best compression, it gives the sizes of both."""
    from edgeprune.profile import size

    best = package.profile(artifacts["int8"], best_compression=True)
    monkeypatch.setattr(size, "zstd_bytes", lambda content: pytest.fail("zstd takes seconds"))
    quick = package.profile(artifacts["int8"])
    assert quick.zstd_bytes is None
    assert quick.gzip_bytes >= best.gzip_bytes > 0 < best.zstd_bytes


def test_zeros_and_distinct_weights_are_counted_once(artifacts, monkeypatch):
    """The weights, most of a file, are walked through once for the table of kernels and the sparsity of all."""
    from edgeprune.profile import size

    calls = []
    counting = size.distinct
    monkeypatch.setattr(size, "distinct", lambda tensor: calls.append(tensor.index) or counting(tensor))
    package.profile(artifacts["float32"])
    assert len(calls) == len(set(calls)) > 0
