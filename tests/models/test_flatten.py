"""Models within models, opened: tf_keras."""

import numpy as np
import pytest
from matrix import representatives

from edgeprune.models.flatten import flatten

NAMES = [
    "ConvNeXtBase",
    "ConvNeXtLarge",
    "ConvNeXtSmall",
    "ConvNeXtTiny",
    "DenseNet121",
    "DenseNet169",
    "DenseNet201",
    "EfficientNetB0",
    "EfficientNetB1",
    "EfficientNetB2",
    "EfficientNetB3",
    "EfficientNetB4",
    "EfficientNetB5",
    "EfficientNetB6",
    "EfficientNetB7",
    "EfficientNetV2B0",
    "EfficientNetV2B1",
    "EfficientNetV2B2",
    "EfficientNetV2B3",
    "EfficientNetV2M",
    "EfficientNetV2S",
    "InceptionResNetV2",
    "InceptionV3",
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Large",
    "MobileNetV3Small",
    "NASNetMobile",
    "RegNetX002",
    "RegNetX064",
    "RegNetY002",
    "RegNetY064",
    "ResNet101",
    "ResNet101V2",
    "ResNet152",
    "ResNet152V2",
    "ResNet50",
    "ResNet50V2",
    "ResNetRS50",
    "ResNetRS101",
    "VGG16",
    "VGG19",
    "Xception",
]
# One of each kind that is small; the others are for the long run.
ALWAYS = ("MobileNet",)
SIZES = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71, "NASNetMobile": 224}


def _body(keras, name="body", units=4):
    inputs = keras.Input((6,))
    x = keras.layers.BatchNormalization(name="norm")(keras.layers.Dense(units, name="dense")(inputs))
    return keras.Model(inputs, keras.layers.Dropout(0.5, name="drop")(x), name=name)


def _names(model):
    return {layer.name for layer in model.layers}


def _same(flat, model, width=6):
    sample = np.random.default_rng(1).normal(size=(3, width)).astype("float32")
    return np.allclose(flat(sample), model(sample), atol=1e-6)


def test_a_flat_model_is_returned_as_it_is(cnn):
    """Flattening a model without models in it does nothing."""
    assert flatten(cnn) is cnn


def test_names_stay_where_unique(keras):
    """Unique names stay; of equal names the outermost layer keeps it, the others get the name of their model."""
    inputs = keras.Input((6,), name="in")
    one, other = _body(keras, "one")(inputs), _body(keras, "other")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name="dense")(keras.layers.Add(name="add")([one, other])))
    flat = flatten(model)
    inner = {f"{body}_{name}" for body in ("one", "other") for name in ("dense", "norm", "drop")}
    assert _names(flat) == {"in", "dense", "add"} | inner
    assert _same(flat, model)


def test_models_in_models_in_models(keras):
    """Sequential in functional in Sequential opens, and a shared model's layers are called as often as the model."""
    shared = keras.Sequential([keras.layers.Dense(6, name="twice"), _body(keras, units=6)], name="shared")
    inputs = keras.Input((6,))
    middle = keras.Model(inputs, shared(shared(inputs)))
    model = keras.Sequential([keras.Input((6,)), middle, keras.layers.Dense(2, name="head")])
    flat = flatten(keras.Model(model.input, model.output))
    assert len(flat.get_layer("twice").inbound_nodes) == 2
    assert not [layer for layer in flat.layers if isinstance(layer, keras.Model)]
    assert _same(flat, model)


def test_frozen_stays_frozen_and_inference_stays_inference(keras):
    """A frozen base learns nothing and a base called with training=False drops nothing; the head does both."""
    base = _body(keras)
    base.trainable = False
    inputs = keras.Input((6,))
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(base(inputs, training=False)))
    model.compile("adam", "mse", metrics=["mae"])
    flat = flatten(model)
    assert {layer.name for layer in flat.layers if layer.trainable and layer.weights} == {"head"}
    sample = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
    assert np.array_equal(flat(sample, training=True), flat(sample, training=False))
    before = flat.get_layer("norm").get_weights()
    assert set(flat.fit(sample, np.ones((8, 2)), verbose=0).history) == {"loss", "mae"}
    assert all(np.array_equal(a, b) for a, b in zip(before, flat.get_layer("norm").get_weights(), strict=True))


def test_layers_that_are_frozen_in_part_keep_weights_and_flags(keras):
    """Keras orders a layer's weights by what trains, which a config need not tell; a frozen part stays in place."""
    inputs = keras.Input((4, 3))
    attention = keras.layers.MultiHeadAttention(1, 2, name="attention")
    body = keras.Model(inputs, attention(inputs, inputs), name="body")
    attention._query_dense.trainable = False
    flat = flatten(keras.Model(inputs, body(inputs)))
    parts = [part.trainable for part in flat.get_layer("attention")._flatten_layers()]
    assert parts == [part.trainable for part in attention._flatten_layers()]
    sample = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
    np.testing.assert_allclose(flat(sample), body(sample), atol=1e-6)


def test_losses_by_output_find_their_outputs(keras):
    """A loss keyed by the name of a nested model follows the output to its new name."""
    inputs = keras.Input((6,))
    model = keras.Model(inputs, [_body(keras, "a")(inputs), _body(keras, "b")(inputs)])
    model.compile("sgd", {"a": "mse", "b": "mae"})
    assert flatten(model).loss == {"a_drop": "mse", "b_drop": "mae"}


def test_adapted_statistics_come_along(keras):
    """A Normalization layer in a nested model keeps what it was adapted to."""
    norm = keras.layers.Normalization()
    norm.adapt(np.random.default_rng(0).normal(3, 2, (100, 6)))
    inputs = keras.Input((6,))
    model = keras.Model(inputs, keras.Sequential([norm])(inputs))
    assert _same(flatten(model), model)


@pytest.mark.slow
def _with_einsum(keras):
    import tensorflow as tf

    inputs = keras.Input((5, 4))
    x = keras.layers.Conv1D(6, 1, name="convolution")(inputs)
    x = tf.einsum("bij,bkj->bik", x, inputs @ tf.ones((4, 6)))
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))


def test_an_einsum_of_tensorflow_is_kept_by_files(keras, tmp_path):
    """A model with tf.einsum, whose tensors tf_keras does not write into files, becomes one that files keep whole."""
    model = _with_einsum(keras)
    flat = flatten(model)
    flat.save(tmp_path / "model.keras")
    x = np.random.default_rng(0).normal(size=(3, 5, 4)).astype("float32")
    for same in (flat, keras.models.load_model(tmp_path / "model.keras")):
        np.testing.assert_allclose(same(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_a_file_without_the_tensors_of_an_einsum_is_refused(keras, tmp_path, name):
    """tf_keras cannot read such a file either: the error says what is missing, and names the call."""
    from edgeprune.errors import ModelError
    from edgeprune.models import load_model

    _with_einsum(keras).save(tmp_path / name)
    with pytest.raises(ModelError, match=r"tf\.einsum 'tf\.einsum\w*', the file holds the equation only") as error:
        load_model(tmp_path / name)
    assert "tf.matmul" in error.value.fix


@pytest.mark.parametrize("name", representatives(NAMES, *ALWAYS))
def test_every_application_in_a_sequential_head(name, keras, calibrated):
    """Every family of tf_keras.applications opens inside a Sequential head; flatten itself compares the outputs."""
    size = SIZES.get(name, 32)
    base = getattr(keras.applications, name)(
        weights=None, include_top=False, pooling="avg", input_shape=(size, size, 3)
    )
    inputs = keras.Input((size, size, 3))
    model = calibrated(keras.Model(inputs, keras.layers.Dense(2, name="head")(base(inputs))))
    flat = flatten(model)
    assert flat.count_params() == model.count_params()
    keras.backend.clear_session()
