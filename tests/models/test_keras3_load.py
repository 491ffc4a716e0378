"""Keras 3 at the door: files, objects, names, flags, code, unknown classes."""

import numpy as np
import pytest

from edgeprune.errors import ModelError
from edgeprune.models import load_model
from edgeprune.models.custom import custom_objects_from


@pytest.fixture(scope="module")
def transfer(keras3, calibrated):
    """A frozen base, as those of keras.applications are, in a Sequential head, with augmentation in front of it."""
    layers = keras3.layers
    x = inner = keras3.Input((32, 32, 3))
    for name in ("stem", "block"):
        x = layers.Conv2D(8, 3, strides=2, use_bias=False, name=f"{name}_conv")(layers.ZeroPadding2D(name=name)(x))
        x = layers.ReLU(6.0, name=f"{name}_relu")(layers.BatchNormalization(name=f"{name}_norm")(x))
    base = keras3.Model(inner, layers.DepthwiseConv2D(3, name="depthwise")(x), name="base")
    base.trainable = False
    model = keras3.Sequential(
        [
            keras3.Input((32, 32, 3), name="image"),
            layers.RandomFlip("horizontal"),
            layers.RandomRotation(0.1),
            layers.Rescaling(1 / 127.5, offset=-1, name="rescale"),
            base,
            layers.GlobalAveragePooling2D(name="gap"),
            layers.Dropout(0.2, name="drop"),
            layers.Dense(3, activation="softmax", name="head"),
        ],
        name="transfer",
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return calibrated(model)


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")


@pytest.mark.parametrize("name", ["object", "model.keras", "model.h5"])
def test_a_transfer_learning_model_loads_from_every_format(name, transfer, image, tmp_path, caplog):
    """Outputs, names, frozen layers, loss and metrics are the same; augmentation is left out with a warning."""
    source = transfer
    if name != "object":
        source = tmp_path / name
        transfer.save(source)
    loaded = load_model(source)
    assert type(loaded).__module__.startswith("tf_keras")
    assert np.allclose(loaded(image, training=False), transfer(image, training=False), atol=1e-5)
    base = transfer.get_layer("base")
    inner = [layer.name for layer in base.layers[1:]]
    assert [layer.name for layer in loaded.layers] == ["image", "rescale", *inner, "gap", "drop", "head"]
    assert {layer.name for layer in loaded.layers if layer.trainable} == {"image", "rescale", "gap", "drop", "head"}
    assert loaded.loss == "sparse_categorical_crossentropy"
    assert "only change training images" in caplog.text
    assert loaded.name == "transfer"


def test_a_frozen_normalization_does_not_learn(transfer, image):
    """Training the translated model leaves the statistics of the frozen base alone, and moves the head."""
    loaded = load_model(transfer)
    before = {weight.name: weight.numpy() for weight in loaded.weights}
    loaded.fit(image, np.array([0, 1]), epochs=1, verbose=0)
    changed = {weight.name for weight in loaded.weights if not np.array_equal(before[weight.name], weight.numpy())}
    assert changed == {"head/kernel:0", "head/bias:0"}


def test_a_base_called_for_inference_stays_in_inference(keras3, keras):
    """``base(x, training=False)`` is kept: dropout and normalization of the base never train."""
    inner = keras3.Input((4,))
    normed = keras3.layers.BatchNormalization(name="norm")(inner)
    base = keras3.Model(inner, keras3.layers.Dropout(0.9, name="drop")(normed))
    inputs = keras3.Input((4,))
    loaded = load_model(keras3.Model(inputs, keras3.layers.Dropout(0.5)(base(inputs, training=False))))
    samples = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    base_only = keras.Model(loaded.input, loaded.get_layer("drop").output)
    assert np.array_equal(base_only(samples, training=True), base_only(samples, training=False))
    assert not np.array_equal(loaded(samples, training=True), loaded(samples, training=False))


def test_inputs_outputs_and_types_keep_their_structure(keras3):
    """Dictionaries of inputs and outputs, their names, order and integer types come over."""
    inputs = {"b": keras3.Input((3,), name="b"), "a": keras3.Input((5,), name="a", dtype="int32")}
    embedded = keras3.layers.Flatten()(keras3.layers.Embedding(4, 2, name="embed")(inputs["a"]))
    outputs = {"y": keras3.layers.Dense(2, name="y")(embedded), "x": keras3.layers.Dense(2, name="x")(inputs["b"])}
    model = keras3.Model(inputs, outputs)
    model.compile("sgd", loss={"x": "mse", "y": "mae"})
    loaded = load_model(model)
    sample = {"a": np.array([[0, 1, 2, 3, 0]], "int32"), "b": np.ones((1, 3), "float32")}
    found, expected = loaded(sample), model(sample)
    assert set(found) == {"x", "y"}
    assert all(np.allclose(found[key], expected[key], atol=1e-6) for key in expected)
    assert {tensor.name: tensor.dtype.name for tensor in loaded.inputs} == {"a": "int32", "b": "float32"}
    assert loaded.loss == {"x": "mse", "y": "mae"}


def test_shared_models_share_their_layers(keras3):
    """A sub-model that is called twice gives layers that are called twice, with one set of weights."""
    tower = keras3.Sequential(
        [keras3.layers.Dense(4, name="first"), keras3.layers.Dense(2, name="second")], name="tower"
    )
    a, b = keras3.Input((3,), name="a"), keras3.Input((3,), name="b")
    loaded = load_model(keras3.Model([a, b], keras3.layers.Subtract(name="minus")([tower(a), tower(b)])))
    assert [layer.name for layer in loaded.layers] == ["a", "b", "first", "second", "minus"]
    assert len(loaded.get_layer("first").inbound_nodes) == 2
    assert len(loaded.weights) == 4


@pytest.mark.parametrize("decide", [False, True])
def test_subclassed_models(decide, keras3):
    """A subclassed model that calls layers and operations is traced; one that decides by values is refused."""

    class Code(keras3.Model):
        def __init__(self):
            super().__init__()
            self.first = keras3.layers.Dense(4, name="first")
            self.norm = keras3.layers.BatchNormalization(name="norm")

        def call(self, inputs, training=None):
            found = self.norm(self.first(inputs), training=training)
            if decide and float(found[0, 0]) > 0:
                return found
            return keras3.ops.concatenate([found, inputs * 2.0], axis=-1)

    model = Code()
    sample = np.ones((2, 3), "float32")
    model(sample)
    if decide:
        with pytest.raises(ModelError, match=r"subclassed model \(Code\)"):
            load_model(model)
    else:
        assert np.allclose(load_model(model)(sample), model(sample), atol=1e-6)


def test_code_in_a_file_needs_trust(keras3, tmp_path):
    """A Lambda layer is refused by name in both formats, and loads with trust."""
    model = keras3.Sequential([keras3.Input((3,)), keras3.layers.Lambda(lambda x: x * 2.0, name="twice")])
    for name in ("model.keras", "model.h5"):
        model.save(tmp_path / name)
        with pytest.raises(ModelError, match="'twice' \\(Lambda\\) holds code"):
            load_model(tmp_path / name)
    loaded = load_model(tmp_path / "model.keras", trust=True)
    assert np.array_equal(loaded(np.ones((1, 3), "float32")), [[2.0, 2.0, 2.0]])


CUSTOM = """
import keras
import tf_keras

@keras.saving.register_keras_serializable("test")
class Shift(keras.layers.Layer):
    def build(self, shape):
        self.shift = self.add_weight(name="shift", shape=(shape[-1],))
    def call(self, x):
        return x + self.shift

@tf_keras.saving.register_keras_serializable("test", name="Shift")
class Shift2(tf_keras.layers.Layer):
    def build(self, shape):
        self.shift = self.add_weight(name="shift", shape=(shape[-1],))
    def call(self, x):
        return x + self.shift
"""


def test_custom_layers_load_with_their_classes(keras3, keras, tmp_path):
    """A custom layer is refused by name with how to register it, and loads once a file registers it."""

    class Shift(keras3.layers.Layer):
        def build(self, shape):
            self.shift = self.add_weight(name="shift", shape=(shape[-1],), initializer="normal")

        def call(self, inputs):
            return inputs + self.shift

    model = keras3.Sequential([keras3.Input((3,)), Shift(name="mine"), keras3.layers.Dense(2)])
    model.save(tmp_path / "model.keras")
    for source in (model, tmp_path / "model.keras"):
        with pytest.raises(ModelError, match=r"'mine' (is a|needs the class) Shift") as caught:
            load_model(source)
        assert "--custom-objects" in caught.value.fix

    (tmp_path / "shift.py").write_text(CUSTOM)
    objects = custom_objects_from(tmp_path / "shift.py")
    assert set(objects) == {"Shift", "Shift2"}
    loaded = load_model(tmp_path / "model.keras", custom_objects=objects)
    sample = np.ones((2, 3), "float32")
    assert np.allclose(loaded(sample), model(sample), atol=1e-6)
    assert isinstance(loaded.get_layer("mine"), objects["Shift2"])
    assert np.allclose(load_model(model, custom_objects={"Shift": objects["Shift2"]})(sample), model(sample), atol=1e-6)


@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_operations_load_from_every_format(ending, keras3, tmp_path):
    """Operations are read from .h5 files, too, from which Keras itself cannot read them; layers of their names stay."""
    ops = keras3.ops
    inputs = keras3.Input((4, 4))
    x = keras3.layers.Add()([ops.abs(inputs) * 2.0 + 1, inputs])
    x = ops.concatenate([ops.mean(x, axis=1, keepdims=True), x], axis=1)[:, 1:]
    x = keras3.activations.gelu(ops.where(ops.cast(x, "float32") > 0, x, x * 0.1))
    x = keras3.layers.Reshape((16,))(ops.reshape(x, (-1, 2, 8)))
    inner = keras3.Model(inputs, x)
    outer = keras3.Input((4, 4))
    model = keras3.Model(outer, keras3.layers.Dense(3)(inner(outer)))
    model.save(tmp_path / f"model{ending}")
    samples = np.random.default_rng(0).normal(size=(2, 4, 4)).astype("float32")
    loaded = load_model(tmp_path / f"model{ending}")
    loaded.save(tmp_path / "again.keras")  # as a build does
    for same in (loaded, load_model(tmp_path / "again.keras")):
        assert np.allclose(same(samples), model(samples), atol=1e-5)


@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_an_unknown_class_is_named_in_every_format(ending, keras3, tmp_path):
    """A class that is not registered is named, with the option that takes it."""

    class Turned(keras3.layers.Layer):
        def call(self, x):
            return -x

    inputs = keras3.Input((3,))
    keras3.Model(inputs, Turned(name="mine")(inputs)).save(tmp_path / f"model{ending}")
    with pytest.raises(ModelError, match="Turned") as error:
        load_model(tmp_path / f"model{ending}")
    assert "--custom-objects FILE.py" in error.value.fix


def test_a_spectral_normalization_keeps_its_weights(keras3, tmp_path):
    """What it normalizes is the layer in it, which stays; tf_keras cannot read a file of such a layer."""
    inputs = keras3.Input((6, 6, 2))
    model = keras3.Model(inputs, keras3.layers.SpectralNormalization(keras3.layers.Conv2D(3, 2), name="kept")(inputs))
    samples = np.random.default_rng(0).normal(size=(2, 6, 6, 2)).astype("float32")
    model(samples, training=True)
    loaded = load_model(model)
    loaded.save(tmp_path / "model.keras")
    expected = model(samples, training=False)
    for same in (loaded, load_model(tmp_path / "model.keras")):
        assert np.allclose(same(samples), expected, atol=1e-5)


def test_a_wrong_translation_is_caught_and_named(keras3, monkeypatch):
    """If a layer computes something else in tf_keras, loading fails and names the first such layer."""
    from edgeprune.models import keras3_config

    monkeypatch.setitem(keras3_config.SAME_ACTIVATIONS, "tanh", "sigmoid")
    layers = keras3.layers
    inner = keras3.Sequential([layers.Dense(3, name="right"), layers.Dense(3, activation="tanh", name="wrong")])
    model = keras3.Sequential([keras3.Input((3,)), inner, layers.Dense(2, activation="tanh", name="later")])
    with pytest.raises(ModelError, match="first layer that differs is 'wrong'"):
        load_model(model)


@pytest.mark.parametrize("name", ["object", "model.keras", "model.h5"])
def test_a_low_rank_update_is_a_part_of_its_matrix(name, keras3, tmp_path):
    """Layers with LoRA, as an object and from every format, have the sum of both as their weights."""
    random = np.random.default_rng(0)
    layers = keras3.layers
    parts = [layers.Embedding(9, 4), layers.Conv1D(4, 3), layers.EinsumDense("abc,cd->abd", (None, 5)), layers.Dense(3)]
    model = keras3.Sequential([keras3.Input((6,), dtype="int32"), *parts])
    for part in parts:
        part.enable_lora(2)
        for weight in part.weights:
            weight.assign(random.normal(size=weight.shape))
    ids = random.integers(0, 9, (3, 6))
    expected = np.asarray(model(ids))
    source = model
    if name != "object":
        source = tmp_path / name
        model.save(source)
    assert np.allclose(load_model(source)(ids), expected, atol=1e-4 * np.abs(expected).max())
