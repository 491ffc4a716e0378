"""Preparing a model for sparse inference: what is rewritten, what that changes, and what is refused."""

import numpy as np
import pytest

from edgeprune.errors import ModelError
from edgeprune.prune.sparse.keras import analyse_model
from edgeprune.prune.sparse.prepare import prepare, require_qualified


def mobile(size=16, symmetric=False, stem=None, tail=None, kernel=3):
    """A small MobileNet of random weights, compiled or not; 'same' padding unless ``symmetric``."""
    import tf_keras

    L = tf_keras.layers
    inputs = x = L.Input((size, size, 3))
    x = L.Rescaling(1 / 255)(x)
    padding = "valid" if symmetric else "same"
    if symmetric:
        x = L.ZeroPadding2D(1)(x)
    x = stem(x) if stem else L.Conv2D(8, 3, 2, padding, use_bias=False, name="stem")(x)
    x = L.ReLU(6.0)(L.BatchNormalization()(x))
    x = L.Dropout(0.1)(x)
    if symmetric:
        x = L.ZeroPadding2D(kernel // 2)(x)
    x = L.DepthwiseConv2D(kernel, 2, padding, name="dw")(x)
    y = L.Activation("relu")(L.Conv2D(8, 1, name="pw")(x))
    x = L.Add()([x, y])
    x = tail(x) if tail else L.GlobalAveragePooling2D()(x)
    model = tf_keras.Model(inputs, L.Dense(4)(x), name="mobile")
    random = np.random.default_rng(0)
    model.set_weights([random.uniform(0.1, 1, weights.shape) for weights in model.get_weights()])
    return model


def outputs(model, size=16):
    return model(np.random.default_rng(1).uniform(0, 255, (2, size, size, 3)).astype("float32")).numpy()


def rules(model):
    return {v.node.name: v.problem.rule for v in analyse_model(model).verdicts if v.problem}


@pytest.mark.parametrize("kernel", [3, 5])
def test_same_padding_with_a_stride_becomes_symmetric(kernel):
    """Both strided layers are rewritten; shapes and weights stay, outputs shift; the given model is untouched."""
    model = mobile(kernel=kernel)
    before = outputs(model)
    assert rules(model) == {"stem": "symmetric", "dw": "symmetric"}
    prepared = prepare(model)
    assert set(prepared.changed) == {"stem", "dw"}
    assert prepared.analysis.qualifies
    assert [node.name for node in prepared.analysis.pointwise] == ["pw"]
    assert prepared.model.output_shape == model.output_shape
    assert prepared.model.count_params() == model.count_params()
    assert not np.allclose(outputs(prepared.model), before)
    np.testing.assert_array_equal(outputs(model), before)


@pytest.mark.parametrize("kernel", [3, 5])
def test_a_symmetric_model_is_left_as_it_is(kernel):
    """Nothing is rewritten, and outputs are equal."""
    model = mobile(symmetric=True, kernel=kernel)
    prepared = prepare(model)
    assert prepared.changed == {}
    assert prepared.analysis.qualifies
    np.testing.assert_array_equal(outputs(prepared.model), outputs(model))


def test_same_padding_of_an_odd_image_was_symmetric_already():
    """33 → 17 → 9: the explicit padding is written down, and no output changes."""
    model = mobile(size=33)
    prepared = prepare(model)
    assert set(prepared.changed) == {"stem", "dw"}
    np.testing.assert_allclose(outputs(prepared.model, 33), outputs(model, 33), rtol=1e-5)


def test_the_padding_layers_of_keras_mobilenet_are_made_symmetric():
    """Its strided layers sit behind ZeroPadding2D(((0, 1), (0, 1))): all of them qualify afterwards."""
    import tf_keras

    model = tf_keras.applications.MobileNet((32, 32, 3), alpha=0.25, weights=None)
    prepared = prepare(model)
    assert len(prepared.changed) == 5
    assert prepared.analysis.qualifies
    assert len(prepared.analysis.pointwise) == 13
    assert [layer.output_shape for layer in prepared.model.layers if layer.name.startswith("conv_pw")] == [
        layer.output_shape for layer in model.layers if layer.name.startswith("conv_pw")
    ]


def test_an_average_pooling_over_the_whole_image_is_made_global():
    """Followed by Flatten, as in older models; no output changes by that."""
    import tf_keras

    L = tf_keras.layers
    model = mobile(symmetric=True, tail=lambda x: L.Flatten()(L.AveragePooling2D(4, name="pool")(x)))
    assert [p.rule for p in analyse_model(model).missing] == ["tail"]
    prepared = prepare(model)
    assert set(prepared.changed) == {"pool"}
    assert prepared.analysis.qualifies
    np.testing.assert_allclose(outputs(prepared.model), outputs(model), rtol=1e-5)


def test_what_cannot_be_rewritten_is_refused_by_name():
    """A stem without stride and a flattened end are named with what to change; it is exit code 2."""
    import tf_keras

    L = tf_keras.layers
    model = mobile(stem=lambda x: L.Conv2D(8, 3, 1, "same", name="wide")(x), tail=lambda x: L.Flatten()(x))
    with pytest.raises(ModelError, match="GlobalAveragePooling2D") as error:
        require_qualified(prepare(model))
    assert "wide is the stem, with stride 1x1: use stride 2" in str(error.value)
    assert error.value.exit_code == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "qualifies"), [("MobileNetV2", True), ("MobileNetV3Small", True), ("EfficientNetB0", False)]
)
def test_networks_of_keras(name, qualifies):
    """MobileNets qualify after preparation; EfficientNet's Reshape of squeeze-and-excite is named."""
    import tf_keras

    from edgeprune.models.load import load_model

    model = load_model(getattr(tf_keras.applications, name)((96, 96, 3), weights=None))
    analysis = prepare(model).analysis
    assert analysis.qualifies == qualifies
    assert {v.node.operator for v in analysis.verdicts if v.problem} == (set() if qualifies else {"Reshape"})
