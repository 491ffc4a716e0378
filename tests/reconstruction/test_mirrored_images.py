"""Mirrored images are samples where a model answers them as it answers the images."""

import numpy as np
import pytest
import tf_keras
from random_weights import randomize

from edgeprune.reconstruction.answers import answers_of, divergence, kinds_of
from edgeprune.reconstruction.channel_scales import scale_channels
from edgeprune.reconstruction.mirrored_images import mirrored_images

layers = tf_keras.layers


def images(samples, seed=0):
    return np.random.default_rng(seed).normal(size=(samples, 8, 8, 3)).astype("float32")


def batches(x, size=25):
    return [[x[start : start + size]] for start in range(0, len(x), size)]


def copies(model, pieces):
    answers = [answers_of(model, [piece]) for piece in pieces]
    kinds = kinds_of(model, [np.concatenate(same) for same in zip(*answers, strict=True)])
    return mirrored_images(model, pieces, answers, kinds)


def classifier(*hidden, shape=(8, 8, 3)):
    inputs = x = layers.Input(shape)
    for layer in hidden:
        x = layer(x)
    model = randomize(tf_keras.Model(inputs, layers.Dense(4, "softmax", name="classes")(x)))
    kernel = model.get_layer("classes").kernel
    kernel.assign(kernel * 10)
    return model


def test_images_are_mirrored_where_sides_do_not_matter():
    """A mean over all pixels: every image is there again, left for right."""
    model = classifier(layers.Conv2D(6, 1, activation="relu"), layers.GlobalAveragePooling2D())
    pieces = batches(images(100))
    for (copy,), (piece,) in zip(copies(model, pieces), pieces, strict=True):
        np.testing.assert_array_equal(copy, piece[:, :, ::-1])


@pytest.mark.parametrize(
    "model",
    [
        lambda: classifier(layers.Conv2D(6, 3, activation="relu"), layers.Flatten()),
        lambda: tf_keras.Sequential([layers.Input((8, 8, 3)), layers.Conv2D(2, 1, activation="sigmoid")]),
    ],
    ids=["classes that hang on where something is", "masks"],
)
def test_there_are_no_copies_where_sides_matter(model):
    """Answers to mirrored images that are other answers teach what nobody wants."""
    assert copies(model(), batches(images(100))) == []


def test_only_images_are_mirrored():
    """Of an image and numbers, the image; rows of numbers alone have no sides."""
    image, numbers = layers.Input((8, 8, 3)), layers.Input((5,))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 1, activation="relu")(image))
    both = randomize(tf_keras.Model([image, numbers], layers.Dense(3)(layers.Concatenate()([x, numbers]))))
    rows = np.random.default_rng(1).normal(size=(50, 5)).astype("float32")
    ((copy, same),) = copies(both, [[images(50), rows]])
    np.testing.assert_array_equal(copy, images(50)[:, :, ::-1])
    np.testing.assert_array_equal(same, rows)
    assert copies(classifier(layers.Dense(6), shape=(5,)), [[rows]]) == []


def test_channels_are_scaled_by_what_only_mirrored_images_show():
    """All samples have something on the left and nothing on the right. A fault on the right is found all the same."""
    inputs = layers.Input((8, 8, 3))
    sides = [
        layers.GlobalAveragePooling2D()(
            layers.Conv2D(6, 1, activation="relu", use_bias=False, name=name)(layers.Cropping2D((0, crop))(inputs))
        )
        for name, crop in {"left": (0, 4), "right": (4, 0)}.items()
    ]
    x = layers.Dense(4, "softmax", name="classes")(layers.Add()(sides))
    model = randomize(tf_keras.Model(inputs, x))
    model.get_layer("right").set_weights(model.get_layer("left").get_weights())
    model.get_layer("classes").kernel.assign(model.get_layer("classes").kernel * 10)
    changed = tf_keras.models.clone_model(model)
    changed.set_weights(model.get_weights())
    changed.get_layer("right").kernel.assign(changed.get_layer("right").kernel * 1.5)
    x, others = images(400), images(400, seed=1)
    x[:, :, 4:] = others[:, :, :4] = 0
    others = [[others]]
    wanted = answers_of(model, others)
    kinds = kinds_of(model, wanted)
    before = divergence(kinds, wanted, answers_of(changed, others))
    assert scale_channels(model, changed, batches(x)).damping is not None
    assert divergence(kinds, wanted, answers_of(changed, others)) < 0.2 * before
