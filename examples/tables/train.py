"""Train a small network that predicts the last column of a table: house values, or carbon monoxide in the air.

    python examples/tables/train.py --data regression_tabular.tar.gz --out OUT [--table air_quality] [--csv] [--seed 0]

Writes OUT/model.keras, which normalizes its inputs itself, and OUT/data.npz; with --csv, the tables OUT/data, and
OUT/recipe.toml, which says how a build normalizes them before the model. Rows that follow each other are neighbours
in space or time: the validation split, which chooses the epoch, is every tenth of 100 blocks of rows.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras
from tf_keras import layers

RECIPE = 'extends = ["int8"]\n[data.table]\ntarget = "target"\nnormalize = "standard"\n'


def read(data: Path, table: str) -> dict[str, np.ndarray]:
    """x: float32 [rows, columns]; y: float32 [rows, 1]."""
    with tempfile.TemporaryDirectory() as folder:
        if not data.is_dir():
            shutil.unpack_archive(data, folder, filter="data")
            data = next(Path(folder).iterdir())
        given = dict(np.load(data / table / f"{table}.npz"))
    count = len(given["x_train"])
    held_out = np.arange(count) * 100 // count % 10 == 9
    splits = {f"{name}_val": given[f"{name}_train"][held_out] for name in "xy"}
    return given | splits | {f"{name}_train": given[f"{name}_train"][~held_out] for name in "xy"}


def network(x_train: np.ndarray, is_normalized: bool = False) -> tf_keras.Model:
    x = inputs = layers.Input(x_train.shape[1:])
    if not is_normalized:
        x = layers.Normalization(mean=x_train.mean(0, float), variance=x_train.var(0, float))(inputs)
    for units in (64, 64, 32):
        x = layers.Dense(units, activation="relu")(x)
    return tf_keras.Model(inputs, layers.Dense(1)(x))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the archive, or the folder that was in it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--table", default="california_housing", help="or air_quality")
    parser.add_argument("--csv", action="store_true", help="tables, normalized by the build")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tf_keras.utils.set_random_seed(options.seed)
    tf.config.experimental.enable_op_determinism()
    data = read(options.data, options.table)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.csv:
        (options.out / "data").mkdir(exist_ok=True)
        header = ",".join([*(f"c{i}" for i in range(data["x_train"].shape[1])), "target"])
        mean, std = data["x_train"].mean(0, float), data["x_train"].std(0, float)
        for split in ("train", "val", "test"):
            rows = np.hstack([data[f"x_{split}"], data[f"y_{split}"]])
            np.savetxt(options.out / "data" / f"{split}.csv", rows, "%.9g", ",", header=header, comments="")
            data[f"x_{split}"] = ((data[f"x_{split}"] - mean) / std).astype("float32")
        (options.out / "recipe.toml").write_text(RECIPE, "utf-8")
    else:
        np.savez_compressed(options.out / "data.npz", **data)
    model = network(data["x_train"], options.csv)
    model.compile(tf_keras.optimizers.Adam(1e-3), "mse", ["mae", tf_keras.metrics.RootMeanSquaredError()])
    best = [tf_keras.callbacks.EarlyStopping(patience=10, restore_best_weights=True)]
    (x, y), validation, test = ((data[f"x_{split}"], data[f"y_{split}"]) for split in ("train", "val", "test"))
    model.fit(x, y, 64, options.epochs, validation_data=validation, callbacks=best, verbose=2)
    print(model.evaluate(*test, verbose=0, return_dict=True))
    model.save(options.out / "model.keras")


if __name__ == "__main__":
    main()
