"""TensorFlow operations in a tf_keras graph (``TFOpLambda``) → ``keras.ops``, by symbol. Arguments as TensorFlow's."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edgeprune.models.types import Structure, Value

if TYPE_CHECKING:
    import tensorflow as tf

# Takes the arguments of a TensorFlow function, by its names for them, with tensors of Keras 3; gives its outputs.
Translation = Callable[..., Structure]


@functools.cache
def operations() -> dict[str, Translation]:
    """The table: symbol → function of the operation's arguments."""
    return {**_elementwise(), **_binary(), **_reductions(), **_shapes(), **_others()}


def _names(function: Translation, *symbols: str) -> dict[str, Translation]:
    return dict.fromkeys(symbols, function)


def _elementwise() -> dict[str, Translation]:
    from keras import ops

    same = (
        "abs exp expm1 log log1p sqrt rsqrt square negative reciprocal sign floor ceil round sin cos tan tanh erf sinh "
        "cosh erfinv"
    )
    table: dict[str, Translation] = {}
    for name in same.split():
        function = getattr(ops, name)
        table |= _names(lambda x, function=function: function(x), f"math.{name}", name, f"nn.{name}")
    for name in ("relu", "relu6", "silu", "sigmoid", "softplus", "softsign", "selu", "elu"):
        function = getattr(ops, name)
        table |= _names(lambda x, function=function: function(x), f"nn.{name}", f"math.{name}", name)
    for name in ["acos", "asin", "atan", "acosh", "asinh", "atanh"]:
        table["math." + name] = getattr(ops, name.replace("a", "arc", 1))
    for name in ("is_nan", "is_inf", "is_finite"):
        table["math." + name] = getattr(ops, name.replace("_", ""))
    return {
        **table,
        **_names(lambda input: ops.zeros_like(input), "zeros_like"),
        **_names(lambda input: ops.ones_like(input), "ones_like"),
        **_names(lambda x: ops.logical_not(x), "math.logical_not"),
        **_names(ops.negative, "__operators__.neg"),
        **_names(ops.absolute, "__operators__.abs"),
        **_names(lambda features, beta=1.0: _swish(features, beta), "nn.swish", "nn.silu"),
        **_names(lambda features, alpha=0.2: ops.leaky_relu(features, alpha), "nn.leaky_relu"),
        **_names(lambda features, approximate=False: ops.gelu(features, approximate), "nn.gelu"),
        **_names(lambda logits, axis=-1: ops.softmax(logits, -1 if axis is None else axis), "nn.softmax"),
        **_names(lambda logits, axis=-1: ops.log_softmax(logits, -1 if axis is None else axis), "nn.log_softmax"),
        **_names(lambda x: ops.log_sigmoid(x), "math.log_sigmoid"),
        **_names(lambda input: ops.stop_gradient(input), "stop_gradient"),
        **_names(lambda input: ops.copy(input), "identity"),
        **_names(lambda x, dtype: ops.cast(x, _dtype(dtype)), "cast"),
        **_names(
            lambda t, clip_value_min, clip_value_max: ops.clip(t, clip_value_min, clip_value_max), "clip_by_value"
        ),
    }


def _swish(features: Value, beta: float) -> Structure:
    from keras import ops

    return ops.silu(features) if beta == 1.0 else features * ops.sigmoid(features * beta)


def _dtype(dtype: str | tf.DType) -> str:
    import tensorflow as tf

    return tf.as_dtype(dtype).name


def _binary() -> dict[str, Translation]:
    from keras import ops

    table: dict[str, Translation] = {}
    for name, operator in (
        *(("add", "add"), ("subtract", "sub"), ("multiply", "mul"), ("divide", "truediv"), ("truediv", "div")),
        *(("maximum", "maximum"), ("minimum", "minimum"), ("pow", "pow"), ("floordiv", "floordiv")),
        *(("floormod", "mod"), ("equal", "eq"), ("not_equal", "ne"), ("greater", "gt"), ("less", "lt")),
        *(("greater_equal", "ge"), ("less_equal", "le"), ("logical_and", "and"), ("logical_or", "or")),
        *(("logical_xor", "xor"), ("atan2", "atan2")),
    ):
        keras_name = {
            "truediv": "divide",
            "pow": "power",
            "floordiv": "floor_divide",
            "floormod": "mod",
            "atan2": "arctan2",
        }.get(name, name)
        function = getattr(ops, keras_name)
        table |= _names(lambda x, y, f=function: f(x, y), f"math.{name}", name, f"__operators__.{operator}")
        table |= _names(lambda x, y, f=function: f(y, x), f"__operators__.r{operator}")
    table["math.squared_difference"] = lambda x, y: ops.square(ops.subtract(x, y))
    return table


def _reductions() -> dict[str, Translation]:
    from keras import ops

    table: dict[str, Translation] = {}
    for name in ("mean", "sum", "max", "min", "prod", "any", "all", "logsumexp"):
        function = getattr(ops, name)
        table |= _names(
            lambda input_tensor, axis=None, keepdims=False, f=function: f(input_tensor, _axes(axis), keepdims),
            *(f"math.reduce_{name}", f"reduce_{name}"),
        )
    for name, keras_name in (("variance", "var"), ("std", "std")):
        function = getattr(ops, keras_name)
        table["math.reduce_" + name] = lambda input_tensor, axis=None, keepdims=False, f=function: f(
            input_tensor, _axes(axis), keepdims
        )
    return table


def _axes(axis: int | Sequence[int] | None) -> int | Sequence[int] | None:
    """An axis, or axes as the tuple that keras.ops wants."""
    return tuple(axis) if isinstance(axis, list) else axis


def _shapes() -> dict[str, Translation]:
    from keras import ops

    return {
        "reshape": lambda tensor, shape: ops.reshape(tensor, tuple(shape)),
        "transpose": lambda a, perm=None: ops.transpose(a, None if perm is None else list(perm)),
        "expand_dims": lambda input, axis: ops.expand_dims(input, axis),
        "squeeze": lambda input, axis=None: ops.squeeze(input, _axes(axis)),
        "concat": lambda values, axis: ops.concatenate(values, axis),
        "stack": lambda values, axis=0: ops.stack(values, axis),
        "unstack": lambda value, num=None, axis=0: ops.unstack(value, num, axis),
        "split": _split,
        "tile": lambda input, multiples: ops.tile(input, tuple(multiples)),
        "repeat": lambda input, repeats, axis=None: ops.repeat(input, repeats, axis),
        "reverse": lambda tensor, axis: ops.flip(tensor, tuple(axis)),
        "roll": lambda input, shift, axis: ops.roll(input, shift, axis),
        "gather": _gather,
        "broadcast_to": lambda input, shape: ops.broadcast_to(input, tuple(shape)),
        "__operators__.getitem": _getitem,
        "pad": _pad,
    }


def _gather(params: Value, indices: Value, axis: int = 0, batch_dims: int = 0) -> Structure:
    from keras import ops

    return (ops.take_along_axis if batch_dims else ops.take)(params, indices, axis)


def _split(value: Value, num_or_size_splits: int | Sequence[int], axis: int = 0) -> Structure:
    import itertools

    from keras import ops

    if isinstance(num_or_size_splits, int):
        return ops.split(value, num_or_size_splits, axis)
    return ops.split(value, list(itertools.accumulate(num_or_size_splits))[:-1], axis)


def _getitem(tensor: Structure, slice_spec: Structure) -> Structure:
    def part(spec: Value) -> Value:
        return slice(spec["start"], spec["stop"], spec["step"]) if isinstance(spec, dict) else spec

    return tensor[tuple(map(part, slice_spec)) if isinstance(slice_spec, list | tuple) else part(slice_spec)]


def _pad(
    tensor: Value, paddings: Sequence[Sequence[int]], mode: str = "CONSTANT", constant_values: float = 0
) -> Structure:
    from keras import ops

    constant = {"constant_values": constant_values} if mode.upper() == "CONSTANT" else {}
    return ops.pad(tensor, [tuple(pair) for pair in paddings], mode=mode.lower(), **constant)


def _others() -> dict[str, Translation]:
    from keras import ops, quantizers

    def matmul(a: Value, b: Value, transpose_a: bool = False, transpose_b: bool = False) -> Structure:
        a = ops.swapaxes(a, -1, -2) if transpose_a else a
        return ops.matmul(a, ops.swapaxes(b, -1, -2) if transpose_b else b)

    def resize(images: Value, size: Sequence[int], method: str = "bilinear", antialias: bool = False) -> Structure:
        return ops.image.resize(images, tuple(size), interpolation=method, antialias=antialias)

    return {
        **_names(matmul, "linalg.matmul", "matmul"),
        "image.resize": resize,
        "image.rgb_to_grayscale": lambda images: ops.image.rgb_to_grayscale(images),
        "math.cumsum": lambda x, axis=0: ops.cumsum(x, axis),
        "math.cumprod": lambda x, axis=0: ops.cumprod(x, axis),
        "math.top_k": lambda input, k=1, sorted=True: ops.top_k(input, k, sorted),
        "einsum": lambda equation, *inputs: ops.einsum(equation, *inputs),
        "tensordot": lambda a, b, axes: ops.tensordot(a, b, axes),
        "where": lambda condition, x, y: ops.where(condition, x, y),
        "one_hot": lambda indices, depth, axis=-1, dtype="float32": ops.one_hot(indices, depth, axis, _dtype(dtype)),
        "math.argmax": lambda input, axis=None, output_type=None: ops.argmax(input, axis),
        "math.argmin": lambda input, axis=None, output_type=None: ops.argmin(input, axis),
        "math.l2_normalize": lambda x, axis, epsilon=1e-12: ops.normalize(x, axis, 2, epsilon**0.5),
        "nn.depth_to_space": lambda input, block_size: ops.depth_to_space(input, block_size),
        "nn.space_to_depth": lambda input, block_size: ops.space_to_depth(input, block_size),
        # Keras 3 ignores num_bits and narrow_range on symbolic tensors. Other values than its defaults are noticed when
        # export.py compares the outputs.
        "quantization.fake_quant_with_min_max_vars": lambda inputs, min, max, num_bits=8, narrow_range=False: (
            quantizers.fake_quant_with_min_max_vars(inputs, min, max, num_bits, narrow_range)
        ),
    }
