"""Architectures that people bring, made small: pruned two ways, exact, trainable and convertible."""

import itertools

import numpy as np
import pytest
from matrix import representatives

from edgeprune.models.count import count
from edgeprune.models.keras3_file import import_keras3
from edgeprune.models.load import load_model
from edgeprune.prune.channels import surgery
from edgeprune.prune.channels.analyse import analyse
from edgeprune.prune.filters import prune_filters

FAMILIES = {}


def family(**reasons):
    """Enter a model; ``reasons``: group → part of the reason why it is frozen. All other groups can be pruned."""

    def enter(build):
        FAMILIES[build.__name__] = (build, {name.replace("__", "/"): reason for name, reason in reasons.items()})
        return build

    return enter


def _norm(L, x):
    return L.ReLU()(L.BatchNormalization()(x))


def _conv(L, x, filters, size=3, strides=1):
    return _norm(L, L.Conv2D(filters, size, strides, "same", use_bias=False)(x))


@family(classes="output of the model")
def unet(L):
    i = L.image(size=16)
    x, skips = i, []
    for filters in (6, 8):
        x = _conv(L, _conv(L, x, filters), filters)
        skips.append(x)
        x = L.MaxPooling2D(2)(x)
    x = L.Dropout(0.5)(_conv(L, x, 12))
    for skip in reversed(skips):
        x = L.Conv2DTranspose(skip.shape[-1], 2, strides=2, padding="same")(x)
        x = _conv(L, L.Concatenate()([skip, x]), skip.shape[-1])
    return i, L.Conv2D(2, 1, name="classes")(x)


@family(box_1="output of the model", class_1="output of the model")
def ssd(L):
    i = L.image(size=16)
    x = _conv(L, i, 8, strides=2)
    boxes, classes = [], []
    for level in range(2):
        x = _norm(L, L.Conv2D(12, 1, use_bias=False)(_norm(L, L.DepthwiseConv2D(3, 2, "same")(x))))
        boxes.append(L.Reshape((-1, 4))(L.Conv2D(3 * 4, 3, padding="same", name=f"box_{level}")(x)))
        classes.append(L.Reshape((-1, 5))(L.Conv2D(3 * 5, 3, padding="same", name=f"class_{level}")(x)))
    return i, {"boxes": L.Concatenate(axis=1)(boxes), "classes": L.Concatenate(axis=1)(classes)}


@family(words="output of the model")
def ds_cnn(L):
    i = L.Input((25, 10, 1))
    x = _norm(L, L.Conv2D(16, (10, 4), (2, 2), "same")(i))
    for _ in range(3):
        x = _norm(L, L.Conv2D(16, 1)(_norm(L, L.DepthwiseConv2D(3, padding="same")(x))))
    x = L.Dropout(0.4)(L.AveragePooling2D((13, 5))(x))
    return i, L.Dense(12, name="words")(L.Flatten()(x))


@family(label="output of the model")
def lstm_classifier(L):
    i = L.Input((6,), dtype="int32")
    x = L.Embedding(20, 12)(i)
    x = L.Bidirectional(L.LSTM(12, return_sequences=True, unroll=True))(x)
    x = L.LSTM(12, unroll=True)(x)
    return i, L.Dense(2, name="label")(L.Dense(6, activation="relu")(x))


@family(patches="LayerNormalization 'norm_0a' mixes all channels", label="output of the model")
def vision_transformer(L):
    i, places = L.image(size=16), L.Input((16,), dtype="int32")
    x = L.Reshape((16, 16))(L.Conv2D(16, 4, strides=4, name="patches")(i))
    x = x + L.Embedding(16, 16, name="places")(places)
    for block in range(2):
        y = L.LayerNormalization(name=f"norm_{block}a")(x)
        x = L.Add()([x, L.MultiHeadAttention(4, 4, name=f"attention_{block}")(y, y)])
        y = L.Dense(24, activation="gelu", name=f"mlp_{block}")(L.LayerNormalization(name=f"norm_{block}b")(x))
        x = L.Add()([x, L.Dense(16)(y)])
    x = L.GlobalAveragePooling1D()(L.LayerNormalization()(x))
    return [i, places], L.Dense(5, name="label")(x)


@pytest.fixture(params=FAMILIES)
def named(request, L, randomize):
    import tf_keras

    tf_keras.backend.clear_session()
    build, reasons = FAMILIES[request.param]
    return randomize(tf_keras.Model(*build(L), name=request.param)), reasons


def test_groups(named):
    """All groups can be pruned but those named, for the reasons given."""
    model, reasons = named
    frozen = {group.name: group.frozen for group in analyse(model).groups if group.frozen}
    assert frozen.keys() == reasons.keys()
    for name, reason in reasons.items():
        assert reason in frozen[name]


# What the others are made of is in these, or in a random graph of test_random_graphs.py.
@pytest.mark.parametrize(
    "named", representatives(FAMILIES, "vision_transformer", "lstm_classifier", "ssd"), indirect=True
)
@pytest.mark.parametrize(
    "budget",
    [
        pytest.param({"rate": 0.3, "allocation": "uniform"}, id="rate", marks=pytest.mark.slow),
        pytest.param({"max_macs": 0.5}, id="macs"),
    ],
)
def test_pruned(named, budget, train_step, tflite_outputs):
    """30 % of the filters or half of the MACs removed: exact, within the budget, convertible, trainable."""
    import tensorflow as tf

    model, _ = named
    found = prune_filters(model, **budget)
    assert found.difference < 1e-4
    before, after = count(model), count(found.model)
    assert after.params < before.params
    if "max_macs" not in budget:
        return  # what follows takes most of the time, and does not depend on how channels were chosen
    assert abs(after.macs / before.macs - 0.5) <= 0.02
    inputs = surgery.random_inputs(found.model, 3)
    expected = [np.asarray(value) for value in tf.nest.flatten(found.model(inputs))]
    for a, b in zip(expected, tflite_outputs(found.model, inputs), strict=True):
        np.testing.assert_allclose(b, a[:1], rtol=0, atol=1e-4 * np.abs(a).max())
    train_step(found.model)


def test_vision_transformer_prunes_heads_and_sizes(L):
    """Attention's heads and head sizes and the MLP's neurons can go; the stream through LayerNorm stays."""
    import tf_keras

    graph = analyse(tf_keras.Model(*vision_transformer(L)))
    free = {group.name for group in graph.groups if not group.frozen}
    inside = {f"attention_{b}/{part}" for b in range(2) for part in ("heads", "key_dim", "value_dim")}
    assert free == inside | {"mlp_0", "mlp_1"}


def _frames(keras, length):
    """A frozen network for every frame of a video, a memory over the frames."""
    L = keras.layers
    frame = keras.Sequential([keras.Input((8, 8, 3)), L.Conv2D(8, 3, name="edges"), L.BatchNormalization(), L.ReLU()])
    frame.add(L.Conv2D(12, 3, strides=2, name="parts"))
    frame.add(L.GlobalAveragePooling2D())
    frame.trainable = False
    i = keras.Input((length, 8, 8, 3))
    frames = L.TimeDistributed(frame, name="frames")
    x = L.LSTM(6, name="memory")(frames(i) if length else frames(inputs=i))
    return keras.Model(i, L.Dense(3, name="label")(x))


@pytest.mark.parametrize(("version", "length"), representatives(itertools.product([2, 3], [4, None]), (3, 4)))
def test_a_model_that_is_called_for_every_frame_is_pruned(version, length, randomize, train_step, tflite_outputs):
    """A model in TimeDistributed is opened: its filters can go, exactly, and stay frozen in training."""
    import tf_keras

    original = _frames(tf_keras if version == 2 else import_keras3(), length)
    model = randomize(load_model(original))
    free = {group.name for group in analyse(model).groups if not group.frozen}
    assert free == {"edges", "parts", "memory/units"}
    found = prune_filters(model, max_macs=0.5)
    assert found.difference < 1e-4
    trained = {layer.name for layer in found.model.layers if layer.trainable and layer.weights}
    assert trained == {"memory", "label"}
    if length:
        inputs = surgery.random_inputs(found.model, 3)
        expected = np.asarray(found.model(inputs))
        np.testing.assert_allclose(tflite_outputs(found.model, inputs)[0], expected[:1], rtol=0, atol=1e-4)
        train_step(found.model)


def test_transfer_learning_with_keras_3(randomize, train_step):
    """A frozen base of Keras 3 within a Sequential head is opened and pruned: exact, its layers frozen as before."""
    keras = import_keras3()
    L, i = keras.layers, keras.Input((8, 8, 3))
    x = _norm(L, L.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(i))
    y = _norm(L, L.Conv2D(8, 3, padding="same", use_bias=False, name="side")(x))
    base = keras.Model(i, _norm(L, L.Conv2D(12, 1, name="top")(L.Add()([x, y]))), name="base")
    base.trainable = False
    head = [L.GlobalAveragePooling2D(), L.Dense(16, activation="relu", name="hidden"), L.Dense(3, name="label")]
    model = randomize(load_model(keras.Sequential([keras.Input((8, 8, 3)), L.RandomFlip(), base, *head])))
    found = prune_filters(model, 0.5, allocation="uniform")
    assert found.difference < 1e-4
    assert {name: len(numbers) for name, numbers in found.removed.items()} == {"stem": 4, "top": 6, "hidden": 8}
    assert {layer.name for layer in found.model.layers if layer.trainable and layer.weights} == {"hidden", "label"}
    train_step(found.model)


@pytest.mark.slow
def test_mobilenet_v2_reaches_half_of_its_macs(randomize):
    """MobileNetV2 at 96x96 is pruned to half of its MACs within two points."""
    import tf_keras

    model = tf_keras.applications.MobileNetV2((96, 96, 3), weights=None, classifier_activation=None)
    found = prune_filters(randomize(model), max_macs=0.5)
    assert abs(count(found.model).macs / count(model).macs - 0.5) <= 0.02
