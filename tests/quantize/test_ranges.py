"""Where activations are rounded: every tensor that has a range of its own in the int8 file, and no other."""

from edgeprune.quantize.prepare import prepare
from edgeprune.quantize.ranges import points


def test_operations_that_only_move_values_have_no_range_of_their_own():
    """Transposing, padding and gathering keep the range of their input, under whatever name TensorFlow records them."""
    import tensorflow as tf
    import tf_keras

    inputs = tf_keras.Input((4, 4, 2), name="x")
    x = tf_keras.layers.Conv2D(3, 1, name="conv")(inputs)
    x = tf.gather(tf.pad(tf.transpose(x, [0, 2, 1, 3]), [[0, 0], [1, 1], [1, 1], [0, 0]]), [0, 1], axis=1)
    model = tf_keras.Model(inputs, tf_keras.layers.Conv2D(2, 1, name="last")(x))
    assert set(points(prepare(model))) == {("x", 0, 0), ("conv", 0, 0), ("last", 0, 0)}
