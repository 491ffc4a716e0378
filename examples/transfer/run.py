"""A published MobileNet learns ten classes of small photographs, and becomes a pruned int8 file for a Raspberry Pi.

    python examples/transfer/run.py --weights imagenet_mobilenet025.tar.gz --data cifar10-jpeg.tar.gz --out OUT

Takes 200 training and 100 test images of each class. Writes OUT/data, OUT/model.keras, OUT/recipe.toml and the run
folder OUT/run; the last line has the figures of every file.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import tf_keras
from tf_keras import layers

import edgeprune

SIDE = 96  # pixels; the weights were trained at 224
IMAGES = {"train": 200, "test": 100}  # of each class
RECIPE = """extends = ["filters-int8"]
data = { mean = [127.5], std = [127.5] }
filters = { max_macs = "70%", criterion = "taylor" }
finetune = { epochs = 3 }
"""


def take(source: Path, data: Path) -> None:
    """The first images of each class, as data/SPLIT/CLASS/*.jpg."""
    for split, count in IMAGES.items():
        for folder in (source / split).iterdir():
            (data / split / folder.name).mkdir(parents=True, exist_ok=True)
            for image in sorted(folder.iterdir())[:count]:
                shutil.copy(image, data / split / folder.name)


def network(weights: Path, classes: int) -> tf_keras.Model:
    """The layers of the published model up to its pooling, at another size, and a head for the new classes."""
    whole = tf_keras.models.load_model(weights, compile=False)
    pooling = next(layer for layer in whole.layers if isinstance(layer, layers.GlobalAveragePooling2D))
    body = tf_keras.Model(whole.input, pooling.input)
    small = tf_keras.models.clone_model(body, layers.Input((SIDE, SIDE, 3)))
    small.set_weights(body.get_weights())
    features = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(small.output))
    return tf_keras.Model(small.input, layers.Dense(classes, activation="softmax", name="classes")(features))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--weights", "--data", "--out"):
        parser.add_argument(name, type=Path, required=True)
    options = parser.parse_args()
    tf_keras.utils.set_random_seed(0)
    out = options.out
    with tempfile.TemporaryDirectory() as unpacked:
        for archive in (options.weights, options.data):
            shutil.unpack_archive(archive, unpacked, filter="data")
        take(next(Path(unpacked).glob("*/train")).parent, out / "data")
        model = network(next(Path(unpacked).rglob("mobilenet_v1_0.25_224_model.h5")), 10)
    train = tf_keras.utils.image_dataset_from_directory(out / "data" / "train", image_size=(SIDE, SIDE), seed=0)
    scaled = train.map(lambda x, y: (x / 127.5 - 1, y)).cache()
    for layer in model.layers[:-1]:
        layer.trainable = False
    for rate, epochs in ((1e-2, 4), (1e-3, 4)):  # first the head alone, then all layers
        model.compile(tf_keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", ["accuracy"])
        model.fit(scaled, epochs=epochs, verbose=2)
        model.trainable = True
    model.save(out / "model.keras")
    (out / "recipe.toml").write_text(RECIPE, "utf-8")
    report = edgeprune.build(out / "model.keras", data=str(out / "data"), recipe=out / "recipe.toml", out=out / "run")
    print({file.name: {"accuracy": file.metric.value, "bytes": file.bytes} for file in report.variants})


if __name__ == "__main__":
    main()
