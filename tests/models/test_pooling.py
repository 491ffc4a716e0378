"""Average pooling over whole maps becomes a mean, whose result has steps of its own in int8."""

import numpy as np
import pytest

from edgeprune.convert.converter import convert
from edgeprune.models.pooling import whole_map_poolings, with_means
from edgeprune.quantize.plan import QuantizationPlan
from edgeprune.tflite.flatbuffer import parse


def layers():
    import tf_keras

    return tf_keras.layers


def pooled(pooling, shape=(8, 8, 3), head=True):
    """A convolution, ReLU, the pooling and a classifier."""
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    inputs = layers().Input(shape)
    make = layers().Conv2D if len(shape) == 3 else layers().Conv1D
    x = pooling(make(16, 3, padding="same", activation="relu")(inputs))
    return tf_keras.Model(inputs, layers().Dense(10)(layers().Flatten()(x)) if head else x, name="pooled")


WHOLE = {
    "valid": (lambda: layers().AveragePooling2D(8, name="pool"), (8, 8, 3)),
    "rectangle": (lambda: layers().AveragePooling2D((6, 4), name="pool"), (6, 4, 3)),
    "same, padded": (lambda: layers().AveragePooling2D(9, padding="same", name="pool"), (8, 8, 3)),
    "strides": (lambda: layers().AveragePooling2D(8, strides=2, name="pool"), (8, 8, 3)),
    "sequence": (lambda: layers().AveragePooling1D(12, name="pool"), (12, 3)),
}
OTHERS = {
    "a part": (lambda: layers().AveragePooling2D(4, name="pool"), (8, 8, 3)),
    "one side": (lambda: layers().AveragePooling2D((8, 4), name="pool"), (8, 8, 3)),
    "one window that leaves a rest": (lambda: layers().AveragePooling2D(6, name="pool"), (8, 8, 3)),
    "same, several windows": (lambda: layers().AveragePooling2D(8, strides=4, padding="same", name="pool"), (8, 8, 3)),
    "one position": (lambda: layers().AveragePooling2D(1, name="pool"), (1, 1, 3)),
    "maximum": (lambda: layers().MaxPooling2D(8, name="pool"), (8, 8, 3)),
    "open size": (lambda: layers().AveragePooling2D(8, name="pool"), (None, None, 3)),
}


@pytest.mark.parametrize("case", WHOLE)
def test_a_whole_map_is_averaged_by_a_mean_that_gives_the_same(case):
    make, shape = WHOLE[case]
    model = pooled(make(), shape)
    model.layers[1].trainable = False
    changed = with_means(model)
    assert type(changed.get_layer("pool")).__name__.startswith("GlobalAveragePooling")
    assert [layer.trainable for layer in changed.layers] == [layer.trainable for layer in model.layers]
    x = np.random.default_rng(0).normal(size=(5, *shape)).astype("float32")
    np.testing.assert_allclose(changed(x), model(x), atol=1e-5)


@pytest.mark.parametrize("case", OTHERS)
def test_other_pooling_stays(case):
    make, shape = OTHERS[case]
    model = pooled(make(), shape, head=False)
    assert not whole_map_poolings(model)
    assert with_means(model) is model


def test_a_layer_that_also_reads_a_larger_map_stays():
    import tf_keras

    inputs, pool = layers().Input([8, 8, 3]), layers().AveragePooling2D(4)
    once = pool(inputs)
    twice = pool(layers().Conv2D(3, 5)(inputs))
    model = tf_keras.Model(inputs, [once, twice])
    assert not whole_map_poolings(model)


def test_int8_classifiers_read_finer_steps_and_answer_nearer_to_the_model(monkeypatch):
    """Less than half of the squared error of the file with the pooling's own operator."""
    x = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype("float32")
    model = pooled(layers().AveragePooling2D(8))
    errors = {}
    for operator in ("MEAN", "AVERAGE_POOL_2D"):
        if operator == "AVERAGE_POOL_2D":
            monkeypatch.setattr("edgeprune.convert.converter.with_means", lambda model: model)
        content = convert(model, QuantizationPlan("int8", "float", True), lambda: ([row[None]] for row in x))
        assert operator in [each.name for each in parse(content).subgraphs[0].operators]
        errors[operator] = float(np.square(answers(content, x) - np.asarray(model(x))).mean())
    assert errors["MEAN"] < 0.5 * errors["AVERAGE_POOL_2D"]


def test_formats_without_8_bit_activations_keep_the_operator():
    content = convert(pooled(layers().AveragePooling2D(8)), QuantizationPlan("float32", "float", False))
    assert "AVERAGE_POOL_2D" in [operator.name for operator in parse(content).subgraphs[0].operators]


def answers(content, x):
    from edgeprune.runtime.interpreter import find_runtime

    interpreter = find_runtime().interpreter(content)
    interpreter.allocate_tensors()
    given = []
    for row in x:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], row[None])
        interpreter.invoke()
        given.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
    return np.stack(given)
