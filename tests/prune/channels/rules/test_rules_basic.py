"""Convolutions, dense layers, normalizations and activations: what can be removed, and that removing it is exact."""

import numpy as np
import pytest
from matrix import representatives

from edgeprune.errors import ModelError

CASES = {}


def case(**groups):
    """Enter a model with its expected groups (see the fixture ``check_case``)."""

    def enter(build):
        CASES[build.__name__] = (build, groups)
        return build

    return enter


# --- convolutions


@case(a=(6, "a b"), b=(5, "b head"))
def conv1d(L):
    i = L.Input((9, 3))
    x = L.Conv1D(6, 3, padding="causal", activation="relu", name="a")(i)
    x = L.Conv1D(5, 2, strides=2, name="b")(x)
    return i, L.Dense(3, name="head")(L.Flatten()(x))


@case(a=(6, "a b"), b=(5, "b head"))
def conv2d(L):
    i = L.image()
    x = L.Conv2D(6, 3, activation="relu", padding="same", name="a")(i)
    x = L.Conv2D(5, 3, dilation_rate=2, padding="same", use_bias=False, activation="tanh", name="b")(x)
    return i, L.head(x)


@case(a=(6, "a b"), b=(5, "b head"))
def conv3d(L):
    i = L.Input((4, 4, 4, 2))
    x = L.Conv3D(5, 2, strides=2, name="b")(L.Conv3D(6, 2, padding="same", name="a")(i))
    return i, L.Dense(3, name="head")(L.GlobalMaxPooling3D()(x))


@case(stem=(4, "grouped head stem"))
def grouped_conv_loses_whole_groups(L):
    return L.behind_stem(L.Conv2D(12, 3, groups=4, padding="same", name="grouped"))


@case(stem=(4, "grouped stem"), grouped=(6, "grouped head"))
def grouped_conv_loses_the_same_positions_of_every_group(L):
    return L.behind_stem(L.Conv2D(12, 3, groups=2, name="grouped"))


@case(stem=(8, "grouped head stem"))
def grouped_conv_as_a_depthwise_one(L):
    return L.behind_stem(L.Conv2D(8, 3, groups=8, use_bias=False, name="grouped"))


@case(grouped=(3, "grouped head"))
def grouped_conv_of_the_model_input(L):
    i = L.image(4)
    return i, L.head(L.Conv2D(6, 3, groups=2, name="grouped")(i))


@case(a=(6, "a b grouped"), grouped=(4, "grouped head"))
def grouped_conv_behind_a_concatenation(L):
    i = L.image()
    x = L.Concatenate()([L.Conv2D(6, 1, name="a")(i), L.Conv2D(6, 1, name="b")(i)])
    return i, L.head(L.Conv2D(8, 3, groups=2, name="grouped")(x))


@case(stem=(4, "first head second stem"))
def grouped_convs_of_different_widths(L):
    return L.behind_stem(
        L.Conv2D(8, 1, groups=4, name="first"), L.Conv2D(8, 1, groups=8, name="second"), L.Reshape((4, 4, 8))
    )


@case(free=(2, "free grouped head"))
def grouped_conv1d_of_fixed_and_free_channels(L):
    i = L.Input((6, 2))
    x = L.Concatenate()([i, L.Conv1D(2, 1, name="free")(i)])
    return i, L.Dense(3, name="head")(L.Flatten()(L.Conv1D(4, 2, groups=4, name="grouped")(x)))


@case(stem=(8, "depthwise head stem"))
def depthwise_conv2d(L):
    return L.behind_stem(L.DepthwiseConv2D(3, name="depthwise", activation="relu"))


@case(stem=(8, "depthwise head norm stem"))
def depthwise_conv2d_with_multiplier(L):
    return L.behind_stem(L.DepthwiseConv2D(3, depth_multiplier=3, name="depthwise"), L.BatchNormalization(name="norm"))


@case(pointwise=(5, "head pointwise"))
def depthwise_conv2d_of_the_model_input(L):
    i = L.image()
    x = L.Conv2D(5, 1, name="pointwise")(L.DepthwiseConv2D(3, depth_multiplier=2)(i))
    return i, L.head(x)


@case(a=(6, "a depthwise head"))
def depthwise_conv1d(L):
    i = L.Input((8, 3))
    x = L.DepthwiseConv1D(3, depth_multiplier=2, name="depthwise")(L.Conv1D(6, 1, name="a")(i))
    return i, L.Dense(3, name="head")(L.GlobalMaxPooling1D()(x))


@case(stem=(8, "separable stem"), separable=(6, "head separable"))
def separable_conv2d(L):
    return L.behind_stem(L.SeparableConv2D(6, 3, depth_multiplier=2, strides=2, name="separable"))


@case(first=(5, "first second"), second=(6, "head second"))
def separable_conv1d(L):
    i = L.Input((8, 3))
    x = L.SeparableConv1D(6, 3, use_bias=False, name="second")(L.SeparableConv1D(5, 3, name="first")(i))
    return i, L.Dense(3, name="head")(L.GlobalMaxPooling1D()(x))


@case(stem=(8, "stem up"), up=(6, "head up"))
def conv2d_transpose(L):
    return L.behind_stem(L.Conv2DTranspose(6, 3, strides=2, padding="same", activation="relu", name="up"))


@case(a=(6, "a up"), up=(5, "head up"))
def conv1d_transpose(L):
    i = L.Input((5, 3))
    x = L.Conv1DTranspose(5, 3, strides=2, name="up")(L.Conv1D(6, 1, name="a")(i))
    return i, L.Conv1D(2, 1, name="head")(x)


@case(a=(6, "a up"), up=(5, "head up"))
def conv3d_transpose(L):
    i = L.Input((2, 2, 2, 3))
    x = L.Conv3DTranspose(5, 2, strides=2, use_bias=False, name="up")(L.Conv3D(6, 1, name="a")(i))
    return i, L.Conv3D(2, 1, name="head")(x)


# --- dense layers


@case(a=(7, "a b"), b=(5, "b head"), head="softmax")
def dense_on_vectors(L):
    i = L.Input((6,))
    x = L.Dense(5, name="b")(L.Dense(7, activation="relu", name="a")(i))
    return i, L.Dense(3, activation="softmax", name="head")(x)


@case(a=(7, "a b"), b=(5, "b head"))
def dense_on_sequences(L):
    i = L.Input((4, 6))
    x = L.Dense(5, name="b", use_bias=False)(L.Dense(7, activation="relu", name="a")(i))
    return i, L.Dense(3, name="head")(L.Flatten()(x))


@case(stem=(8, "a stem"), a=(7, "a head"))
def dense_on_images(L):
    return L.behind_stem(L.Dense(7, activation="gelu", name="a"))


@case(a=(4, "a head"))
def embedding(L):
    i = L.Input((5,), dtype="int32")
    return i, L.Dense(3, name="head")(L.GlobalAveragePooling1D()(L.Embedding(6, 4, name="a", mask_zero=True)(i)))


# --- normalization


@case(stem=(8, "head norm stem"))
def batch_normalization(L):
    return L.behind_stem(L.BatchNormalization(name="norm"), L.ReLU())


@case(stem=(8, "head norm stem"))
def batch_normalization_without_scale(L):
    return L.behind_stem(L.BatchNormalization(scale=False, center=False, name="norm"))


@case(stem="averages over these positions")
def batch_normalization_of_another_axis(L):
    return L.behind_stem(L.BatchNormalization(axis=1, name="norm"))


@case(stem="LayerNormalization 'norm' mixes all channels")
def layer_normalization_freezes(L):
    return L.behind_stem(L.LayerNormalization(name="norm"))


@case(stem=(8, "head stem"))
def layer_normalization_of_another_axis(L):
    return L.behind_stem(L.LayerNormalization(axis=[1, 2], name="norm"))


@case(stem=(4, "head norm stem"))
def group_normalization(L):
    return L.behind_stem(L.GroupNormalization(groups=4, name="norm"))


@case(stem="with one group mixes all channels")
def group_normalization_of_one_group(L):
    return L.behind_stem(L.GroupNormalization(groups=1, name="norm"))


@case(stem=(8, "head norm stem"))
def group_normalization_per_channel(L):
    return L.behind_stem(L.GroupNormalization(groups=-1, scale=False, name="norm"))


@case(stem=(8, "head stem"))
def unit_normalization(L):
    return L.behind_stem(L.UnitNormalization(name="norm"))


@case(stem=(8, "head stem"))
def unit_normalization_over_positions(L):
    return L.behind_stem(L.UnitNormalization(axis=(1, 2), name="norm"))


@case(stem="holds statistics")
def normalization_inside(L):
    return L.behind_stem(L.Normalization(name="norm"))


@case(stem=(8, "head stem"))
def normalization_of_the_input(L):
    i = L.image()
    return i, L.head(L.stem(L.Normalization(name="norm")(i)))


@case(stem=(8, "head stem"))
def rescaling(L):
    return L.behind_stem(L.Rescaling(0.5, offset=0.25))


@case(stem="constant for each channel")
def rescaling_by_channel(L):
    return L.behind_stem(L.Rescaling([0.5, 1, 2, 3, 4, 5, 6, 7]))


# --- activations


@case(stem=(8, "head prelu stem"))
def prelu(L):
    return L.behind_stem(L.PReLU(name="prelu"))


@case(stem=(8, "head prelu stem"))
def prelu_with_shared_positions(L):
    return L.behind_stem(L.PReLU(shared_axes=[1, 2], name="prelu"))


@case(stem=(8, "head stem"))
def prelu_with_shared_channels(L):
    return L.behind_stem(L.PReLU(shared_axes=[3], name="prelu"))


@case(stem=(8, "head stem"))
def activation_layers(L):
    return L.behind_stem(L.ReLU(6.0), L.LeakyReLU(), L.ELU(), L.ThresholdedReLU(0.1))


@case(stem=(8, "head stem"))
def activation_functions(L):
    names = ["relu", "elu", "selu", "softplus", "softsign", "swish", "gelu", "tanh", "sigmoid", "hard_sigmoid", "mish"]
    return L.behind_stem(*[L.Activation(name) for name in names])


@case(stem=(8, "head stem"))
def activation_as_a_layer(L):
    i = L.image()
    return i, L.head(L.Conv2D(8, 3, activation=L.LeakyReLU(0.3), name="stem")(i))


@case(stem="no channel rule for the activation 'gelu'")
def activation_of_ones_own_by_a_known_name(L):
    import tensorflow as tf
    import tf_keras

    @tf_keras.utils.register_keras_serializable("test", "own_gelu")
    def gelu(x):
        return x / (1e-3 + tf.reduce_mean(tf.abs(x), -1, keepdims=True))

    i = L.image()
    return i, L.head(L.Conv2D(8, 3, activation=gelu, name="stem")(i))


@case(stem="no channel rule for the activation 'PReLU'")
def activation_as_a_layer_with_weights(L):
    i = L.image()
    return i, L.head(L.Conv2D(8, 3, activation=L.PReLU(), name="stem")(i))


@case(stem="softmax normalises over these channels (layer 'stem')")
def softmax_of_a_convolution(L):
    i = L.image()
    return i, L.head(L.Conv2D(8, 3, activation="softmax", name="stem")(i))


@case(stem="softmax normalises over these channels (layer 'soft')")
def softmax_activation(L):
    return L.behind_stem(L.Activation("softmax", name="soft"))


@case(stem="softmax normalises over these channels ('soft')")
def softmax_layer(L):
    return L.behind_stem(L.Softmax(name="soft"))


@case(stem=(8, "head stem"))
def softmax_over_positions(L):
    return L.behind_stem(L.Softmax(axis=[1, 2]))


@case(stem="no channel rule for the activation 'share_of_the_sum' (layer 'own')")
def unknown_activation(L):
    import tf_keras

    @tf_keras.utils.register_keras_serializable("tests")
    def share_of_the_sum(x):
        return x / (1 + x[..., :1] ** 2)

    return L.behind_stem(L.Activation(share_of_the_sum, name="own"))


def test_unregistered_activation_is_named(L, check):
    """A layer that cannot be made anew from its config is an error that names it."""
    import tf_keras

    def unregistered(x):
        return x

    model = tf_keras.Model(*L.behind_stem(L.Activation(unregistered, name="own")))
    with pytest.raises(ModelError, match="The layer 'own' \\(Activation\\) cannot be made anew"):
        check(model)


@case(stem=(8, "head stem"))
def dropout_family(L):
    x = [L.Dropout(0.5), L.AlphaDropout(0.5), L.GaussianDropout(0.5), L.GaussianNoise(0.5), L.SpatialDropout2D(0.5)]
    return L.behind_stem(*x, L.ActivityRegularization(0.1))


@case(stem="the noise shape of Dropout 'drop' names their number")
def dropout_of_a_given_shape(L):
    return L.behind_stem(L.Dropout(0.5, noise_shape=(None, 1, 1, 8), name="drop"))


@case(stem=(8, "head stem"))
def dropout_of_whole_samples(L):
    return L.behind_stem(L.Dropout(0.5, noise_shape=(None, 1, 1, 1), name="drop"))


@case(a="Masking 'mask' looks at all of them")
def masking_inside(L):
    i = L.Input((5, 3))
    x = L.Masking(name="mask")(L.Dense(4, activation="relu", name="a")(i))
    return i, L.Dense(3, name="head")(L.GlobalAveragePooling1D()(x))


# --- what has no rule


@case(stem="no channel rule for Lambda (layer 'code')")
def lambda_freezes(L):
    return L.behind_stem(L.Lambda(lambda x: x[..., ::2], name="code"))


@case(stem="no channel rule for Reversed (layer 'own')")
def custom_layer_freezes(L):
    class Reversed(L.Layer):
        def call(self, x):
            return x[..., ::-1]

    return L.behind_stem(Reversed(name="own"))


@case(stem="no channel rule for ReLU (layer 'own')", hidden="no channel rule for Dense (layer 'own_dense')")
def custom_layer_with_a_known_name_or_ancestor_freezes(L):
    class ReLU(L.Layer):
        def call(self, x):
            return x[..., ::-1]

    class Dense(L.Dense):
        def call(self, x):
            return super().call(x[..., ::-1])

    x = i = L.image()
    x = L.GlobalAveragePooling2D()(ReLU(name="own")(L.stem(x)))
    x = L.Dense(6, name="hidden")(x)
    return i, L.Dense(3, name="head")(Dense(5, name="own_dense")(x))


@case(stem="no channel rule for ConvLSTM2D (layer 'memory')")
def conv_lstm_freezes(L):
    i = L.Input((2, 4, 4, 3))
    x = L.TimeDistributed(L.Conv2D(8, 1), name="stem")(i)
    return i, L.head(L.ConvLSTM2D(4, 3, name="memory")(x))


@pytest.mark.parametrize("layer", ["Conv2D", "DepthwiseConv2D", "BatchNormalization", "MaxPooling2D", "Permute"])
def test_channels_first_is_followed(L, layer):
    """Channels-first layers tie the channels of axis 1 (only analysed: TensorFlow cannot run them on a processor)."""
    import tf_keras

    from edgeprune.prune.channels.analyse import analyse

    first = {"data_format": "channels_first"}
    i = L.Input((3, 4, 4))
    x = L.Conv2D(8, 3, padding="same", name="stem", **first)(i)
    made = {
        "Conv2D": lambda: L.Conv2D(5, 1, name="it", **first),
        "DepthwiseConv2D": lambda: L.DepthwiseConv2D(3, padding="same", name="it", **first),
        "BatchNormalization": lambda: L.BatchNormalization(axis=1, name="it"),
        "MaxPooling2D": lambda: L.MaxPooling2D(2, name="it", **first),
        "Permute": lambda: L.Permute((1, 3, 2), name="it"),
    }[layer]()
    x = L.GlobalAveragePooling2D(name="pool", **first)(made(x))
    graph = analyse(tf_keras.Model(i, L.Dense(3, name="head")(x)))
    group = next(group for group in graph.groups if group.name == "stem")
    assert (group.size, group.frozen) == (8, None)
    assert {m.layer for m in group.members} >= {"stem", "it"} if made.weights else {"stem", "head"}


def test_flatten_of_channels_first_freezes(L):
    """Flatten transposes channels-first tensors, which is not followed: the reason names the layer."""
    import tf_keras

    from edgeprune.prune.channels.analyse import analyse

    i = L.Input((3, 4, 4))
    x = L.Conv2D(8, 3, name="stem", data_format="channels_first")(i)
    x = L.Flatten(data_format="channels_first", name="flat")(x)
    group = analyse(tf_keras.Model(i, L.Dense(3, name="head")(x))).groups[0]
    assert group.frozen == "Flatten 'flat' transposes channels-first tensors"


def test_index_maps(L, check):
    """A group's members say for every position of a weight's axis which unit it belongs to."""
    import tf_keras

    i = L.image()
    x = L.DepthwiseConv2D(3, depth_multiplier=2, padding="same", name="wide")(L.stem(i, 3))
    x = L.Concatenate()([L.Conv2D(2, 1, name="other")(i), x])
    found = check(tf_keras.Model(i, L.Dense(3, name="head")(L.GlobalMaxPooling2D()(x))))
    maps = {(m.layer, m.weight.split("/")[-1], m.axis): m.index.tolist() for m in found.group("stem").members}
    assert maps == {
        ("stem", "kernel:0", 3): [0, 1, 2],
        ("stem", "bias:0", 0): [0, 1, 2],
        ("wide", "depthwise_kernel:0", 2): [0, 1, 2],
        ("wide", "bias:0", 0): [0, 0, 1, 1, 2, 2],
        ("head", "kernel:0", 0): [-1, -1, 0, 0, 1, 1, 2, 2],
    }
    assert np.array_equal(found.group("other").members[-1].index, [0, 1, *[-1] * 6])


# Of every kind of layer the case that has the most to it, and each reason that freezes.
ALWAYS = (
    "conv2d",
    "conv3d_transpose",
    "separable_conv1d",
    "grouped_conv_loses_whole_groups",
    "grouped_conv_behind_a_concatenation",
    "grouped_convs_of_different_widths",
    "grouped_conv1d_of_fixed_and_free_channels",
    "depthwise_conv2d_with_multiplier",
    "depthwise_conv2d_of_the_model_input",
    "dense_on_sequences",
    "embedding",
    "batch_normalization_of_another_axis",
    "layer_normalization_freezes",
    "group_normalization",
    "unit_normalization",
    "normalization_of_the_input",
    "rescaling_by_channel",
    "prelu",
    "activation_functions",
    "activation_of_ones_own_by_a_known_name",
    "softmax_activation",
    "softmax_over_positions",
    "unknown_activation",
    "dropout_of_a_given_shape",
    "masking_inside",
    "lambda_freezes",
    "custom_layer_with_a_known_name_or_ancestor_freezes",
    "conv_lstm_freezes",
)


@pytest.mark.parametrize("name", representatives(CASES, *ALWAYS))
def test_rule(check_case, name):
    """The layer ties exactly the channels that it should, and the pruned model equals both oracles."""
    check_case(*CASES[name])
