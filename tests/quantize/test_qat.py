"""Quantization-aware training of the architectures that people deploy: one step, full int8, near its Keras model."""

import numpy as np
import pytest
from matrix import representatives

from edgeprune.convert.converter import convert
from edgeprune.convert.findings import conversion_warnings, float_operators
from edgeprune.models.load import load_model
from edgeprune.models.save import save_model
from edgeprune.quantize.cluster import cluster
from edgeprune.quantize.plan import QuantizationPlan
from edgeprune.quantize.prepare import prepare
from edgeprune.quantize.qat import Preserved, prepare_training, refusal, share_weights
from edgeprune.recipe.config import ClusterConfig
from edgeprune.runtime.interpreter import find_runtime
from edgeprune.runtime.session import Session
from edgeprune.tflite.flatbuffer import read
from edgeprune.tflite.size import kernels


def dscnn(layers, x):
    """The keyword spotter of MLPerf Tiny, narrow."""
    x = layers.Conv2D(8, (10, 4), strides=2, padding="same")(x)
    x = layers.Dropout(0.2)(layers.Activation("relu")(layers.BatchNormalization()(x)))
    for _ in range(2):
        x = layers.DepthwiseConv2D(3, padding="same")(x)
        x = layers.Activation("relu")(layers.BatchNormalization()(x))
        x = layers.Activation("relu")(layers.BatchNormalization()(layers.Conv2D(8, 1)(x)))
    x = layers.Flatten()(layers.AveragePooling2D((5, 5))(x))
    return layers.Dense(10, activation="softmax")(x)


def efficientnet_lite(layers, x):
    """Inverted residuals with ReLU6 and without squeeze-and-excitation."""
    x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.Conv2D(8, 3, strides=2, use_bias=False)(x)))
    for stride, width in ((1, 8), (2, 12), (1, 12)):
        y = layers.Conv2D(x.shape[-1] * 3, 1, use_bias=False)(x)
        y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
        y = layers.DepthwiseConv2D(5, strides=stride, padding="same", use_bias=False)(y)
        y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
        y = layers.BatchNormalization()(layers.Conv2D(width, 1, use_bias=False)(y))
        x = layers.Add()([x, y]) if y.shape == x.shape else y
    return layers.Dense(10)(layers.GlobalAveragePooling2D()(x))


def unet(layers, x):
    """Down, up by transposed convolution and by resizing, with skips; a class per pixel."""
    skips = []
    for width in (4, 8):
        x = layers.BatchNormalization()(layers.Conv2D(width, 3, padding="same", activation="relu")(x))
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = layers.LeakyReLU(0.1)(layers.Conv2D(8, 3, padding="same")(x))
    x = layers.Concatenate()([layers.Conv2DTranspose(8, 2, strides=2, activation="relu")(x), skips[1]])
    x = layers.UpSampling2D(interpolation="bilinear")(x)
    x = layers.Concatenate()([layers.Conv2D(4, 3, padding="same", activation="swish")(x), skips[0]])
    return layers.Conv2D(3, 1, activation="softmax")(x)


def preactivation(layers, x):
    """Batch normalization before the convolutions, as in ResNetV2, gates and a sum of three."""
    x = layers.Conv2D(6, 3, padding="same")(layers.Rescaling(1 / 0.5, -1.0)(x))
    y = layers.Conv2D(6, 3, padding="same")(layers.ReLU()(layers.BatchNormalization()(x)))
    gate = layers.Dense(6, activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(y))
    x = layers.Add()([x, layers.Multiply()([y, gate]), layers.SeparableConv2D(6, 3, padding="same")(x)])
    return layers.Dense(10)(layers.Flatten()(layers.ZeroPadding2D(1)(x)))


def hard_swish(layers, x):
    """As in MobileNetV3: hard swish as a product, and a gate of hard sigmoids."""
    x = layers.Conv2D(6, 3)(x)
    x = layers.Multiply()([x, layers.ReLU(6.0)(x + 3.0) * (1.0 / 6.0)])
    gate = layers.Conv2D(6, 1)(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.Multiply()([x, layers.ReLU(6.0)(gate + 3.0) * (1.0 / 6.0)])
    return layers.Dense(10)(layers.Flatten()(x))


def from_body(body, shape):
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    inputs = tf_keras.layers.Input(shape)
    return tf_keras.Model(inputs, body(tf_keras.layers, inputs), name=body.__name__)


def application(name, alpha):
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    make = getattr(tf_keras.applications, name)
    return make((32, 32, 3), alpha=alpha, weights=None, classes=10, classifier_activation=None)


MODELS = {
    "dscnn": lambda shared: from_body(dscnn, (20, 10, 1)),
    "unet": lambda shared: from_body(unet, (16, 16, 3)),
    "preactivation": lambda shared: from_body(preactivation, (8, 8, 3)),
    "hard_swish": lambda shared: from_body(hard_swish, (8, 8, 3)),
    "efficientnet_lite": lambda shared: from_body(efficientnet_lite, (24, 24, 3)),
    "resnet8": lambda shared: load_model(shared / "models" / "mlperf_tiny_resnet8.h5"),
    "mobilenet_v1": lambda shared: load_model(application("MobileNet", 0.25)),
    "mobilenet_v2": lambda shared: load_model(application("MobileNetV2", 0.35)),
    "mobilenet_v3": lambda shared: load_model(application("MobileNetV3Small", 0.35)),
}
QUICK = ("resnet8", "hard_swish")  # residual sums and a softmax, and what becomes an operator of its own
HARD_SWISHES = {"hard_swish": 1, "mobilenet_v3": 19}
PIXELS = {"mobilenet_v3", "resnet8"}  # inputs of 0..255


def images(model, high, count=12):
    return np.random.default_rng(0).uniform(0, high, (count, *model.input_shape[1:])).astype("float32")


def one_step(trainee, x):
    """One step on labels that the model itself gives for other inputs: gradients everywhere."""
    model = trainee.model
    model.compile("adam", "mse", run_eagerly=True)
    model.train_on_batch(x, np.asarray(model(x[::-1], training=False)))
    return trainee.baked()


def run(path, model, x):
    session = Session(path, model.input_names, model.output_names, runtime=find_runtime())
    outputs = session.run([x])[0]
    session.close()
    return outputs


@pytest.mark.parametrize("name", representatives(MODELS, *QUICK))
def test_architectures_train_and_become_full_int8(name, shared, tmp_path):
    """One step, no float operator left, and the file is within a few rounding steps of the Keras model."""
    model = MODELS[name](shared)
    assert refusal(model) is None
    x = images(model, 255 if name in PIXELS else 1)
    baked = one_step(prepare_training(model, [x], Preserved()), x)
    path = tmp_path / "model.tflite"
    path.write_bytes(convert(baked, QuantizationPlan("int8", "int8", False, ranges_in_model=True)))
    operators = [operator.name for operator in read(path).subgraphs[0].operators]
    assert float_operators(path.read_bytes()) == []
    assert operators.count("HARD_SWISH") == HARD_SWISHES.get(name, 0)
    reference, found = baked.predict(x, verbose=0), run(path, baked, x)
    # A softmax is stored in steps of 1/256, which the Keras model does not take; untrained, its outputs differ little.
    span = float(np.ptp(reference))
    assert np.abs(found - reference).mean() < 0.03 * span + 1 / 256
    assert np.abs(found - reference).max() < 0.2 * span + 2 / 256


def test_pruned_and_clustered_kernels_of_one_by_one_keep_both(tmp_path):
    """Zeros and clusters of every kernel, 1x1 ones included (tfmot#979), are there in the flatbuffer."""
    model = prepare(from_body(efficientnet_lite, (16, 16, 3)))
    for layer in model.layers:
        if type(layer).__name__ == "Conv2D":
            kernel = layer.kernel.numpy()
            layer.kernel.assign(np.where(np.abs(kernel) < np.median(np.abs(kernel)), 0, kernel))
    kept = cluster(model, ClusterConfig(n_clusters=6), zeros=True, seed=0)
    x = images(model, 1)
    names = tuple(name for name, structure in kept.items() if structure.clusters is not None)
    shared_model = one_step(share_weights(model, kept), x)
    baked = one_step(prepare_training(shared_model, [x], Preserved(zeros=True, clustered=names)), x)
    path = tmp_path / "model.tflite"
    path.write_bytes(convert(baked, QuantizationPlan("int8", "int8", False, ranges_in_model=True, one_scale=names)))
    found = [kernel for kernel in kernels(read(path)) if kernel.operator != "DEPTHWISE_CONV_2D"]
    assert len(found) == len(names)
    for kernel in found:
        assert 1 < kernel.distinct <= 6, kernel
        if kernel.operator == "CONV_2D":
            assert 0.45 < kernel.sparsity < 0.75, kernel
    np.testing.assert_allclose(run(path, baked, x), baked.predict(x, verbose=0), atol=0.1 * np.ptp(baked(x)))


@pytest.mark.parametrize("structure", representatives(["rounding", "clusters"], "rounding"))
def test_frozen_layers_are_rounded_and_shared_but_not_trained(structure, tmp_path):
    """Their weights after training are those before it, in every form, and the saved model has them frozen."""
    import tf_keras

    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    base = tf_keras.Sequential(
        [
            layers.BatchNormalization(name="norm"),
            layers.Conv2D(6, 3, name="stem"),
            layers.BatchNormalization(),
            layers.SeparableConv2D(6, 3, name="separable"),
            layers.LayerNormalization(name="float"),
        ]
    )
    base.trainable = False
    inputs = layers.Input([8, 8, 3])
    x = layers.DepthwiseConv2D(3, name="thawed")(base(inputs))
    model = load_model(tf_keras.Model(inputs, layers.Dense(4, name="head")(layers.Flatten()(x))))
    frozen = {"norm", "stem", "separable_depthwise", "separable", "float"}
    x = images(model, 1)
    if structure == "rounding":
        trainee = prepare_training(model, [x], Preserved())
    else:
        prepared = prepare(model)
        trainee = share_weights(prepared, cluster(prepared, ClusterConfig(n_clusters=8), zeros=False, seed=0))
    before = trainee.baked()
    save_model(one_step(trainee, x), tmp_path / "model.keras")
    after = load_model(tmp_path / "model.keras")
    weighted = [layer for layer in after.layers if layer.weights]
    assert {layer.name for layer in weighted if not layer.trainable} == frozen
    for layer in weighted:
        pairs = list(zip(before.get_layer(layer.name).get_weights(), layer.get_weights(), strict=True))
        assert all(np.array_equal(old, new) for old, new in pairs) == (layer.name in frozen), layer.name


def test_a_model_that_is_frozen_as_a_whole_goes_through(tmp_path):
    """Nothing is trained but the ranges, and nothing fails."""
    model = from_body(hard_swish, (8, 8, 3))
    model.trainable = False
    x = images(model, 1)
    trainee = prepare_training(model, [x], Preserved())
    before = trainee.baked().get_weights()
    assert all(np.array_equal(a, b) for a, b in zip(before, one_step(trainee, x).get_weights(), strict=True))


def test_what_no_rule_knows_stays_float_and_is_named(tmp_path):
    """A layer normalization between convolutions: the file runs, and the report names the float operators."""
    import tf_keras

    layers = tf_keras.layers
    inputs = layers.Input([8, 8, 3])
    x = layers.LayerNormalization()(layers.Conv2D(8, 3)(inputs))
    model = tf_keras.Model(inputs, layers.Dense(4)(layers.Flatten()(layers.Conv2D(4, 3)(x))))
    x = images(model, 1)
    baked = one_step(prepare_training(model, [x], Preserved()), x)
    path = tmp_path / "model.tflite"
    plan = QuantizationPlan("int8", "float", False, ranges_in_model=True)
    path.write_bytes(convert(baked, plan))
    (warning,) = conversion_warnings(path.read_bytes(), plan, baked)
    assert "partly in float" in warning
    assert "CONV_2D" not in warning
    np.testing.assert_allclose(run(path, baked, x), baked.predict(x, verbose=0), atol=0.1 * np.ptp(baked(x)))


def test_refusal_names_the_layers():
    """A model that is mostly recurrent is refused with the share of its work and the layer."""
    import tf_keras

    layers = tf_keras.layers
    inputs = layers.Input([10, 4])
    model = tf_keras.Model(inputs, layers.Dense(2)(layers.GRU(16, name="memory")(inputs)))
    assert "memory (GRU)" in refusal(model)
