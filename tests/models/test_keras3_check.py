"""Is a translated model the same? Masks, rounding, number formats, and the errors that name what differs."""

import numpy as np
import pytest

from edgeprune.errors import ModelError
from edgeprune.models import keras3_emit, load_model
from edgeprune.models.export import export_keras3


@pytest.fixture
def masked(keras3):
    """A sum of two embeddings, of which one makes a mask: operations of Keras 3 drop it."""
    words = keras3.Input((6,), dtype="int32")
    x = keras3.layers.Embedding(9, 4, mask_zero=True)(words) + keras3.layers.Embedding(9, 4)(words)
    return keras3.Model(words, keras3.layers.Dense(2)(keras3.layers.GlobalAveragePooling1D()(x)))


def test_operations_drop_masks(masked, tmp_path):
    """The mean over words behind a sum counts all of them, as in Keras 3; and does so when exported again."""
    words = np.array([[1, 2, 0, 0, 0, 0]], "int32")
    loaded = load_model(masked)
    np.testing.assert_allclose(loaded(words), masked(words), rtol=1e-4, atol=1e-6)
    export_keras3(loaded, tmp_path / "back.keras")


def test_layers_pass_masks(keras3):
    """The mean over words behind layers leaves the padding out, as in Keras 3."""
    words = keras3.Input((6,), dtype="int32")
    x = keras3.layers.ReLU()(keras3.layers.Embedding(9, 4, mask_zero=True)(words))
    model = keras3.Model(words, keras3.layers.GlobalAveragePooling1D()(x))
    sample = np.array([[1, 2, 0, 0, 0, 0]], "int32")
    np.testing.assert_allclose(load_model(model)(sample), model(sample), rtol=1e-4, atol=1e-6)


def test_a_difference_between_layers_is_caught(masked, monkeypatch):
    """Masks that get on where they should not are an error, although every layer by itself computes the same."""
    monkeypatch.setattr(keras3_emit.Emitter, "without_mask", lambda self, value: value)
    with pytest.raises(ModelError, match="No layer differs by itself, so masks"):
        load_model(masked)


def test_a_model_that_blows_up_rounding_is_taken(keras3, caplog):
    """Outputs that differ because a model multiplies rounding errors agree in double precision, and pass."""
    x, norm = keras3.Input((8, 8, 3)), keras3.layers.BatchNormalization(epsilon=0.125)
    noise = norm(x) - (x - 0.71875) * 3.0  # each Keras rounds the normalization in its own way
    norm.set_weights([np.full(3, value, "float32") for value in (1.5, 0.0, 0.71875, 0.125)])
    load_model(keras3.Model(x, x + 1e5 * noise))
    assert "amplifies rounding errors" in caplog.text


def test_half_precision_is_compared_as_such(keras3):
    """Models that compute in float16 become float32, and may differ by what float16 rounds."""
    layers, i = keras3.layers, keras3.Input((8, 8, 3))
    x, half = i, {"dtype": "mixed_float16"}
    for _ in range(3):
        x = layers.BatchNormalization(**half)(layers.Conv2D(8, 3, padding="same", **half)(x))
        x = layers.ReLU(**half)(x)
    model = keras3.Model(i, layers.Dense(3, dtype="float32")(layers.GlobalAveragePooling2D(**half)(x)))
    random = np.random.default_rng(0)
    for weight in model.weights:
        signs = 1 if len(weight.shape) < 2 else random.choice([-1, 1], weight.shape)
        weight.assign(random.uniform(0.2, 1, weight.shape) * signs)
    assert [layer.compute_dtype for layer in load_model(model).layers[1:-1]] == ["float32"] * 10


def test_a_nested_model_called_by_name(keras3):
    """``base(inputs=x)`` is the same as ``base(x)``."""
    base = keras3.Sequential([keras3.Input((4,)), keras3.layers.Dense(3, name="inner")])
    i = keras3.Input((4,))
    loaded = load_model(keras3.Model(i, keras3.layers.Dense(2, name="outer")(base(inputs=i))))
    assert [layer.name for layer in loaded.layers[1:]] == ["inner", "outer"]


def test_indices_that_count_from_the_end(keras3):
    """``take`` with negative indices takes the same values as in Keras 3."""
    i, sample = keras3.Input((4, 5)), np.random.default_rng(0).normal(size=(1, 4, 5)).astype("float32")
    model = keras3.Model(i, [keras3.ops.take(i, [-1, 0, -2], axis=2), keras3.ops.take(i, -1, axis=1)])
    for found, expected in zip(load_model(model)(sample), model(sample), strict=True):
        np.testing.assert_array_equal(found, expected)
