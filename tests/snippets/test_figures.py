"""Scripts for devices, run on 50 test samples here and on the emulated board: the figure of the report comes out."""

import csv
import hashlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgeprune.builder import build
from edgeprune.data import InputSpec, load_data
from edgeprune.devices.emulator import Emulator
from edgeprune.devices.emulator_home import Home
from edgeprune.errors import MissingError
from edgeprune.recipe.config import DataConfig

CLASSES, TRAIN, TEST = ("one", "three", "two"), 150, 50  # in the order of folders
# Runs a script in one process as often as there are samples, each time as from the command line.
DRIVER = """import runpy, sys
script, *samples = sys.argv[1:]
for sample in samples:
    print("sample", sample)
    sys.argv = [script, sample]
    runpy.run_path(script, run_name="__main__")
"""
SOUND = "rate = 8000\nsamples = 4000\nfront = 'log-mel'\nframe = 400\nhop = 200\nmels = 16\n"
RECIPES = {
    "sound": f"[data.sound]\n{SOUND}",
    "images": "[data]\nscale = 0.00392156862745098\n",
    "rows": "[data.table]\ntarget = 'y'\nnormalize = 'standard'\n",
    "windows": "[data.table]\ntarget = 'y'\nwindow = 6\n",
}
SHAPES = {"sound": (19, 16), "images": (12, 12, 3), "rows": (4,), "windows": (6, 4)}


def write(kind, folder):
    """Samples of all classes in train and test, 50 of them in test. Returns the source, and (sample, label) of test."""
    np.random.seed(0)
    found = []
    for split, count in (("train", TRAIN), ("test", TEST)):
        labels = np.random.randint(0, 3, count)
        if kind in ("rows", "windows"):
            rows = np.repeat(labels, 6 if kind == "windows" else 1)
            with open(folder / f"{split}.csv", "w", newline="") as file:
                table = csv.writer(file)
                table.writerow(["a", "b", "c", "d", "y"])
                table.writerows([*np.random.normal(row - 1, 2.0, 4).round(4), CLASSES[row]] for row in rows)
            found = [(folder / "test.csv", CLASSES[label]) for label in labels]
            continue
        found = []
        for i, label in enumerate(labels):
            (folder / split / CLASSES[label]).mkdir(parents=True, exist_ok=True)
            path = folder / split / CLASSES[label] / f"{i}.{'wav' if kind == 'sound' else 'png'}"
            if kind == "sound":
                time = np.arange(3000 + 100 * (i % 20)) / 8000
                hertz = 600 + 200 * label + np.random.normal(0, 120)
                wave = np.sin(2 * np.pi * hertz * time) + np.random.normal(0, 0.5, len(time))
                soundfile.write(path, 0.1 * wave, 8000, "PCM_16")
            else:
                from PIL import Image

                pixels = np.random.normal(110 + 16 * label, 60, (12, 12, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(path)
            found.append((path, CLASSES[label]))
    return folder, found


@pytest.fixture(scope="module", params=RECIPES)
def built(request, tmp_path_factory):
    """A model that is right more often than by chance and less than always, built as int8; its test samples."""
    import tf_keras

    kind, root = request.param, tmp_path_factory.mktemp(request.param)
    (root / "data").mkdir()
    source, samples = write(kind, root / "data")
    (root / "recipe.toml").write_text(f"extends = ['int8']\n{RECIPES[kind]}")
    tf_keras.utils.set_random_seed(0)
    layers = tf_keras.layers
    inputs = layers.Input(SHAPES[kind])
    x = layers.Dense(16, activation="relu")(layers.Flatten()(inputs))
    model = tf_keras.Model(inputs, layers.Dense(3, activation="softmax")(x), name="net")
    data = load_data(source, DataConfig(**tomllib.loads(RECIPES[kind])["data"]), InputSpec.of(model))
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    model.fit(data.train.batches(16, shuffle_seed=0), epochs=10, verbose=0)
    report = build(model, data=source, recipe=root / "recipe.toml", target="rpi4", out=root / "out")
    pick = next(v for v in report["variants"] if v["sha256"] == _sha256(root / "out" / "net.tflite"))
    assert pick["metric"]["samples"] == TEST
    return kind, root / "out", samples, pick["metric"]["value"]


def _sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def share_right(kind, printed, samples):
    """The fraction of samples whose first printed class is theirs."""
    if kind in ("rows", "windows"):
        answers = [line.split()[2] for line in printed.splitlines() if line.startswith("line ")]
    else:
        answers = [part.splitlines()[1].split()[1] for part in printed.split("sample ")[1:]]
    assert len(answers) == len(samples) == TEST
    return np.mean([answer == label for answer, (_, label) in zip(answers, samples, strict=True)])


def test_the_script_has_the_figure_of_the_report(built, tmp_path):
    """On the host, on the very files of the test data."""
    kind, out, samples, figure = built
    (tmp_path / "driver.py").write_text(DRIVER)
    files = list(dict.fromkeys(str(path) for path, _ in samples))
    command = [sys.executable, tmp_path / "driver.py", out / "run_net.py", *files]
    found = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert found.returncode == 0, found.stderr
    assert 1 / 3 < figure < 1
    assert share_right(kind, found.stdout, samples) == pytest.approx(figure, abs=1e-6)


def test_the_script_has_the_figure_of_the_report_on_the_board(built, tmp_path):
    """On the emulated board, which has no Pillow: images go there as pixels. One sample may fall on the other side of
    a tie, because ARM's kernels round in their own way."""
    try:
        Home().require()
    except MissingError as error:
        if os.environ.get("EDGEPRUNE_REQUIRE_EMULATOR") == "1":
            raise
        pytest.skip(str(error))
    kind, out, samples, figure = built
    (tmp_path / "driver.py").write_text(DRIVER)
    files = {f"{i}{path.suffix}": path for i, path in enumerate(dict.fromkeys(path for path, _ in samples))}
    if kind == "images":
        files = {Path(name).with_suffix(".npy").name: pixels(path, tmp_path) for name, path in files.items()}
    with Emulator() as device:
        beside = (path for path in out.iterdir() if path.is_file() and path.name.startswith(("net", "run_net")))
        for path in (*beside, tmp_path / "driver.py"):
            device.push(path, path.name)
        for name, path in files.items():
            device.push(path, name)
        done = device.run(["python3", "driver.py", "run_net.py", *files], timeout_s=400)
    assert done.code == 0, done.stderr
    assert share_right(kind, done.stdout.decode(), samples) == pytest.approx(figure, abs=1 / TEST + 1e-6)


def pixels(path, folder):
    from PIL import Image

    np.save(folder / f"{path.stem}.npy", np.asarray(Image.open(path)))
    return folder / f"{path.stem}.npy"
