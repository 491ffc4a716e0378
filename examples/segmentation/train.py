"""Train a small U-Net that says of every pixel of a road scene what it shows: eleven classes, and some pixels without.

    python examples/segmentation/train.py --data segmentation_camvid.tar.gz --out OUT [--epochs 30] [--seed 0]

Writes OUT/model.keras, OUT/recipe.toml, and the pictures with their masks as they are into OUT/data. The validation
split, which chooses the epoch, is of the drive that is trained on; test is another drive.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras
from PIL import Image
from tf_keras import layers

RECIPE = 'extends = ["int8"]\n[data]\nclasses = {classes}\n[data.masks]\nvoid = {void}\n'


def read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """x: uint8 [pictures, height, width, 3]; y: class numbers, uint8 [pictures, height, width]."""
    images = sorted((folder / "images").iterdir())
    masks = [folder / "masks" / f"{path.stem}.png" for path in images]
    return tuple(np.stack([np.asarray(Image.open(path)) for path in paths]) for paths in (images, masks))


def network(shape: tuple[int, ...], classes: int) -> tf_keras.Model:
    inputs = layers.Input(shape)
    x, passed_on = layers.Rescaling(1 / 127.5, -1)(inputs), []
    for filters in (16, 24, 32, 48):
        x = block(x, filters, strides=2)
        passed_on.append(x)
    for filters, skip in zip((32, 24, 16), passed_on[-2::-1], strict=True):
        x = layers.Concatenate()([layers.UpSampling2D(interpolation="bilinear")(x), skip])
        x = block(x, filters)
    x = layers.UpSampling2D(interpolation="bilinear")(layers.Conv2D(classes, 1)(x))
    return tf_keras.Model(inputs, layers.Softmax()(x))


def block(x: tf.Tensor, filters: int, strides: int = 1) -> tf.Tensor:
    x = layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)(x)
    return layers.ReLU()(layers.BatchNormalization()(x))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the archive, or the folder that was in it")
    parser.add_argument("--out", type=Path, required=True)
    for name, default in (("--epochs", 30), ("--seed", 0)):
        parser.add_argument(name, type=int, default=default)
    options = parser.parse_args()
    tf_keras.utils.set_random_seed(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        if not options.data.is_dir():
            shutil.unpack_archive(options.data, folder, filter="data")
            options.data = next(Path(folder).iterdir())
        *classes, _ = (options.data / "classes.txt").read_text().split()  # the last one is void
        parts = {split: read(options.data / split) for split in ("train", "val", "test")}
        for split in parts:
            shutil.copytree(options.data / split, options.out / "data" / split, dirs_exist_ok=True)
    (options.out / "recipe.toml").write_text(RECIPE.format(classes=classes, void=len(classes)))
    model = network(parts["train"][0].shape[1:], len(classes))
    loss = tf_keras.losses.SparseCategoricalCrossentropy(ignore_class=len(classes))
    model.compile(tf_keras.optimizers.Adam(3e-3), loss)
    best = tf_keras.callbacks.ModelCheckpoint(f"{options.out}/model.keras", save_best_only=True)
    model.fit(*parts["train"], 8, options.epochs, validation_data=parts["val"], callbacks=[best], verbose=2)
    x, y = parts["test"]
    chosen, kept = tf_keras.models.load_model(options.out / "model.keras").predict(x).argmax(-1), y != len(classes)
    right = [np.sum(kept & (y == i) & (chosen == i)) for i in range(len(classes))]
    either = [np.sum(kept & ((y == i) | (chosen == i))) for i in range(len(classes))]
    iou = np.mean([a / b for a, b in zip(right, either, strict=True) if b])
    print({"mean_iou": float(iou), "accuracy": float(np.sum(right) / kept.sum())})


if __name__ == "__main__":
    main()
