"""Train a network that tells spoken words apart by their mel-frequency cepstral coefficients (MFCC).

    python examples/keywords/train.py --data audio_fsdd.tar.gz --out OUT [--seed 0]

The data have train/WORD/*.wav and test/WORD/*.wav, 16 bits, mono, 8 kHz. Writes OUT/model.keras, OUT/data, and OUT/
keywords.toml, a recipe that says how a build makes the coefficients; here tf.signal makes them, without edgeprune.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras
from tf_keras import layers

RATE, FRAME, HOP, MELS, COEFFICIENTS = 8000, 240, 160, 40, 13
SOUND = {"rate": RATE, "frame": FRAME, "hop": HOP, "mels": MELS, "coefficients": COEFFICIENTS}
RECIPE = "\n".join(['extends = ["int8"]', "[data.sound]", 'front = "mfcc"', *(f"{k} = {v}" for k, v in SOUND.items())])


def read(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """x: float32 [files, frames, coefficients, 1]; y: the place of the word in the alphabet, int64 [files]."""
    words = sorted(path.name for path in folder.iterdir())
    files = [(path, words.index(path.parent.name)) for path in sorted(folder.glob("*/*.wav"))]
    sounds = [tf.audio.decode_wav(tf.io.read_file(str(path)), 1, RATE).audio[:, 0] for path, _ in files]
    spectra = tf.abs(tf.signal.stft(tf.stack(sounds), FRAME, HOP)) ** 2
    filters = tf.signal.linear_to_mel_weight_matrix(MELS, spectra.shape[-1], RATE, 20, 4000)
    coefficients = tf.signal.mfccs_from_log_mel_spectrograms(tf.math.log(spectra @ filters + 1e-6))
    return coefficients[..., :COEFFICIENTS, None].numpy(), np.array([number for _, number in files])


def network(words: int, x: np.ndarray) -> tf_keras.Model:
    """Depthwise separable convolutions (Zhang et al. 2017, arXiv:1711.07128); inputs are normalized in the model."""
    inputs = layers.Input(x.shape[1:])
    y = layers.Normalization(axis=None, mean=x.mean(), variance=x.var())(inputs)
    y = layers.Conv2D(32, (5, 3), strides=2, padding="same", use_bias=False)(y)
    for filters in (48, 64, 64):
        y = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(y)
        y = layers.Conv2D(filters, 1, use_bias=False)(layers.ReLU()(layers.BatchNormalization()(y)))
    y = layers.GlobalAveragePooling2D()(layers.ReLU()(layers.BatchNormalization()(y)))
    return tf_keras.Model(inputs, layers.Dense(words, activation="softmax")(layers.Dropout(0.2)(y)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the archive, or the folder that was in it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tf_keras.utils.set_random_seed(options.seed)
    tf.config.experimental.enable_op_determinism()
    with tempfile.TemporaryDirectory() as unpacked:
        if not options.data.is_dir():
            shutil.unpack_archive(options.data, unpacked, filter="data")
        root = next((options.data if options.data.is_dir() else Path(unpacked)).rglob("train")).parent
        shutil.copytree(root, options.out / "data", dirs_exist_ok=True)
    (options.out / "keywords.toml").write_text(RECIPE, "utf-8")
    (x, y), test = read(options.out / "data" / "train"), read(options.out / "data" / "test")
    model = network(int(y.max()) + 1, x)
    steps = options.epochs * -(-len(x) // 32)
    optimizer = tf_keras.optimizers.Adam(tf_keras.optimizers.schedules.CosineDecay(3e-3, steps))
    model.compile(optimizer, "sparse_categorical_crossentropy", ["accuracy"])
    model.fit(x, y, 32, options.epochs, verbose=2)
    print(model.evaluate(*test, verbose=0, return_dict=True))
    model.save(options.out / "model.keras")


if __name__ == "__main__":
    main()
