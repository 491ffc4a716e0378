"""The command, killed in the middle: nothing is lost, and the pick can be built again."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

RECIPE = """
extends = "int8"
[filters]
max_macs = 0.5
criterion = "l2"
samples = 64
verify = false
[reconstruct]
samples = 64
[quantize]
rounding = "nearest"
[calibration]
samples = 16
range = "minmax"
[search.filters]
max_macs = { choices = [0.5, 0.8] }
[search.finetune]
epochs = { choices = [1, 2] }
"""


@pytest.fixture(scope="module")
def files(tiny_model, tiny_data, tmp_path_factory):
    """A folder with the model, data and a recipe; the options that name them."""
    folder = tmp_path_factory.mktemp("killed")
    arrays = {}
    for split, size in {"train": 256, "test": 96}.items():
        x, y, *_ = next(iter(getattr(tiny_data, split).batches(size)))
        arrays |= {f"x_{split}": np.asarray(x), f"y_{split}": np.asarray(y)}
    np.savez(folder / "data.npz", **arrays)
    tiny_model.save(folder / "tiny.keras")
    (folder / "mine.toml").write_text(RECIPE)
    return folder, ["tiny.keras", "--data", "data.npz", "--target", "rpi4", "--deterministic"]


def command(name, *options):
    return [sys.executable, "-m", "edgeprune", name, *options]


@pytest.fixture(scope="module")
def gone_on(files):
    """A search that was killed after its first rung and started again: what was finished then, and the second one."""
    folder, options = files
    goal = ["--recipe", "mine.toml", "--max-size", "1", "--trials", "2", "--out", "out"]
    search = command("search", *options, *goal)
    process = subprocess.Popen(search, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    for line in process.stderr:
        if ", trial " in line:  # the first rung of the first trial is done, and the next one runs
            os.kill(process.pid, signal.SIGKILL)
            break
    process.wait(60)
    process.stderr.close()
    finished = {path: path.stat().st_mtime_ns for path in (folder / "out/stages").glob("*/artifact.json")}
    assert any(path.parent.name.startswith("validate-") for path in finished)
    assert not (folder / "out/search.json").exists()
    return finished, subprocess.run(search, cwd=folder, capture_output=True, text=True, timeout=600)


def test_a_killed_search_goes_on_where_it_was(files, gone_on):
    """No finished stage is run again, and exit code 1 says that the goal is not met."""
    folder, _ = files
    finished, done = gone_on
    assert done.returncode == 1, done.stderr
    assert "max_size is missed by" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    (target,) = json.loads((folder / "out/search.json").read_text())["targets"]
    assert sum(trial["state"] != "repeated" for trial in target["trials"]) == 2


@pytest.mark.slow
def test_the_pick_of_a_search_builds_to_the_byte(files, gone_on):
    """A build of the pick's recipe gives the same file."""
    folder, options = files
    build = command("build", *options, "--recipe", "out/best/recipe.toml", "--out", "again")
    again = subprocess.run(build, cwd=folder, capture_output=True, text=True, timeout=600)
    assert again.returncode == 0, again.stderr
    (made,) = (folder / "again/variants").glob("tiny-filters-int8.tflite")
    assert made.read_bytes() == (folder / "out/best/tiny.tflite").read_bytes()


def test_ctrl_c_ends_a_search_with_130_and_the_front_so_far(files):
    """Within seconds, whatever a trial does at the moment."""
    folder, options = files
    search = command("search", *options, "--recipe", "mine.toml", "--trials", "4", "--max-drop", "3", "--out", "out")
    process = subprocess.Popen(search, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    said = []
    for line in process.stderr:
        said.append(line)
        if ", trial " in line and process.poll() is None:
            os.kill(process.pid, signal.SIGINT)
            break
    said += process.stderr.readlines()
    process.stderr.close()
    assert process.wait(120) == 130, said
    assert "the same command goes on from there" in said[-1]
    (target,) = json.loads((folder / "out/search.json").read_text())["targets"]
    assert target["front"]
    assert target["best"]["folder"] is None
