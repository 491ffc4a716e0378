"""Scripts for devices, run on 50 test samples here and on the emulated board: the figure of the report comes out."""

import contextlib
import csv
import hashlib
import io
import subprocess
import sys
import tomllib
from pathlib import Path

import cells
import numpy as np
import pytest
import soundfile
from matrix import representatives
from PIL import Image

from edgeprune.builder import build
from edgeprune.data import InputSpec, load_data
from edgeprune.devices.emulator import Emulator
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
HEAD = "head = 'ssd'\nanchors = '{folder}/anchors.npy'\nanchor_form = 'xyxy'\niou_threshold = 0.3\n"
RECIPES = {
    "sound": f"[data.sound]\n{SOUND}",
    "images": "[data]\nscale = 0.00392156862745098\n",
    "rows": "[data.table]\ntarget = 'y'\nnormalize = 'standard'\n",
    "windows": "[data.table]\ntarget = 'y'\nwindow = 6\n",
    "masks": "[data]\nscale = 0.00392156862745098\nclasses = ['one', 'two', 'three']\n[data.masks]\nvoid = 9\n",
    "boxes": f"[data]\nscale = 0.00392156862745098\n[data.boxes]\nresize = 'letterbox'\nfill = 0\n[detection]\n{HEAD}",
}
# How weights are rounded, and which ranges activations get, is no matter of the scripts; nor is the float32 file.
QUICK = "[quantize]\nmodes = ['int8']\nrounding = 'nearest'\n[calibration]\nrange = 'minmax'\n"
SHAPES = {"sound": (19, 16), "images": (12, 12, 3), "rows": (4,), "windows": (6, 4), "masks": (16, 16, 3)}


def write_table(folder, rows):
    """The tables of both splits, with so many rows for each sample."""
    for split, count in (("train", TRAIN), ("test", TEST)):
        labels = np.random.randint(0, 3, count)
        with open(folder / f"{split}.csv", "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["a", "b", "c", "d", "y"])
            for label in labels.repeat(rows):
                table.writerow([*np.random.normal(label - 1, 2.0, 4).round(4), CLASSES[label]])
    return [(folder / "test.csv", CLASSES[label]) for label in labels]


def write_classes(folder, suffix, save):
    """A file for each sample, in folders of classes."""
    for split, count in (("train", TRAIN), ("test", TEST)):
        found = []
        for i, label in enumerate(np.random.randint(0, 3, count)):
            (folder / split / CLASSES[label]).mkdir(parents=True, exist_ok=True)
            path = folder / split / CLASSES[label] / f"{i}{suffix}"
            save(path, label)
            found.append((path, CLASSES[label]))
    return found


def save_sound(path, label):
    time = np.arange(3000 + 100 * (int(path.stem) % 20)) / 8000
    wave = np.sin(2 * np.pi * (600 + 200 * label + np.random.normal(0, 120)) * time)
    soundfile.write(path, 0.1 * (wave + np.random.normal(0, 0.5, len(time))), 8000, "PCM_16")


def save_image(path, label):
    pixels = np.random.normal(110 + 16 * label, 60, (12, 12, 3)).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path)


def write_masks(folder):
    """Blocks of three classes under noise; labels have the size of the model's output, half of the files'."""
    for split, count in (("train", TRAIN), ("test", TEST)):
        found = []
        for kind in ("images", "masks"):
            (folder / split / kind).mkdir(parents=True)
        for i in range(count):
            mask = np.random.randint(0, 3, (4, 4)).repeat(4, 0).repeat(4, 1)
            pixels = np.random.normal(40 + 80 * mask[..., None], 50, (16, 16, 3)).clip(0, 255).astype(np.uint8)
            mask[0, :] = mask[-1, -5:] = 9
            Image.fromarray(pixels).save(folder / split / "images" / f"{i}.png")
            Image.fromarray(mask.astype(np.uint8)).save(folder / split / "masks" / f"{i}.png")
            found.append((folder / split / "images" / f"{i}.png", mask[1::2, 1::2]))
    return found


def write_boxes(folder):
    truth = cells.write(folder, splits=("train", "test"), count=TEST, forms=("coco",))["test"]
    np.save(folder.parent / "anchors.npy", cells.anchors())
    return [(folder / "test" / "images" / name, boxes) for name, (_, _, boxes) in truth.items()]


# Makes samples of train and test in a folder, 50 of them in test, and returns (file, truth) of each of these.
WRITERS = {
    "sound": lambda folder: write_classes(folder, ".wav", save_sound),
    "images": lambda folder: write_classes(folder, ".png", save_image),
    "rows": lambda folder: write_table(folder, 1),
    "windows": lambda folder: write_table(folder, 6),
    "masks": write_masks,
    "boxes": write_boxes,
}


def trained(kind, source, config):
    """A model that is right more often than by chance and less than always."""
    import tf_keras

    if kind == "boxes":
        return cells.detector()
    tf_keras.utils.set_random_seed(0)
    layers = tf_keras.layers
    inputs = layers.Input(SHAPES[kind])
    if kind == "masks":
        x = layers.Conv2D(8, 3, 2, "same", activation="relu")(inputs)
        model = tf_keras.Model(inputs, layers.Conv2D(3, 1, activation="softmax")(x), name="net")
    else:
        x = layers.Dense(16, activation="relu")(layers.Flatten()(inputs))
        model = tf_keras.Model(inputs, layers.Dense(3, activation="softmax")(x), name="net")
    data = load_data(source, config, InputSpec.of(model))
    model.compile("adam", tf_keras.losses.SparseCategoricalCrossentropy(ignore_class=-1 if kind == "masks" else None))
    model.fit(data.train.batches(16, shuffle_seed=0), epochs=30 if kind == "masks" else 10, verbose=0)
    return model


# What scripts make of tables is in tests/snippets/test_snippets.py, too, and what they make of masks in
# tests/tasks/test_segmentation.py.
@pytest.fixture(scope="module", params=representatives(RECIPES, "sound", "images", "boxes"))
def built(request, tmp_path_factory):
    """A model built as int8; its run folder, test samples, and the figure of the report."""
    kind, root = request.param, tmp_path_factory.mktemp(request.param)
    (root / "data").mkdir()
    np.random.seed(0)
    samples = WRITERS[kind](root / "data")
    assert len(samples) == TEST
    recipe = RECIPES[kind].format(folder=root)
    (root / "recipe.toml").write_text(f"extends = ['int8']\n{QUICK}{recipe}")
    model = trained(kind, root / "data", DataConfig(**tomllib.loads(recipe)["data"]))
    report = build(model, data=root / "data", recipe=root / "recipe.toml", target="rpi4", out=root / "out")
    (file,) = (root / "out").glob("*.tflite")
    pick = next(v for v in report["variants"] if v["sha256"] == _sha256(file))
    assert pick["metric"]["samples"] == TEST
    return kind, root / "out", samples, pick["metric"]["value"]


def _sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def by_sample(printed):
    """The lines that the script printed for each sample."""
    return [part.splitlines()[1:] for part in printed.split("sample ")[1:]]


def share_right(answers, samples):
    """The fraction of samples whose class is theirs."""
    return np.mean([answer == label for answer, (_, label) in zip(answers, samples, strict=True)])


def of_files(printed, samples, folder):
    return share_right([lines[0].split()[1] for lines in by_sample(printed)], samples)


def of_tables(printed, samples, folder):
    return share_right([line.split()[2] for line in printed.splitlines() if line.startswith("line ")], samples)


def mean_iou(printed, samples, folder):
    """Of the masks that the script wrote, over the three classes, without void pixels."""
    found = np.array([np.asarray(Image.open(folder / f"{path.stem}-mask.png")) for path, _ in samples])
    truth = np.array([mask for _, mask in samples])
    pairs = [((truth == label), (found == label) & (truth != 9)) for label in range(3)]
    return np.mean([(one & other).sum() / (one | other).sum() for one, other in pairs])


def average_precision(printed, samples, folder):
    """Of the printed boxes, by pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, found = [], []
    for image, (lines, (_, boxes)) in enumerate(zip(by_sample(printed), samples, strict=True)):
        for x1, y1, x2, y2, label in boxes:
            own = {"image_id": image, "category_id": label, "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0}
            truth.append({**own, "id": len(truth) + 1, "area": (x2 - x1) * (y2 - y1)})
        for score, name, *corners in map(str.split, lines):
            x1, y1, x2, y2 = map(float, corners)
            own = {"image_id": image, "category_id": cells.CLASSES.index(name), "score": float(score)}
            found.append({**own, "bbox": [x1, y1, x2 - x1, y2 - y1]})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {"images": [{"id": i} for i in range(TEST)], "annotations": truth, "info": {}}
        coco.dataset["categories"] = [{"id": i, "name": name} for i, name in enumerate(cells.CLASSES)]
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][:, :, :, 0, -1].mean()


# (what the script printed, samples, where it wrote files) → the figure.
FIGURES = {
    **dict.fromkeys(("sound", "images"), of_files),
    **dict.fromkeys(("rows", "windows"), of_tables),
    "masks": mean_iou,
    "boxes": average_precision,
}


def test_the_script_has_the_figure_of_the_report(built, tmp_path):
    """On the host, on the very files of the test data."""
    kind, out, samples, figure = built
    (tmp_path / "driver.py").write_text(DRIVER)
    (script,) = out.glob("run_*.py")
    files = list(dict.fromkeys(str(path) for path, _ in samples))
    command = [sys.executable, tmp_path / "driver.py", script, *files]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert found.returncode == 0, found.stderr
    assert (0.1 if kind == "boxes" else 1 / 3) < figure < 0.995
    assert FIGURES[kind](found.stdout, samples, tmp_path) == pytest.approx(
        figure, abs=1e-4 if kind == "boxes" else 1e-6
    )


@pytest.mark.parametrize("built", representatives(RECIPES, "sound", "images"), indirect=True)
def test_the_script_has_the_figure_of_the_report_on_the_board(built, emulated_board, tmp_path):
    """On the emulated board, which has no Pillow: images go there as pixels. One sample may fall on the other side of
    a tie, because ARM's kernels round in their own way."""
    kind, out, samples, figure = built
    (tmp_path / "driver.py").write_text(DRIVER)
    (script,) = out.glob("run_*.py")
    files = {path.name: path for path, _ in samples}
    if kind in ("images", "masks", "boxes"):
        files = {Path(name).with_suffix(".npy").name: pixels(path, tmp_path) for name, path in files.items()}
    with Emulator() as device:
        (model,) = out.glob("*.tflite")
        for path in (*out.glob(f"{model.stem}*"), script, tmp_path / "driver.py"):
            device.push(path, path.name)
        for name, path in files.items():
            device.push(path, name)
        done = device.run(["python3", "driver.py", script.name, *files], timeout_s=400)
        assert done.code == 0, done.stderr
        for path, _ in samples if kind == "masks" else ():
            device.pull(f"{path.stem}-mask.png", tmp_path / f"{path.stem}-mask.png")
    found = FIGURES[kind](done.stdout.decode(), samples, tmp_path)
    assert found == pytest.approx(figure, abs=1 / TEST + 1e-6)


def pixels(path, folder):
    np.save(folder / f"{path.stem}.npy", np.asarray(Image.open(path)))
    return folder / f"{path.stem}.npy"
