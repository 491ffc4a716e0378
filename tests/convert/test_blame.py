"""Tests of the search for the layer at which native code dies."""

from __future__ import annotations

import numpy as np
import pytest
import tf_keras
from tf_keras import layers

from edgeprune.convert.blame import layer_at_fault
from edgeprune.convert.converter import convert
from edgeprune.errors import ConversionError
from edgeprune.quantize.plan import QuantizationPlan


def branches():
    """Two inputs, a branch that forks and joins, two outputs."""
    a, b = layers.Input((8, 3), name="a"), layers.Input((4,), name="b")
    x = layers.Conv1D(4, 1, name="first")(a)
    left, right = layers.ReLU(name="left")(x), layers.Conv1D(4, 3, padding="same", name="right")(x)
    x = layers.GlobalAveragePooling1D(name="pool")(layers.Add(name="join")([left, right]))
    x = layers.Concatenate(name="both")([x, layers.Dense(4, name="of_b")(b)])
    return tf_keras.Model([a, b], [layers.Dense(2, name="one")(x), layers.Dense(3, name="other")(x)])


@pytest.mark.parametrize("name", [layer.name for layer in branches().layers if layer.name not in "ab"])
def test_the_layer_is_found_wherever_it_stands(name):
    """Whichever layer is fatal, the search names it, and every beginning that it tries computes what the model does."""
    model = branches()
    rng = np.random.default_rng(0)
    x = {"a": rng.normal(size=(2, 8, 3)).astype("float32"), "b": rng.normal(size=(2, 4)).astype("float32")}

    def dies(part):
        assert {layer.name for layer in part.layers} <= {layer.name for layer in model.layers}
        wanted = tf_keras.Model(model.inputs, [model.get_layer(n).output for n in part.output_names])
        got = part([x[name] for name in part.input_names])
        for ours, theirs in zip(tf_flat(got), tf_flat(wanted([x["a"], x["b"]])), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        return name in {layer.name for layer in part.layers}

    assert layer_at_fault(model, dies).name == name


def tf_flat(values):
    return values if isinstance(values, list | tuple) else [values]


def test_an_abort_of_the_interpreter_names_the_layer_and_a_format_that_works():
    """LayerNormalization over one feature aborts LiteRT in int8; the advice, followed, gives a file."""
    inputs = layers.Input((12, 1))
    x = layers.LayerNormalization(name="over_one")(inputs)
    x = layers.GlobalMaxPooling1D()(layers.Conv1D(3, 1, activation="relu")(x))
    model = tf_keras.Model(inputs, layers.Dense(2)(x), name="series")

    def samples():
        return iter([[np.random.default_rng(0).normal(size=(1, 12, 1)).astype("float32")]])

    with pytest.raises(ConversionError, match="'series' cannot be built as int8") as caught:
        convert(model, QuantizationPlan("int8", "float", needs_samples=True), samples)
    assert "'over_one' (LayerNormalization)" in caught.value.what
    assert 'modes = ["dynamic"]' in caught.value.fix
    assert convert(model, QuantizationPlan("dynamic", "float", needs_samples=False))
