"""Every kind of data as a stream: peak memory, and the processor time of reading beside that of a training step.

    python benchmarks/streams.py [--count 60000] [--only NAME ...] > benchmarks/results/streams.md

Small files are made in a temporary folder (few different ones and many hard links), and each kind is read in a process
of its own, in batches of 32. The step is that of a small model of the kind in the same process, on batches in memory.
Times are those of the processor, all threads together, so that other programs on the machine do not matter.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

BATCH, CLASSES, DIFFERENT = 32, 10, 600
SIZE, SMALL = (96, 96), (32, 32)
COLUMNS, WINDOW, STRIDE, CHANNELS = 20, 64, 8, 6
SOUND = {"rate": 8000, "seconds": 1.0, "front": "mfcc", "frame": 240, "hop": 160, "mels": 40, "coefficients": 13}


@dataclasses.dataclass(frozen=True)
class Kind:
    """Data of one kind, and a model of it.

    Attributes:
        write: makes so many samples in a folder, and returns the source.
        recipe: ``[data]``.
        model: made when it is needed; it is trained to outputs of its own shape.
    """

    write: Callable[[Path, int], Path]
    recipe: dict[str, Any]
    model: Callable[[], Any]


def scenes(size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Pictures with edges and noise, as hard to decode as photographs, uint8 [height, width, 3]."""
    random = np.random.default_rng(0)
    while True:
        coarse = random.integers(0, 256, (size[0] // 8, size[1] // 8, 3)).repeat(8, 0).repeat(8, 1)
        yield (coarse * 0.8 + random.integers(0, 50, (*size, 3))).astype(np.uint8)


def links(folder: Path, count: int, suffix: str, save: Callable[[Path, int], None]) -> list[str]:
    """So many files in class folders, most of them links to the first ones; their names."""
    names = [f"{i % CLASSES}/{i}{suffix}" for i in range(count)]
    for number in range(CLASSES):
        (folder / str(number)).mkdir(parents=True)
    for i, name in enumerate(names):
        if i < DIFFERENT:
            save(folder / name, i)
        else:
            os.link(folder / names[i % DIFFERENT], folder / name)
    return names


def write_images(folder: Path, count: int, size: tuple[int, int] = SIZE) -> Path:
    from PIL import Image

    pictures = scenes(size)
    links(folder, count, ".jpg", lambda path, _: Image.fromarray(next(pictures)).save(path, quality=90))
    return folder


def write_masks(folder: Path, count: int) -> Path:
    from PIL import Image

    write_images(folder / "images", count)
    random = np.random.default_rng(1)

    def save(path: Path, _: int) -> None:
        classes = random.integers(0, CLASSES, (SIZE[0] // 8, SIZE[1] // 8)).repeat(8, 0).repeat(8, 1)
        Image.fromarray(classes.astype(np.uint8)).save(path)

    links(folder / "masks", count, ".png", save)
    return folder


def write_boxes(folder: Path, count: int) -> Path:
    write_images(folder / "images", count)
    random, corner = np.random.default_rng(2), lambda: random.integers(0, 40, 2).tolist()
    images = [{"id": i, "file_name": f"{i % CLASSES}/{i}.jpg", "height": 96, "width": 96} for i in range(count)]
    boxes = [
        {"id": i, "image_id": i // 3, "category_id": i % CLASSES, "bbox": [*corner(), 30, 50], "iscrowd": 0}
        for i in range(3 * count)
    ]
    categories = [{"id": i, "name": f"thing{i}"} for i in range(CLASSES)]
    text = json.dumps({"images": images, "annotations": boxes, "categories": categories})
    (folder / "instances.json").write_text(text)
    return folder


def write_sound(folder: Path, count: int) -> Path:
    random = np.random.default_rng(3)

    def save(path: Path, _: int) -> None:
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, SOUND["rate"], 0, "NONE", ""))
            file.writeframes(random.integers(-9999, 9999, SOUND["rate"]).astype("<i2").tobytes())

    links(folder, count, ".wav", save)
    return folder


def write_rows(folder: Path, count: int, columns: int = COLUMNS) -> Path:
    random = np.random.default_rng(4)
    with open(folder / "table.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow([*(f"c{i}" for i in range(columns)), "y"])
        for _ in range(count):
            rows.writerow([*(f"{value:.6f}" for value in random.normal(size=columns)), random.integers(CLASSES)])
    return folder / "table.csv"


def write_windows(folder: Path, count: int) -> Path:
    return write_rows(folder, WINDOW + (count - 1) * STRIDE, CHANNELS)


def mobilenet(size: tuple[int, int], outputs: int = CLASSES) -> Any:
    import tf_keras

    return tf_keras.applications.MobileNet((*size, 3), 0.25, weights=None, classes=outputs)


def residual(size: tuple[int, int]) -> Any:
    """As MLPerf Tiny's ResNet8: 12.5 million multiply-adds for 32 x 32 pixels."""
    import tf_keras

    layers = tf_keras.layers

    def normal(x: Any, filters: int, kernel: int, strides: int = 1) -> Any:
        return layers.BatchNormalization()(layers.Conv2D(filters, kernel, strides, "same")(x))

    inputs = layers.Input((*size, 3))
    x = layers.ReLU()(normal(inputs, 16, 3))
    for filters, strides in ((16, 1), (32, 2), (64, 2)):
        y = normal(layers.ReLU()(normal(x, filters, 3, strides)), filters, 3)
        x = layers.ReLU()(layers.Add()([y, normal(x, filters, 1, strides) if strides > 1 else x]))
    x = layers.Dense(CLASSES, activation="softmax")(layers.GlobalAveragePooling2D()(x))
    return tf_keras.Model(inputs, x)


def detector() -> Any:
    import tf_keras

    backbone = tf_keras.applications.MobileNet((*SIZE, 3), 0.25, weights=None, include_top=False)
    x = backbone.get_layer("conv_pw_11_relu").output
    return tf_keras.Model(backbone.input, tf_keras.layers.Conv2D(3 * (5 + CLASSES), 3, padding="same")(x))


def of_example(name: str, *arguments: Any) -> Any:
    import runpy

    script = Path(__file__).resolve().parents[1] / "examples" / name / "train.py"
    return runpy.run_path(str(script))["network"](*arguments)


TABLE = {"table": {"target": "y"}, "classes": [str(i) for i in range(CLASSES)]}
KINDS = {
    "images, 32 x 32": Kind(lambda *where: write_images(*where, SMALL), {}, lambda: residual(SMALL)),
    "images, 96 x 96": Kind(write_images, {}, lambda: mobilenet(SIZE)),
    "masks, 96 x 96": Kind(write_masks, {}, lambda: of_example("segmentation", (*SIZE, 3), CLASSES)),
    "boxes, 96 x 96": Kind(write_boxes, {}, detector),
    "sound, 1 s at 8 kHz": Kind(
        write_sound, {"sound": SOUND}, lambda: of_example("keywords", CLASSES, np.random.normal(size=(9, 49, 13, 1)))
    ),
    "rows of 20 columns": Kind(write_rows, TABLE, lambda: of_example("tables", np.random.normal(size=(9, COLUMNS)))),
    "windows of 64 rows": Kind(
        write_windows,
        {"table": {**TABLE["table"], "window": WINDOW, "stride": STRIDE}},
        lambda: of_example("sensor_windows"),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=60000)
    parser.add_argument("--only", nargs="*", choices=KINDS, default=list(KINDS))
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)  # kind and source, in a process of its own
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measured(KINDS[options.measure[0]], Path(options.measure[1]))))
        return
    print(f"# Streams\n\n`python benchmarks/streams.py --count {options.count}` on {platform.system()}, ", end="")
    print(f"{os.cpu_count()} cores.\n\nMB: the most memory that opening and reading took beyond importing TensorFlow.")
    print("Processor time of all threads: of opening, and per sample in microseconds.\n")
    print("| samples | MB | opening | first pass | later pass | training step | later pass / step |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            source = KINDS[name].write(Path(folder), options.count)
            command = [sys.executable, __file__, "--measure", name, str(source)]
            found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])
        times = " | ".join(f"{found[key]:,.0f}" for key in ("first", "later", "step"))
        share = found["later"] / found["step"]
        print(f"| {name} | {found['mb']:.0f} | {found['opening']:.1f} s | {times} | {share:.2f} |", flush=True)


def measured(kind: Kind, source: Path) -> dict[str, float]:
    from edgeprune._tensorflow import import_tf

    tf = import_tf()
    from edgeprune.data import InputSpec, load_data
    from edgeprune.recipe.config import DataConfig

    model = kind.model()
    model(np.zeros((1, *model.input_shape[1:]), np.float32))
    before, start = peak_mb(), time.process_time()
    data = load_data(source, DataConfig(**kind.recipe), InputSpec.of(model), seed=0)
    found = {"opening": time.process_time() - start}
    for name, seed in (("first", 1), ("later", 2)):
        start = time.process_time()
        samples = sum(len(x) for x, _ in data.train.batches(BATCH, shuffle_seed=seed))
        found[name] = 1e6 * (time.process_time() - start) / samples
    found["mb"] = peak_mb() - before
    # Which labels a model learns makes no difference to the time of a step.
    x, _ = next(iter(data.train.batches(BATCH)))
    batches = tf.data.Dataset.from_tensors((x, tf.zeros([BATCH, *model.output_shape[1:]]))).repeat(200)
    model.compile("adam", "mse")
    model.fit(batches.take(20), verbose=0)
    start = time.process_time()
    model.fit(batches, verbose=0)
    return found | {"step": 1e6 * (time.process_time() - start) / (200 * BATCH)}


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
