"""Each operator that has a rule: the model computes what the interpreter computes, by operator and as a whole."""

import numpy as np
import pytest
from matrix import representatives

tf = pytest.importorskip("tensorflow")

from tensorflow.compiler.tf2xla.ops.gen_xla_ops import xla_dynamic_update_slice  # noqa: E402
from tiny_files import Given, tflite_of  # noqa: E402

from edgeprune.convert.converter import convert  # noqa: E402
from edgeprune.errors import ModelError, UsageError  # noqa: E402
from edgeprune.models.from_tflite import import_tflite  # noqa: E402
from edgeprune.models.from_tflite.check import check  # noqa: E402
from edgeprune.models.from_tflite.registry import RULES  # noqa: E402
from edgeprune.quantize.plan import QuantizationPlan  # noqa: E402
from edgeprune.tflite.flatbuffer import read  # noqa: E402
from edgeprune.tflite.objects import packed, schema, unpacked  # noqa: E402

RANDOM = np.random.default_rng(0)


def weights(*shape):
    return tf.constant(RANDOM.normal(0, 0.5, shape), tf.float32)


def write(path, function, *shapes, dtypes=None, optimize=False):
    """A .tflite of a function of tensors of these shapes."""
    dtypes = dtypes or ["float32"] * len(shapes)
    specs = [tf.TensorSpec(shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
    # AutoGraph would look for each lambda in the syntax tree of all this file.
    concrete = tf.function(function, input_signature=specs, autograph=False).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    if optimize:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16] if optimize == "float16" else []
    path.write_bytes(converter.convert())
    return path


IMAGE = (1, 6, 8, 4)
# What it is → (operator that the file must have, function, shapes of its inputs).
CASES = {
    "conv": ("CONV_2D", lambda x: tf.nn.relu6(tf.nn.conv2d(x, weights(3, 3, 4, 5), 2, "SAME") + weights(5)), [IMAGE]),
    "conv explicit pads": (
        "PAD",
        lambda x: tf.nn.conv2d(tf.pad(x, [[0, 0], [1, 2], [1, 0], [0, 0]]), weights(3, 3, 4, 5), 2, "VALID"),
        [IMAGE],
    ),
    "conv dilated": ("CONV_2D", lambda x: tf.nn.conv2d(x, weights(3, 3, 4, 5), 1, "SAME", dilations=2), [IMAGE]),
    "conv strides": ("CONV_2D", lambda x: tf.nn.conv2d(x, weights(3, 2, 4, 5), [2, 1], "VALID"), [IMAGE]),
    "depthwise": (
        "DEPTHWISE_CONV_2D",
        lambda x: tf.nn.depthwise_conv2d(x, weights(3, 3, 4, 2), [1, 2, 2, 1], "SAME") + weights(8),
        [IMAGE],
    ),
    "transposed same": (
        "TRANSPOSE_CONV",
        lambda x: tf.nn.conv2d_transpose(x, weights(3, 3, 5, 4), [1, 12, 16, 5], 2, "SAME"),
        [IMAGE],
    ),
    "transposed valid": (
        "TRANSPOSE_CONV",
        lambda x: tf.nn.conv2d_transpose(x, weights(3, 3, 5, 4), [1, 13, 17, 5], 2, "VALID"),
        [IMAGE],
    ),
    "dense": ("FULLY_CONNECTED", lambda x: tf.matmul(x, weights(7, 3)) + weights(3), [(1, 7)]),
    "dense of many": ("FULLY_CONNECTED", lambda x: tf.matmul(x, weights(7, 3)), [(5, 7)]),
    "product": ("BATCH_MATMUL", lambda x, y: tf.matmul(x, y, transpose_b=True), [(1, 5, 7), (1, 4, 7)]),
    "pools": ("MAX_POOL_2D", lambda x: tf.nn.max_pool2d(tf.nn.avg_pool2d(x, 2, 2, "SAME"), 3, 1, "SAME"), [IMAGE]),
    "mean": ("MEAN", lambda x: tf.reduce_mean(x, [1, 2]) + tf.reduce_mean(x, [1, 3])[:, :4], [IMAGE]),
    "sum, max, min": (
        "REDUCE_MAX",
        lambda x: tf.reduce_sum(x, -1) + tf.reduce_max(x, 3) - tf.reduce_min(x, 3),
        [IMAGE],
    ),
    "over samples": ("SUM", lambda x: tf.reduce_sum(x, 0) + x, [IMAGE]),
    "broadcast": ("MUL", lambda x, y: (x * y + weights(4)) / (2.0 + tf.abs(y)) - y, [IMAGE, (1, 1, 1, 4)]),
    "broadcast over ranks": ("ADD", lambda x, y: x + y, [(1, 5, 4), (1, 4)]),
    "larger constant": ("MUL", lambda x: x * weights(3, 8, 4), [(1, 8, 4)]),
    "hard swish": ("HARD_SWISH", lambda x: x * tf.nn.relu6(x + 3.0) * (1 / 6), [IMAGE]),
    "activations": (
        "LEAKY_RELU",
        lambda x: tf.nn.leaky_relu(x, 0.3) + tf.sigmoid(x) * tf.tanh(x) - tf.nn.elu(x),
        [IMAGE],
    ),
    "gelu": ("GELU", lambda x: tf.nn.gelu(x, approximate=True), [IMAGE]),
    "unary": (
        "RSQRT",
        lambda x: tf.math.rsqrt(tf.abs(x) + 1.0) + tf.sqrt(tf.square(x)) - tf.exp(-x) + tf.sin(x) * tf.floor(x),
        [IMAGE],
    ),
    "log": ("LOG", lambda x: tf.math.log(tf.abs(x) + 1.0), [IMAGE]),
    "softmax": ("SOFTMAX", lambda x: tf.nn.softmax(x) + tf.nn.log_softmax(x), [(1, 9)]),
    "concatenation": ("CONCATENATION", lambda x, y: tf.concat([x, y, x], -1), [(1, 5, 3), (1, 5, 2)]),
    "concatenated to a constant": ("CONCATENATION", lambda x: tf.concat([x, weights(1, 5, 2)], -1), [(1, 5, 3)]),
    "split": ("SPLIT", lambda x: tf.split(x, 2, -1)[0] * tf.split(x, [1, 3], -1)[0], [IMAGE]),
    "slices": ("STRIDED_SLICE", lambda x: x[:, 1:-1, ::2, 3] + x[0:1, :4, :4, 0], [IMAGE]),
    "backwards": ("REVERSE_V2", lambda x: tf.reverse(x, [1]) + x[:, ::-1], [IMAGE]),
    "first sample": ("ADD", lambda x: x[0] + x[0, :, ::-1], [IMAGE]),
    "slice": ("SLICE", lambda x: tf.slice(x, [0, 1, 2, 0], [1, 3, -1, 2]), [IMAGE]),
    "channel pad": ("PAD", lambda x: tf.pad(x, [[0, 0], [0, 0], [0, 0], [0, 3]]), [IMAGE]),
    "pad by a value": ("PADV2", lambda x: tf.pad(x, [[0, 0], [1, 1], [0, 0], [0, 0]], constant_values=2.0), [IMAGE]),
    "mirror": ("MIRROR_PAD", lambda x: tf.pad(x, [[0, 0], [2, 1], [0, 0], [0, 0]], mode="REFLECT"), [IMAGE]),
    "reshape": ("RESHAPE", lambda x: tf.reshape(tf.reshape(x, (48, 4)) * 2.0, (1, 8, 24)), [IMAGE]),
    "transposes": (
        "TRANSPOSE",
        lambda x: tf.transpose(tf.transpose(x, [3, 0, 1, 2]) * weights(8), [1, 2, 3, 0]),
        [IMAGE],
    ),
    "squeeze, expand": (
        "RESHAPE",
        lambda x: tf.squeeze(x, [2]) + tf.expand_dims(tf.reduce_sum(tf.squeeze(x), -1), -1),
        [(1, 6, 1, 4)],
    ),
    "pack": ("PACK", lambda x: tf.stack([x, 2.0 * x, tf.exp(x)], 1), [(1, 6)]),
    "unpack": ("UNPACK", lambda x: tf.add_n(tf.unstack(x, axis=1)), [(1, 3, 4)]),
    "pack samples": ("PACK", lambda x: tf.stack([x[0], 2.0 * x[0]], 0), [(1, 6)]),
    "resize": ("RESIZE_BILINEAR", lambda x: tf.image.resize(x, (12, 16)), [IMAGE]),
    "resize to odd sizes": ("RESIZE_BILINEAR", lambda x: tf.image.resize(x, (9, 7)), [IMAGE]),
    "resize aligned": (
        "RESIZE_BILINEAR",
        lambda x: tf.compat.v1.image.resize_bilinear(x, (11, 15), align_corners=True),
        [IMAGE],
    ),
    "resize old": (
        "RESIZE_NEAREST_NEIGHBOR",
        lambda x: tf.compat.v1.image.resize_nearest_neighbor(x, (12, 8)),
        [IMAGE],
    ),
    "resize nearest": ("RESIZE_NEAREST_NEIGHBOR", lambda x: tf.image.resize(x, (12, 16), method="nearest"), [IMAGE]),
    "blocks": ("DEPTH_TO_SPACE", lambda x: tf.nn.depth_to_space(tf.nn.space_to_depth(x, 2) * 2.0, 2), [IMAGE]),
    "gather": ("GATHER", lambda x: tf.gather(x, [2, 0, 1], axis=3), [IMAGE]),
    "tile": ("TILE", lambda x: tf.tile(x, [1, 2, 1, 3]), [IMAGE]),
    "select": ("SELECT", lambda x: tf.where(x > 0.2, x * 3.0, tf.minimum(x, 0.1) ** 2), [IMAGE]),
    "arg max": ("ARG_MAX", lambda x: tf.cast(tf.argmax(x, -1), tf.float32), [IMAGE]),
    "cumsum": ("CUMSUM", lambda x: tf.cumsum(x, 1, exclusive=True), [IMAGE]),
    "top": ("TOPK_V2", lambda x: tf.math.top_k(x, 3)[0], [(1, 9)]),
    "normalization": (
        "LOCAL_RESPONSE_NORMALIZATION",
        lambda x: tf.nn.local_response_normalization(x, 2, 1.0, 0.1),
        [IMAGE],
    ),
    "l2": ("L2_NORMALIZATION", lambda x: tf.math.l2_normalize(x, -1), [(1, 9)]),
    "classes": (
        "ONE_HOT",
        lambda x: tf.one_hot(tf.argmax(x, -1), 5) + tf.one_hot(tf.argmax(x, 2), 5, axis=2),
        [(1, 5, 5, 5)],
    ),
    "positions of several axes": ("GATHER_ND", lambda x: tf.gather_nd(x, [[0, 1, 2], [0, 3, 4]]), [IMAGE]),
    "computed positions": (
        "GATHER_ND",
        lambda x: tf.gather_nd(tf.reshape(x, (48, 4)), tf.argmax(tf.reshape(x, (48, 4)), 0)[:, None]),
        [IMAGE],
    ),
    "computed channels": ("GATHER", lambda x: tf.gather(x, tf.argmax(x[:, 0, 0], -1), axis=3), [IMAGE]),
    "table of integers": (
        "GATHER", lambda x: tf.cast(tf.gather(tf.constant([3, 1, 4, 1]), tf.argmax(x, -1)), tf.float32), [IMAGE],
    ),
    "scattered": ("SCATTER_ND", lambda x: tf.scatter_nd([[1], [3]], tf.reshape(x, (2, 12)), [5, 12]), [(1, 2, 12)]),
    "a part replaced": (
        "DYNAMIC_UPDATE_SLICE",
        lambda x: xla_dynamic_update_slice(x, 2.0 * x[:, :2], [0, 1, 0]),
        [(1, 6, 4)],
    ),
    "diagonal": ("MATRIX_DIAG", lambda x: tf.linalg.diag(x), [(1, 6)]),
    "sequence backwards": (
        "REVERSE_SEQUENCE",
        lambda x: tf.reverse_sequence(x, [5], seq_axis=1, batch_axis=0),
        [(1, 6, 4)],
    ),
    "spectrum": (
        "RFFT2D", lambda x: tf.abs(tf.signal.rfft2d(x)) + tf.math.imag(tf.signal.rfft2d(x)), [(1, 8, 16)],
    ),
    "frames of a signal": (
        "COMPLEX_ABS",
        lambda x: tf.matmul(tf.abs(tf.signal.stft(x, 16, 8)), weights(9, 4)),
        [(64,)],
    ),
    "volume": (
        "CONV_3D",
        lambda x: tf.nn.conv3d(x, weights(2, 3, 3, 4, 5), [1, 1, 2, 2, 1], "SAME"),
        [(1, 3, 6, 8, 4)],
    ),
    "larger volume": (
        "CONV_3D_TRANSPOSE",
        lambda x: tf.nn.conv3d_transpose(x, weights(2, 2, 2, 5, 4), (1, 6, 12, 16, 5), [1, 2, 2, 2, 1], "SAME"),
        [(1, 3, 6, 8, 4)],
    ),
    "depthwise dilated": (
        "DEPTHWISE_CONV_2D",
        lambda x: tf.nn.depthwise_conv2d(x, weights(3, 3, 4, 2), [1] * 4, "SAME", dilations=[2, 2]),
        [(1, 12, 12, 4)],
    ),
    "filled": ("CONCATENATION", lambda x: tf.concat([x, tf.fill(tf.shape(x), 2.0)], -1), [IMAGE]),
    "broadcast to a shape": ("BROADCAST_TO", lambda x: tf.broadcast_to(x, IMAGE) + 1.0, [(1, 1, 1, 4)]),
    "parts": ("SPLIT_V", lambda x: tf.split(x, [1, 2, 1], -1)[1], [IMAGE]),
    "logic": (
        "LOGICAL_AND",
        lambda x, y: tf.where(tf.logical_and(x > y, tf.logical_not(x <= 0.1)), x, tf.math.floordiv(y, 0.7)),
        [IMAGE, IMAGE],
    ),
    "any, all": (
        "REDUCE_ANY",
        lambda x: tf.cast(tf.reduce_any(x > 0.5, -1), tf.float32) + tf.cast(tf.reduce_all(x > -0.5, -1), tf.float32),
        [IMAGE],
    ),
    "one vector": ("MUL", lambda x: tf.nn.relu(x) * weights(9), [(9,)]),
    "dtln": ("UNPACK", lambda x: tf.matmul(tf.unstack(x, axis=0)[0], weights(7, 3)), [(1, 1, 7)]),
}  # fmt: skip


# Each operator once: the first case of it.
FIRST = {operator: case for case, (operator, *_) in reversed(CASES.items())}


@pytest.mark.parametrize("case", representatives(CASES, *FIRST.values()))
def test_operator(case, tmp_path):
    """The model of a file with this operator equals the interpreter's outputs up to rounding, and a new file does."""
    operator, function, shapes = CASES[case]
    path = write(tmp_path / "it.tflite", function, *shapes)
    imported = import_tflite(path)
    assert operator in {o.name for o in imported.file.subgraphs[0].operators}
    assert check(imported, path).difference <= 1e-4
    again = tmp_path / "again.tflite"
    again.write_bytes(convert(imported.model, QuantizationPlan("float32", "float", False)))
    assert check(import_tflite(again), again).difference <= 1e-4


def test_every_case_is_in_the_table():
    """What is tested has a rule."""
    assert {operator for operator, *_ in CASES.values()} <= set(RULES)


@pytest.mark.parametrize("optimize", ["float16", "dynamic"])
def test_weights_in_other_formats(optimize, tmp_path):
    """float16 kernels become float32 ones; of integer kernels beside floats the runtime rounds more than the model."""
    kernel = weights(3, 3, 8, 64)
    path = write(tmp_path / "it.tflite", lambda x: tf.nn.conv2d(x, kernel, 1, "SAME"), (1, 6, 6, 8), optimize=optimize)
    imported = import_tflite(path)
    checked = check(imported, path)
    assert checked.difference <= (1e-4 if optimize == "float16" else 0.1)
    (layer,) = [layer for layer in imported.model.layers if layer.weights]
    assert np.abs(layer.get_weights()[0] - kernel).max() < (2e-3 if optimize == "float16" else 2e-2)


def test_lookup(tmp_path):
    """A table that numbers of words are looked up in is an Embedding."""
    table = weights(11, 6)
    path = write(tmp_path / "it.tflite", lambda x: tf.gather(table, x), (1, 5), dtypes=["int32"])
    imported = import_tflite(path)
    assert check(imported, path).difference <= 1e-4
    assert [type(layer).__name__ for layer in imported.model.layers if layer.weights] == ["Embedding"]


def test_batch(tmp_path):
    """The model takes any number of samples, each as the file takes its one, whatever the file does with its axes."""

    def mixed(x):
        return tf.reshape(tf.transpose(tf.reshape(x, (6, 8, 4)), [1, 0, 2]), (1, 8, 24)) * weights(24)

    imported = import_tflite(write(tmp_path / "it.tflite", mixed, IMAGE))
    samples = RANDOM.normal(size=(5, *IMAGE[1:])).astype("float32")
    whole = imported.model(samples).numpy()
    np.testing.assert_allclose(whole, np.concatenate([imported.model(samples[i : i + 1]) for i in range(5)]), rtol=1e-5)


def test_no_rule_is_named(tmp_path):
    """An operator without a rule is refused by its name and what it makes, with what would be needed."""
    path = write(tmp_path / "it.tflite", lambda x: tf.cast(tf.reduce_sum(tf.where(x > 0.2)), tf.float32) + x, (1, 4))
    with pytest.raises(ModelError, match=r"no rule for operator \d+ WHERE, which makes '.*'") as caught:
        import_tflite(path)
    assert "ends before it" in caught.value.expected
    assert caught.value.fix


def test_open_sizes(tmp_path):
    """A file with inputs of open size is read at the size that its user names, and refused without any."""

    def larger(x):
        made = tf.nn.conv2d(x, weights(3, 3, 4, 5), 1, "SAME")
        return tf.compat.v1.image.resize_bilinear(made, tf.shape(x)[1:3] * 2)

    path = write(tmp_path / "it.tflite", larger, (1, None, None, 4))
    imported = import_tflite(path, (10, 12, 4))
    assert imported.model.output_shape == (None, 20, 24, 5)
    assert check(imported, path).difference <= 1e-4
    with pytest.raises(ModelError, match="inputs of any size") as caught:
        import_tflite(path)
    assert "--input-shape" in caught.value.fix
    with pytest.raises(UsageError, match="does not fit"):
        import_tflite(path, (10, 12, 3))


def test_convolutions_between_blocks(tmp_path):
    """A convolution between blocks of an image, as old converters wrote dilation, is one dilated layer."""

    def between(convolve, size, pads, crops):
        def function(x):
            blocks = tf.raw_ops.SpaceToBatchND(input=x, block_shape=size, paddings=pads)
            return tf.raw_ops.BatchToSpaceND(input=convolve(blocks), block_shape=size, crops=crops)

        return function

    def plain(x):
        return tf.nn.relu(tf.nn.conv2d(x, weights(3, 3, 4, 5), 1, "VALID") + weights(5))

    def depthwise(x):
        return tf.nn.relu(tf.nn.depthwise_conv2d(x, weights(3, 3, 4, 1), [1] * 4, "VALID"))

    for convolve, size, pads, crops, padding, shape in (
        (plain, [2, 2], [[2, 2], [2, 2]], [[0, 0], [0, 0]], "same", [6, 8]),
        (plain, [2, 3], [[2, 2], [3, 4]], [[0, 0], [0, 1]], "same", [6, 8]),
        (depthwise, [2, 2], [[0, 0], [0, 0]], [[0, 0], [0, 0]], "valid", [2, 4]),
        (depthwise, [4, 4], [[8, 2], [4, 4]], [[0, 2], [1, 0]], "valid", [6, 7]),
    ):
        path = write(tmp_path / "it.tflite", between(convolve, size, pads, crops), IMAGE)
        names = [operator.name for operator in read(path).subgraphs[0].operators]
        assert [names[0], names[-1]] == ["SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND"]
        imported = import_tflite(path)
        assert check(imported, path).difference <= 1e-4
        (layer,) = [layer for layer in imported.model.layers if layer.weights]
        assert (layer.padding, list(layer.dilation_rate)) == (padding, size)
        assert list(imported.model.output_shape[1:3]) == shape


def test_blocks_that_are_used_as_they_are(tmp_path):
    """Blocks of an image that no convolution reads are refused: nothing here is an image of a batch."""

    def summed(x):
        return tf.reduce_sum(tf.raw_ops.SpaceToBatchND(input=x, block_shape=[2, 2], paddings=[[0, 0], [0, 0]]), [0])

    path = write(tmp_path / "it.tflite", summed, IMAGE)
    with pytest.raises(ModelError, match="works on an image in blocks") as caught:
        import_tflite(path)
    assert "BATCH_TO_SPACE_ND" in caught.value.expected


OPTIONS = {"SVDF": "SVDF", "BIDIRECTIONAL_SEQUENCE_LSTM": "BidirectionalSequenceLSTM"}


def write_by_hand(path, tensors, operator, inputs, outputs, variables=(), **options):
    """A file with one operator, which no converter here writes. ``variables``: tensors that survive inferences."""
    content = tflite_of(tensors, [(operator, inputs, outputs)], inputs[:1], outputs)
    model = unpacked(content)
    (graph,), kind = model.subgraphs, OPTIONS[operator]
    graph.operators[0].builtinOptions = made = getattr(schema(), f"{kind}OptionsT")()
    graph.operators[0].builtinOptionsType = getattr(schema().BuiltinOptions, f"{kind}Options")
    for name, value in options.items():
        setattr(made, name, value)
    for index in variables:
        graph.tensors[index].isVariable = True
    path.write_bytes(packed(model))
    return path


def given(*shape):
    return Given(shape, data=RANDOM.normal(0, 0.5, shape).astype("float32"))


@pytest.mark.parametrize(("rank", "steps"), representatives([(1, 5), (2, 7), (1, 1)], (2, 7), (1, 1)))
def test_svdf(rank, steps, tmp_path):
    """The state of an SVDF is handed on: over several steps, its model computes what the interpreter does."""
    units, channels = 6, 10
    filters = units * rank
    tensors = [
        Given((1, channels)), given(filters, channels), given(filters, steps), given(units),
        Given((1, filters * steps)), Given((1, units)),
    ]  # fmt: skip
    path = write_by_hand(
        tmp_path / "it.tflite", tensors, "SVDF", [0, 1, 2, 3, 4], [5], [4], rank=rank, fusedActivationFunction=1
    )
    imported = import_tflite(path)
    checked = check(imported, path)
    assert checked.difference <= 1e-4
    assert checked.states == ("t4",)
    interpreter = tf.lite.Interpreter(str(path))
    interpreter.allocate_tensors()
    state = np.zeros((1, filters * steps), "float32")
    for _ in range(steps + 2):
        x = RANDOM.normal(size=(1, channels)).astype("float32")
        interpreter.set_tensor(0, x)
        interpreter.invoke()
        made, state = imported.model([x, state])
        np.testing.assert_allclose(made, interpreter.get_tensor(5), rtol=1e-4, atol=1e-5)


def test_quantized_svdf(tmp_path):
    """An int8 SVDF is compared with its state, in int16, by itself; where it differs, it is named."""

    def integers(dtype, most, scale, *shape):
        return Given(shape, dtype, RANDOM.integers(-most, most, shape).astype(dtype), scale)

    tensors = [
        Given((1, 10), "int8", scale=0.05), integers("int8", 127, 0.01, 6, 10), integers("int16", 20_000, 2**-15, 6, 4),
        integers("int32", 10**6, 0.001 * 2**-15, 6), Given((1, 24), "int16", scale=0.001),
    ]  # fmt: skip
    for zero in (-128, 0):  # where zero is not the smallest number, the runtime lets through what RELU does not
        result = Given((1, 6), "int8", scale=0.05, zero=zero)
        path = write_by_hand(
            tmp_path / "it.tflite", [*tensors, result], "SVDF", [0, 1, 2, 3, 4], [5], [4],
            rank=1, fusedActivationFunction=1,
        )  # fmt: skip
        imported = import_tflite(path)
        if zero:
            assert check(imported, path).operator_steps <= 1.01
        else:
            with pytest.raises(ModelError, match="first operator that differs is number 0, SVDF"):
                check(imported, path)


@pytest.mark.parametrize(
    ("merged", "steps_first"), representatives([(False, False), (True, False), (True, True)], (True, True))
)
def test_bidirectional_lstm(merged, steps_first, tmp_path):
    """An operator for both directions is two LSTM layers."""
    steps, channels, units = 5, 4, 3
    sequence = (steps, 1, channels) if steps_first else (1, steps, channels)
    tensors, indices = [Given(sequence)], [0]
    for _ in range(2):
        shapes = [(units, channels)] * 4 + [(units, units)] * 4 + [None] * 3 + [(units,)] * 4 + [None] * 2
        for shape in shapes:
            indices.append(len(tensors) if shape else -1)
            tensors += [given(*shape)] if shape else []
    variables = list(range(len(tensors), len(tensors) + 4))
    tensors += [Given((1, units))] * 4
    indices += [*variables, *[-1] * 9]
    outputs = [len(tensors)] if merged else [len(tensors), len(tensors) + 1]
    tensors += [Given((*sequence[:2], units * (1 + merged)))] * len(outputs)
    path = write_by_hand(
        tmp_path / "it.tflite", tensors, "BIDIRECTIONAL_SEQUENCE_LSTM", indices, outputs, variables,
        fusedActivationFunction=4, mergeOutputs=merged, timeMajor=steps_first,
    )  # fmt: skip
    imported = import_tflite(path)
    assert check(imported, path).difference <= 1e-4
    assert [type(layer).__name__ for layer in imported.model.layers if layer.weights] == ["LSTM", "LSTM"]


def test_options_that_contradict(tmp_path):
    """An image that is resized with both its corners and the centers of its pixels fixed is refused."""
    path = write(tmp_path / "it.tflite", CASES["resize"][1], IMAGE)
    model = unpacked(path.read_bytes())
    model.subgraphs[0].operators[0].builtinOptions.alignCorners = True
    path.write_bytes(packed(model))
    with pytest.raises(ModelError, match=r"RESIZE_BILINEAR.* takes both the corners and the centers"):
        import_tflite(path)


POST_PROCESSING = """
name: "TFLite_Detection_PostProcess"
attr { key: "max_detections" value { i: 5 } } attr { key: "max_classes_per_detection" value { i: 1 } }
attr { key: "use_regular_nms" value { b: false } } attr { key: "num_classes" value { i: 3 } }
attr { key: "nms_score_threshold" value { f: 0.1 } } attr { key: "nms_iou_threshold" value { f: 0.5 } }
attr { key: "y_scale" value { f: 10.0 } } attr { key: "x_scale" value { f: 10.0 } }
attr { key: "h_scale" value { f: 5.0 } } attr { key: "w_scale" value { f: 5.0 } }
"""


def test_post_processing_is_left_out(tmp_path):
    """The model of a detector ends before the operator that selects boxes, which is said; inputs keep their names."""

    @tf.function(experimental_implements=" ".join(POST_PROCESSING.split()))
    def select(boxes, scores, anchors):
        return tf.zeros((1, 5, 4)), tf.zeros((1, 5)), tf.zeros((1, 5)), tf.zeros((1,))

    boxes, scores, anchors = weights(3, 3, 4, 4), weights(3, 3, 4, 4), weights(48, 4)

    def detect(x):
        made = [tf.reshape(tf.nn.conv2d(x, kernel, 1, "SAME"), (1, 48, 4)) for kernel in (boxes, scores)]
        return dict(zip("abcd", select(made[0], tf.sigmoid(made[1]), anchors), strict=True))

    module = tf.Module()
    module.detect = tf.function(detect, input_signature=[tf.TensorSpec(IMAGE, tf.float32, "picture")])
    tf.saved_model.save(module, str(tmp_path / "it"), signatures=module.detect)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "it"))
    converter.allow_custom_ops = True
    path = tmp_path / "it.tflite"
    path.write_bytes(converter.convert())
    assert "TFLite_Detection_PostProcess" in {o.name for o in read(path).subgraphs[0].operators}
    imported = import_tflite(path)
    assert imported.model.input_names == ["picture"]
    assert [tuple(output.shape) for output in imported.model.outputs] == [(None, 48, 4)] * 2
    checked = check(imported, path)
    assert checked.difference <= 1e-4
    assert any("TFLite_Detection_PostProcess" in note for note in checked.notes)


def test_a_wrong_rule_is_found(tmp_path, monkeypatch):
    """Where a model computes something else, the first operator that differs is named."""
    function = lambda x: tf.tanh(tf.nn.leaky_relu(x, 0.3) * 2.0)  # noqa: E731
    path = write(tmp_path / "it.tflite", function, (1, 9))
    monkeypatch.setitem(RULES, "LEAKY_RELU", RULES["RELU"])
    monkeypatch.setattr("edgeprune.models.from_tflite.elementwise._UNARY", dict(_with_relu()))
    with pytest.raises(ModelError, match="first operator that differs is number 0, LEAKY_RELU"):
        check(import_tflite(path), path)


def _with_relu():
    from edgeprune.models.from_tflite import elementwise

    return {**elementwise._UNARY, "LEAKY_RELU": elementwise._UNARY["RELU"]}
