"""Train a small SSD that finds red and white blood cells and platelets in pictures of smears.

    python examples/detection/train.py --data detection_bccd.tar.gz --out OUT [--epochs 30] [--seed 0]

Writes OUT/model.keras, OUT/anchors.npy, OUT/losses.py, OUT/recipe.toml, and the data as they are into OUT/data. The
validation split chooses the epoch.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras
from figures import figures
from network import anchors_of, network
from PIL import Image

RECIPE = 'extends = ["int8"]\n[detection]\nhead = "ssd"\nanchors = {}\n'


def read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """x: uint8 [pictures, height, width, 3]; y: float32 [pictures, n, 5], see losses.py."""
    images = sorted((folder / "images").iterdir())
    rows = [np.loadtxt(folder / "labels_yolo" / f"{path.stem}.txt", ndmin=2) for path in images]
    y = np.full((len(images), max(map(len, rows)), 5), [0, 0, 0, 0, -1], np.float32)
    for boxes, own in zip(y, rows, strict=True):
        centre, size = own[:, 1:3], own[:, 3:]
        boxes[: len(own)] = np.concatenate([centre - size / 2, centre + size / 2, own[:, :1]], 1)
    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in images]), y


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the archive, or the folder that was in it")
    parser.add_argument("--out", type=Path, required=True)
    for name, default in (("--epochs", 30), ("--seed", 0)):
        parser.add_argument(name, type=int, default=default)
    options = parser.parse_args()
    tf_keras.utils.set_random_seed(options.seed)
    out, data = options.out.resolve(), options.out.resolve() / "data"
    with tempfile.TemporaryDirectory() as folder:
        if not options.data.is_dir():
            shutil.unpack_archive(options.data, folder, filter="data")
            options.data = next(Path(folder).iterdir())
        shutil.copytree(options.data, data, dirs_exist_ok=True)
    parts = {split: read(data / split) for split in ("train", "val", "test")}
    height, width = parts["train"][0].shape[1:3]
    anchors = anchors_of(height, width)
    np.save(out / "anchors.npy", anchors)
    shutil.copy(Path(__file__).parent / "losses.py", out)
    (out / "recipe.toml").write_text(RECIPE.format(json.dumps(str(out / "anchors.npy"))))
    sys.path.insert(0, str(out))  # the copy, with its anchors beside it
    import losses

    model = network((height, width, 3))
    schedule = tf_keras.optimizers.schedules.CosineDecay(2e-3, options.epochs * -(-len(parts["train"][0]) // 8))
    model.compile(tf_keras.optimizers.Adam(schedule), [losses.offsets, losses.scores])
    best = tf_keras.callbacks.ModelCheckpoint(str(out / "model.keras"), save_best_only=True)
    batches = {split: tf.data.Dataset.from_tensor_slices((x, (y, y))) for split, (x, y) in parts.items()}
    train = batches["train"].shuffle(1000, seed=options.seed).batch(8)
    model.fit(train, epochs=options.epochs, validation_data=batches["val"].batch(8), callbacks=[best], verbose=2)
    model = tf_keras.models.load_model(out / "model.keras", compile=False)
    print(figures(model, parts["test"][0], data / "test" / "instances_coco.json", anchors))


if __name__ == "__main__":
    main()
