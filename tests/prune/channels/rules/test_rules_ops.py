"""TensorFlow operations on Keras tensors: what they tie together, and that removing it is exact."""

import numpy as np
import pytest
from matrix import representatives

from edgeprune.prune.channels import surgery
from edgeprune.prune.channels.analyse import analyse

CASES = {}


def case(**groups):
    """Enter a model with its expected groups (see the fixture ``check_case``)."""

    def enter(build):
        CASES[build.__name__] = (build, groups)
        return build

    return enter


def behind_stem(L, operation):
    i = L.image()
    return i, L.head(operation(L.stem(i)))


FREE = {"stem": (8, "head stem")}
ELEMENTWISE = {
    "relu6": lambda tf, x: tf.nn.relu6(x),
    "gelu": lambda tf, x: tf.nn.gelu(x),
    "swish": lambda tf, x: tf.nn.silu(x) + tf.nn.swish(x),
    "leaky_relu": lambda tf, x: tf.nn.leaky_relu(x, 0.1),
    "elu and selu": lambda tf, x: tf.nn.elu(x) - tf.nn.selu(x),
    "sigmoid and tanh": lambda tf, x: tf.sigmoid(x) / tf.tanh(x),
    "softplus": lambda tf, x: tf.math.softplus(x),
    "exp, square, sqrt, abs": lambda tf, x: tf.exp(-tf.sqrt(tf.square(tf.abs(x)) + 1e-3)),
    "clip and cast": lambda tf, x: tf.cast(tf.clip_by_value(x, -1.0, 1.0), tf.float32),
    "log1p, expm1, tan": lambda tf, x: tf.math.log1p(tf.abs(x)) + tf.math.expm1(x) * tf.tan(0.1 * x),
    "rounding": lambda tf, x: tf.floor(x) + tf.math.ceil(2 * x) * tf.round(x) - tf.sign(x),
    "division": lambda tf, x: (x // 0.3) * tf.math.divide_no_nan(x, 2 + x % 0.7) + tf.math.reciprocal(2 + tf.abs(x)),
    "softsign and log_sigmoid": lambda tf, x: tf.nn.softsign(x) * tf.math.log_sigmoid(x),
    "erf, sin, cos": lambda tf, x: tf.math.erf(tf.sin(x) * tf.cos(x)),
    "arithmetic with numbers": lambda tf, x: (2.0 * x - 1.0) / 3.0 + (1.0 - x) * (1.0 / (x**2 + 1.0)),
    "maximum and minimum": lambda tf, x: tf.maximum(tf.minimum(x, 0.5), -x),
    "stop_gradient and identity": lambda tf, x: tf.identity(tf.stop_gradient(x)),
    "constant per channel": lambda tf, x: x * np.arange(1, 9, dtype="float32") + tf.range(8.0),
    "constant on the left": lambda tf, x: tf.math.subtract(tf.ones((1, 1, 1, 8)), x),
    "list per channel": lambda tf, x: tf.add(x, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]),
    "constant per position": lambda tf, x: x + tf.reshape(tf.range(16.0), (4, 4, 1)),
    "resize": lambda tf, x: tf.image.resize(x, (6, 6)),
    "pad positions": lambda tf, x: tf.pad(x, [[0, 0], [1, 1], [2, 0], [0, 0]]),
    "pad channels": lambda tf, x: tf.pad(x, [[0, 0], [1, 1], [0, 0], [1, 2]]),
    "pooling": lambda tf, x: tf.nn.max_pool2d(tf.nn.avg_pool2d(x, 2, 1, "SAME"), 2, 2, "VALID"),
    "softmax over positions": lambda tf, x: tf.nn.softmax(x, axis=1),
    "transpose there and back": lambda tf, x: tf.transpose(tf.transpose(x, [0, 3, 1, 2]), perm=[0, 2, 3, 1]),
    "reshape there and back": lambda tf, x: tf.reshape(tf.reshape(x, [-1, 16, 8]), (-1, 4, 4, 8)),
    "expand and squeeze": lambda tf, x: tf.squeeze(tf.expand_dims(tf.expand_dims(x, 1), axis=-1), axis=[1, -1]),
    "slices of positions": lambda tf, x: x[:, 1:, ::2] + x[:, :-1, ::2],
    "one position": lambda tf, x: x[:, 0:1] + tf.expand_dims(x[:, 2], 1),
    "sums of positions": lambda tf, x: tf.reduce_sum(x, [1, 2], True) + tf.reduce_mean(x, axis=1, keepdims=True),
    "number of positions": lambda tf, x: x / tf.cast(tf.shape(x)[1] + tf.shape(x)[-2], "float32"),
    "sizes of positions": lambda tf, x: tf.image.resize(x[:, ::2], tf.shape(x)[1:3]),
    "new axis": lambda tf, x: x[:, tf.newaxis, ..., tf.newaxis][:, 0, ..., 0],
    "excitation by index": lambda tf, x: x * tf.sigmoid(tf.reduce_mean(x, [1, 2]))[:, None, None, :],
    "stack": lambda tf, x: tf.reduce_max(tf.stack([x, 2 * x, -x], axis=-2), axis=3),
    "tile positions": lambda tf, x: tf.tile(x, [1, 2, 1, 1]) + tf.tile(x[:, :1], (1, 8, 1, 1)),
    "where": lambda tf, x: tf.where(x > 0.1, x, 0.1 * x) + tf.where(x[:, :1] < x, 0.0, tf.range(8.0)),
    "comparison": lambda tf, x: x * tf.cast(tf.math.logical_or(x >= 0.2, tf.math.logical_not(x <= -0.1)), "float32"),
    "unit length": lambda tf, x: tf.math.l2_normalize(x, axis=-1) + tf.math.l2_normalize(x, [3], epsilon=1e-3),
    "spread of positions": lambda tf, x: tf.math.reduce_std(x, [1, 2], True) - tf.math.reduce_variance(x, 1, True),
    "sum of many": lambda tf, x: tf.add_n([x, tf.abs(x), tf.square(x)]),
    "axes from the end": lambda tf, x: tf.transpose(tf.transpose(x, [0, -1, 1, 2]), [0, 2, -1, 1]),
    "reshape by an array": lambda tf, x: tf.reshape(tf.reshape(x, np.array([-1, 16, 8])), tf.constant([-1, 4, 4, 8])),
    "pixels as samples": lambda tf, x: tf.reshape(2 * tf.reshape(x, (-1, 8)), (-1, 4, 4, 8)),
    "windows as samples": lambda tf, x: tf.reshape(
        tf.transpose(tf.reshape(x, (-1, 2, 2, 2, 2, 8)), [0, 1, 3, 2, 4, 5]), (-1, 2, 2, 8)
    ),
    "sums so far": lambda tf, x: tf.cumsum(x, axis=1) + tf.math.cumprod(x, axis=-2),
    "inverses": lambda tf, x: tf.math.atan(x) * tf.math.atan2(x, tf.math.cosh(x)) + tf.math.asinh(tf.math.sinh(x)),
    "space_to_depth": lambda tf, x: tf.nn.space_to_depth(x, 2),
    "extremes of positions": lambda tf, x: tf.reduce_max(x, 1, keepdims=True) - tf.reduce_min(x, 1, keepdims=True),
}  # fmt: skip


# Of functions of single numbers, those with the most of them; of every other kind of operation, one.
PASSING = (
    "division", "clip and cast", "constant per channel", "list per channel", "resize", "pad channels", "pooling",
    "softmax over positions", "expand and squeeze", "slices of positions", "sums of positions", "sizes of positions",
    "new axis", "stack", "tile positions", "where", "comparison", "unit length", "sum of many", "axes from the end",
    "windows as samples", "sums so far", "space_to_depth",
)  # fmt: skip


@pytest.mark.parametrize("name", representatives(ELEMENTWISE, *PASSING))
def test_channels_pass(check_case, name):
    """The operation leaves channels where they are: all of them can go."""
    import tensorflow as tf

    check_case(lambda L: behind_stem(L, lambda x: ELEMENTWISE[name](tf, x)), FREE)


OPAQUE = {
    "softmax": (lambda tf, x: tf.nn.softmax(x), "softmax normalises over these channels"),
    "mean of channels": (lambda tf, x: x - tf.reduce_mean(x, -1, keepdims=True), "reduces over these channels"),
    "slice with a step": (lambda tf, x: x[..., ::2], "takes some of them by number"),
    "one channel": (lambda tf, x: x * tf.expand_dims(x[..., 3], -1), "picks one of them by its number"),
    "sums of channels so far": (lambda tf, x: tf.cumsum(x, axis=-1), "accumulates over these channels"),
    "reverse": (lambda tf, x: tf.reverse(x, [-1]), "no channel rule for the operation reverse"),
    "gather": (lambda tf, x: tf.gather(x, [3, 1], axis=-1), "no channel rule for the operation"),
    "stacked samples": (lambda tf, x: tf.stack([x, x])[0], "stacks constants, or along samples"),
    "tiled channels": (lambda tf, x: tf.tile(x, [1, 1, 1, 2]), "repeats them"),
    "positions of what is true": (
        lambda tf, x: x[:, :1] * tf.cast(tf.shape(tf.where(x > 0))[0], "float32"),
        "makes a list",
    ),
    "channels as samples": (
        lambda tf, x: tf.reshape(tf.reshape(x, (-1, 4)), (-1, 4, 4, 8)),
        "reshapes them into samples",
    ),
    "samples from the end": (lambda tf, x: tf.concat([x, x], -4), "joins samples"),
    "channels padded by ones": (
        lambda tf, x: tf.pad(x, [[0, 0], [0, 0], [0, 0], [1, 2]], constant_values=1),
        "pads or moves them",
    ),
    "bounds from a tensor": (lambda tf, x: tf.clip_by_value(x, -1.0, tf.abs(x) - 0.5), "takes more than one tensor"),
    "bounds per channel": (lambda tf, x: tf.clip_by_value(x, -1.0, np.arange(8.0)), "an argument that is not a number"),
    "joined to a constant": (lambda tf, x: tf.concat([x, tf.ones((2, 4, 4, 1))], -1), "joins them to constants"),
    "samples": (lambda tf, x: tf.concat([x, x], 0), "joins samples"),
    "split samples": (lambda tf, x: tf.split(tf.concat([x, x], 0), 2)[0], "joins samples"),
    "first sample": (lambda tf, x: x + x[0], "indexes in a way that cannot be followed"),
    "einsum": (lambda tf, x: tf.einsum("bhwc,bhwd->bhwd", x, x), "no channel rule for the operation"),
    "shape at run time": (lambda tf, x: tf.reshape(x, tf.shape(x)), "looks at their number"),
    "number of channels": (lambda tf, x: x / tf.cast(tf.shape(x)[-1], "float32"), "looks at their number"),
}


# Each reason once.
FREEZING = (
    "softmax", "mean of channels", "slice with a step", "one channel", "sums of channels so far", "gather",
    "stacked samples", "tiled channels", "positions of what is true", "channels as samples", "channels padded by ones",
    "bounds from a tensor", "bounds per channel", "joined to a constant", "split samples", "first sample",
    "number of channels",
)  # fmt: skip


@pytest.mark.parametrize("name", representatives(OPAQUE, *FREEZING))
def test_frozen(check_case, name):
    """What cannot be followed freezes the channels, and the reason says what it was."""
    import tensorflow as tf

    operation, reason = OPAQUE[name]
    check_case(lambda L: behind_stem(L, lambda x: operation(tf, x)), {"stem": reason})


@case(a=(4, "a head"), b=(5, "b head"))
def concat(L):
    import tensorflow as tf

    i = L.image()
    a, b = L.Conv2D(4, 1, name="a")(i), L.Conv2D(5, 1, name="b")(i)
    return i, L.head(tf.concat([b, a, i, a], axis=-1))


@case(a=(6, "a b head"))
def arithmetic_of_two(L):
    import tensorflow as tf

    i = L.image()
    a, b = L.Conv2D(6, 1, name="a")(i), L.Conv2D(6, 1, name="b")(i)
    return i, L.head(tf.maximum(a * b + a, a - b) / (tf.math.squared_difference(a, b) + 1.0))


@case(b="'tf.__operators__.add' joins them to channels that cannot be removed")
def arithmetic_with_the_input(L):
    i = L.image()
    return i, L.head(i + L.Conv2D(3, 1, name="b")(i))


@case(gate=(1, "gate"))
def one_channel_and_a_constant_of_many(L):
    i = L.image()
    return i, L.head(L.Conv2D(1, 1, name="gate")(i) * np.arange(1, 6, dtype="float32"))


@case(stem=(8, "left right stem"), left=(5, "head left"), right=(4, "head right"))
def split_into_parts(L):
    import tensorflow as tf

    i = L.image()
    x, y = tf.split(L.stem(i), [3, 5], axis=-1)
    x, y = L.Conv2D(5, 1, name="left")(x), L.Conv2D(4, 1, name="right")(y)
    return i, L.head(L.Concatenate()([x, y]))


@case(stem=(8, "head stem"))
def split_by_an_array(L):
    import tensorflow as tf

    i = L.image()
    x, y = tf.split(L.stem(i), np.array([3, 5]), axis=-1)
    return i, L.head(L.Concatenate()([y, x]))


@case(stem=(4, "head stem"))
def split_into_equal_parts(L):
    import tensorflow as tf

    i = L.image()
    x, y = tf.split(L.stem(i), 2, axis=3)
    return i, L.head(x * tf.sigmoid(y))


@case(stem=(8, "head left right stem"), left=(5, "head left"))
def slices_of_channels(L):
    import tensorflow as tf

    i = L.image()
    x = L.stem(i)
    y = L.Conv2D(5, 1, name="left")(x[..., :3])
    z = L.BatchNormalization(name="right")(x[:, :, :, 3:-1])
    return i, L.head(tf.concat([z, y, x[..., -1:]], -1))


@case(a=(6, "a b"))
def matmul_over_channels(L):
    import tensorflow as tf

    i = L.Input((5, 3))
    a, b = L.Dense(6, name="a")(i), L.Dense(6, name="b")(i)
    return i, L.Dense(3, name="head")(tf.matmul(a, b, transpose_b=True))


@case(b=(6, "a b"))
def matmul_with_named_arguments(L):
    import tensorflow as tf

    i = L.Input((5, 3))
    a, b = L.Dense(6, name="a")(i), L.Permute((2, 1))(L.Dense(6, name="b")(i))
    return i, L.Dense(3, name="head")(tf.linalg.matmul(b=b, a=a) + a @ b)


@case(a="multiplies them with channels that cannot be removed")
def matmul_with_the_input(L):
    import tensorflow as tf

    i, j = L.Input((5, 3)), L.Input((4, 6))
    return [i, j], L.Dense(3, name="head")(tf.matmul(L.Dense(4, name="a")(i), j))


@case(query=(6, "key query"), value=(4, "head value"))
def attention_by_hand(L):
    import tensorflow as tf

    i = L.Input((5, 3))
    q, k, v = (L.Dense(n, name=name)(i) for name, n in (("query", 6), ("key", 6), ("value", 4)))
    return i, L.Dense(2, name="head")(tf.matmul(tf.nn.softmax(tf.matmul(q, k, transpose_b=True) * 0.4), v))


@case(stem=(2, "head stem"))
def depth_to_space(L):
    import tensorflow as tf

    i = L.image()
    return i, L.head(tf.nn.depth_to_space(L.stem(i), 2))


@case(key=(3, "key query"), value=(3, "head value"))
def heads_by_hand(L):
    """Two heads of three, as the tutorials split them: the number of positions is left to the reshape."""
    import tensorflow as tf

    def split(x):
        return tf.transpose(tf.reshape(x, [tf.shape(x)[0], -1, 2, 3]), [0, 2, 1, 3])

    i = L.Input((5, 3))
    q, k, v = (split(L.Dense(6, name=name)(i)) for name in ("query", "key", "value"))
    x = tf.transpose(tf.matmul(tf.nn.softmax(tf.matmul(q, k, transpose_b=True)), v), [0, 2, 1, 3])
    return i, L.Dense(2, name="head")(tf.reshape(x, [tf.shape(x)[0], 5, 6]))


@case(stem=(8, "stem"))
def sum_of_channels(L):
    import tensorflow as tf

    i = L.image()
    x = tf.reduce_sum(input_tensor=tf.square(L.stem(i)), axis=-1, keepdims=True)
    return i, L.head(L.Concatenate()([x, i]))


@case(stem=(8, "head stem"))
def batch_size_at_run_time(L):
    import tensorflow as tf

    i = L.image()
    x = L.stem(i)
    return i, L.Dense(3, name="head")(tf.reshape(x, [tf.shape(x)[0], 128]))


BOUNDS = [(None, -2), (-3, None), (-6, -2), (1, -1), (2, 100)]


@pytest.mark.parametrize(("first", "last"), representatives(BOUNDS, (-6, -2), (2, 100)))
def test_bounds_of_slices(first, last, L, randomize):
    """A slice takes the same channels, wherever its bounds are counted from, whichever single channel goes."""
    import tf_keras

    i = L.image()
    model = randomize(tf_keras.Model(i, L.head(L.stem(i)[..., slice(first, last)])))
    graph = analyse(model)
    for channel in range(8):
        keep = np.ones(len(graph.units), bool)
        keep[graph.groups[0].units[channel]] = False
        surgery.verify(surgery.remove(graph, keep), surgery.mask(graph, keep))


# Of every kind of layer the case that has the most to it, and each reason that freezes.
ALWAYS = (
    "concat",
    "arithmetic_of_two",
    "arithmetic_with_the_input",
    "one_channel_and_a_constant_of_many",
    "split_into_parts",
    "slices_of_channels",
    "matmul_with_named_arguments",
    "matmul_with_the_input",
    "heads_by_hand",
    "depth_to_space",
)


@pytest.mark.parametrize("name", representatives(CASES, *ALWAYS))
def test_rule(check_case, name):
    """The operation ties exactly the channels that it should, and the pruned model equals both oracles."""
    check_case(*CASES[name])
