"""Layers that merge, pool, pad, move or reshape: what they tie together, and that removing it is exact."""

import numpy as np
import pytest
from matrix import representatives

from edgeprune.prune.filters import prune_filters

CASES = {}


def case(**groups):
    """Enter a model with its expected groups (see the fixture ``check_case``)."""

    def enter(build):
        CASES[build.__name__] = (build, groups)
        return build

    return enter


MERGES = ["Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"]


@pytest.mark.parametrize("merge", representatives(MERGES, "Add", "Maximum"))
def test_merge(check_case, merge):
    """Elementwise merging ties the channels of all its inputs to one group."""

    def build(L):
        i = L.image()
        a, b = L.Conv2D(6, 1, name="a", activation="relu")(i), L.Conv2D(6, 3, padding="same", name="b")(i)
        return i, L.head(getattr(L, merge)(name="merge")([a, b]))

    found = check_case(build, {"a": (6, "a b head")})
    assert found.group("a").layers == ("a", "b")


@pytest.mark.parametrize("merge", MERGES)
def test_merge_with_the_model_input(check_case, merge):
    """What is merged with channels that stay, stays: the reason names the layer that merges."""

    def build(L):
        i = L.image()
        return i, L.head(getattr(L, merge)(name="merge")([i, L.Conv2D(3, 1, name="a")(i)]))

    check_case(build, {"a": "'merge' joins them to channels that cannot be removed"})


@pytest.mark.parametrize("merge", ["Add", "Multiply", "Maximum"])
def test_merge_with_a_constant(check_case, merge):
    """A constant among the inputs is sliced along with the channels that it meets."""

    def build(L):
        i, constant = L.image(), np.random.default_rng(0).normal(size=(1, 4, 4, 8)).astype(np.float32)
        x = getattr(L, merge)(name="merge")([L.stem(i), constant])
        return i, L.head(getattr(L, merge)()([np.float32(2.0) * np.ones((1, 1, 1, 1), np.float32), x]))

    check_case(build, {"stem": (8, "head stem")})


@pytest.mark.parametrize("axis", representatives([0, -4], -4))
def test_joining_samples_freezes(check_case, axis):
    """Concatenation along the samples is none of channels."""

    def build(L):
        i = L.image()
        return i, L.head(L.Concatenate(axis=axis, name="join")([L.stem(i), L.Conv2D(8, 1, name="b")(i)]))

    check_case(build, {"stem": "'join' joins samples", "b": "'join' joins samples"})


def test_joining_a_constant_freezes(check_case):
    """A constant among concatenated tensors moves the offsets behind it: it is not followed."""

    def build(L):
        i = L.image()
        return i, L.head(L.Concatenate(name="join")([L.stem(i), np.ones((2, 4, 4, 1), np.float32)]))

    check_case(build, {"stem": "'join' joins them to constants"})


def test_the_last_axis_is_followed_behind_positions_of_any_number(L, randomize):
    """A reshape that nobody knows the number of positions of leaves the channels free."""
    import tf_keras

    i = L.Input((None, None, 3))
    x = L.Reshape((-1, 8))(L.stem(i))
    model = randomize(tf_keras.Model(i, L.Dense(3, name="head")(L.GlobalAveragePooling1D()(x))))
    assert prune_filters(model, 0.5).model.get_layer("stem").filters == 4


@case(stem=(8, "excite head reduce squeezed stem"), reduce=(4, "excite reduce"))
def squeeze_and_excitation(L):
    x = i = L.image()
    x = L.stem(x)
    s = L.GlobalAveragePooling2D(keepdims=True)(x)
    s = L.Conv2D(4, 1, activation="relu", name="reduce")(s)
    s = L.Conv2D(8, 1, activation="sigmoid", name="excite")(s)
    return i, L.head(L.Multiply()([x, L.BatchNormalization(name="squeezed")(s)]))


@case(stem=(8, "excite head reduce stem"), reduce=(4, "excite reduce"))
def squeeze_and_excitation_with_reshape(L):
    x = i = L.image()
    x = L.stem(x)
    s = L.Reshape((1, 1, 8))(L.GlobalAveragePooling2D()(x))
    s = L.Dense(8, activation="sigmoid", name="excite")(L.Dense(4, activation="relu", name="reduce")(s))
    return i, L.head(L.Multiply()([s, x]))


@case(stem=(8, "attend head stem"), attend=(1, "attend"))
def spatial_attention(L):
    x = i = L.image()
    x = L.stem(x)
    return i, L.head(L.Multiply(name="merge")([x, L.Conv2D(1, 1, activation="sigmoid", name="attend")(x)]))


@case(vector=(8, "head stem vector"))
def broadcasting_over_positions(L):
    i, v = L.image(), L.Input((5,))
    return [i, v], L.head(L.Add()([L.Dense(8, name="vector")(v), L.stem(i)]))


@case(a=(4, "a head"), b=(5, "b head"))
def concatenate(L):
    i = L.image()
    a, b = L.Conv2D(4, 1, name="a")(i), L.Conv2D(5, 1, name="b")(i)
    return i, L.head(L.Concatenate()([b, i, a, b]))


@case(a=(4, "a b head"))
def concatenate_positions(L):
    i = L.image()
    a, b = L.Conv2D(4, 1, name="a")(i), L.Conv2D(4, 1, name="b")(i)
    return i, L.head(L.Concatenate(axis=1)([a, b]))


@case(a="'join' joins them to channels that cannot be removed")
def concatenate_positions_with_the_input(L):
    i = L.image()
    return i, L.head(L.Concatenate(axis=2, name="join")([L.Conv2D(3, 1, name="a")(i), i]))


@case(stem=(8, "down head norm stem up"), down=(6, "down up"))
def pooling_padding_resizing(L):
    i = L.image()
    x = L.stem(i)
    y = L.MaxPooling2D(2)(x)
    y = L.ZeroPadding2D(((1, 0), (2, 1)))(y)
    y = L.Cropping2D(1)(y)
    y = L.Conv2D(6, 1, name="down")(y)
    y = L.UpSampling2D(2, interpolation="bilinear")(y)
    y = L.Conv2D(8, 1, name="up")(L.Resizing(4, 4)(y))
    return i, L.head(L.BatchNormalization(name="norm")(L.Add()([x, L.AveragePooling2D(3, 1, "same")(y)])))


@case(a=(5, "a head"))
def pooling_in_one_dimension(L):
    i = L.Input((8, 3))
    x = L.Conv1D(5, 1, name="a")(i)
    x = L.Cropping1D(1)(L.ZeroPadding1D(2)(L.UpSampling1D(2)(L.AveragePooling1D(2)(L.MaxPooling1D(1)(x)))))
    return i, L.Dense(3, name="head")(L.GlobalMaxPooling1D(keepdims=True)(x))


@case(a=(5, "a head"))
def pooling_in_three_dimensions(L):
    i = L.Input((4, 4, 4, 2))
    x = L.Conv3D(5, 1, name="a")(i)
    x = L.Cropping3D(1)(L.ZeroPadding3D(1)(L.UpSampling3D(2)(L.AveragePooling3D(2)(L.MaxPooling3D(1)(x)))))
    return i, L.Dense(3, name="head")(L.GlobalAveragePooling3D()(x))


@case(stem=(8, "a stem"), a=(6, "a head"))
def flatten_into_dense(L):
    i = L.image()
    return i, L.Dense(3, name="head")(L.Dense(6, name="a")(L.Flatten()(L.stem(i))))


@case(stem=(8, "head stem"))
def reshape_into_dense(L):
    i = L.image()
    return i, L.Dense(3, name="head")(L.Reshape((-1,))(L.Reshape((16, 8))(L.stem(i))))


@case(stem=(4, "head stem"))
def reshape_of_a_full_size(L):
    x = i = L.image()
    x = L.Reshape((32, 4), name="fold")(L.stem(x))
    return i, L.Dense(3, name="head")(L.GlobalMaxPooling1D()(x))


@case(hidden=(8, "head hidden"))
def reshape_of_a_vector_into_an_image(L):
    i = L.Input((5,))
    x = L.Reshape((2, 2, 8))(L.Dense(32, name="hidden")(i))
    return i, L.Conv2D(2, 1, name="head")(x)


@case(stem=(2, "grouped head stem"))
def channel_shuffle(L):
    x = i = L.image()
    x = L.Conv2D(8, 1, groups=4, name="grouped")(L.stem(x))
    x = L.Reshape((4, 4, 2, 4))(x)
    return i, L.head(L.Reshape((4, 4, 8))(L.Permute((1, 2, 4, 3))(x)))


@case(stem=(8, "head stem"))
def permute(L):
    x = i = L.image()
    x = L.Permute((3, 1, 2))(L.stem(x))
    return i, L.head(L.Permute((2, 3, 1))(x))


@case(stem="a convolution mixes these positions (layer 'across')", across=(5, "across head"))
def permute_before_a_convolution(L):
    return L.behind_stem(L.Permute((3, 1, 2)), L.Conv2D(5, 1, name="across"))


@case(stem=(8, "head stem"))
def permute_before_dense(L):
    i = L.image()
    x = L.Permute((3, 2, 1))(L.stem(i))
    return i, L.Dense(3, name="head")(L.Flatten()(x))


@case(a=(6, "a head"))
def repeat_vector(L):
    i = L.Input((4,))
    x = L.RepeatVector(3)(L.Dense(6, name="a")(i))
    return i, L.Dense(2, name="head")(x)


@case(other=(6, "conv head other"))
def shared_convolution(L):
    i, conv = L.image(6), L.Conv2D(6, 3, padding="same", activation="relu", name="conv")
    x = L.Conv2D(6, 1, name="other")(i)
    return i, L.head(conv(conv(x)))


@case(b=(4, "a b conv"), conv=(6, "conv head"))
def shared_convolution_ties_what_it_reads(L):
    i, conv = L.image(), L.Conv2D(6, 1, name="conv")
    x, y = L.Conv2D(4, 1, name="a")(i), L.Conv2D(4, 3, padding="same", name="b")(i)
    return i, L.head(L.Concatenate()([conv(x), conv(y)]))


@case(a="shared layer 'conv' is also called on channels that stay", conv=(6, "conv head"))
def shared_convolution_of_the_input(L):
    i, conv = L.image(), L.Conv2D(6, 1, name="conv")
    return i, L.head(L.Add()([conv(L.Conv2D(3, 1, name="a")(i)), conv(i)]))


@case(b=(4, "a b head norm"))
def shared_batch_normalization(L):
    i, norm = L.image(), L.BatchNormalization(name="norm")
    x, y = L.Conv2D(4, 1, name="a")(i), L.Conv2D(4, 3, padding="same", name="b")(i)
    return i, L.head(L.Concatenate()([norm(x), norm(y)]))


@case(a=(4, "a b head"))
def shared_reshape(L):
    i, fold = L.image(), L.Reshape((16, 4))
    x, y = L.Conv2D(4, 1, name="a")(i), L.Conv2D(4, 3, padding="same", name="b")(i)
    return i, L.Dense(3, name="head")(L.Concatenate(axis=1)([fold(x), L.Concatenate(axis=1)([fold(y), fold(x)])]))


@case(a="shared layer 'fold' is also called on channels that stay")
def shared_reshape_of_the_input(L):
    i, fold = L.image(), L.Reshape((16, 3), name="fold")
    x = L.Concatenate()([fold(L.Conv2D(3, 1, name="a")(i)), fold(i)])
    return i, L.Dense(3, name="head")(x)


@case(a="shared layer 'prelu' is also called on channels that stay")
def shared_prelu_of_the_input(L):
    i, prelu = L.image(), L.PReLU(name="prelu")
    return i, L.head(L.Concatenate()([prelu(L.Conv2D(3, 1, name="a")(i)), prelu(i)]))


def test_flatten_index_map(L, check):
    """Behind Flatten, every position of the image holds each channel once: the map repeats."""
    import tf_keras

    i = L.image(size=2)
    found = check(tf_keras.Model(i, L.Dense(3, name="head")(L.Flatten()(L.stem(i, 3)))))
    kernel = next(m for m in found.group("stem").members if m.layer == "head")
    assert kernel.index.tolist() == [0, 1, 2] * 4
    assert (kernel.axis, kernel.role) == (0, "consumed")


def test_concatenate_index_maps(L, check):
    """Concatenation puts channels behind each other, in any order and repeated."""
    import tf_keras

    i = L.image()
    a, b = L.Conv2D(2, 1, name="a")(i), L.Conv2D(3, 1, name="b")(i)
    found = check(tf_keras.Model(i, L.head(L.Concatenate()([b, i, a, b]))))
    maps = {name: found.group(name).members[-1].index.tolist() for name in "ab"}
    assert maps == {"a": [-1] * 6 + [0, 1] + [-1] * 3, "b": [0, 1, 2] + [-1] * 5 + [0, 1, 2]}


def test_channel_shuffle_index_map(L, check):
    """A shuffle of two groups keeps two groups of equal size: the same positions of both go."""
    import tf_keras

    i = L.image()
    x = L.Permute((1, 2, 4, 3))(L.Reshape((4, 4, 2, 4))(L.stem(i)))
    found = check(tf_keras.Model(i, L.head(L.Reshape((4, 4, 8))(x))))
    maps = {m.layer: m.index.tolist() for m in found.group("stem").members}
    assert maps == {"stem": [0, 1, 2, 3] * 2, "head": list(np.repeat(range(4), 2))}


# Of every kind of layer the case that has the most to it, and each reason that freezes.
ALWAYS = (
    "squeeze_and_excitation",
    "spatial_attention",
    "broadcasting_over_positions",
    "concatenate",
    "concatenate_positions",
    "concatenate_positions_with_the_input",
    "pooling_padding_resizing",
    "reshape_into_dense",
    "channel_shuffle",
    "permute_before_a_convolution",
    "repeat_vector",
    "shared_convolution_ties_what_it_reads",
    "shared_convolution_of_the_input",
    "shared_prelu_of_the_input",
)


@pytest.mark.parametrize("name", representatives(CASES, *ALWAYS))
def test_rule(check_case, name):
    """The layer ties exactly the channels that it should, and the pruned model equals both oracles."""
    check_case(*CASES[name])
