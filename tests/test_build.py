"""`edgeprune build` as a user runs it, in a process of its own: a small model, on the demo's digits."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import quick
from commands import run

RECIPE = """
extends = ["magnitude", "int8"]
[data]
scale = 0.00392156862745098
[finetune]
epochs = 2
[quantize]
rounding = "nearest"
[calibration]
samples = 32
range = "minmax"
"""

GIVEN = ("tiny.keras", "--data", "demo", "--target", "rpi4")


def start(folder, *options, **kwargs):
    command = [sys.executable, "-m", "edgeprune", "build", *GIVEN, *options]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}, **kwargs
    )


def build(folder, *options):
    process = start(folder, *options)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def folder(tiny_model, tmp_path_factory):
    """A working folder with a model and a recipe, and one finished build in `one`."""
    folder = tmp_path_factory.mktemp("work")
    tiny_model.save(folder / "tiny.keras")
    (folder / "edgeprune.toml").write_text(RECIPE)
    code, out, err = build(folder, "--deterministic", "--json", "--out", "one")
    assert code == 0, err
    (folder / "one.json").write_text(out)
    return folder


@pytest.fixture(scope="module")
def report(folder):
    return json.loads((folder / "one.json").read_text())


def figures(folder, run):
    """What must be equal between builds of the same seed: everything measured but times, and the files' bytes."""
    document = json.loads((folder / run / "report.json").read_text())
    rows = [{key: value for key, value in row.items() if key != "latency"} for row in document["variants"]]
    manifest = json.loads((folder / run / "manifest.json").read_text())
    files = {name: entry for name, entry in manifest["files"].items() if name.endswith((".tflite", ".keras", ".txt"))}
    return rows, document["picks"], document["training"], files


def test_standard_output_is_one_json_document_equal_to_the_file(folder, report):
    """With --json nothing else is on standard output, and the document is the report."""
    assert report == json.loads((folder / "one" / "report.json").read_text())
    assert report["schema_version"] == 1


def test_the_report_lists_every_variant_and_its_figures_are_those_of_the_files(folder, report):
    """Sizes and hashes in the report are those of the files beside it."""
    from edgeprune.files import sha256_file

    names = [variant["name"] for variant in report["variants"]]
    assert names == ["float32", "int8", "magnitude-float32", "magnitude-int8"]
    for variant in report["variants"]:
        path = folder / "one" / variant["file"]
        assert variant["bytes"] == path.stat().st_size
        assert variant["sha256"] == sha256_file(path)
        assert variant["metric"]["split"] == "test"
        assert variant["metric"]["value"] > 0.25  # a tenth is chance
        assert len(variant["latency"]["measured"]) == 2
        assert all(row["runs"] >= 50 for row in variant["latency"]["measured"])
        assert variant["latency"]["estimated"]["kernels"] == "xnnpack"
        assert {row["estimated_ms"] is None for row in variant["operators"]} == {False}


def test_half_of_the_weights_are_zero_in_the_flatbuffer_and_compress(report):
    """The sparsity asked for arrives in the file, and gzip sees it."""
    rows = {variant["name"]: variant for variant in report["variants"]}
    assert rows["magnitude-int8"]["weight_sparsity"] > 0.45
    assert rows["int8"]["weight_sparsity"] < 0.1
    assert rows["magnitude-int8"]["gzip_bytes"] < rows["int8"]["gzip_bytes"]
    assert rows["magnitude-int8"]["bytes"] == pytest.approx(rows["int8"]["bytes"], rel=0.02)


def test_the_run_folder_is_complete(folder, report):
    """Every promised file is there, and the manifest knows its bytes."""
    manifest = json.loads((folder / "one" / "manifest.json").read_text())["files"]
    expected = {"report.json", "report.html", "report.md", "recipe.toml", "tiny.tflite", "labels.txt"}
    assert expected <= set(manifest)
    assert {f"variants/tiny-{v['name']}.tflite" for v in report["variants"]} <= set(manifest)
    assert (folder / "one" / "labels.txt").read_text().split() == list("0123456789")
    pick = next(v for v in report["variants"] if v["name"] == report["pick"])
    assert manifest["tiny.tflite"]["sha256"] == pick["sha256"]


def test_gates_decide_the_exit_code_and_nothing_else(begin_demo, tmp_path):
    """A missed gate is exit code 1, with all artifacts and the report written; a met one is 0."""
    begin_demo(tmp_path / "gates")
    (tmp_path / "edgeprune.toml").write_text(quick.INT8.to_toml())
    command = ["build", "--target", "rpi4", "--out", "gates"]
    missed = run(*command, "--json", "--max-size", "1000", cwd=tmp_path)
    assert missed.returncode == 1, missed.stderr
    gate = json.loads(missed.stdout)["gates"][0]
    assert (gate["name"], gate["limit"], gate["passed"]) == ("max_size", 1000, False)
    assert (tmp_path / "gates" / "report.html").is_file()
    met = run(*command, "--max-size", "10000000", "--max-drop", "50", cwd=tmp_path)
    assert met.returncode == 0, met.stderr


def begin(folder, out, stage):
    """Let a build in ``out`` begin with the stages that come before one, as the unbroken build left them; all names."""
    names = [done["name"] for done in json.loads((folder / "one.json").read_text())["stages"]]
    for before in names[: names.index(stage)]:
        shutil.copytree(folder / "one" / "stages" / before, folder / out / "stages" / before)
    return names


@pytest.mark.parametrize(
    "stage",
    [
        pytest.param("int8.convert", marks=pytest.mark.slow),
        pytest.param("magnitude", marks=pytest.mark.slow),
        "magnitude-int8.convert",
        pytest.param("magnitude-int8.evaluate", marks=pytest.mark.slow),
    ],
)
def test_killed_at_any_stage_and_started_again_gives_the_same(folder, stage):
    """kill -9 in a stage, then the same command: figures and bytes equal those of the unbroken build.

    The stages before it are those of the unbroken build; the others run again. The resolved recipe of that build,
    given back as --recipe, asks for what is there.
    """
    out = f"killed-{stage}"
    names = begin(folder, out, stage)
    process = start(folder, "--deterministic", "--json", "--out", out)
    home = folder / out / "stages" / stage
    deadline = time.monotonic() + 200
    while not (home / "key.json").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    if stage == "magnitude":
        while not (home / "training.npz").exists():
            time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (home / "artifact.json").exists(), "killed too late to prove anything"
    resolved = folder / "one" / "recipe.toml"
    # In a process of its own, as the unbroken build was: after other tests, figures of this one differ from it.
    code, again, err = build(folder, "--deterministic", "--json", "--out", out, "--recipe", str(resolved))
    assert code == 0, err
    reused = {done["name"] for done in json.loads(again)["stages"] if done["reused"]}
    assert reused == set(names[: names.index(stage)])
    assert figures(folder, out) == figures(folder, "one")


def test_interrupted_says_how_to_go_on(folder):
    """Ctrl-C is exit code 130 and one message; a second build in the same folder at that time is refused."""
    # Trained for so long that it is still at work when the second one comes, on any machine.
    (folder / "long.toml").write_text(RECIPE.replace("epochs = 2", "epochs = 500"))
    begin(folder, "interrupted", "magnitude")
    process = start(folder, "--deterministic", "--recipe", "long.toml", "--out", "interrupted")
    while not (folder / "interrupted" / "stages" / "magnitude" / "training.npz").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    refused = run("build", *GIVEN, "--out", "interrupted", cwd=folder)
    assert refused.returncode == 2
    assert "Another edgeprune process is using the folder" in refused.stderr
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "the same command goes on" in err
    assert "Traceback" not in err
