"""Train a network of two outputs, angle and throttle, that drives a model car by its camera.

    python examples/steering/train.py --data regression_steering.tar.gz --out OUT [--seed 0]

Writes OUT/model.keras, OUT/data.npz, and beside it data.py, whose function ``load`` gives both targets by name. The
test split is a later part of the drive; the validation split, for choices of a build, is every tenth of 20 blocks of
frames, because neighbours are alike.
"""

import argparse
import csv
import shutil
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras
from data import TARGETS, load
from tf_keras import layers

SIZE = (60, 80)  # half of the camera's


def read(data: Path) -> dict[str, np.ndarray]:
    """x: uint8 [frames, 60, 80, 3]; the targets: float32 [frames, 1], both in -1..1."""
    arrays = {}
    with tempfile.TemporaryDirectory() as folder:
        if not data.is_dir():
            shutil.unpack_archive(data, folder, filter="data")
            data = next(Path(folder).iterdir())
        for split in ("train", "test"):
            with (data / f"{split}.csv").open(newline="") as file:
                rows = list(csv.DictReader(file))
            images = [tf.io.decode_jpeg(tf.io.read_file(str(data / row["file"]))) for row in rows]
            arrays[f"x_{split}"] = np.rint(tf.image.resize(images, SIZE, "area")).astype(np.uint8)
            arrays |= {f"{name}_{split}": np.array([[row[name]] for row in rows], np.float32) for name in TARGETS}
    frames = len(arrays["x_train"])
    held_out = np.arange(frames) * 20 // frames % 10 == 9
    for name in ("x", *TARGETS):
        train = arrays[f"{name}_train"]
        arrays |= {f"{name}_train": train[~held_out], f"{name}_val": train[held_out]}
    return arrays


def network() -> tf_keras.Model:
    inputs = layers.Input([*SIZE, 3])
    x = layers.Rescaling(1 / 255)(inputs)
    for filters in (16, 24, 32, 48):
        x = layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Dropout(0.3)(layers.Dense(48, activation="relu")(layers.Flatten()(x)))
    return tf_keras.Model(inputs, [layers.Dense(1, name=name)(x) for name in TARGETS])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the archive, or the folder that was in it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tf_keras.utils.set_random_seed(options.seed)
    tf.config.experimental.enable_op_determinism()
    options.out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(options.out / "data.npz", **read(options.data))
    shutil.copy(Path(__file__).with_name("data.py"), options.out)
    data = load(options.out / "data.npz")
    model = network()
    steps = options.epochs * -(-len(data["train"][0]) // 32)
    optimizer = tf_keras.optimizers.Adam(tf_keras.optimizers.schedules.CosineDecay(2e-3, steps))
    weights = {"angle": 1.0, "throttle": 4.0}  # the throttle varies less
    model.compile(optimizer, dict.fromkeys(TARGETS, "mse"), dict.fromkeys(TARGETS, "mae"), weights)
    model.fit(*data["train"], 32, options.epochs, validation_data=data["validation"], verbose=2)
    print(model.evaluate(*data["test"], verbose=0, return_dict=True))
    model.save(options.out / "model.keras")


if __name__ == "__main__":
    main()
