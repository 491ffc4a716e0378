"""docs/tracking.md: what it says about DVC and MLflow, tried with what was installed of them."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from edgeprune.report.schema import parse

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "tracking.md").read_text("utf-8")


def block(language, words):
    """The code block of the page that has these words in it."""
    (found,) = [code for code in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if words in code]
    return found


@pytest.fixture
def run(tmp_path):
    """A run folder: a report, and the files that the page names."""
    report = json.loads((ROOT / "tests/report/sample_report.json").read_text("utf-8"))
    folder = tmp_path / "runs" / "model"
    for variant in report["variants"]:
        (folder / variant["file"]).parent.mkdir(parents=True, exist_ok=True)
        (folder / variant["file"]).write_bytes(variant["name"].encode())
    (folder / "report.html").write_text("a page")
    (folder / "report.json").write_text(json.dumps(report))
    return folder


def test_the_metrics_of_dvc_are_those_of_the_pick(run, tmp_path):
    """metrics.py writes numbers only, which DVC compares."""
    (tmp_path / "metrics.py").write_text(block("python", "sys.argv"))
    subprocess.run([sys.executable, "metrics.py", run, "metrics.json"], cwd=tmp_path, check=True, timeout=60)
    figures = json.loads((tmp_path / "metrics.json").read_text())
    picked = parse(json.loads((run / "report.json").read_text())).picked
    assert figures["accuracy"] == picked.metric.value
    assert (figures["bytes"], figures["arena_bytes"]) == (picked.bytes, picked.memory.arena_bytes)


def test_mlflow_has_a_build(run, tmp_path, monkeypatch):
    """With MLflow's own client and its folder: what was asked, figures of all variants, and files."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    space = {}
    exec(block("python", "def log_build"), space)
    report = parse(json.loads((run / "report.json").read_text()))
    space["log_build"](report, run)
    (logged,) = mlflow.search_runs(experiment_names=["builds"], output_format="list")
    assert logged.data.params["pick"] == report.pick
    for variant in report.variants:
        assert logged.data.metrics[f"{variant.name}/accuracy"] == variant.metric.value
        assert logged.data.metrics[f"{variant.name}/bytes"] == variant.bytes
    files = {file.path for file in mlflow.artifacts.list_artifacts(run_id=logged.info.run_id)}
    assert files == {"report.html", "report.json", Path(report.picked.file).name}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("dvc") is None, reason="needs dvc")
def test_dvc_builds_what_changed_and_shows_how_figures_moved(tmp_path):
    """With the dvc.yaml of the page: once, then nothing to do; with another recipe again, where stages are reused."""
    import tf_keras

    layers = tf_keras.layers
    model = tf_keras.Sequential(
        [layers.Input((8, 8, 3)), layers.Conv2D(16, 3, activation="relu"), layers.Conv2D(16, 3, activation="relu"),
         layers.GlobalAveragePooling2D(), layers.Dense(2, activation="softmax")]
    )  # fmt: skip
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.save(tmp_path / "model.keras")
    (tmp_path / "images").mkdir()
    _write_images(tmp_path / "images")
    (tmp_path / "metrics.py").write_text(block("python", "sys.argv"))
    (tmp_path / "dvc.yaml").write_text(block("yaml", "stages:"))
    (tmp_path / "recipe.toml").write_text('extends = ["int8"]\n')
    (tmp_path / "bin").mkdir()
    for name, module in (("edgeprune", "-m edgeprune "), ("python", "")):
        (tmp_path / "bin" / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {module}"$@"\n')
        (tmp_path / "bin" / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}

    def typed(*words):
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    typed("git", "init", "-q")
    typed("dvc", "init", "-q")
    typed("dvc", "repro")
    assert "didn't change, skipping" in typed("dvc", "repro")
    typed("git", "add", "-A")
    typed("git", "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-qm", "int8")
    (tmp_path / "recipe.toml").write_text('extends = ["oneshot"]\n')
    typed("dvc", "repro")
    moved = json.loads(typed("dvc", "metrics", "diff", "--json"))["metrics.json"]
    assert moved["bytes"]["diff"] != 0
    report = json.loads((tmp_path / "runs/model/report.json").read_text())
    assert {stage["name"] for stage in report["stages"] if stage["reused"]} > {"model"}


def _write_images(folder):
    from PIL import Image

    random = np.random.default_rng(0)
    for name in ("bright", "dark"):
        (folder / name).mkdir()
        for number in range(40):
            Image.fromarray(random.integers(0, 255, (8, 8, 3), np.uint8)).save(folder / name / f"{number}.png")


def test_the_stage_of_dvc_is_a_build_that_exists():
    """Its dependencies are what its command reads, its outputs what it writes."""
    stage = yaml.safe_load(block("yaml", "stages:"))["stages"]["build"]
    assert all(path in stage["cmd"] for path in stage["deps"])
    assert [*stage["outs"][0], *stage["metrics"][0]] == re.findall(r"runs/model(?= &&)|metrics\.json", stage["cmd"])
