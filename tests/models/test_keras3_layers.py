"""Layers and operations of Keras 3, one tiny model each: translated to tf_keras, and exported back."""

import numpy as np
import pytest
from matrix import representatives

from edgeprune.errors import ModelError
from edgeprune.models import load_model
from edgeprune.models.export import export_keras3

IMAGE, SEQUENCE = (8, 8, 4), (6, 8)

# name: (shape of the input, (keras.layers, tensor) -> outputs)
LAYERS = {
    "conv1d": (SEQUENCE, lambda L, x: L.Conv1D(3, 3, kernel_regularizer="l2", bias_constraint="non_neg")(x)),
    "depthwise": (IMAGE, lambda L, x: L.DepthwiseConv2D(3, depth_multiplier=2)(L.SeparableConv2D(5, 3)(x))),
    "transposed": (IMAGE, lambda L, x: L.Conv2DTranspose(3, 3, strides=2, padding="same")(x)),
    "grouped": (IMAGE, lambda L, x: L.Conv2D(8, 3, groups=2, dilation_rate=2, activation="silu")(x)),
    "conv3d": ((4, 4, 4, 2), lambda L, x: L.Conv3DTranspose(2, 2)(L.Conv3D(3, 2)(x))),
    "norms": (
        IMAGE,
        lambda L, x: L.UnitNormalization()(
            L.GroupNormalization(2)(L.LayerNormalization()(L.BatchNormalization(epsilon=1e-2)(x)))
        ),
    ),
    "attention": (SEQUENCE, lambda L, x: L.MultiHeadAttention(2, 4, value_dim=3, dropout=0.1)(x, x)),
    "causal": (SEQUENCE, lambda L, x: L.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True)),
    "recurrent": (
        SEQUENCE,
        lambda L, x: L.SimpleRNN(3)(L.GRU(4, return_sequences=True)(L.LSTM(4, return_sequences=True)(x))),
    ),
    "gru_v1": (SEQUENCE, lambda L, x: L.GRU(4, reset_after=False, go_backwards=True)(x)),
    "both_ways": (
        SEQUENCE,
        lambda L, x: L.Bidirectional(L.GRU(4), merge_mode="sum")(
            L.Bidirectional(L.SimpleRNN(3, return_sequences=True))(x)
        ),
    ),
    "cells": (SEQUENCE, lambda L, x: L.RNN([L.LSTMCell(4), L.GRUCell(3)])(x)),
    "state": (SEQUENCE, lambda L, x: L.LSTM(4)(x, initial_state=L.LSTM(4, return_state=True)(x)[1:])),
    "distributed": ((3, 8, 8, 2), lambda L, x: L.TimeDistributed(L.Conv2D(3, 3))(x)),
    "statistics": (IMAGE, lambda L, x: L.Normalization(mean=[1.0, 2, 3, 4], variance=[1.0, 2, 3, 4])(x)),
    "adapted": (IMAGE, lambda L, x: L.Normalization()(x)),
    "rescaling": (IMAGE, lambda L, x: L.Rescaling([1.0, 2, 3, 4], offset=[0.1, 0.2, 0.3, 0.4])(x)),
    "activations": (
        IMAGE,
        lambda L, x: [
            L.Activation(name)(x)
            for name in ("relu", "gelu", "silu", "hard_sigmoid", "hard_silu", "relu6", "leaky_relu", "log_softmax")
        ],
    ),
    "fused_activations": (
        IMAGE,
        lambda L, x: L.Dense(3, activation="hard_sigmoid")(L.Conv2D(3, 1, activation="hard_silu")(x)),
    ),
    "activation_layers": (
        IMAGE,
        lambda L, x: [
            *(L.ReLU(6.0, 0.1, 0.2)(x), L.LeakyReLU(0.3)(x), L.PReLU(shared_axes=[1, 2])(x), L.ELU(0.5)(x)),
            L.Softmax()(x),
        ],
    ),
    "merges": (
        IMAGE,
        lambda L, x: L.Concatenate()(
            [m()([x, x]) for m in (L.Add, L.Multiply, L.Average, L.Maximum, L.Minimum, L.Subtract)]
        ),
    ),
    "dot": (SEQUENCE, lambda L, x: L.Dot(2, normalize=True)([x, x])),
    "pooling": (
        IMAGE,
        lambda L, x: [
            *(L.MaxPooling2D()(x), L.AveragePooling2D(3, 1, "same")(x), L.GlobalMaxPooling2D()(x)),
            L.GlobalAveragePooling2D(keepdims=True)(x),
        ],
    ),
    "shapes": (
        IMAGE,
        lambda L, x: [
            *(L.Flatten()(x), L.Reshape((16, -1))(x), L.Permute((2, 1, 3))(x), L.Cropping2D(1)(x)),
            *(L.ZeroPadding2D(((1, 0), (0, 1)))(x), L.UpSampling2D(2, interpolation="bilinear")(x)),
            *(L.Resizing(5, 6)(x), L.CenterCrop(4, 4)(x)),
        ],
    ),
    "dropouts": (
        IMAGE,
        lambda L, x: L.SpatialDropout2D(0.2)(L.GaussianNoise(0.1)(L.Dropout(0.3, noise_shape=(None, 1, 1, 4))(x))),
    ),
    "einsum": (SEQUENCE, lambda L, x: L.EinsumDense("abc,cd->abd", output_shape=(None, 5), bias_axes="d")(x)),
    "masking": (SEQUENCE, lambda L, x: L.SimpleRNN(3)(L.Masking(0.0)(x))),
    "embedding": ((6,), lambda L, x: L.SimpleRNN(4)(L.Embedding(10, 3, mask_zero=True)(x))),
    "bins": ((4,), lambda L, x: L.Discretization(bin_boundaries=[-1.0, 0.0, 1.0])(x)),
    "encoded_bins": (
        (4,),
        lambda L, x: [
            *(L.Discretization([-1.0, 0.0, 1.0], output_mode=m)(x) for m in ("one_hot", "multi_hot", "count")),
            L.Discretization([-1.0, 0.0, 1.0], output_mode="one_hot")(x[:, :1]),
        ],
    ),
    "grouped_heads": (
        SEQUENCE,
        lambda L, x: L.GroupQueryAttention(3, 6, 2)(L.GroupQueryAttention(4, 4, 1, use_bias=False)(x, x), x),
    ),
    "causal_grouped_heads": (SEQUENCE, lambda L, x: L.GroupQueryAttention(3, 4, 2)(x, x, use_causal_mask=True)),
}
# name: (shape of the input, (keras.ops, tensor) -> outputs)
OPERATIONS = {
    "arithmetic": (
        IMAGE,
        lambda K, x: [
            *(x + 1.0, 3.0 - x, x * x, x / 2.0, 2.0 / (x + 5.0), x**2, -x, x % 2.0, x // 2.0, K.maximum(x, 0.0)),
            *(K.add(x, np.arange(4, dtype="float32")), K.minimum(x, x * 2.0)),
        ],
    ),
    "unary": (
        IMAGE,
        lambda K, x: [
            getattr(K, name)(x)
            for name in (
                *("abs", "exp", "square", "floor", "ceil", "sin", "cos", "erf", "relu", "relu6", "sigmoid", "silu"),
                *("tanh", "softplus", "leaky_relu", "elu", "gelu", "softmax", "log_softmax", "hard_sigmoid"),
                *("hard_silu", "ones_like", "stop_gradient", "log_sigmoid"),
            )
        ],
    ),
    "positive": (IMAGE, lambda K, x: [K.log(K.abs(x) + 0.1), K.sqrt(K.abs(x)), K.rsqrt(K.abs(x) + 0.1)]),
    "comparison": (IMAGE, lambda K, x: [K.where(K.logical_and(x > 0, x < 1), x, x * 2), K.cast(x >= 0, "float32")]),
    "reduction": (
        IMAGE,
        lambda K, x: [
            *(getattr(K, n)(x, axis=(1, 2)) for n in ("mean", "sum", "max", "min", "prod", "var", "std", "logsumexp")),
            K.mean(x, axis=-1, keepdims=True),
        ],
    ),
    "values": (
        IMAGE,
        lambda K, x: [K.clip(x, -0.5, 0.5), K.argmax(x, -1), K.one_hot(K.cast(x > 0, "int32"), 3), K.normalize(x)],
    ),
    "products": (
        SEQUENCE,
        lambda K, x: [
            *(K.matmul(x, K.transpose(x, (0, 2, 1))), K.einsum("abc,adc->abd", x, x), x @ K.swapaxes(x, 1, 2)),
            K.tensordot(x, np.ones((8, 3), "float32"), 1),
        ],
    ),
    "pooling": (IMAGE, lambda K, x: [K.max_pool(x, 2), K.average_pool(x, 3, 2, "same")]),
    "shapes": (
        IMAGE,
        lambda K, x: [
            *(K.reshape(x, (-1, 64, 4)), K.reshape(x, (-1, 8)), K.transpose(x, (0, 3, 1, 2)), K.moveaxis(x, 3, 1)),
            *(K.squeeze(K.expand_dims(x, 1), 1), K.stack([x, x], axis=1), K.concatenate([x, x], axis=-1)),
            *(K.tile(x, (1, 1, 2, 1)), K.repeat(x, 2, axis=1), K.flip(x, axis=1), K.roll(x, 1, axis=2)),
            K.take(x, [0, 2], axis=-1),
        ],
    ),
    "slices": (IMAGE, lambda K, x: [x[:, 0], x[..., 1:3], x[:, ::2, ::2], x[:, :, None], x[:, -1, :, 0]]),
    "splits": (IMAGE, lambda K, x: [*K.split(x, 2, axis=-1), *K.split(x, [1, 3], axis=-1), *K.unstack(x, axis=1)]),
    "padding": (
        IMAGE,
        lambda K, x: [
            K.pad(x, [[0, 0], [1, 1], [2, 0], [0, 0]], constant_values=2.0),
            K.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], mode="reflect"),
        ],
    ),
    "images": (
        IMAGE,
        lambda K, x: [K.image.resize(x, (5, 6)), K.image.resize(x, (4, 4), interpolation="nearest")],
    ),
    "activations": (
        IMAGE,
        lambda K, x: [K.celu(x, 0.5), K.glu(x), K.squareplus(x), K.soft_shrink(x), K.sparse_plus(x), K.sparsemax(x)],
    ),
    "sorted": (
        IMAGE,
        lambda K, x: [K.cumsum(x, 1), K.cumprod(x, 2), *K.top_k(x, 2), K.take_along_axis(x, K.argsort(x), -1)],
    ),
    "inverses": (IMAGE, lambda K, x: [K.arctan(x), K.arctan2(x, x + 1.0), K.isfinite(x), K.logical_xor(x > 0, x > 1)]),
    "gray": (IMAGE, lambda K, x: K.image.rgb_to_grayscale(x[..., :3])),
    "unknown_length": ((None, 8), lambda K, x: [K.mean(x, axis=1), K.reshape(x, (-1, 4, 2)), x[:, :3]]),
}
CASES = [("layers", name) for name in LAYERS] + [("ops", name) for name in OPERATIONS]
# Layers that are in another case, too, with other arguments.
AGAIN = ("causal", "causal_grouped_heads", "gru_v1", "state", "masking", "fused_activations")
ALWAYS = [case for case in CASES if case not in {("layers", name) for name in AGAIN}]


@pytest.mark.parametrize(
    ("kind", "name"), representatives(CASES, *ALWAYS), ids=[f"{kind}-{name}" for kind, name in CASES]
)
def test_translates_and_exports(kind, name, keras3, tmp_path):
    """Random weights in both directions: loading checks one, exporting the other; the way back finds the same names."""
    shape, build = (LAYERS if kind == "layers" else OPERATIONS)[name]
    inputs = keras3.Input(shape, name="input")
    model = keras3.Model(inputs, build(getattr(keras3, kind), inputs))
    random = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(random.uniform(0.1, 1.0, weight.shape))
    loaded = load_model(model)
    own = {layer.name for layer in model.layers}
    assert own <= {layer.name for layer in loaded.layers}
    assert len(loaded.outputs) == len(model.outputs)
    export_keras3(loaded, tmp_path / "back.keras")
    again = load_model(tmp_path / "back.keras")
    assert [layer.name for layer in again.layers] == [layer.name for layer in loaded.layers]


def test_encoded_bins_are_operators_of_tflite(keras3):
    """Bins as vectors need no operator of full TensorFlow, whichever the encoding."""
    from edgeprune.convert.converter import convert
    from edgeprune.quantize.plan import QuantizationPlan

    inputs = keras3.Input((4,))
    bins = [keras3.layers.Discretization([-1.0, 1.0], output_mode=m)(inputs) for m in ("one_hot", "multi_hot", "count")]
    assert convert(load_model(keras3.Model(inputs, bins)), QuantizationPlan("float32", "float", needs_samples=False))


REFUSED = {
    "GroupedQueryAttention with a gate": lambda keras3, x: keras3.layers.GroupQueryAttention(3, 4, 2, use_gate=True)(
        x, x
    ),
    "fmod": lambda keras3, x: keras3.ops.fmod(x, 0.7),
    "RMSNormalization": lambda keras3, x: keras3.layers.RMSNormalization()(x),
    "hard_sigmoid": lambda keras3, x: keras3.layers.LSTM(2, recurrent_activation="hard_sigmoid")(x),
    "pad_to_aspect_ratio": lambda keras3, x: keras3.layers.Resizing(4, 4, pad_to_aspect_ratio=True)(x[..., None]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_counterpart_is_refused_by_name(name, keras3):
    """Operations, classes, activations and arguments without a counterpart are named in the error."""
    inputs = keras3.Input(SEQUENCE)
    model = keras3.Model(inputs, REFUSED[name](keras3, inputs))
    with pytest.raises(ModelError, match=name):
        load_model(model)


def test_hard_silu_becomes_one_operation_in_tflite(keras3):
    """The TFLite converter fuses the translation of hard_silu into HARD_SWISH."""
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    layers = keras3.layers
    model = keras3.Sequential([keras3.Input(IMAGE), layers.Conv2D(3, 1), layers.Activation("hard_silu", name="act")])
    loaded = load_model(model)
    assert loaded.output_names == ["act"]
    content = tf.lite.TFLiteConverter.from_keras_model(loaded).convert()
    operations = [op["op_name"] for op in Interpreter(model_content=content)._get_ops_details()]
    assert [op for op in operations if op != "DELEGATE"] == ["CONV_2D", "HARD_SWISH"]


def test_masks_of_a_file_become_masks_of_tf_keras(keras3, tmp_path):
    """The masks that Keras 3 writes into a file as operations are left to tf_keras: no operation stays for them."""
    layers = keras3.layers
    model = keras3.Sequential(
        [keras3.Input((6,)), layers.Embedding(9, 3, mask_zero=True, name="e"), layers.SimpleRNN(2)]
    )
    keras3.Model(model.inputs, model.outputs).save(tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    assert [type(layer).__name__ for layer in loaded.layers] == ["InputLayer", "Embedding", "SimpleRNN"]


EINSUMS = [
    *("abc,adc->abd", "abc,abc->ab", "abc,abc->a", "abc,abd->acd", "abc,cd->adb", "abc->acb", "abc->a", "ab,cb->ac"),
    *("abcd,abed->abce", "abc,ade->abcde"),
]


@pytest.mark.parametrize("subscripts", EINSUMS)
def test_an_einsum_is_kept_and_read_back(keras3, tmp_path, subscripts):
    """Of one or two tensors, whatever is summed: the translated model computes it, and so does the file of it."""
    terms = subscripts.partition("->")[0].split(",")
    lengths = {"b": 3, "c": 4, "d": 5, "e": 2}
    inputs = [keras3.Input([lengths[letter] for letter in term[1:]]) for term in terms if term[0] == "a"]
    constants = [
        np.random.default_rng(0).normal(size=[lengths[letter] for letter in term]).astype("float32")
        for term in terms
        if term[0] != "a"
    ]
    model = keras3.Model(inputs, keras3.ops.einsum(subscripts, *inputs, *constants))
    x = [np.random.default_rng(1).normal(size=(6, *one.shape[1:])).astype("float32") for one in inputs]
    x = x[0] if len(x) == 1 else x
    loaded = load_model(model)
    np.testing.assert_allclose(loaded(x), model(x), rtol=1e-4, atol=1e-5)
    loaded.save(tmp_path / "model.keras")
    np.testing.assert_allclose(load_model(tmp_path / "model.keras")(x), model(x), rtol=1e-4, atol=1e-5)


def test_an_einsum_that_cannot_be_kept_is_named(keras3):
    """Diagonals and three tensors are refused where the model is opened."""
    inputs = keras3.Input((3, 3))
    with pytest.raises(ModelError, match=r"einsum 'abb->ab'"):
        load_model(keras3.Model(inputs, keras3.ops.einsum("abb->ab", inputs)))
