"""Train a 1-D convolutional network that tells from 0.6 s of a phone's accelerometer and gyroscope what its owner does.

    python examples/sensor_windows/train.py --data har_smartphone.tar.gz --out OUT [--seed 0]

Writes OUT/model.keras and OUT/data.npz. The people of the test split are in no other split, and neither are those of
the validation split, which chooses the epoch.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras
from tf_keras import layers

VALIDATION = (4, 13, 23)  # people
GRAVITY = 9.81


def read(data: Path) -> dict[str, np.ndarray]:
    """x: float32 [windows, 64, 6], accelerations in g (so that all channels have about the same range), then rotations
    in rad/s; y: class numbers."""
    with tempfile.TemporaryDirectory() as folder:
        if not data.is_dir():
            shutil.unpack_archive(data, folder, filter="data")
            data = next(Path(folder).iterdir())
        given = dict(np.load(data / "har_smartphone.npz"))
    units = np.array([GRAVITY] * 3 + [1] * 3, np.float32)
    held_out = np.isin(given["subject_train"], VALIDATION)
    return {
        **{"x_train": given["x_train"][~held_out] / units, "y_train": given["y_train"][~held_out]},
        **{"x_val": given["x_train"][held_out] / units, "y_val": given["y_train"][held_out]},
        **{"x_test": given["x_test"] / units, "y_test": given["y_test"]},
    }


def network() -> tf_keras.Model:
    inputs = x = layers.Input([64, 6])
    for filters in (24, 32, 48):
        x = layers.Conv1D(filters, 5, strides=2, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Dropout(0.3)(layers.GlobalAveragePooling1D()(x))
    return tf_keras.Model(inputs, layers.Dense(5, activation="softmax")(x))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the archive, or the folder that was in it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tf_keras.utils.set_random_seed(options.seed)
    tf.config.experimental.enable_op_determinism()
    data = read(options.data)
    options.out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(options.out / "data.npz", **data)
    model = network()
    model.compile(tf_keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy", ["accuracy"])
    best = tf_keras.callbacks.EarlyStopping(patience=15, restore_best_weights=True)
    validation = data["x_val"], data["y_val"]
    model.fit(
        data["x_train"], data["y_train"], 64, options.epochs, validation_data=validation, callbacks=[best], verbose=2
    )
    print(model.evaluate(data["x_test"], data["y_test"], verbose=0, return_dict=True))
    model.save(options.out / "model.keras")


if __name__ == "__main__":
    main()
