import json
import subprocess
import sys

import pytest
from tiny_files import Given, tflite_of

import edgeprune
import edgeprune.profiling.profile as package
from edgeprune.errors import ModelError, TargetError
from edgeprune.hardware.target_placement import placement_of
from edgeprune.target import load_target
from edgeprune.tflite import flatbuffer


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


def test_importing_parts_leaves_the_public_function_alone(artifacts):
    """edgeprune.profile is the function, whichever modules were imported before."""
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
        "import sys, edgeprune.profiling.profile; edgeprune.profiling.profile.profile(sys.argv[1], 'rpi4');"
        "sys.exit(', '.join({'tensorflow', 'tf_keras', 'ai_edge_litert'} & sys.modules.keys()) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(artifacts["int8"])], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_only_a_build_waits_for_the_best_compression(artifacts, monkeypatch):
    """A profile computes no zstd and a quick gzip; asked for the best compression, it gives the sizes of both."""
    from edgeprune.tflite import size

    best = package.profile(artifacts["int8"], best_compression=True)
    monkeypatch.setattr(size, "zstd_bytes", lambda content: pytest.fail("zstd takes seconds"))
    quick = package.profile(artifacts["int8"])
    assert quick.zstd_bytes is None
    assert quick.gzip_bytes >= best.gzip_bytes > 0 < best.zstd_bytes


def test_zeros_and_distinct_weights_are_counted_once(artifacts, monkeypatch):
    """The weights, most of a file, are walked through once for the table of kernels and the sparsity of all."""
    from edgeprune.tflite import size

    calls = []
    counting = size.distinct
    monkeypatch.setattr(size, "distinct", lambda tensor: calls.append(tensor.index) or counting(tensor))
    package.profile(artifacts["float32"])
    assert len(calls) == len(set(calls)) > 0


def test_what_each_operator_reads_and_writes(artifacts):
    """Bytes read and written are those of the tensors, weight bytes are those stored, and kinds of quantization and
    sparsity are those of the kernels."""
    for name, kind in (("float32", "none"), ("float16", "float16"), ("int8", "per-channel"), ("sparse", "none")):
        found = package.profile(artifacts[name]).to_dict()
        kernels = [row for row in found["operators"] if row["weight_sparsity"] is not None]
        assert len(kernels) == len(found["kernels"])
        assert kernels[0]["quantization"] == kind
        assert sum(row["weight_bytes"] for row in kernels) >= found["weight_bytes"]
        assert [row["weight_sparsity"] for row in kernels] == [row["sparsity"] for row in found["kernels"]]
        last = found["operators"][-1]
        assert last["outputs"] == [{"shape": [1, 10], "dtype": "float32", "constant": False}]
        assert last["written_bytes"] == 40
        assert found["subgraphs"] == 1
        assert "min_runtime_version" in found["metadata"]
    assert all(row["weight_bytes"] == 0 for row in found["operators"] if row["name"] in ("DENSIFY", "DEQUANTIZE"))


def test_the_table_names_peak_weights_and_runtime(artifacts):
    """Printed are the most memory in use with its operator, the bytes of weights and the oldest runtime."""
    from edgeprune.cli.tables import profile_table

    found = package.profile(artifacts["int8"], "rpi4").to_dict()
    caption = profile_table(found).caption
    for figure in (found["memory"]["peak_bytes"], found["weight_bytes"]):
        assert f"{figure:,}" in caption
    assert found["memory"]["peak_operator"] in caption
    assert f"TensorFlow Lite {found['min_runtime']}" in caption


@pytest.mark.parametrize(
    ("operator", "target", "own"),
    [("edgetpu-custom-op", "coral", True), ("edgetpu-custom-op", "rpi4", False), ("ethos-u", "ethos-u55-128", True)],
)
def test_a_compiled_file_has_no_estimate(tmp_path, operator, target, own):
    """What a compiler took cannot be seen, so nothing is estimated, and the text says why; the target that it was made
    for does not complain about it."""
    from edgeprune.cli.tables import profile_table

    image = [Given((1, 8), "int8", scale=0.1) for _ in range(2)]
    path = tmp_path / "made.tflite"
    path.write_bytes(tflite_of(image, [(operator, (0,), (1,))], [0], [1]))
    found = package.profile(path, target).to_dict()
    assert found["latency"]["estimated"] is None
    assert all(row["estimated_ms"] is None for row in found["operators"])
    assert "cannot be seen" in profile_table(found).caption
    assert any("runs only through" in warning for warning in found["warnings"]) != own


def test_the_compilers_counts_correct_the_prediction(artifacts):
    """With the compiler's word, the estimate keeps on the CPU what the prediction leaves there, and as many operators
    of each kind as the compiler counted."""
    place = package.profile(artifacts["int8"], "coral").placement  # its input and output are float
    assert place["cpu_ops"] > 0
    compiled = {"placement": {**place, "source": "edgetpu_compiler 16"}, "performance": None, "warnings": []}
    same = package.profile(artifacts["int8"], "coral", compiled)
    assert same.latency == package.profile(artifacts["int8"], "coral").latency
    counted = {"cpu_ops": 1, "not_mapped": [{"name": "CONV_2D", "count": 1, "status": "Mapped to the CPU"}]}
    graph = flatbuffer.read(artifacts["int8"]).subgraphs[0]
    found = placement_of("", graph, load_target("coral"), {**compiled, "placement": {**place, **counted}})
    left = [op for op in graph.operators if op.index not in found.mapped]
    assert [op.name for op in left] == ["CONV_2D"]
    assert left[0].index == max(op.index for op in graph.operators if op.name == "CONV_2D")


def test_a_file_that_only_renames_has_no_estimate(tmp_path):
    """A file with nothing but RESHAPE would be 0 ms: there is no estimate, and the reason is said."""
    path = tmp_path / "made.tflite"
    path.write_bytes(tflite_of([Given((1, 8)), Given((8, 1))], [("RESHAPE", [0], [1])], [0], [1]))
    found = package.profile(path, "rpi4").latency
    assert found.estimated is None
    assert "computes nothing" in found.unknown


def test_a_file_without_operators_has_no_estimate(tmp_path):
    """A file whose output is its input is profiled: no milliseconds, and no operator where memory peaks."""
    from edgeprune.cli.tables import profile_table

    path = tmp_path / "made.tflite"
    path.write_bytes(tflite_of([Given((1, 8))], [], [0], [0]))
    found = package.profile(path, "rpi4").to_dict()
    assert found["latency"] == {"estimated": None, "others": [], "unknown": "the file has no operators"}
    assert "None" not in profile_table(found).caption
