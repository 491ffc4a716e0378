"""Train a small network that predicts the last column of a table: house values, or carbon monoxide in the air.

    python examples/tables/train.py --data regression_tabular.tar.gz --out OUT [--table air_quality] [--csv] [--seed 0]

Writes OUT/model.keras and OUT/data.npz. The model normalizes its inputs itself, so it takes the columns as they are.
With --csv, OUT/data has tables, and OUT/recipe.toml says how a build reads and normalizes them before the model.
Rows that follow each other are neighbours in space or time: the validation split, which chooses the epoch, is every
tenth of 100 blocks of rows.
"""

import argparse
import csv
import shutil
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras
from tf_keras import layers

TABLES = ("california_housing", "air_quality")
RECIPE = 'extends = ["int8"]\n[data.table]\ntarget = "target"\nnormalize = "standard"\n'


def read(data: Path, table: str) -> dict[str, np.ndarray]:
    """x: float32 [rows, columns]; y: float32 [rows, 1]."""
    with tempfile.TemporaryDirectory() as folder:
        if not data.is_dir():
            shutil.unpack_archive(data, folder, filter="data")
            data = next(Path(folder).iterdir())
        given = dict(np.load(data / table / f"{table}.npz"))
    rows = len(given["x_train"])
    held_out = np.arange(rows) * 100 // rows % 10 == 9
    return {
        **{f"{name}_train": given[f"{name}_train"][~held_out] for name in "xy"},
        **{f"{name}_val": given[f"{name}_train"][held_out] for name in "xy"},
        **{f"{name}_test": given[f"{name}_test"] for name in "xy"},
    }


def network(x_train: np.ndarray, is_normalized: bool = False) -> tf_keras.Model:
    x = inputs = layers.Input(x_train.shape[1:])
    if not is_normalized:
        normalization = layers.Normalization()
        normalization.adapt(x_train)
        x = normalization(inputs)
    for units in (64, 64, 32):
        x = layers.Dense(units, activation="relu")(x)
    return tf_keras.Model(inputs, layers.Dense(1)(x))


def write_tables(data: dict[str, np.ndarray], folder: Path) -> None:
    """train.csv, val.csv and test.csv, with columns c0, c1, ... and target."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("train", "val", "test"):
        rows = np.concatenate([data[f"x_{name}"], data[f"y_{name}"]], axis=1)
        with open(folder / f"{name}.csv", "w", newline="") as file:
            table = csv.writer(file)
            table.writerow([*(f"c{i}" for i in range(rows.shape[1] - 1)), "target"])
            table.writerows(rows.tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the archive, or the folder that was in it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--table", choices=TABLES, default=TABLES[0])
    parser.add_argument("--csv", action="store_true", help="tables, normalized by the build")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tf_keras.utils.set_random_seed(options.seed)
    tf.config.experimental.enable_op_determinism()
    data = read(options.data, options.table)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.csv:
        write_tables(data, options.out / "data")
        (options.out / "recipe.toml").write_text(RECIPE, "utf-8")
        mean, std = data["x_train"].mean(0, np.float64), data["x_train"].std(0, np.float64)
        data |= {f"x_{name}": ((data[f"x_{name}"] - mean) / std).astype("float32") for name in ("train", "val", "test")}
    else:
        np.savez_compressed(options.out / "data.npz", **data)
    model = network(data["x_train"], options.csv)
    model.compile(tf_keras.optimizers.Adam(1e-3), "mse", ["mae", tf_keras.metrics.RootMeanSquaredError()])
    best = tf_keras.callbacks.EarlyStopping(patience=10, restore_best_weights=True)
    validation = data["x_val"], data["y_val"]
    model.fit(
        data["x_train"], data["y_train"], 64, options.epochs, validation_data=validation, callbacks=[best], verbose=2
    )
    print(model.evaluate(data["x_test"], data["y_test"], verbose=0, return_dict=True))
    model.save(options.out / "model.keras")


if __name__ == "__main__":
    main()
