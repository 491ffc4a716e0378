"""Parameters and multiply-accumulates, against published figures, TensorFlow's profiler, and the layers themselves."""

import math

import numpy as np
import pytest
from matrix import representatives

from edgeprune.errors import ModelError
from edgeprune.models import count, load_model

# Layers whose output is a sum of products: on inputs and weights of one, the outputs add up to the number of products.
LINEAR = {
    "conv1d": (lambda layers: layers.Conv1D(5, 3, strides=2), (9, 2)),
    "conv2d": (lambda layers: layers.Conv2D(5, (3, 2), strides=(2, 1)), (8, 7, 3)),
    "conv2d_dilated": (lambda layers: layers.Conv2D(5, 3, dilation_rate=2), (8, 8, 3)),
    "conv2d_grouped": (lambda layers: layers.Conv2D(6, 3, groups=3), (8, 8, 9)),
    "conv3d": (lambda layers: layers.Conv3D(4, 2), (4, 5, 6, 2)),
    "depthwise1d": (lambda layers: layers.DepthwiseConv1D(3, depth_multiplier=2), (9, 4)),
    "depthwise2d": (lambda layers: layers.DepthwiseConv2D((3, 2), strides=2, depth_multiplier=2), (8, 8, 3)),
    "transpose1d": (lambda layers: layers.Conv1DTranspose(4, 3, strides=2), (5, 2)),
    "transpose2d": (lambda layers: layers.Conv2DTranspose(4, 3, strides=2), (5, 6, 2)),
    "transpose3d": (lambda layers: layers.Conv3DTranspose(2, 2, strides=2), (3, 3, 3, 2)),
    "local1d": (lambda layers: layers.LocallyConnected1D(4, 3), (8, 2)),
    "local2d": (lambda layers: layers.LocallyConnected2D(4, 3, strides=2), (8, 8, 2)),
    "dense": (lambda layers: layers.Dense(4), (7,)),
    "dense_on_a_map": (lambda layers: layers.Dense(4), (3, 5, 7)),
    "einsum_dense": (lambda layers: layers.EinsumDense("abc,cde->abde", output_shape=(None, 2, 4)), (5, 7)),
    "einsum_dense_sum": (lambda layers: layers.EinsumDense("...x,xy->...y", output_shape=4), (5, 3, 7)),
    "time_distributed": (lambda layers: layers.TimeDistributed(layers.Conv2D(3, 2)), (4, 5, 5, 2)),
}


@pytest.mark.parametrize("name", LINEAR)
def test_macs_are_the_products_that_a_layer_sums(name, keras):
    """A linear layer on ones adds up exactly as many ones as it has multiply-accumulates."""
    build, shape = LINEAR[name]
    inputs = keras.Input(shape)
    model = keras.Model(inputs, build(keras.layers)(inputs))
    model.set_weights([np.ones(w.shape) if len(w.shape) > 1 else np.zeros(w.shape) for w in model.get_weights()])
    for weight in model.weights:
        if "bias" in weight.name:
            weight.assign(np.zeros(weight.shape))
    products = float(keras.backend.sum(model(np.ones((1, *shape), "float32"))))
    assert count(model).macs == products


def test_separable_convolutions_are_their_two_halves(keras):
    """A separable convolution costs what its depthwise and its pointwise convolution cost."""
    layers = keras.layers
    inputs = keras.Input((9, 9, 4))
    whole = keras.Model(inputs, layers.SeparableConv2D(5, 3, strides=2, depth_multiplier=2)(inputs))
    x = layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2)(inputs)
    halves = keras.Model(inputs, layers.Conv2D(5, 1)(x))
    assert count(whole).macs == count(halves).macs


def _steps(keras, layer):
    inputs = keras.Input((6, 5))
    return count(keras.Model(inputs, layer(inputs))).macs


def test_recurrent_layers(keras):
    """Per step: the gates' input and recurrent matrices; both directions of a Bidirectional layer; stacked cells."""
    layers = keras.layers
    assert _steps(keras, layers.LSTM(4)) == 6 * 4 * 4 * (5 + 4)
    assert _steps(keras, layers.LSTM(4, return_sequences=True, return_state=True)) == 6 * 4 * 4 * (5 + 4)
    assert _steps(keras, layers.GRU(4, reset_after=True)) == 6 * 3 * 4 * (5 + 4)
    assert _steps(keras, layers.SimpleRNN(4)) == 6 * 4 * (5 + 4)
    assert _steps(keras, layers.Bidirectional(layers.GRU(4))) == 2 * 6 * 3 * 4 * (5 + 4)
    stacked = layers.RNN([layers.LSTMCell(4), layers.LSTMCell(3)])
    assert _steps(keras, stacked) == 6 * 4 * (4 * (5 + 4) + 3 * (4 + 3))


@pytest.mark.parametrize("sequences", [True, False])
def test_convolutional_recurrence(sequences, keras):
    """A ConvLSTM costs, per step, a convolution of the input and one of the state, for four gates."""
    inputs = keras.Input((3, 8, 8, 2))
    model = keras.Model(inputs, keras.layers.ConvLSTM2D(4, 3, padding="same", return_sequences=sequences)(inputs))
    assert count(model).macs == 3 * 8 * 8 * 9 * (2 + 4) * 4 * 4


def test_attention(keras):
    """Attention costs its projections, the scores and the weighted sums; sources may have another length."""
    layers = keras.layers
    query, source = keras.Input((6, 8)), keras.Input((5, 7))
    heads, key_dim, value_dim = 2, 4, 3
    projections = 6 * 8 * heads * key_dim + 5 * 7 * heads * (key_dim + value_dim) + 6 * heads * value_dim * 8
    expected = projections + heads * 6 * 5 * (key_dim + value_dim)
    for arguments in ({"value": source}, {"value": source, "key": source}):
        attention = layers.MultiHeadAttention(heads, key_dim, value_dim)
        assert count(keras.Model([query, source], attention(query, **arguments))).macs == expected
    plain = layers.Attention()([query, keras.Input((5, 8))])
    assert count(keras.Model(plain.node.keras_inputs, plain)).macs == 6 * 5 * (8 + 8)


def test_attention_over_a_map(keras):
    """Attention along one axis of a map: every row attends on its own."""
    inputs = keras.Input((4, 6, 8))
    model = keras.Model(inputs, keras.layers.MultiHeadAttention(2, 3, attention_axes=(2,))(inputs, inputs))
    assert count(model).macs == 4 * (4 * 6 * 8 * 2 * 3 + 2 * 6 * 6 * (3 + 3))


def test_products_of_tensors(keras):
    """Matrix products written as TensorFlow functions or as a Dot layer count; elementwise arithmetic does not."""
    import tensorflow as tf

    a, b = keras.Input((5, 7)), keras.Input((7, 4))
    assert count(keras.Model([a, b], tf.matmul(a, b))).macs == 5 * 7 * 4
    assert count(keras.Model(a, tf.matmul(a, a, transpose_b=True))).macs == 5 * 7 * 5
    assert count(keras.Model([a, b], tf.einsum("bij,bjk->bik", a, b))).macs == 5 * 7 * 4
    assert count(keras.Model(a, tf.matmul(a[:, 0], tf.ones((7, 3))))).macs == 7 * 3
    assert count(keras.Model([a, b], keras.layers.Dot((2, 1))([a, b]))).macs == 5 * 7 * 4
    assert count(keras.Model(a, tf.nn.relu(a * 2.0) + 1.0)).macs == 0


def test_what_counts_nothing(keras):
    """Normalization, activations, pooling, embedding and resizing have parameters at most."""
    layers = keras.layers
    inputs = keras.Input((8,), dtype="int32")
    x = layers.Reshape((8, 4, 1))(layers.Embedding(10, 4)(inputs))
    for layer in (
        layers.BatchNormalization(),
        layers.PReLU(),
        layers.LayerNormalization(axis=(1, 2)),
        layers.UpSampling2D(),
    ):
        x = layer(x)
    counts = count(keras.Model(inputs, layers.Softmax()(layers.MaxPooling2D()(x))))
    assert counts.macs == 0
    assert counts.params == 40 + 4 + 32 + 64
    assert counts.uncounted == ()


def test_layers_without_a_rule_are_named(keras):
    """A layer that no rule knows is listed, instead of silently counting nothing; a subclass counts as its base."""

    class Mystery(keras.layers.Layer):
        def call(self, inputs):
            return inputs @ inputs

    class MyDense(keras.layers.Dense):
        pass

    inputs = keras.Input((4, 4))
    x = keras.layers.Lambda(lambda x: x, name="code")(Mystery(name="mystery")(inputs))
    counts = count(keras.Model(inputs, MyDense(3)(x)))
    assert counts.uncounted == ("mystery", "code")
    assert counts.macs == 4 * 4 * 3


def test_shared_layers_and_nested_models(keras):
    """A layer or model called twice holds its parameters once and costs its MACs twice; nested names have a path."""
    layers = keras.layers
    inner_inputs = keras.Input((None, None, 3))
    inner = keras.Model(inner_inputs, layers.Conv2D(4, 3, name="conv")(inner_inputs), name="inner")
    big, small = keras.Input((10, 10, 3)), keras.Input((6, 6, 3))
    counts = count(keras.Model([big, small], [inner(big), inner(small)]))
    assert counts.params == 3 * 9 * 4 + 4
    assert counts.macs == (8 * 8 + 4 * 4) * 27 * 4
    assert [(row.name, row.kind, row.params) for row in counts.layers] == [("inner/conv", "Conv2D", 112)]
    assert counts.macs == sum(row.macs for row in counts.layers)


def test_a_model_distributed_over_time(keras):
    """A model inside TimeDistributed costs its own MACs at each step."""
    inner = keras.Sequential([keras.layers.Conv2D(4, 3, input_shape=(8, 8, 3)), keras.layers.Flatten()])
    inputs = keras.Input((5, 8, 8, 3))
    assert count(keras.Model(inputs, keras.layers.TimeDistributed(inner)(inputs))).macs == 5 * count(inner).macs


def test_zeros_count_as_parameters_but_not_as_nonzero(keras):
    """Zeroed weights leave the parameters as they are and lower the non-zero count by their number."""
    inputs = keras.Input((10,))
    model = keras.Model(inputs, keras.layers.Dense(4)(inputs))
    kernel = np.ones((10, 4))
    kernel[:3] = 0
    model.set_weights([kernel, np.ones(4)])
    counts = count(model)
    assert (counts.params, counts.nonzero_params, counts.macs) == (44, 32, 40)


def test_batch_size_does_not_matter(keras):
    """A model with a fixed batch of 8 has the MACs of one sample."""
    inputs = keras.Input((10,), batch_size=8)
    assert count(keras.Model(inputs, keras.layers.Dense(4)(inputs))).macs == 40


def test_open_dimensions_are_an_error(keras):
    """A model for images of any size has no count; the message says how to name a size."""
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(4, 3, name="stem")(inputs))
    with pytest.raises(ModelError, match=r"takes inputs of any size") as caught:
        count(model)
    assert caught.value.exit_code == 2


def _profiled_macs(model):
    """Multiply-accumulates of convolutions and matrix products, as TensorFlow's own profiler sees them in the graph."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    signature = [tf.TensorSpec((1, *tensor.shape[1:]), tensor.dtype) for tensor in model.inputs]
    function = tf.function(lambda *inputs: model(list(inputs) if len(inputs) > 1 else inputs[0], training=False))
    graph = convert_variables_to_constants_v2(function.get_concrete_function(*signature)).graph
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    options["output"] = "none"
    options["account_type_regexes"] = ["Conv2D", "MatMul", "DepthwiseConv2dNative"]
    return tf.compat.v1.profiler.profile(graph, options=options).total_float_ops // 2


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_macs_agree_with_tensorflows_profiler(padding, keras):
    """A CNN of standard, strided, depthwise, separable and dense layers counts what the profiler counts."""
    layers = keras.layers
    inputs = keras.Input((17, 15, 3))
    x = layers.Conv2D(8, 3, strides=2, padding=padding, activation="relu")(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.DepthwiseConv2D(3, padding=padding)(x)
    x = layers.SeparableConv2D(12, 3, padding=padding)(x)
    x = layers.Conv2D(6, 1)(x)
    x = layers.Dense(5)(layers.Flatten()(x))
    model = keras.Model(inputs, layers.Softmax()(x))
    assert count(model).macs == _profiled_macs(model)


def test_resnet8(resnet8_path):
    """MLPerf Tiny's ResNet8 has the published 78,666 parameters and 12.5 million multiply-adds."""
    model = load_model(resnet8_path)
    counts = count(model)
    assert counts.params == 78_666
    assert counts.macs == _profiled_macs(model) == pytest.approx(12.5e6, rel=0.001)
    assert sum(row.params for row in counts.layers) == counts.params
    assert math.prod(counts.layers[-1].output_shape) == 10


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    representatives(
        [("MobileNet", 4_253_864, 569e6), ("ResNet50", 25_636_712, 3.86e9)], ("MobileNet", 4_253_864, 569e6)
    ),
)
def test_published_networks(name, params, macs, keras):
    """The published costs: MobileNetV1 1.0/224 (Howard et al. 2017, table 8), ResNet-50 (He et al. 2016, table 1)."""
    counts = count(getattr(keras.applications, name)(weights=None))
    assert counts.params == params
    assert counts.macs == pytest.approx(macs, rel=0.005)
    assert counts.uncounted == ()


def test_shapes_that_follow_from_the_number_of_samples_are_known():
    """A model of fixed inputs that splits heads by ``tf.shape(x)[0]`` is counted as one that names its sizes."""
    import tensorflow as tf
    import tf_keras

    def attention(first):
        inputs = tf_keras.Input((5, 8))
        x = tf_keras.layers.Dense(12)(inputs)
        x = tf.transpose(tf.reshape(x, first(x)), [0, 2, 1, 3])
        return tf_keras.Model(inputs, tf.matmul(x, x, transpose_b=True))

    computed, named = count(attention(lambda x: [tf.shape(x)[0], -1, 3, 4])), count(attention(lambda x: [-1, 5, 3, 4]))
    assert computed.macs == named.macs == 5 * 8 * 12 + 3 * 5 * 5 * 4
