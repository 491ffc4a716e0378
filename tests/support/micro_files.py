"""Int8 files whose weights suit the codes of TensorFlow Lite Micro."""

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def micro_file(once) -> Path:
    """An int8 file: kernels with zeros, with few values and with uneven ones; one is used by two operators."""
    return once("micro-file", _write) / "int8.tflite"


def _write(folder: Path) -> None:
    tf = pytest.importorskip("tensorflow")
    tf_keras = pytest.importorskip("tf_keras")
    layers, generator = tf_keras.layers, np.random.default_rng(3)
    shared = layers.Conv2D(16, 3, padding="same", activation="relu", name="shared")
    image = layers.Input((8, 8, 3), batch_size=1)
    x = layers.Conv2D(16, 3, padding="same", name="small")(image)
    x = shared(shared(x))
    x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=4, name="depthwise")(x)
    x = layers.Conv2DTranspose(16, 3, strides=2, padding="same", name="transposed")(x)
    x = layers.Conv2D(32, 3, padding="same", activation="relu", name="clustered")(x)
    x = layers.Dense(64, name="uneven")(layers.Flatten()(layers.AveragePooling2D(4)(x)))
    model = tf_keras.Model(image, layers.Softmax()(x))
    for layer in model.layers:
        for weight in layer.trainable_weights:
            values = generator.normal(0, 0.1, weight.shape)
            if layer.name == "clustered":
                values = 0.1 * (generator.integers(-2, 2, weight.shape) + 0.5)
            elif layer.name == "uneven":
                values = generator.laplace(0, 0.1, weight.shape) * (generator.random(weight.shape) < 0.5)
            elif layer.name != "small":
                values *= generator.random(weight.shape) < 0.2
            weight.assign(values)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([generator.random((1, 8, 8, 3), np.float32)] for _ in range(4))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    (folder / "int8.tflite").write_bytes(converter.convert())
